"""Events into Heap: what was received, what is pending by day, what was sent."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
import orjson

from heap_integration.assets.charts import bars
from heap_integration.assets.days import backfill_policy, days_of
from heap_integration.assets.family import Family, owners
from heap_integration.assets.report import counts, reasons_table
from heap_integration.environment import Environment
from heap_integration.events.days import day_ranges
from heap_integration.resources import HeapResource, StoreResource
from heap_integration.warehouse.events import PROFILES, TRACKED, DayCounts, Loaded, day_counts, pending_days

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition as UnresolvedAssetJob,
    )

    from heap_integration.delivery.engine import Tally
    from heap_integration.hub import Hub

# From a webhook's 200 to Heap within half a minute: a look costs milliseconds, a run's start several seconds.
SENSOR_SECONDS = 5
INPUTS_SECONDS = 30
PLOT_DAYS = 30
ASKED_BY_SENSOR = {"asked_by": "pending_events"}
NOT_BEGUN = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING]
KINDS = {"userflow": "userflow", "userpilot": "userpilot", "heap_webhooks": "heap"}


class SendConfig(dg.Config):
    """How outbound event batches are sent."""

    resend: bool = False
    """Send acknowledged events again, under the same idempotency keys."""


def build_event_assets(env: Environment) -> Family:
    """Return the assets, checks, job, schedule and sensor that bring events into Heap."""
    partitions = days_of(env)
    assets = _assets(env, partitions)
    job = dg.define_asset_job(
        "send_events",
        selection=[asset for asset in assets if isinstance(asset, dg.AssetsDefinition)],
        description="Load what was received and send the pending events of some days to Heap.",
        tags={"environment": env.name},
    )
    return Family(
        assets,
        [_adds_up(env), _readable(env)],
        [job],
        [_hourly(env, job)] if env.automation else [],
        _sensors(env, job) if env.automation else [],
    )


def _sensors(env: Environment, job: "UnresolvedAssetJob") -> list[dg.SensorDefinition]:
    pending = _pending_sensor(env, job)
    return [pending, _inputs_sensor(env, job)] if env.sources.pulled() else [pending]


def _assets(env: Environment, partitions: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    sources = _sources(env)

    @dg.asset(
        key=[env.name, "events", "product_events"],
        deps=sources,
        group_name=_group(env),
        partitions_def=partitions,
        backfill_policy=backfill_policy(env),
        kinds={"duckdb"},
        owners=owners(env, "events"),
        pool=f"{env.name}_warehouse",
        code_version="1",
        description="Every event that was received, once, on the UTC day it happened.",
        tags={"environment": env.name},
        retry_policy=dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL),
    )
    def product_events(context: dg.AssetExecutionContext, store: StoreResource) -> None:
        with store.hub(env) as hub:
            loaded = hub.load(lambda so_far: context.log.info(_loaded_words(so_far)))
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

    return [*sources, product_events, *(_outbound(env, flow, product_events, partitions) for flow in FLOWS)]


def _group(env: Environment) -> str:
    return f"{env.name}_events"


@dataclass(frozen=True)
class Flow:
    """A way into Heap: which calls take it."""

    asset: str
    name: str
    types: Sequence[str]
    description: str


FLOWS = (
    Flow(
        "outbound_event_batches",
        "events",
        TRACKED,
        "The day's events on their way into Heap: sent in bulk, each with an outcome.",
    ),
    Flow(
        "outbound_profile_updates",
        "profiles",
        PROFILES,
        "What the day's calls tell of people and accounts, on its way into Heap: the last value wins.",
    ),
)


def _outbound(
    env: Environment, flow: Flow, upstream: dg.AssetsDefinition, partitions: dg.DailyPartitionsDefinition
) -> dg.AssetsDefinition:
    @dg.asset(
        key=[env.name, "events", flow.asset],
        deps=[upstream],
        group_name=_group(env),
        partitions_def=partitions,
        backfill_policy=backfill_policy(env),
        kinds={"heap"},
        owners=owners(env, "events"),
        pool=f"{env.name}_heap",
        code_version="1",
        description=flow.description,
        tags={"environment": env.name},
        retry_policy=dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL),
    )
    def outbound(
        context: dg.AssetExecutionContext, config: SendConfig, heap: HeapResource, store: StoreResource
    ) -> None:
        with store.hub(env) as hub:
            before = _days_of(context, hub, flow.types)
            _tell_duration(context, env, sum(day.read if config.resend else day.pending for day in before.values()))
            tally, notes = _send(context, hub, heap, config, flow, list(before))
            days = _days_of(context, hub, flow.types)
            sent = {key: max(day.accepted - before[key].accepted, 0) for key, day in days.items()}
            run = _run_metadata(env, tally, notes, config, before, sum(sent.values()))
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

    return outbound


def _run_metadata(
    env: Environment, tally: "Tally", notes: Counter[str], config: SendConfig, before: dict[str, DayCounts], sent: int
) -> dict[str, dg.MetadataValue]:
    pending = sum(day.read if config.resend else day.pending for day in before.values())
    run = counts(batches=tally.batches)
    run["estimated minutes at Heap's rate"] = dg.MetadataValue.float(round(pending / env.heap.events_per_minute, 1))
    if config.resend:
        run |= counts(resent_in_this_run=max(tally.accepted - sent, 0))
    if tally.stopped:
        run["stopped"] = dg.MetadataValue.text(tally.stopped)
    if tally.reasons:
        run["reasons"] = reasons_table(tally.reasons)
    if notes:
        run["noted"] = reasons_table(notes)
    return run


def _tell_duration(context: dg.AssetExecutionContext, env: Environment, pending: int) -> None:
    minutes = pending / env.heap.events_per_minute
    context.log.info(
        f"{pending:,} to send: at least {minutes:,.1f} minutes at Heap's {env.heap.events_per_minute:,} a minute"
    )


def _sources(env: Environment) -> list[dg.AssetSpec]:
    sources = env.sources
    names = {name: KINDS.get(name, "segment") for name in sources.streams()}
    names |= {source.name: "file" for source in sources.files} | {source.name: "table" for source in sources.tables}
    return [
        dg.AssetSpec(
            key=[env.name, "sources", name],
            group_name=_group(env),
            kinds={kind},
            description="Events as this source tells them: landed, in files or in a table.",
        )
        for name, kind in names.items()
    ]


def _send(
    context: dg.AssetExecutionContext,
    hub: "Hub",
    heap: HeapResource,
    config: SendConfig,
    flow: Flow,
    keys: Sequence[str],
) -> "tuple[Tally, Counter[str]]":
    from heap_integration.delivery.engine import DeliveryStopped
    from heap_integration.delivery.records import NotAuthorised

    deliveries = heap.deliveries(hub)
    try:
        outbound = deliveries.flows[flow.name]
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
        deliveries.close()
    context.log.info(
        f"sent {tally.accepted:,}, rejected {tally.rejected:,}, suppressed {tally.suppressed:,} "
        f"in {tally.batches:,} batches {tally.stopped}"
    )
    return tally, outbound.notes


def _days_of(
    context: dg.AssetExecutionContext, hub: "Hub", types: Sequence[str] = (*TRACKED, *PROFILES)
) -> dict[str, DayCounts]:
    keys = list(context.partition_keys)
    with hub.warehouse.read() as con:
        found = {
            day.day.isoformat(): day
            for day in day_counts(con, date.fromisoformat(min(keys)), date.fromisoformat(max(keys)), types)
        }
    return {key: found.get(key) or DayCounts(date.fromisoformat(key), 0, 0, 0, 0, 0) for key in keys}


def _loaded_words(loaded: Loaded) -> str:
    return (
        f"read {loaded.read:,} lines: {loaded.loaded:,} new events, {loaded.duplicates:,} known, "
        f"{loaded.refused:,} refused, {loaded.unused:,} that are no events"
    )


def _readable(env: Environment) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=[env.name, "events", "product_events"],
        name="sources_can_be_read",
        description="The last load could read every file and table; one that can't be read keeps no other waiting.",
    )
    def sources_can_be_read(store: StoreResource) -> dg.AssetCheckResult:
        with store.hub(env) as hub:
            problems = hub.unreadable()
        return dg.AssetCheckResult(
            passed=not problems,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"problems": dg.MetadataValue.md("\n".join(f"- {problem}" for problem in problems) or "none")},
        )

    return sources_can_be_read


def _adds_up(env: Environment) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=[env.name, "events", FLOWS[0].asset],
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
        description="Notices what the receiver has landed and days with pending events, and asks for exactly those.",
        tags={"environment": env.name},
    )
    def pending_events(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult | dg.SkipReason:
        if _is_queued(context.instance, env):
            return dg.SkipReason("a run that was asked for has not begun: it takes what has come meanwhile")
        with store.hub(env) as hub:
            pending = _pending(env, hub)
            arrivals = [segment.name for segment in hub.arrivals.waiting()]
        if not pending and not arrivals:
            return dg.SkipReason("nothing is pending")
        noticed = orjson.dumps({"arrivals": arrivals[-1:], "pending": sorted(pending.values())}).decode()
        if noticed == context.cursor:
            return dg.SkipReason("a run for what is pending was asked for; the hourly schedule is the backstop")
        days = {*pending, *([datetime.now(UTC).date()] if arrivals else [])}
        return dg.SensorResult(run_requests=_requests(env, days), cursor=noticed)

    return pending_events


def _inputs_sensor(env: Environment, job: "UnresolvedAssetJob") -> dg.SensorDefinition:
    @dg.sensor(
        name="new_inputs",
        job=job,
        minimum_interval_seconds=INPUTS_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notices new and changed files and new rows of tables, and asks for a run that loads them.",
        tags={"environment": env.name},
    )
    def new_inputs(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult | dg.SkipReason:
        with store.hub(env) as hub:
            waiting = [name for names in hub.waiting_inputs() for name in names]
        noticed = orjson.dumps(sorted(waiting)).decode()
        if not waiting or noticed == context.cursor:
            return dg.SkipReason("no new file, and no new row")
        return dg.SensorResult(run_requests=_requests(env, {datetime.now(UTC).date()}), cursor=noticed)

    return new_inputs


def _is_queued(instance: dg.DagsterInstance, env: Environment) -> bool:
    filters = dg.RunsFilter(tags={"environment": env.name, **ASKED_BY_SENSOR}, statuses=NOT_BEGUN)
    return bool(instance.get_runs(filters, limit=1))


def _requests(env: Environment, days: Iterable[date]) -> list[dg.RunRequest]:
    """Return the runs for some days; those of the last two go before a backfill's."""
    live = datetime.now(UTC).date() - timedelta(days=1)
    return [
        _range_request(env, first, last, None, {**ASKED_BY_SENSOR, "dagster/priority": "1" if last >= live else "0"})
        for first, last in day_ranges(_with_partition(env, days), env.days_per_run)
    ]


def _pending(env: Environment, hub: "Hub") -> dict[date, tuple[int, int]]:
    from heap_integration.switches import switched_off

    with hub.warehouse.read() as con:
        days = pending_days(con, sorted(switched_off(env)()))
    return {day: days[day] for day in sorted(_with_partition(env, days))}


def _with_partition(env: Environment, days: Iterable[date]) -> set[date]:
    """Leave out days before the first partition, and those to come: a wrong clock's event waits for its day."""
    today = datetime.now(UTC).date()
    return {day for day in days if env.start_date <= day <= today}


def _range_request(
    env: Environment, first: date, last: date, run_key: str | None, more: Mapping[str, str] | None = None
) -> dg.RunRequest:
    tags = {"environment": env.name, **(more or {})}
    if first == last:
        return dg.RunRequest(run_key=run_key, partition_key=first.isoformat(), tags=tags)
    bounds = {
        "dagster/asset_partition_range_start": first.isoformat(),
        "dagster/asset_partition_range_end": last.isoformat(),
    }
    return dg.RunRequest(run_key=run_key, tags=tags | bounds)
