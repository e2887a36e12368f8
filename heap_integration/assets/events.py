"""Events into Heap: what was received, what is pending by day, what was sent."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
import orjson

from heap_integration.assets.report import bars, counts, reasons_table
from heap_integration.environment import Environment
from heap_integration.events.days import day_ranges
from heap_integration.landing import waiting
from heap_integration.resources import HeapResource, StoreResource
from heap_integration.warehouse.events import DayCounts, Loaded, day_counts, pending_days

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition as UnresolvedAssetJob,
    )

    from heap_integration.delivery.engine import Tally
    from heap_integration.hub import Hub

SENSOR_SECONDS = 30
PLOT_DAYS = 30


class SendConfig(dg.Config):
    """How outbound event batches are sent."""

    resend: bool = False
    """Send acknowledged events again, under the same idempotency keys."""


@dataclass(frozen=True)
class EventAssets:
    """The events family of one environment."""

    assets: Sequence[dg.AssetsDefinition | dg.AssetSpec]
    checks: Sequence[dg.AssetChecksDefinition]
    job: "UnresolvedAssetJob"
    schedules: Sequence[dg.ScheduleDefinition]
    sensors: Sequence[dg.SensorDefinition]


def build_event_assets(env: Environment) -> EventAssets:
    """Return the assets, checks, job, schedule and sensor that bring events into Heap."""
    partitions = dg.DailyPartitionsDefinition(start_date=env.start_date.isoformat(), timezone="UTC", end_offset=1)
    assets = _assets(env, partitions)
    job = dg.define_asset_job(
        "send_events",
        selection=[asset for asset in assets if isinstance(asset, dg.AssetsDefinition)],
        description="Load what was received and send the pending events of some days to Heap.",
        tags={"environment": env.name},
    )
    return EventAssets(
        assets,
        [_adds_up(env, assets[-1].key)],
        job,
        [_hourly(env, job)] if env.automation else [],
        [_pending_sensor(env, job)] if env.automation else [],
    )


def _assets(env: Environment, partitions: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    group = f"{env.name}_events"
    owners = [env.owners["events"]] if "events" in env.owners else None
    policy = (
        dg.BackfillPolicy.single_run()
        if env.days_per_run == "all"
        else dg.BackfillPolicy.multi_run(max_partitions_per_run=env.days_per_run)
    )
    sources = _sources(env, group)

    @dg.asset(
        key=[env.name, "events", "product_events"],
        deps=sources,
        group_name=group,
        partitions_def=partitions,
        backfill_policy=policy,
        kinds={"duckdb"},
        owners=owners,
        pool=f"{env.name}_warehouse",
        code_version="1",
        description="Every event that was received, once, on the UTC day it happened.",
        tags={"environment": env.name},
        retry_policy=dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL),
    )
    def product_events(context: dg.AssetExecutionContext, store: StoreResource) -> None:
        from heap_integration.events.mapping import MappingError

        with store.hub(env) as hub:
            try:
                loaded = hub.load(lambda so_far: context.log.info(_loaded_words(so_far)))
            except MappingError as error:
                # A file that its mapping doesn't fit doesn't mend itself.
                raise dg.Failure(str(error), allow_retries=False) from error
            context.log.info(f"done: {_loaded_words(loaded)}")
            days = _days_of(context, hub)
            with hub.warehouse.read() as con:
                recent = day_counts(con, datetime.now(UTC).date() - timedelta(days=PLOT_DAYS), datetime.now(UTC).date())
            plot = bars("events a day", [(day.day.isoformat(), day.read) for day in recent])
            for key, day in days.items():
                numbers = counts(row_count=day.read, read=day.read, pending=day.pending)
                run = counts(
                    loaded_in_this_run=loaded.loaded,
                    duplicates_in_this_run=loaded.duplicates,
                    refused_in_this_run=loaded.refused,
                )
                context.add_asset_metadata({**numbers, **run, "events a day": plot}, partition_key=key)

    @dg.asset(
        key=[env.name, "events", "outbound_event_batches"],
        deps=[product_events],
        group_name=group,
        partitions_def=partitions,
        backfill_policy=policy,
        kinds={"heap"},
        owners=owners,
        pool=f"{env.name}_heap",
        code_version="1",
        description="The day's events on their way into Heap: sent in bulk, each with an outcome.",
        tags={"environment": env.name},
        retry_policy=dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL),
    )
    def outbound_event_batches(
        context: dg.AssetExecutionContext, config: SendConfig, heap: HeapResource, store: StoreResource
    ) -> None:
        with store.hub(env) as hub:
            before = _days_of(context, hub)
            tally, notes = _send(context, hub, heap, config, list(before))
            days = _days_of(context, hub)
            sent = {key: max(day.accepted - before[key].accepted, 0) for key, day in days.items()}
            run = counts(batches=tally.batches)
            if config.resend:
                run |= counts(resent_in_this_run=max(tally.accepted - sum(sent.values()), 0))
            if tally.stopped:
                run["stopped"] = dg.MetadataValue.text(tally.stopped)
            if tally.reasons:
                run["reasons"] = reasons_table(tally.reasons)
            if notes:
                run["noted"] = reasons_table(notes)
            for key, day in days.items():
                numbers = counts(
                    row_count=day.read,
                    read=day.read,
                    sent=sent[key],
                    unchanged=day.accepted - sent[key],
                    rejected=day.rejected,
                    suppressed=day.suppressed,
                    pending=day.pending,
                )
                context.add_asset_metadata({**numbers, **run}, partition_key=key)

    return [*sources, product_events, outbound_event_batches]


def _sources(env: Environment, group: str) -> list[dg.AssetSpec]:
    names = {source.name: "file" for source in env.sources.files}
    if env.sources.userflow:
        names["userflow"] = "userflow"
    return [
        dg.AssetSpec(
            key=[env.name, "sources", name],
            group_name=group,
            kinds={kind},
            description="Events as this source tells them, landed or in files.",
        )
        for name, kind in names.items()
    ]


def _send(
    context: dg.AssetExecutionContext, hub: "Hub", heap: HeapResource, config: SendConfig, keys: Sequence[str]
) -> "tuple[Tally, Counter[str]]":
    from heap_integration.delivery.engine import DeliveryStopped
    from heap_integration.delivery.records import NotAuthorised

    api = heap.client()
    try:
        outbound = hub.outbound(api)
        tally = outbound.send(date.fromisoformat(min(keys)), date.fromisoformat(max(keys)), resend=config.resend)
    except DeliveryStopped as stopped:
        raise dg.Failure(
            f"{stopped}. What has no outcome is pending and goes out with the next run.",
            metadata=counts(
                sent=stopped.tally.accepted, rejected=stopped.tally.rejected, batches=stopped.tally.batches
            ),
            allow_retries=not isinstance(stopped.__cause__, NotAuthorised),
        ) from stopped
    finally:
        api.close()
    context.log.info(
        f"sent {tally.accepted:,}, rejected {tally.rejected:,}, suppressed {tally.suppressed:,} "
        f"in {tally.batches:,} batches {tally.stopped}"
    )
    return tally, outbound.notes


def _days_of(context: dg.AssetExecutionContext, hub: "Hub") -> dict[str, DayCounts]:
    keys = list(context.partition_keys)
    with hub.warehouse.read() as con:
        found = {
            day.day.isoformat(): day
            for day in day_counts(con, date.fromisoformat(min(keys)), date.fromisoformat(max(keys)))
        }
    return {key: found.get(key) or DayCounts(date.fromisoformat(key), 0, 0, 0, 0, 0) for key in keys}


def _loaded_words(loaded: Loaded) -> str:
    return (
        f"read {loaded.read:,} lines: {loaded.loaded:,} new events, {loaded.duplicates:,} known, "
        f"{loaded.refused:,} refused, {loaded.unused:,} that are no events"
    )


def _adds_up(env: Environment, key: dg.AssetKey) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=key,
        name="counts_add_up",
        blocking=True,
        description="Every line read is an event, a duplicate or a refusal; every event has one outcome or is pending.",
    )
    def counts_add_up(store: StoreResource) -> dg.AssetCheckResult:
        with store.hub(env) as hub:
            balance = hub.balance()
        return dg.AssetCheckResult(
            passed=not balance.faults,
            metadata={
                **counts(**balance.numbers),
                "faults": dg.MetadataValue.text("; ".join(balance.faults) or "none"),
            },
        )

    return counts_add_up


def _hourly(env: Environment, job: "UnresolvedAssetJob") -> dg.ScheduleDefinition:
    @dg.schedule(
        name="hourly_events",
        job=job,
        cron_schedule="0 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Loads what was received and sends every pending day: the backstop of the sensor.",
        tags={"environment": env.name},
    )
    def hourly_events(context: dg.ScheduleEvaluationContext, store: StoreResource) -> Iterator[dg.RunRequest]:
        hour = context.scheduled_execution_time.astimezone(UTC)
        with store.hub(env) as hub:
            days = {*_pending(env, hub), hour.date()}
        for first, last in day_ranges(_with_partition(env, days), env.days_per_run):
            yield _range_request(env, first, last, f"{hour.isoformat()}/{first}")

    return hourly_events


def _pending_sensor(env: Environment, job: "UnresolvedAssetJob") -> dg.SensorDefinition:
    @dg.sensor(
        name="pending_events",
        job=job,
        minimum_interval_seconds=SENSOR_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notices landed segments, new files and days with pending events, and asks for exactly those days.",
        tags={"environment": env.name},
    )
    def pending_events(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult | dg.SkipReason:
        with store.hub(env) as hub:
            pending = _pending(env, hub)
            arrivals = [path.name for path in waiting(hub.landing)]
            files = sorted(f"{path}:{path.stat().st_mtime_ns}" for path, _ in hub.files())
            noticed = orjson.dumps(
                {"arrivals": arrivals[-1:], "files": files, "pending": sorted(pending.values())}
            ).decode()
            new_files = files and files != orjson.loads(context.cursor or "{}").get("files")
            if not pending and not arrivals and not new_files:
                return dg.SkipReason("nothing is pending")
            if noticed == context.cursor:
                return dg.SkipReason("a run for what is pending was asked for; the hourly schedule is the backstop")
            days = set(pending)
            if arrivals or new_files:
                days.add(datetime.now(UTC).date())
            requests = [
                _range_request(env, first, last, None)
                for first, last in day_ranges(_with_partition(env, days), env.days_per_run)
            ]
            return dg.SensorResult(run_requests=requests, cursor=noticed)

    return pending_events


def _pending(env: Environment, hub: "Hub") -> dict[date, tuple[int, int]]:
    from heap_integration.hub import switched_off

    with hub.warehouse.read() as con:
        days = pending_days(con, sorted(switched_off(hub)()))
    return {day: days[day] for day in sorted(_with_partition(env, days))}


def _with_partition(env: Environment, days: Iterable[date]) -> set[date]:
    """Leave out days before the first partition, and those to come: a wrong clock's event waits for its day."""
    today = datetime.now(UTC).date()
    return {day for day in days if env.start_date <= day <= today}


def _range_request(env: Environment, first: date, last: date, run_key: str | None) -> dg.RunRequest:
    if first == last:
        return dg.RunRequest(run_key=run_key, partition_key=first.isoformat(), tags={"environment": env.name})
    tags = {
        "environment": env.name,
        "dagster/asset_partition_range_start": first.isoformat(),
        "dagster/asset_partition_range_end": last.isoformat(),
    }
    return dg.RunRequest(run_key=run_key, tags=tags)
