"""Where memberships and profiles come from: Heap's segments, audience definitions, tables of the warehouse."""

import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from heap_integration.assets.charts import bars
from heap_integration.assets.days import days_of
from heap_integration.assets.family import owners
from heap_integration.assets.report import counts
from heap_integration.environment import Environment, SegmentSync
from heap_integration.resources import StoreResource
from heap_integration.segments.audiences.settings import EventsTable

if TYPE_CHECKING:
    from heap_integration.segments.heap_segments import Incomplete

# A task of several pages takes Heap seconds; one that lacks a page for so long has lost it.
LATE_SECONDS = 3600


def heap_segment(env: Environment, segment: SegmentSync) -> dg.AssetsDefinition:
    """Return the asset of a segment that Heap computes."""

    @dg.asset(
        key=[env.name, "heap_segments", segment.slug],
        group_name=f"{env.name}_segments",
        kinds={"heap", "duckdb"},
        owners=owners(env, "segments"),
        pool=f"{env.name}_warehouse",
        code_version="2",
        description=f"Who is in Heap's segment “{segment.name}”, as its Segment Sync webhook reported.",
        tags={"environment": env.name},
    )
    def members(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from heap_integration.segments.heap_segments import apply_pages
        from heap_integration.syncs import heap_id
        from heap_integration.warehouse.memberships import member_count

        with store.hub(env) as hub:
            applied = apply_pages(hub.store, hub.warehouse)
            context.log.info(f"applied {applied.pages} pages: {applied.added} entered, {applied.removed} left")
            try:
                with hub.warehouse.read() as con:
                    number = heap_id(con, segment)
                    members = 0 if number is None else member_count(con, number)
            except ValueError as wrong:
                raise dg.Failure(str(wrong), allow_retries=False) from None
        told = f"{segment.name} ({number})" if number is not None else f"{segment.name}: Heap has reported nothing yet"
        numbers = counts(
            row_count=members, members=members, pages=applied.pages, incomplete_tasks=len(applied.incomplete)
        )
        return dg.MaterializeResult(metadata={**numbers, "segment": dg.MetadataValue.text(told)})

    return members


def pages_complete(env: Environment, segment: SegmentSync) -> dg.AssetChecksDefinition:
    """Return the check that tells of tasks whose pages never all came."""

    @dg.asset_check(
        asset=[env.name, "heap_segments", segment.slug],
        name="pages_complete",
        description="No task of Heap's Segment Sync has been waiting for a missing page for over an hour.",
    )
    def complete(store: StoreResource) -> dg.AssetCheckResult:
        from heap_integration.segments.heap_segments import incomplete_tasks

        with store.hub(env) as hub:
            late = [task for task in incomplete_tasks(hub.store) if time.time() - task.since >= LATE_SECONDS]
        return dg.AssetCheckResult(
            passed=not late,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"late tasks": len(late), **{task.task: _lacking(task) for task in late[:10]}},
        )

    return complete


def _lacking(task: "Incomplete") -> str:
    hours = (time.time() - task.since) / 3600
    return f"{task.segment_name}: {task.pages} of {task.total} pages, waiting for {hours:.1f} h"


def audience(env: Environment, segment: SegmentSync) -> dg.AssetsDefinition:
    """Return the asset of an audience, one partition a day: who was in it at the end of that day."""

    @dg.asset(
        key=[env.name, "audiences", segment.slug],
        deps=_asked(env, segment),
        partitions_def=days_of(env),
        group_name=f"{env.name}_segments",
        kinds={"sql", "duckdb"},
        owners=owners(env, "segments"),
        pool=f"{env.name}_warehouse",
        code_version="1",
        backfill_policy=dg.BackfillPolicy.multi_run(1),
        description=f"Who is in the audience “{segment.name}” by its definition, as of the end of the day; "
        "today, as of now.",
        tags={"environment": env.name},
    )
    def members(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from heap_integration.syncs import compute_audience
        from heap_integration.warehouse.audiences import result_sizes

        day = date.fromisoformat(context.partition_key)
        with store.hub(env) as hub:
            try:
                run = compute_audience(hub, segment, day, datetime.now(UTC))
            except ValueError as wrong:
                raise dg.Failure(str(wrong), allow_retries=False) from None
            with hub.warehouse.read() as con:
                sizes = result_sizes(con, segment.slug)
        context.log.info(f"{run.members} members: {run.entered} entered and {run.left} left since {run.compared_with}")
        return dg.MaterializeResult(
            metadata={
                **counts(row_count=run.members, members=run.members, entered=run.entered, left=run.left),
                "size": bars("members by day", [(str(day), members) for day, members in sizes]),
            }
        )

    return members


def _asked(env: Environment, segment: SegmentSync) -> list[dg.AssetKey]:
    """Return the assets that an audience's definition asks: the hub's own events, and other segments."""
    from heap_integration.segments.audiences.definition import load_definition

    own = env.audiences.events.table == EventsTable().table
    events = [dg.AssetKey([env.name, "events", "product_events"])] if own else []
    try:
        named = load_definition(Path(str(segment.source)))[0].segment_names()
    except ValueError:  # the run and `check` tell what is wrong with it
        named = set()
    families = {"heap": "heap_segments", "audience": "audiences"}
    return events + [
        dg.AssetKey([env.name, families[other.kind], other.slug])
        for other in env.segments
        if other.name in named and other.enabled and other.kind in families
    ]


def model_key(env: Environment, table: str) -> dg.AssetKey | None:
    """Return the asset of the dbt model that a table is, ``None`` where it is none of the environment's."""
    schema, _, name = table.replace('"', "").rpartition(".")
    is_model = env.models.enabled and schema == env.warehouse.schemas().models
    return dg.AssetKey([env.name, "models", name]) if is_model else None


def table_spec(env: Environment, table: str) -> dg.AssetSpec:
    """Return a table of the warehouse that somebody else fills."""
    return dg.AssetSpec(
        key=[env.name, "tables", *table.replace('"', "").split(".")],
        group_name=f"{env.name}_segments",
        kinds={"table"},
        description=f"The table {table} of the warehouse, as it stands.",
        tags={"environment": env.name},
    )
