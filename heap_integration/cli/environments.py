"""Commands that look at environments."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from rich.table import Table

from heap_integration.cli.terminal import (
    FAILURE,
    USAGE,
    EnvironmentOption,
    JsonOption,
    app,
    err,
    open_environment,
    out,
    plain,
    print_json,
    print_reasons,
)
from heap_integration.environment import active_environments, find_root, load_environment


@app.command()
def check(
    environments: Annotated[
        list[str] | None, typer.Argument(help="Which environments; those of workspace.yaml if none is named.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Look at the files only.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Prove settings, credentials and connections without writing anything."""
    from heap_integration.checks import offline_checks, online_checks

    root = find_root()
    findings = offline_checks(root, environments or active_environments(root), os.environ)
    wrong_settings = any(not finding.ok for finding in findings)
    if not offline:
        for name in sorted({finding.environment for finding in findings if finding.ok}):
            environment = load_environment(root / "environments" / name)
            findings += online_checks(environment, os.environ)
    if as_json:
        print_json([{name: getattr(finding, name) for name in finding.__dataclass_fields__} for finding in findings])
    else:
        for finding in findings:
            mark = "[green]ok[/]    " if finding.ok else "[red]failed[/]"
            what = "" if finding.what in finding.message else f"{finding.what}: "
            out.print(f"{mark} [bold]{finding.environment}[/]  {plain(what + finding.message)}")
            if not finding.ok and finding.advice:
                out.print(f"        [yellow]→ {plain(finding.advice)}[/]")
    if wrong_settings:
        raise typer.Exit(USAGE)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(FAILURE)


@app.command()
def status(environment: EnvironmentOption, as_json: JsonOption = False) -> None:
    """Tell what is pending, what was accepted or rejected and why, the last syncs, the quota used."""
    from heap_integration.status import read_status

    with open_environment(environment) as hub:
        report = read_status(hub)
    if as_json:
        print_json(report)
        return
    events = Table(title=f"Events of {environment}", title_justify="left", show_header=False)
    events.add_column()
    events.add_column(justify="right")
    for name, value in report["events"].items():
        events.add_row(name, f"{value:,}")
        if name == "accepted":
            events.add_row("  of these profiles", f"{report['profiles']:,}")
    out.print(events)
    print_reasons([(row["outcome"], row["reason"], row["rows"]) for row in report["reasons"]])
    if report["segments"]:
        out.print(_segments_table(report["segments"]))
    quota = report["quota"]
    out.print(
        f"Quota: {quota['events_last_minute']:,} of {quota['events_per_minute']:,} events in the last minute, "
        f"{quota['events_this_month']:,} this month."
    )
    if exports := report["exports"]:
        allowed = f" of {exports['limit']:,}" if exports["limit"] else ""
        out.print(f"Exports: {exports['rows']:,}{allowed} rows in {exports['month']}.")
        if exports["warning"]:
            out.print(f"[yellow]{plain(exports['warning'])}[/]", highlight=False)
    out.print("Waiting: " + ", ".join(f"{count:,} {name}" for name, count in report["waiting"].items()) + ".")
    for problem in report["unreadable"]:
        err.print(f"[red]can't be read:[/] {plain(problem)}")
    for fault in report["faults"]:
        err.print(f"[red]the counts don't add up:[/] {plain(fault)}")


def _segments_table(segments: list[dict[str, Any]]) -> Table:
    table = Table(title="Segments", title_justify="left")
    for heading in ("segment", "last sync (UTC)", "+", "−", "same", "refused", "pending"):
        table.add_column(heading, justify="left" if heading == "segment" else "right")
    for row in segments:
        numbers = [f"{row[name]:,}" for name in ("added", "removed", "unchanged", "rejected", "pending")]
        table.add_row(f"{row['segment']} → {row['destination']}", row["finished_at"] or "never", *numbers)
    return table
