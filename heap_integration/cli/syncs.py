"""Commands that carry segments and profiles to destinations, and look at what is there."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from heap_integration.cli.terminal import (
    FAILURE,
    EnvironmentOption,
    JsonOption,
    app,
    err,
    open_environment,
    out,
    plain,
    print_json,
    print_reasons,
    progress,
)

if TYPE_CHECKING:
    from heap_integration.hub import Hub
    from heap_integration.routes import Route
    from heap_integration.segments.sync import Preview, RunOptions
    from heap_integration.syncs import RouteSync

COUNTS = (
    "wanted",
    "read",
    "sent",
    "added",
    "updated",
    "removed",
    "unchanged",
    "rejected",
    "suppressed",
    "pending",
    "held",
)
PREVIEW_COUNTS = ("wanted", "held", "added", "updated", "removed", "again", "unchanged")


@app.command()
def sync(
    name: Annotated[
        str, typer.Argument(help="A segment or a set of profiles, by its name or key.", show_default=False)
    ],
    environment: EnvironmentOption,
    to: Annotated[str | None, typer.Option(help="One destination; all that follow it if none is named.")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Show what would be sent, and send nothing.")] = False,
    only: Annotated[str | None, typer.Option(help="Try it with one identity, the destination's id.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Send everything that is wanted again.")] = False,
    confirm: Annotated[bool, typer.Option("--confirm", help="Do what a guard would stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a segment or a set of profiles up to date at its destinations: only differences are sent."""
    from heap_integration.segments.sync import RunOptions
    from heap_integration.syncs import RouteSync, refresh

    options = RunOptions(confirm=confirm, full=full, only=only)
    told, failed = [], False
    with open_environment(environment) as hub:
        chosen = _routes(hub, name, to)
        refresh(hub, chosen[0].sync, datetime.now(UTC))
        for route in chosen:
            work = RouteSync(hub, route)
            report = _told(work, options, preview=preview, quiet=as_json)
            if only and report.get("counts", {}).get("wanted") == 0 and not _changes(report):
                report["nobody"] = f"{only} is neither wanted nor held there under that id"
            told.append(report)
            failed |= "stopped" in report and not preview
            if not as_json:
                _print(route, report)
    if as_json:
        print_json(told)
    if failed:
        raise typer.Exit(FAILURE)


@app.command()
def syncs(environment: EnvironmentOption, as_json: JsonOption = False) -> None:
    """List every sync that has ever run: how many its destination holds, and those no longer configured."""
    from heap_integration.routes import Route
    from heap_integration.warehouse.memberships import known_syncs

    with open_environment(environment) as hub, hub.warehouse.read(ample=True) as con:
        configured = {Route(each, to).name for each in hub.environment.syncs() for to in each.sync_to}
        known = {each.sync: each for each in known_syncs(con)}
    rows = [
        {
            "sync": name,
            "held": known[name].held if name in known else 0,
            "last run": known[name].finished_at if name in known else None,
            "configured": name in configured,
        }
        for name in sorted(configured | set(known))
    ]
    if as_json:
        print_json(rows)
        return
    table = Table("sync", "held", "last run (UTC)", "set up")
    for row in rows:
        moment = row["last run"]
        table.add_row(
            plain(str(row["sync"])),
            f"{row['held']:,}",
            moment.isoformat(" ", "seconds") if isinstance(moment, datetime) else "never",
            "yes" if row["configured"] else "[yellow]no[/]",
        )
    out.print(table)
    if any(not row["configured"] for row in rows):
        out.print(
            "A sync that is no longer configured has left its members where they are. To take them out, put it back "
            "with mode: drain and sync it; to forget it, run forget-sync."
        )


@app.command()
def forget_sync(
    name: Annotated[str, typer.Argument(help="As `syncs` shows it, such as userflow/power_users.", show_default=False)],
    environment: EnvironmentOption,
) -> None:
    """Forget what a destination has acknowledged; its members stay there and are nobody's from then on."""
    from heap_integration.warehouse.memberships import forget, known_syncs

    with open_environment(environment) as hub, hub.store.exclusive(name), hub.warehouse.write(ample=True) as con:
        held = {each.sync: each.held for each in known_syncs(con)}
        if name not in held:
            raise ValueError(f"there is no sync {name!r}; there are: {', '.join(held) or 'none'}")
        forget(con, name)
    out.print(f"{plain(name)} is forgotten; {held[name]:,} stay at the destination")


def _routes(hub: Hub, name: str, to: str | None) -> list[Route]:
    from heap_integration.routes import routes
    from heap_integration.settings import slug

    switched_on = routes(hub.environment)
    found = [route for route in switched_on if name == route.sync.name or slug(name) == route.sync.slug]
    if not found:
        known = ", ".join(dict.fromkeys(route.sync.name for route in switched_on)) or "none"
        raise ValueError(f"no segment or set of profiles called {name!r} is switched on; there are: {known}")
    chosen = [route for route in found if to in (None, route.destination)]
    if not chosen:
        known = ", ".join(route.destination for route in found)
        raise ValueError(f"{name} doesn't go to {to!r}; it goes to: {known}")
    return chosen


def _told(work: RouteSync, options: RunOptions, *, preview: bool, quiet: bool) -> dict[str, Any]:
    """Return what a sync did, or would do, and what stopped it: one destination in trouble holds up no other."""
    from heap_integration.delivery.engine import DeliveryStopped
    from heap_integration.segments.sync import GuardStopped

    try:
        return _previewed(work, options) if preview else _synced(work, options, quiet=quiet)
    except GuardStopped as stopped:
        return {"sync": work.route.name, "stopped": str(stopped).replace("confirm: true", "--confirm")}
    except DeliveryStopped as stopped:
        return {"sync": work.route.name, "stopped": f"{stopped}. What was not acknowledged goes out with the next sync"}


def _synced(work: RouteSync, options: RunOptions, *, quiet: bool) -> dict[str, Any]:
    from heap_integration.switches import sync_goes_on

    goes_on = sync_goes_on(work.hub.environment, work.route.sync, work.route.destination)
    with progress(quiet) as show:
        report, match = work.run(options, go_on=goes_on, progress=lambda tally: show(work.route.name, tally.read, None))
    return {
        "sync": work.route.name,
        "counts": {name: getattr(report, name) for name in COUNTS},
        "match": {**asdict(match), "rate": match.rate},
        "reasons": dict(report.tally.reasons),
    }


def _previewed(work: RouteSync, options: RunOptions) -> dict[str, Any]:
    from heap_integration.syncs import sample_words

    preview: Preview = work.preview(options)
    samples = [
        {"change": each.action.name.lower(), "identity": each.identity, "what": sample_words(each)}
        for each in preview.samples
    ]
    told: dict[str, Any] = {
        "sync": work.route.name,
        "counts": {name: getattr(preview, name) for name in PREVIEW_COUNTS},
        "samples": samples,
    }
    return told | ({"stopped": preview.stopped.replace("confirm: true", "--confirm")} if preview.stopped else {})


def _print(route: Route, report: dict[str, Any]) -> None:
    title = f"{route.sync.name} → {route.destination}"
    if "counts" in report:
        out.print(f"[bold]{plain(title)}[/]", highlight=False)
        in_words = _preview_words if "samples" in report else _sync_words
        for line in in_words(report["counts"]):
            out.print(f"  {line}", highlight=False)
    if report.get("nobody"):
        out.print(f"  [yellow]{plain(report['nobody'])}[/]", highlight=False)
    print_reasons([("rejected", reason, count) for reason, count in report.get("reasons", {}).items()])
    for sample in report.get("samples", ()):
        words = f": {sample['what']}" if sample["what"] else ""
        out.print(f"  {sample['change']:<7}{plain(sample['identity'] + words)}", highlight=False)
    if "stopped" in report:
        err.print(f"[red]stopped:[/] {plain(title)}: {plain(report['stopped'])}", highlight=False)


def _changes(report: dict[str, Any]) -> int:
    return sum(report["counts"].get(name, 0) for name in ("read", "added", "updated", "removed", "again"))


def _sync_words(counts: dict[str, int]) -> list[str]:
    parts = " + ".join(
        f"{counts[name]:,} {name}" for name in ("sent", "unchanged", "rejected", "suppressed", "pending")
    )
    news = ", ".join(f"{counts[name]:,} {name}" for name in ("added", "updated", "removed"))
    return [
        f"{counts['wanted']:,} wanted; {counts['read']:,} read = {parts}",
        f"{news}; the destination holds {counts['held']:,}",
    ]


def _preview_words(counts: dict[str, int]) -> list[str]:
    changes = ", ".join(
        f"{verb} {counts[name]:,}"
        for verb, name in (("add", "added"), ("update", "updated"), ("remove", "removed"), ("tell again", "again"))
    )
    return [
        f"{counts['wanted']:,} wanted; the destination holds {counts['held']:,}",
        f"would {changes}; {counts['unchanged']:,} unchanged",
    ]
