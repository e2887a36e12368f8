"""The family of segments and profiles: where they come from, where they go, when."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from heap_integration.assets.family import Family
from heap_integration.assets.members import audience, heap_segment, model_key, pages_complete, table_spec
from heap_integration.assets.syncs import build_sync, build_sync_checks
from heap_integration.environment import Environment, ProfileSync, SegmentSync, SyncSettings
from heap_integration.resources import StoreResource
from heap_integration.routes import Route, routes
from heap_integration.settings import slug
from heap_integration.sync_settings import CADENCES, MembersTable

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition as UnresolvedAssetJob,
    )

SENSOR_SECONDS = 30


@dataclass
class _Flow:
    """What is run together: audiences have days, Heap's segments and tables have none."""

    job: str
    words: str
    partitioned: bool = False
    keys: dict[str, list[dg.AssetKey]] = field(default_factory=dict)

    def add(self, sync: SyncSettings, *keys: dg.AssetKey) -> None:
        due = self.keys.setdefault(sync.every, [])
        due += [key for key in keys if key not in due]


def build_segment_assets(env: Environment) -> Family:
    """Return the assets, jobs, schedules and sensor that carry segments and profiles to their destinations."""
    family = Family()
    segments = _Flow(
        "segments", "Apply what Heap reported of its segments, look into tables, and send the differences."
    )
    audiences = _Flow("audiences", "Compute the audiences of a day and send only the differences.", partitioned=True)
    profiles = _Flow("profiles", "Send what changed of users' and accounts' properties.")
    tables: dict[dg.AssetKey, dg.AssetSpec] = {}
    for sync in env.syncs():
        if not sync.enabled:
            continue
        source = _source(env, sync, family, tables)
        flow = profiles if not isinstance(sync, SegmentSync) else audiences if sync.kind == "audience" else segments
        if source.path[1] in ("heap_segments", "audiences"):
            flow.add(sync, source)
        for route in routes(env):
            if route.sync is sync:
                flow.add(sync, _sync(env, route, source, family))
    family.assets += tables.values()
    for flow in (segments, audiences, profiles):
        if flow.keys:
            _run_together(env, flow, family)
    return family


def _source(
    env: Environment, sync: SegmentSync | ProfileSync, family: Family, tables: dict[dg.AssetKey, dg.AssetSpec]
) -> dg.AssetKey:
    if isinstance(sync, ProfileSync):
        return _table(env, sync.table, tables)
    if isinstance(sync.source, MembersTable):
        return _table(env, sync.source.table, tables)
    if sync.kind == "audience":
        made = audience(env, sync)
    else:
        made = heap_segment(env, sync)
        family.checks.append(pages_complete(env, sync))
    family.assets.append(made)
    return made.key


def _table(env: Environment, table: str, tables: dict[dg.AssetKey, dg.AssetSpec]) -> dg.AssetKey:
    model = model_key(env, table)
    if model:
        return model
    spec = table_spec(env, table)
    tables[spec.key] = spec
    return spec.key


def _sync(env: Environment, route: Route, source: dg.AssetKey, family: Family) -> dg.AssetKey:
    asset = build_sync(env, route, source)
    family.assets.append(asset)
    family.checks.append(build_sync_checks(env, route))
    return asset.key


def _run_together(env: Environment, flow: _Flow, family: Family) -> None:
    keys = [key for due in flow.keys.values() for key in due]
    job = dg.define_asset_job(
        f"sync_{flow.job}", selection=keys, description=flow.words, tags={"environment": env.name}
    )
    family.jobs.append(job)
    if env.automation:
        family.schedules += [_schedule(flow, every, CADENCES[every], job) for every in flow.keys]
        if flow.job == "segments" and any("heap_segments" in key.path for key in keys):
            family.sensors.append(_pages_sensor(env, job))


def _schedule(flow: _Flow, every: str, cron: str, job: "UnresolvedAssetJob") -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{flow.job}_{slug(every)}",
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Syncs the {flow.job} due {every}; who was refused before is tried again.",
    )
    def due() -> dg.RunRequest:
        today = datetime.now(UTC).date().isoformat()
        return dg.RunRequest(asset_selection=flow.keys[every], partition_key=today if flow.partitioned else None)

    return due


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
