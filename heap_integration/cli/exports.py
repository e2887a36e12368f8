"""Commands that export events, and tell where the exports stand."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from heap_integration.cli.terminal import (
    FAILURE,
    JsonOption,
    app,
    err,
    open_environment,
    out,
    plain,
    print_json,
)

if TYPE_CHECKING:
    from heap_integration.exports.exporting import ExportReport
    from heap_integration.exports.quota import Outlook
    from heap_integration.exports.settings import Export
    from heap_integration.hub import Hub

EnvironmentArgument = Annotated[str, typer.Argument(help="The name of a folder under environments/.")]


@app.command()
def export(
    environment: EnvironmentArgument,
    name: Annotated[str | None, typer.Argument(help="One export; all that are switched on if none is named.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write what waits of the models' events into the tables of exports, within what Heap's plan allows."""
    with open_environment(environment) as hub:
        reports = [hub.exporter(each).run() for each in _chosen(hub, name)]
    if as_json:
        print_json(_told(reports))
    else:
        for report in reports:
            _print(report)
        _print_month(reports)
    if any(report.stopped for report in reports):
        raise typer.Exit(FAILURE)


@app.command()
def exports(environment: EnvironmentArgument, as_json: JsonOption = False) -> None:
    """List the exports: what waits, what the plan's month has left, and what is to be expected of it."""
    with open_environment(environment) as hub:
        chosen = _chosen(hub, None)
        reports = [hub.exporter(each).look() for each in chosen]
    if as_json:
        print_json(_told(reports))
        return
    table = Table("export", "table", "every", "waits", "last export (UTC)")
    for each, report in zip(chosen, reports, strict=True):
        last = report.last_export.isoformat(" ", "seconds")[:19] if report.last_export else "never"
        table.add_row(plain(each.name), plain(report.table), each.frequency, f"{report.pending:,}", last)
    out.print(table)
    _print_month(reports)


def _chosen(hub: Hub, name: str | None) -> list[Export]:
    switched_on = [each for each in hub.environment.exports if each.enabled]
    found = [each for each in switched_on if name in (None, each.name)]
    if not found and name is not None:
        known = ", ".join(each.name for each in switched_on) or "none"
        raise ValueError(f"no export called {name!r} is switched on; there are: {known}")
    return found


def _told(reports: list[ExportReport]) -> dict[str, Any]:
    told = [{name: value for name, value in asdict(each).items() if name != "outlook"} for each in reports]
    return {"exports": told, "month": _month(reports[-1].outlook) if reports else None}


def _month(outlook: Outlook) -> dict[str, Any]:
    return {
        "month": outlook.month,
        "plan": outlook.plan.name,
        "limit": outlook.plan.rows_a_month,
        "rows": outlook.rows,
        "forecast": outlook.forecast,
        "reached_on": outlook.reached_on,
        "warning": outlook.warning,
    }


def _print(report: ExportReport) -> None:
    out.print(f"[bold]{plain(report.export)}[/] → {plain(report.table)}", highlight=False)
    out.print(
        f"  {report.read:,} read = {report.sent:,} sent + {report.unchanged:,} unchanged; {report.pending:,} pending",
        highlight=False,
    )
    if report.stopped:
        err.print(f"[red]stopped:[/] {plain(report.export)}: {plain(report.stopped)}", highlight=False)


def _print_month(reports: list[ExportReport]) -> None:
    """Print the plan's month as the last export found it: it counts all of them."""
    if not reports:
        out.print("no export is switched on")
        return
    outlook, limit = reports[-1].outlook, reports[-1].limit
    allowed = "as many as there are" if limit is None else f"{limit:,}"
    out.print(
        f"{outlook.month}: {outlook.rows:,} rows exported, {outlook.forecast:,} expected by its end; "
        f"plan {outlook.plan.name} allows {allowed}",
        highlight=False,
    )
    if outlook.warning:
        out.print(f"[yellow]{plain(outlook.warning)}[/]", highlight=False)
