"""The ``heap-integration`` command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from heap_integration.environment import (
    FILE_NAME,
    Environment,
    EnvironmentProblems,
    MissingSecret,
    active_environments,
    find_root,
    load_environment,
    read_variables,
)

if TYPE_CHECKING:
    from datetime import date

    from heap_integration.events.mapping import Mapping
    from heap_integration.hub import Hub

USAGE, FAILURE = 2, 1

app = typer.Typer(
    name="heap-integration",
    help="The hub between Heap and everything a company connects to it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

EnvironmentOption = Annotated[
    str, typer.Option("--environment", "-e", help="The name of a folder under environments/.", show_default=False)
]
MappingOption = Annotated[
    Path | None,
    typer.Option(help="YAML that says which column is what; without it lines are Segment-style JSON.", exists=True),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")]


def main() -> None:
    """Run the command; a user's mistake ends with exit code 2, a failure with 1, neither with a traceback."""
    try:
        app()
    except EnvironmentProblems as problems:
        _end(USAGE, *(str(problem) for problem in problems.problems))
    except MissingSecret as missing:
        _end(USAGE, f"{missing}: set it in environments/<name>/.env or in the process's environment")
    except (ValueError, OSError) as mistake:
        _end(USAGE, str(mistake))
    except KeyboardInterrupt:
        _end(130, "stopped")


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
        _print_json([{name: getattr(finding, name) for name in finding.__dataclass_fields__} for finding in findings])
    else:
        for finding in findings:
            mark = "[green]ok[/]    " if finding.ok else "[red]failed[/]"
            what = "" if finding.what in finding.message else f"{finding.what}: "
            out.print(f"{mark} [bold]{finding.environment}[/]  {_plain(what + finding.message)}")
            if not finding.ok and finding.advice:
                out.print(f"        [yellow]→ {_plain(finding.advice)}[/]")
    if wrong_settings:
        raise typer.Exit(USAGE)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(FAILURE)


@app.command("preview-events")
def preview_events(
    file: Annotated[
        str, typer.Argument(help="CSV, NDJSON (plain or gz) or Parquet; - reads NDJSON from standard input.")
    ],
    environment: EnvironmentOption,
    mapping: MappingOption = None,
    preset: Annotated[str | None, typer.Option(help="hub, segment, rudder or airbyte.")] = None,
) -> None:
    """Print each request exactly as it would go out, and each line that would not with its reason. Sends nothing."""
    from heap_integration.events.prepare import Preparer
    from heap_integration.events.preview import preview
    from heap_integration.hub import prepare_settings

    settings = _environment(environment)
    preparer = Preparer(prepare_settings(settings, _preset(preset)))
    source = sys.stdin.buffer if file == "-" else _existing(file)
    heap = settings.heap
    for item in preview(source, _mapping(mapping), preparer, url=heap.url, app_id=heap.app_id):
        sys.stdout.buffer.write(orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.flush()


@app.command("send-events")
def send_events(
    file: Annotated[Path, typer.Argument(help="CSV, NDJSON (plain or gz) or Parquet.", exists=True, dir_okay=False)],
    environment: EnvironmentOption,
    mapping: MappingOption = None,
    preset: Annotated[str | None, typer.Option(help="hub, segment, rudder or airbyte.")] = None,
    resend: Annotated[
        bool, typer.Option("--resend", help="Send acknowledged events again, under the same keys.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Load a file of events and send what is pending on its days to Heap; a line is loaded and sent once."""
    from heap_integration.events.loading import file_mark
    from heap_integration.warehouse.events import origin_counts, origin_reasons

    rules, chosen = _mapping(mapping), _preset(preset)
    stopped = ""
    notes: dict[str, int] = {}
    with _hub(environment) as hub, _progress(as_json) as show:
        hub.load_file(file, rules, lambda so_far: show("loading", so_far.read, None))
        mark = file_mark(file, rules)
        with hub.warehouse.read() as con:
            before = origin_counts(con, mark)
        if before.first_day and before.last_day:
            stopped, notes = _send_days(hub, before.first_day, before.last_day, chosen, resend, show)
        with hub.warehouse.read() as con:
            after, reasons = origin_counts(con, mark), origin_reasons(con, mark)
    known = 0 if resend else before.accepted
    counts = {
        "read": after.read,
        "sent": after.accepted - known,
        "unchanged": known + after.duplicates + after.unused,
        "rejected": after.rejected,
        "suppressed": after.suppressed,
        "pending": after.pending,
    }
    if as_json:
        _print_json({**counts, "reasons": dict(reasons), "notes": notes, "stopped": stopped or None})
    else:
        _print_counts(f"{file.name} → Heap {hub.environment.heap.app_id}", counts)
        _print_reasons([("not sent", reason, count) for reason, count in reasons])
        _print_reasons([("note", note, count) for note, count in notes.items()])
    if stopped:
        _end(FAILURE, f"{stopped}. What is pending goes out when the command is run again.")


def _send_days(
    hub: Hub, first: date, last: date, preset: Any, resend: bool, show: Callable[[str, int, int | None], None]
) -> tuple[str, dict[str, int]]:
    """Send what is pending on some days; return why it stopped early, if it did, and what was noted on the way."""
    from heap_integration.delivery.engine import DeliveryStopped
    from heap_integration.heap.events_api import EventsApi
    from heap_integration.warehouse.events import day_counts

    with hub.warehouse.read() as con:
        days = day_counts(con, first, last)
    total = sum(day.read if resend else day.pending for day in days)
    api = EventsApi(hub.environment.heap.url, hub.environment.heap.app_id)
    outbound = hub.outbound(api, preset)
    stopped = ""
    try:
        outbound.send(first, last, resend=resend, progress=lambda tally: show("sending", tally.statuses.total(), total))
    except DeliveryStopped as error:
        stopped = str(error)
    finally:
        api.close()
    return stopped, dict(outbound.notes.most_common())


@app.command()
def status(environment: EnvironmentOption, as_json: JsonOption = False) -> None:
    """Tell what is pending, what was accepted or rejected and why, the last syncs, the quota used."""
    from heap_integration.status import read_status

    with _hub(environment) as hub:
        report = read_status(hub)
    if as_json:
        _print_json(report)
        return
    events = Table(title=f"Events of {environment}", title_justify="left", show_header=False)
    events.add_column()
    events.add_column(justify="right")
    for name, value in report["events"].items():
        events.add_row(name, f"{value:,}")
    out.print(events)
    _print_reasons([(row["outcome"], row["reason"], row["rows"]) for row in report["reasons"]])
    if report["segments"]:
        out.print(_segments_table(report["segments"]))
    quota = report["quota"]
    out.print(
        f"Quota: {quota['events_last_minute']:,} of {quota['events_per_minute']:,} events in the last minute, "
        f"{quota['events_this_month']:,} this month."
    )
    out.print("Waiting: " + ", ".join(f"{count:,} {name}" for name, count in report["waiting"].items()) + ".")
    for fault in report["faults"]:
        err.print(f"[red]the counts don't add up:[/] {_plain(fault)}")


@app.command()
def receive(
    environment: EnvironmentOption,
    port: Annotated[int, typer.Option(help="0 takes any free one.", min=0, max=65535)] = 8480,
    host: Annotated[
        str, typer.Option(help="Where to listen; put TLS in front of anything but this machine.")
    ] = "127.0.0.1",
) -> None:
    """Take Userflow's and Heap's webhooks until interrupted."""
    import logging

    from heap_integration.landing import LandingWriter
    from heap_integration.receiver.app import create_app
    from heap_integration.receiver.server import ServerFailed, serve

    settings = _environment(environment)
    variables = read_variables(settings, os.environ)
    userflow, pages = settings.sources.userflow, settings.heap.segment_sync
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with _hub(environment) as hub:
        receiver = create_app(
            store=hub.store,
            landing=LandingWriter(hub.landing),
            userflow_secret=userflow.signing_secret.value(variables) if userflow else None,
            segment_sync_secret=pages.webhook_secret.value(variables) if pages else None,
            segment_sync_id_token=pages.id_token if pages else None,
        )
        try:
            serve(receiver, host, port, lambda url: err.print(f"{environment}: receiving on {url}"))
        except ServerFailed as failed:
            _end(FAILURE, str(failed))


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8470,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    state: Annotated[Path, typer.Option(help="The SQLite file that holds what arrived.")] = Path(
        "data/sandbox-state.db"
    ),
) -> None:
    """Serve stand-ins for Heap and Userflow until interrupted."""
    from heap_integration.sandbox.app import serve

    state.parent.mkdir(parents=True, exist_ok=True)
    err.print(f"sandbox: console on http://{host}:{port}/")
    serve(host, port, state)


@app.command()
def docs(port: Annotated[int, typer.Option(min=1, max=65535)] = 8490) -> None:
    """Serve the documentation on this machine until interrupted."""
    from heap_integration.docs_site import serve

    serve(find_root(), port)


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Run the main job without the UI and end.")] = False,
    days: Annotated[str, typer.Option(help="How many of the last days to send, or all.")] = "14",
    data: Annotated[Path | None, typer.Option(help="Your own events instead of the demo's.", exists=True)] = None,
    mapping: MappingOption = None,
    ends: Annotated[str, typer.Option(help="When the demo's own events end: today, a date, or as-recorded.")] = "today",
    receiver_port: Annotated[int, typer.Option(help="Where the receiver listens.", min=1, max=65535)] = 8480,
) -> None:
    """Run both flows on real input against the sandbox, with the Dagster UI."""
    from heap_integration.demo import Demo, DemoFailed

    if days != "all" and not (days.isdigit() and int(days) > 0):
        _end(USAGE, f"--days is {days!r}: allowed are a number of days and all")
    try:
        number = None if days == "all" else int(days)
        Demo(find_root(), days=number, ends=ends, data=data, mapping=mapping, receiver_port=receiver_port, out=out).run(
            once=once
        )
    except DemoFailed as failed:
        _end(FAILURE, str(failed))


def _environment(name: str) -> Environment:
    root = find_root()
    folder = root / "environments" / name
    if not (folder / FILE_NAME).is_file():
        known = ", ".join(sorted(path.parent.name for path in root.glob(f"environments/*/{FILE_NAME}"))) or "none"
        raise ValueError(f"there is no environment {name!r} ({folder / FILE_NAME}); there are: {known}")
    return load_environment(folder)


@contextmanager
def _hub(name: str) -> Iterator[Hub]:
    from heap_integration.hub import open_hub

    environment = _environment(name)
    with open_hub(environment, read_variables(environment, os.environ)) as hub:
        yield hub


def _existing(file: str) -> Path:
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"there is no file {file}")
    return path


def _mapping(path: Path | None) -> Mapping | None:
    from heap_integration.events.mapping import load_mapping

    return load_mapping(path) if path else None


def _preset(name: str | None) -> Any:
    presets = ("hub", "segment", "rudder", "airbyte")
    if name is not None and name not in presets:
        raise ValueError(f"--preset is {name!r}: allowed are {', '.join(presets)}")
    return name


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield what shows how far a long piece of work is: its name, how many are done, of how many if that is known."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda words, done, total: progress.update(task, description=words, completed=done, total=total)


def _print_counts(title: str, counts: dict[str, int]) -> None:
    table = Table(title=title, title_justify="left")
    for name in counts:
        table.add_column(name, justify="right")
    table.add_row(*(f"{value:,}" for value in counts.values()))
    out.print(table)


def _segments_table(segments: list[dict[str, Any]]) -> Table:
    table = Table(title="Segments", title_justify="left")
    for heading in ("segment", "last sync (UTC)", "+", "−", "same", "refused", "pending"):
        table.add_column(heading, justify="left" if heading == "segment" else "right")
    for row in segments:
        numbers = [f"{row[name]:,}" for name in ("added", "removed", "unchanged", "rejected", "pending")]
        table.add_row(f"{row['segment']} → {row['destination']}", row["finished_at"] or "never", *numbers)
    return table


def _print_reasons(rows: list[tuple[str, str, int]]) -> None:
    for outcome, reason, count in rows:
        out.print(f"  {count:>9,}  {outcome}: {_plain(reason)}")


def _print_json(document: Any) -> None:
    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode() + "\n")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _end(code: int, *messages: str) -> NoReturn:
    for message in messages:
        err.print(f"[red]error:[/] {_plain(message)}", highlight=False)
    raise SystemExit(code)
