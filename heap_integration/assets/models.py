"""The dbt models as assets: one each, its tests as checks, its days as partitions."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import dagster as dg

from heap_integration.assets.days import days_of
from heap_integration.assets.family import Family, owners
from heap_integration.assets.heap_connect import heap_key
from heap_integration.assets.pictures import PICTURES
from heap_integration.environment import Environment
from heap_integration.resources import StoreResource
from heap_integration.settings import slug
from heap_integration.sync_settings import CADENCES
from heap_integration.warehouse.systems.system import QueryError

if TYPE_CHECKING:
    from dagster_dbt import DagsterDbtTranslator

    from heap_integration.hub import Hub
    from heap_integration.models.lineage import LineageNotes
    from heap_integration.models.project import DbtProject
    from heap_integration.models.run import ModelsReport, NodeResult
    from heap_integration.warehouse.systems.system import Connection

FAMILY = "models"
# What of the hub's own tables is which asset; the others are what the syncs keep.
OUTCOMES = ("event_outcomes", "rejected_rows")
UNIQUE_ID = "dagster_dbt/unique_id"
# The models over Heap's tables, which say nothing where there are none.
OF_HEAP = "fqn:heap_integration.staging.heap"


class Days(StrEnum):
    """Which days a run computes of the models that are kept by day."""

    partitions = "partitions"
    changed = "changed"


class ModelsConfig(dg.Config):
    """Which days the models kept by day compute anew, and about which day all others are."""

    days: Days = Days.partitions
    """partitions: those of the run. changed: all whose events have changed since."""

    as_of: str = ""
    """The last UTC day that counts, such as 2026-01-31; empty: today."""

    full_refresh: bool = False
    """Build everything from the beginning."""


def build_model_assets(env: Environment) -> Family:
    """Return the models' assets, job and schedule; none where they are switched off or dbt isn't installed."""
    if not env.models.enabled or find_spec("dagster_dbt") is None:
        return Family()
    models = _models(env)
    job = dg.define_asset_job(
        "build_models",
        selection=[models],
        description="Build the dbt models and test them.",
        tags={"environment": env.name},
    )
    return Family([models, _sync_log(env)], [], [job], [_schedule(env, job)] if env.automation else [])


def _sync_log(env: Environment) -> dg.AssetSpec:
    return dg.AssetSpec(
        _sync_log_key(env),
        group_name=f"{env.name}_{FAMILY}",
        kinds={"table"},
        description="What the hub keeps of its syncs: runs with their counts, and who was refused and why.",
        tags={"environment": env.name},
    )


def _sync_log_key(env: Environment) -> dg.AssetKey:
    return dg.AssetKey([env.name, "hub", "sync_log"])


def _translator(env: Environment) -> "DagsterDbtTranslator":
    from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings

    days = days_of(env)

    # Its methods' parameters bear the names that Dagster calls them by.
    class Translator(DagsterDbtTranslator):
        """How a node of dbt appears among the environment's assets."""

        def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
            return _key(env, dbt_resource_props)

        def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str:  # noqa: ARG002
            return f"{env.name}_{FAMILY}"

        def get_description(self, dbt_resource_props: Mapping[str, Any]) -> str:
            return str(dbt_resource_props.get("description") or "")

        def get_partitions_def(self, dbt_resource_props: Mapping[str, Any]) -> dg.PartitionsDefinition[str] | None:
            return days if day_column(dbt_resource_props) else None

        def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: Any) -> dg.AssetSpec:
            spec = super().get_asset_spec(manifest, unique_id, project)
            props = self.get_resource_props(manifest, unique_id)
            layer = props["fqn"][1] if len(props.get("fqn", ())) > 1 else ""
            place = f"{env.warehouse.schemas().models}.{props.get('alias') or props['name']}"
            return spec.replace_attributes(
                # The project was read without a warehouse: which one it is, the environment says.
                metadata={**spec.metadata, "dagster/table_name": place, "dagster/storage_kind": env.warehouse.type},
                kinds={"dbt", env.warehouse.type, *(["view"] if props["config"].get("materialized") == "view" else [])},
                owners=owners(env, FAMILY) or [],
                tags={"environment": env.name, "layer": layer},
            )

    return Translator(settings=DagsterDbtTranslatorSettings(enable_duplicate_source_asset_keys=True))


def day_column(node: Mapping[str, Any]) -> str | None:
    """Return the column by whose days a model is kept, ``None`` where it isn't."""
    config = node.get("config", {})
    key = config.get("unique_key")
    return key if config.get("materialized") == "incremental" and isinstance(key, str) else None


def _key(env: Environment, node: Mapping[str, Any]) -> dg.AssetKey:
    name = node["name"]
    if node["resource_type"] != "source":
        return dg.AssetKey([env.name, FAMILY, name])
    if node["source_name"] == "heap_connect":
        return heap_key(env, name)
    if name.startswith("sync_"):
        return _sync_log_key(env)
    return dg.AssetKey([env.name, "events", "outbound_event_batches" if name in OUTCOMES else "product_events"])


def _models(env: Environment) -> dg.AssetsDefinition:
    from dagster_dbt import dbt_assets

    from heap_integration.models.manifest import project_manifest
    from heap_integration.models.variables import events_from

    manifest = project_manifest(events_from(env))

    @dbt_assets(
        manifest=manifest,
        exclude=" ".join(_left_out(env)),
        dagster_dbt_translator=_translator(env),
        name=FAMILY,
        pool=f"{env.name}_warehouse",
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=None,
    )
    def models(context: dg.AssetExecutionContext, config: ModelsConfig, store: StoreResource) -> Iterator[Any]:
        from heap_integration.models.run import ModelsError

        with store.hub(env) as hub:
            run = _Run(env, context, hub)
            try:
                report = run.build(config)
            except ModelsError as wrong:
                raise dg.Failure(str(wrong), allow_retries=False) from None
            yield from run.results(report)
        if report.failed:
            raise dg.Failure("\n".join(report.problems()), allow_retries=False)

    return models


def _left_out(env: Environment) -> Sequence[str]:
    return () if env.heap_connect.s3 or env.heap_connect.tables else (OF_HEAP,)


class _Run:
    """One run of the models: what was selected of them, and what became of each."""

    def __init__(self, env: Environment, context: dg.AssetExecutionContext, hub: "Hub") -> None:
        self.env, self.context, self.hub = env, context, hub
        self.started = datetime.now(UTC).replace(tzinfo=None)
        self.project: DbtProject = hub.models()
        self.checks = {
            str(spec.metadata[UNIQUE_ID]): spec.key
            for spec in context.assets_def.check_specs
            if spec.key in context.selected_asset_check_keys
        }

    def build(self, config: ModelsConfig) -> "ModelsReport":
        """Call dbt for what the run selects."""
        self.hub.publish()
        self.started = datetime.now(UTC).replace(tzinfo=None)
        return self.project.build(
            self._selected(),
            exclude=_left_out(self.env),
            as_of=_day(config.as_of) if config.as_of else None,
            days=self._days() if config.days is Days.partitions else None,
            full_refresh=config.full_refresh,
            tests=bool(self.checks),
            progress=self._tell,
        )

    def results(self, report: "ModelsReport") -> Iterator[Any]:
        """Yield what became of each model and test, a model before its tests."""
        from heap_integration.models.lineage import LineageNotes

        manifest = self.project.manifest()
        notes = LineageNotes(self.project.working / "lineage.json")
        built = [each for each in report.results if each.kind == "model" and each.status == "success"]
        with self.hub.connect_warehouse() as connection:
            made = Made(self.env, manifest, connection, [each.unique_id for each in built])
            for result in built:
                key = _key(self.env, manifest["nodes"][result.unique_id])
                if key in self.context.selected_asset_keys:
                    described = _Described(self.env, self.project, result, made, notes)
                    yield dg.MaterializeResult(asset_key=key, metadata=described.metadata())
            yield from self._tested(report)
            self._tell_days(made)
        notes.keep()

    def _tell_days(self, made: "Made") -> None:
        """Record the days that were computed though the run wasn't asked for them: their events had changed."""
        asked = self.context.partition_keys if self._is_by_day() else ()
        days = days_of(self.env)
        for node in made.by_day():
            for day in made.days_since(node, self.started):
                if day not in asked and days.has_partition_key(day):
                    self.context.log_event(dg.AssetMaterialization(_key(self.env, node), partition=day))

    def _tested(self, report: "ModelsReport") -> Iterator[dg.AssetCheckResult]:
        for result in report.results:
            key = self.checks.get(result.unique_id)
            if key and result.status != "skipped":
                yield dg.AssetCheckResult(
                    passed=not result.has_failed and result.status != "warn",
                    asset_key=key.asset_key,
                    check_name=key.name,
                    severity=dg.AssetCheckSeverity.WARN if result.status == "warn" else dg.AssetCheckSeverity.ERROR,
                    metadata={"rows": result.failures or 0, **({"message": result.message} if result.message else {})},
                )

    def _selected(self) -> Sequence[str]:
        if not self.context.assets_def.is_subset:
            return ()
        return sorted(key.path[-1] for key in self.context.selected_asset_keys)

    def _days(self) -> tuple[date, date] | None:
        if not self._is_by_day():
            return None
        days = self.context.partition_key_range
        return date.fromisoformat(days.start), date.fromisoformat(days.end)

    def _is_by_day(self) -> bool:
        # One partition alone is no range in Dagster's words.
        return bool(self.context.has_partition_key or self.context.has_partition_key_range)

    def _tell(self, result: "NodeResult") -> None:
        tell = self.context.log.error if result.has_failed else self.context.log.info
        tell(f"{result.kind} {result.name}: {result.status} in {result.seconds:.1f} s")


def _day(given: str) -> date:
    try:
        return date.fromisoformat(given)
    except ValueError:
        message = f"as_of is {given!r}: wanted is a day such as 2026-01-31, or nothing for today"
        raise dg.Failure(message, allow_retries=False) from None


class Made:
    """The tables that a run has made, as the warehouse has them; each question is asked once."""

    def __init__(
        self, env: Environment, manifest: Mapping[str, Any], connection: "Connection", models: Sequence[str]
    ) -> None:
        self.env, self.manifest, self.connection = env, manifest, connection
        self._nodes = [manifest["nodes"][unique_id] for unique_id in models]
        self._columns: dict[tuple[str, str], Mapping[str, str]] = {}

    def columns(self, node: Mapping[str, Any]) -> Mapping[str, str]:
        """Return the columns of a model's or a source's table, with their types."""
        place = node["schema"], str(node.get("alias") or node["identifier"])
        if place not in self._columns:
            self._columns[place] = self.connection.columns(*place)
        return self._columns[place]

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """The number of rows of each table, by its model; views aren't counted."""
        tables = [node for node in self._nodes if node["config"]["materialized"] != "view"]
        counted = [
            f"select '{node['name']}' as name, count(*) as found from {node['relation_name']}" for node in tables
        ]
        sql = " union all ".join(counted)
        found = [row for batch in self.connection.batches(sql) for row in batch.to_pylist()] if tables else []
        return {str(name): int(number) for name, number in (row.values() for row in found)}

    def by_day(self) -> list[Mapping[str, Any]]:
        """Return the models that are kept by day."""
        return [node for node in self._nodes if day_column(node)]

    def days_since(self, node: Mapping[str, Any], started: datetime) -> list[str]:
        """Return the days that a model kept by day has computed since a moment (UTC)."""
        sql = f"select distinct {day_column(node)} as day from {node['relation_name']} where computed_at >= ?"
        rows = [row for batch in self.connection.batches(sql, [started]) for row in batch.to_pylist()]
        return sorted(str(day) for row in rows for day in row.values())


class _Described:
    """What the page of a model's asset shows of a run."""

    def __init__(
        self, env: Environment, project: "DbtProject", result: "NodeResult", made: Made, notes: "LineageNotes"
    ) -> None:
        self.env, self.project, self.result, self.made, self.notes = env, project, result, made, notes
        self.node: Mapping[str, Any] = made.manifest["nodes"][result.unique_id]

    def metadata(self) -> dict[str, Any]:
        """Return rows, time, columns with where they come from, and the model's picture."""
        told = {name.lower(): each["description"] for name, each in self.node["columns"].items()}
        columns = [
            dg.TableColumn(name.lower(), kind, description=told.get(name.lower()) or None)
            for name, kind in self.made.columns(self.node).items()
        ]
        rows = self.made.rows.get(self.node["name"])
        return {
            "seconds": round(self.result.seconds, 2),
            "dagster/column_schema": dg.TableSchema(columns),
            **({} if rows is None else {"dagster/row_count": rows}),
            **self._lineage(),
            **self._picture(),
        }

    def _lineage(self) -> dict[str, dg.TableColumnLineage]:
        parents = dict(self._parents())
        tables = {name: self.made.columns(node) for name, node in parents.items()}
        compiled = self.project.target / "compiled" / self.node["package_name"] / self.node["original_file_path"]
        if not compiled.exists():
            return {}
        found = self.notes.lineage(compiled.read_text(), self.env.warehouse.dialect, tables)
        deps = {
            column: [
                dg.TableColumnDep(_key(self.env, parents[origin.table]), origin.column)
                for origin in origins
                if origin.table in parents
            ]
            for column, origins in found.items()
        }
        deps = {column: each for column, each in deps.items() if each}
        return {"dagster/column_lineage": dg.TableColumnLineage(deps)} if deps else {}

    def _parents(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        from heap_integration.models.lineage import plain

        for name in self.node["depends_on"]["nodes"]:
            node = self.made.manifest["nodes"].get(name) or self.made.manifest["sources"].get(name)
            if node and node.get("relation_name"):
                yield plain(node["relation_name"]), node

    def _picture(self) -> Mapping[str, dg.MetadataValue]:
        picture = PICTURES.get(self.node["name"])
        dialect = self.env.warehouse.dialect
        if picture is None:
            return {}
        try:
            return picture.look(self.made.connection, dialect, self.node["relation_name"])
        except QueryError as refused:
            # The table is there all the same.
            return {picture.title: dg.MetadataValue.text(f"can't be drawn: {refused}")}


def _schedule(env: Environment, job: Any) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{FAMILY}_{slug(env.models.every)}",
        job=job,
        cron_schedule=CADENCES[env.models.every],
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Builds the models {env.models.every}: all days whose events have changed.",
        tags={"environment": env.name},
    )
    def due() -> dg.RunRequest:
        return changed_days()

    return due


def changed_days() -> dg.RunRequest:
    """Return the request for a run that builds all days whose events have changed; it bears today's partition."""
    config = {"ops": {FAMILY: {"config": {"days": "changed"}}}}
    return dg.RunRequest(partition_key=datetime.now(UTC).date().isoformat(), run_config=config)
