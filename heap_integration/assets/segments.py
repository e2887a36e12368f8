"""Segments out of Heap: the members Heap reported, and the destinations that follow them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from heap_integration.assets.report import bars, counts, reasons_table
from heap_integration.environment import Environment, SegmentSync, segment_slug
from heap_integration.resources import StoreResource, UserflowResource
from heap_integration.warehouse.memberships import member_count, segment_ids, sync_history

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition as UnresolvedAssetJob,
    )

SENSOR_SECONDS = 30


@dataclass(frozen=True)
class SegmentAssets:
    """The segments family of one environment."""

    assets: Sequence[dg.AssetsDefinition]
    checks: Sequence[dg.AssetChecksDefinition]
    job: "UnresolvedAssetJob | None"
    schedules: Sequence[dg.ScheduleDefinition]
    sensors: Sequence[dg.SensorDefinition]


def build_segment_assets(env: Environment) -> SegmentAssets:
    """Return the assets, job, schedule and sensor that carry Heap's segments to their destinations."""
    segments = [segment for segment in env.segments if segment.enabled]
    members = [_members(env, segment) for segment in segments]
    userflow = env.destinations.userflow
    synced = [segment for segment in segments if "userflow" in segment.sync_to and userflow and userflow.enabled]
    sources = {segment.slug: asset for segment, asset in zip(segments, members, strict=True)}
    syncs = [_userflow(env, segment, sources[segment.slug]) for segment in synced]
    keys = {segment.slug: [asset.key] for segment, asset in zip(segments, members, strict=True)}
    for segment, sync in zip(synced, syncs, strict=True):
        keys[segment.slug].append(sync.key)
    if not members:
        return SegmentAssets([], [], None, [], [])
    job = dg.define_asset_job(
        "sync_segments",
        selection=[*members, *syncs],
        description="Apply what Heap reported of its segments and send only the differences.",
        tags={"environment": env.name},
    )
    checks = [_adds_up(env, segment, sync) for segment, sync in zip(synced, syncs, strict=True)]
    automatic = env.automation
    return SegmentAssets(
        [*members, *syncs],
        checks,
        job,
        _schedules(segments, job, keys) if automatic else [],
        [_pages_sensor(env, job)] if automatic else [],
    )


def _members(env: Environment, segment: SegmentSync) -> dg.AssetsDefinition:
    @dg.asset(
        key=[env.name, "heap_segments", segment.slug],
        group_name=f"{env.name}_segments",
        kinds={"heap", "duckdb"},
        owners=_owners(env),
        pool=f"{env.name}_warehouse",
        code_version="1",
        description=f"Who is in Heap's segment “{segment.name}”, as its Segment Sync webhook reported.",
        tags={"environment": env.name},
    )
    def heap_segment(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from heap_integration.segments.heap_segments import apply_pages

        with store.hub(env) as hub:
            applied = apply_pages(hub.store, hub.warehouse)
            context.log.info(f"applied {applied.pages} pages: {applied.added} entered, {applied.removed} left")
            with hub.warehouse.read() as con:
                heap_id = segment.segment_id or segment_ids(con).get(segment.name)
                members = 0 if heap_id is None else member_count(con, heap_id)
            metadata = {
                **counts(
                    row_count=members,
                    members=members,
                    pages=applied.pages,
                    incomplete_tasks=len(applied.incomplete),
                ),
                "segment": dg.MetadataValue.text(
                    f"{segment.name} ({heap_id})"
                    if heap_id is not None
                    else f"{segment.name}: Heap has reported nothing yet"
                ),
            }
            return dg.MaterializeResult(metadata=metadata)

    return heap_segment


def _userflow(env: Environment, segment: SegmentSync, source: dg.AssetsDefinition) -> dg.AssetsDefinition:
    @dg.asset(
        key=[env.name, "userflow_segments", segment.slug],
        deps=[source],
        group_name=f"{env.name}_segments",
        kinds={"userflow"},
        owners=_owners(env),
        pool=f"{env.name}_userflow",
        code_version="1",
        description=f"“{segment.name}” in Userflow: only who entered or left since the last acknowledgement is sent.",
        tags={"environment": env.name},
        retry_policy=dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL),
    )
    def userflow_segment(
        context: dg.AssetExecutionContext, store: StoreResource, userflow: UserflowResource
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from heap_integration.delivery.engine import DeliveryStopped
        from heap_integration.delivery.records import NotAuthorised
        from heap_integration.switches import segment_goes_on

        with store.hub(env) as hub:
            client = userflow.client()
            try:
                sync = hub.segment_sync(segment, client)
                report = sync.run(go_on=segment_goes_on(env, segment))
            except DeliveryStopped as stopped:
                raise dg.Failure(
                    f"{stopped}. What was not acknowledged goes out with the next sync.",
                    metadata=counts(sent=stopped.tally.accepted, rejected=stopped.tally.rejected),
                    allow_retries=not isinstance(stopped.__cause__, NotAuthorised),
                ) from stopped
            finally:
                client.close()
            context.log.info(
                f"{report.added} entered, {report.removed} left, {report.rejected} refused of {report.planned} changes"
            )
            with hub.warehouse.read() as con:
                history = sync_history(con, sync.name)
            metadata = {
                **counts(
                    row_count=report.wanted,
                    read=report.read,
                    sent=report.sent,
                    unchanged=report.unchanged,
                    rejected=report.rejected,
                    suppressed=report.tally.suppressed,
                    pending=report.pending,
                    added=report.added,
                    removed=report.removed,
                ),
                "changes by sync": bars("changes by sync", history),
            }
            if report.tally.reasons:
                metadata["reasons"] = reasons_table(report.tally.reasons)
            return dg.MaterializeResult(metadata=metadata)

    return userflow_segment


def _adds_up(env: Environment, segment: SegmentSync, sync: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=sync.key,
        name="baseline_is_segment",
        blocking=True,
        description="Userflow has acknowledged exactly the members, but for those it refused or that are pending.",
    )
    def baseline_is_segment(store: StoreResource) -> dg.AssetCheckResult:
        with store.hub(env) as hub:
            apart = hub.apart(segment)
        return dg.AssetCheckResult(passed=apart.explained, metadata=counts(**apart.numbers))

    return baseline_is_segment


def _schedules(
    segments: Sequence[SegmentSync], job: "UnresolvedAssetJob", keys: dict[str, list[dg.AssetKey]]
) -> list[dg.ScheduleDefinition]:
    cadences = {segment.every: segment.cron for segment in segments}
    return [
        _schedule(every, cron, job, [key for s in segments if s.every == every for key in keys[s.slug]])
        for every, cron in cadences.items()
    ]


def _schedule(every: str, cron: str, job: "UnresolvedAssetJob", keys: Sequence[dg.AssetKey]) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"segments_{segment_slug(every)}",
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Syncs the segments due {every}: the sensor's backstop, and the retry of who was refused.",
    )
    def segments_due() -> dg.RunRequest:
        return dg.RunRequest(asset_selection=list(keys))

    return segments_due


def _pages_sensor(env: Environment, job: "UnresolvedAssetJob") -> dg.SensorDefinition:
    @dg.sensor(
        name="segment_pages",
        job=job,
        minimum_interval_seconds=SENSOR_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notices new pages of Heap's Segment Sync.",
        tags={"environment": env.name},
    )
    def segment_pages(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult | dg.SkipReason:
        from heap_integration.segments.heap_segments import waiting_pages

        with store.hub(env) as hub:
            pages, newest = waiting_pages(hub.store)
        noticed = f"{pages}/{newest:.6f}"
        if not pages or noticed == context.cursor:
            return dg.SkipReason("no new page")
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=noticed)], cursor=noticed)

    return segment_pages


def _owners(env: Environment) -> list[str] | None:
    return [env.owners["segments"]] if "segments" in env.owners else None
