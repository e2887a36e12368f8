"""Heap's own data: dumps on their way into the warehouse, or its tables where they already stand."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from heap_integration.assets.charts import shares
from heap_integration.assets.family import Family, owners
from heap_integration.assets.report import counts, table
from heap_integration.environment import Environment
from heap_integration.heap_connect.event_tables import NOT_EVENTS
from heap_integration.heap_connect.settings import TablesSettings
from heap_integration.resources import StoreResource

if TYPE_CHECKING:
    from heap_integration.heap_connect.reports import DumpReport, LoadedTable, TableReport

FAMILY = "heap_connect"
EVENTS = "events"
TABLES = {
    "users": "Heap's users, one row each, with their properties.",
    "sessions": "Heap's sessions.",
    "pageviews": "Heap's pageviews.",
    "user_migrations": "Which users became others: who was anonymous and was identified.",
    EVENTS: "The tables of single events, one for each event that is switched on in Heap Connect.",
}
IN_PLACE = TABLES | {"all_events": "Every event, without its properties."}
SENSOR_SECONDS = 60


def build_heap_connect_assets(env: Environment) -> Family:
    """Return the assets, checks, job and sensor of Heap's data; none where Heap Connect isn't configured."""
    connect = env.heap_connect
    if connect.s3:
        return _dumps(env) if connect.s3.enabled else Family()
    return Family([*_specs(env, IN_PLACE)], [_fresh(env, connect.tables)]) if connect.tables else Family()


def heap_key(env: Environment, name: str) -> dg.AssetKey:
    """Return the key of one of Heap's tables; those of single events have one together."""
    # Dumps bring no table of all events: it is made of those of single events.
    alone = NOT_EVENTS - {"all_events"} if env.heap_connect.s3 else NOT_EVENTS
    return dg.AssetKey([env.name, FAMILY, name if name in alone else EVENTS])


def _specs(env: Environment, tables: dict[str, str]) -> list[dg.AssetSpec]:
    return [
        dg.AssetSpec(
            heap_key(env, name),
            description=words,
            group_name=f"{env.name}_{FAMILY}",
            kinds={"heap", env.warehouse.type},
            owners=owners(env, FAMILY),
            skippable=True,
            tags={"environment": env.name},
        )
        for name, words in tables.items()
    ]


def _dumps(env: Environment) -> Family:
    @dg.multi_asset(
        specs=_specs(env, TABLES),
        name="heap_connect_dumps",
        pool=f"{env.name}_warehouse",
        # A bucket that doesn't answer, a warehouse that is busy: a broken dump fails anew at once, by its name.
        retry_policy=dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL),
    )
    def dumps(context: dg.AssetExecutionContext, store: StoreResource) -> Iterator[dg.MaterializeResult[Any]]:
        from heap_integration.heap_connect.importer import DumpError

        reports: list[DumpReport] = []
        broken = ""
        with store.hub(env) as hub, hub.dump_importer() as importer:
            try:
                for dump in importer.waiting():
                    reports.append(importer.apply(dump))
                    context.log.info(_words(reports[-1]))
            except DumpError as error:
                broken = str(error)
            standing = importer.tables()
        context.log.info(f"{len(reports)} dumps were loaded" if reports else "no dump was loaded")
        yield from _results(env, reports, standing)
        if broken:
            raise dg.Failure(f"{broken}. Nothing of this dump is loaded, and later ones wait.", allow_retries=False)

    job = dg.define_asset_job(
        "import_dumps",
        selection=[dumps],
        description="Load Heap Connect's new dumps into the warehouse.",
        tags={"environment": env.name},
    )
    return Family([dumps], [], [job], [], [_sensor(env, job)] if env.automation else [])


def _results(
    env: Environment, reports: "list[DumpReport]", standing: "list[LoadedTable]"
) -> Iterator[dg.MaterializeResult[Any]]:
    for name in TABLES:
        key = heap_key(env, name)
        tables = [each for each in standing if heap_key(env, each.name) == key]
        loaded = [each for report in reports for each in report.tables if heap_key(env, each.name) == key]
        if loaded:
            dump = max(each.dump_id for each in tables)
            yield dg.MaterializeResult(asset_key=key, metadata={"dump": dump, **_metadata(tables, loaded)})


def _metadata(standing: "list[LoadedTable]", loaded: "list[TableReport]") -> dict[str, dg.MetadataValue]:
    numbers = {
        name: sum(getattr(each, name) for each in loaded)
        for name in ("read", "inserted", "updated", "duplicates", "keyless", "removed", "unread", "bytes")
    }
    columns = {name: sorted({column for each in loaded for column in getattr(each, name)}) for name in COLUMNS}
    told = [(each.name, each.how, f"{each.read:,}", f"{each.inserted:,}", f"{each.updated:,}") for each in loaded]
    return {
        **counts(row_count=sum(each.rows for each in standing), **numbers),
        **{words: dg.MetadataValue.text(", ".join(columns[name])) for name, words in COLUMNS.items() if columns[name]},
        "tables": table(("table", "how", "read", "inserted", "updated"), told),
        "rows by table": shares("rows by table", [(each.name, each.rows) for each in standing[:20]]),
    }


COLUMNS = {"gained": "columns gained", "lost": "columns lost", "retyped": "columns with another type"}


def _words(report: "DumpReport") -> str:
    tables = ", ".join(f"{each.name} {each.how}: {each.read:,} rows" for each in report.tables)
    return f"dump {report.dump_id} in {report.seconds:.1f} s: {tables or 'nothing to load'}"


def _sensor(env: Environment, job: Any) -> dg.SensorDefinition:
    @dg.sensor(
        name="new_dumps",
        job=job,
        minimum_interval_seconds=SENSOR_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks for manifests of new dumps in Heap Connect's bucket.",
        tags={"environment": env.name},
    )
    def new_dumps(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult | dg.SkipReason:
        with store.hub(env) as hub, hub.dump_importer() as importer:
            waiting = [dump.dump_id for dump in importer.waiting()]
            nothing = "no new dump" if waiting or importer.listed() else importer.nothing_there
        noticed = ",".join(map(str, waiting))
        if not waiting or noticed == context.cursor:
            return dg.SkipReason(nothing if not waiting else f"a run for dump {waiting[0]} was asked for")
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=noticed)], cursor=noticed)

    return new_dumps


def _fresh(env: Environment, settings: TablesSettings) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=heap_key(env, "sessions"),
        name="heap_connect_is_fresh",
        description=f"Heap's syncs brought data that is no older than {settings.stale_after_hours:g} hours.",
    )
    def fresh(store: StoreResource) -> dg.AssetCheckResult:
        from heap_integration.heap_connect.tables_in_place import TablesInPlace

        with store.hub(env) as hub, hub.connect_warehouse() as connection:
            tables = TablesInPlace(settings, connection, env.warehouse.dialect)
            found, stale = tables.freshness(), tables.stale()
        rows = [(each.table, str(each.synced_to or "–"), str(each.synced_at or "–")) for each in found]
        return dg.AssetCheckResult(
            passed=not stale,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "stale tables": dg.MetadataValue.text(", ".join(each.table for each in stale) or "none"),
                "tables": table(("table", "data until", "synced at"), rows),
            },
        )

    return fresh
