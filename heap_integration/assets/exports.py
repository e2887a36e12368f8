"""Exports: tables of events for other programs, each with the plan's month beside it."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from heap_integration.assets.charts import bars
from heap_integration.assets.family import Family, owners
from heap_integration.assets.models import changed_days
from heap_integration.assets.report import counts
from heap_integration.environment import Environment
from heap_integration.exports.settings import Export
from heap_integration.resources import StoreResource
from heap_integration.settings import slug

if TYPE_CHECKING:
    from heap_integration.exports.exporting import ExportReport

FAMILY = "exports"
# What is exported has a model, which a run brings up to date first.
CRONS = {"daily": "30 0 * * *", "hourly": "5 * * * *", "real-time": "*/5 * * * *"}


def build_export_assets(env: Environment, models: Family) -> Family:
    """Return the assets, checks, jobs and schedules of the exports that are switched on."""
    family = Family()
    due: dict[str, list[dg.AssetsDefinition]] = {}
    for export in env.exports:
        if export.enabled:
            asset = _export(env, export)
            family.assets.append(asset)
            family.checks.append(_within_plan(env, export))
            due.setdefault(export.frequency, []).append(asset)
    for frequency, assets in due.items():
        _run_together(env, frequency, assets, models, family)
    return family


def _export(env: Environment, export: Export) -> dg.AssetsDefinition:
    target = export.to or env.warehouse

    @dg.asset(
        key=[env.name, FAMILY, export.name],
        deps=[dg.AssetKey([env.name, "models", "export_events"])],
        group_name=f"{env.name}_{FAMILY}",
        kinds={target.type},
        owners=owners(env, FAMILY),
        pool=f"{env.name}_{FAMILY}",
        description=f"Events in {target.title}'s table {target.schemas().exports}.{export.table}: "
        f"{export.mode}, {export.frequency}.",
        tags={"environment": env.name},
    )
    def exported(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult[Any]:
        with store.hub(env) as hub:
            report = hub.exporter(export).run()
        if report.warning:
            context.log.warning(report.warning)
        if report.stopped and not report.sent:
            raise dg.Failure(report.stopped, metadata=_metadata(report), allow_retries=False)
        if report.stopped:
            context.log.error(report.stopped)
        return dg.MaterializeResult(metadata=_metadata(report))

    return exported


def _metadata(report: "ExportReport") -> dict[str, dg.MetadataValue]:
    numbers = counts(read=report.read, sent=report.sent, unchanged=report.unchanged, pending=report.pending)
    month = {"so far": report.month_rows, "expected": report.forecast}
    allowed = {} if report.limit is None else {"allowed": report.limit}
    return {
        **numbers,
        "table": dg.MetadataValue.text(report.table),
        "rows in the month": dg.MetadataValue.int(report.month_rows),
        "plan": dg.MetadataValue.text(report.outlook.plan.name),
        "the plan's month": bars("rows in the month", [*(month | allowed).items()]),
        **({"stopped": dg.MetadataValue.text(report.stopped)} if report.stopped else {}),
    }


def _within_plan(env: Environment, export: Export) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=[env.name, FAMILY, export.name],
        name="within_plan",
        description="The rows of the month, so far and to be expected, are within what Heap's plan allows.",
    )
    def within(store: StoreResource) -> dg.AssetCheckResult:
        with store.hub(env) as hub:
            report = hub.exporter(export).look()
        used_up = report.limit is not None and report.month_rows >= report.limit and report.pending > 0
        return dg.AssetCheckResult(
            passed=report.warning is None,
            severity=dg.AssetCheckSeverity.ERROR if used_up else dg.AssetCheckSeverity.WARN,
            description=report.warning or "",
            metadata=_metadata(report),
        )

    return within


def _run_together(
    env: Environment, frequency: str, assets: list[dg.AssetsDefinition], models: Family, family: Family
) -> None:
    exported = dg.AssetSelection.assets(*assets)
    made = dg.AssetSelection.groups(f"{env.name}_models")
    job = dg.define_asset_job(
        f"export_{slug(frequency)}",
        selection=exported | (exported.upstream() & made),
        description=f"Bring the exported events up to date and write the {frequency} exports.",
        tags={"environment": env.name},
    )
    family.jobs.append(job)
    if not env.automation:
        return

    @dg.schedule(
        name=f"exports_{slug(frequency)}",
        job=job,
        cron_schedule=CRONS[frequency],
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Writes the {frequency} exports; what the plan has no room for waits.",
        tags={"environment": env.name},
    )
    def due() -> dg.RunRequest:
        return changed_days() if models.assets else dg.RunRequest()

    family.schedules.append(due)
