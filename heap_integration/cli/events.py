"""Commands that move events."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from heap_integration.cli.terminal import (
    FAILURE,
    EnvironmentOption,
    JsonOption,
    MappingOption,
    app,
    end,
    environment_of,
    err,
    existing,
    mapping_of,
    open_environment,
    out,
    preset_of,
    print_counts,
    print_json,
    print_reasons,
    progress,
)
from heap_integration.environment import read_variables

if TYPE_CHECKING:
    from datetime import date

    from heap_integration.delivery.records import Tally
    from heap_integration.hub import Hub
    from heap_integration.warehouse.events import Chosen

TOLD_SECONDS = 60.0


@app.command("preview-events")
def preview_events(
    file: Annotated[
        str,
        typer.Argument(
            help="NDJSON, a JSON array, CSV (plain, gz or zst), Avro or Parquet; - reads NDJSON from standard input."
        ),
    ],
    environment: EnvironmentOption,
    mapping: MappingOption = None,
    preset: Annotated[str | None, typer.Option(help="hub, segment, rudder or airbyte.")] = None,
) -> None:
    """Print each request exactly as it would go out, and each line that would not with its reason. Sends nothing."""
    from heap_integration.events.prepare import Preparer
    from heap_integration.events.preview import preview
    from heap_integration.events.profiles import ProfilePreparer
    from heap_integration.hub import prepare_settings

    settings = environment_of(environment)
    preparer = Preparer(prepare_settings(settings, read_variables(settings, os.environ), preset_of(preset)))
    profiles = ProfilePreparer(preparer, settings.heap.account_id_property)
    source = sys.stdin.buffer if file == "-" else existing(file)
    heap = settings.heap
    for item in preview(source, mapping_of(mapping), preparer, profiles, url=heap.url, app_id=heap.app_id):
        sys.stdout.buffer.write(orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.flush()


@app.command("send-events")
def send_events(
    file: Annotated[
        Path,
        typer.Argument(
            help="NDJSON, a JSON array, CSV (plain, gz or zst), Avro or Parquet.", exists=True, dir_okay=False
        ),
    ],
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

    rules, chosen = mapping_of(mapping), preset_of(preset)
    stopped = ""
    notes: dict[str, int] = {}
    with open_environment(environment) as hub, progress(as_json) as show:
        hub.load_file(file, rules, lambda so_far: show("loading", so_far.read, None))
        mark = file_mark(file, rules)
        with hub.warehouse.read() as con:
            before = origin_counts(con, mark)
        if before.first_day and before.last_day:
            stopped, notes = _send_days(hub, [(before.first_day, before.last_day)], chosen, resend, show)
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
        print_json({**counts, "reasons": dict(reasons), "notes": notes, "stopped": stopped or None})
    else:
        print_counts(f"{file.name} → Heap {hub.environment.heap.app_id}", counts)
        print_reasons([("not sent", reason, count) for reason, count in reasons])
        print_reasons([("note", note, count) for note, count in notes.items()])
    if stopped:
        end(FAILURE, f"{stopped}. What is pending goes out when the command is run again.")


def _send_days(
    hub: Hub, days: Iterable[tuple[date, date]], preset: Any, resend: bool, show: Callable[[str, int, int | None], None]
) -> tuple[str, dict[str, int]]:
    """Send what is pending on some days; return why it stopped early, if it did, and what was noted on the way."""
    from heap_integration.delivery.engine import DeliveryStopped
    from heap_integration.warehouse.events import day_counts

    ranges = list(days)
    with hub.warehouse.read() as con:
        counted = [day for first, last in ranges for day in day_counts(con, first, last)]
    total = sum(day.read if resend else day.pending for day in counted)
    deliveries = hub.deliveries(preset)
    stopped = ""
    try:
        for first, last in ranges:
            deliveries.send(
                first, last, resend=resend, progress=lambda tally: show("sending", tally.statuses.total(), total)
            )
    except DeliveryStopped as error:
        stopped = str(error)
    finally:
        deliveries.close()
    return stopped, dict(deliveries.notes.most_common())


@app.command()
def stream(environment: EnvironmentOption) -> None:
    """Send what the receiver takes within two seconds, until interrupted. Safe beside Dagster."""
    import signal
    from threading import Event

    from heap_integration.streaming import Streaming

    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with open_environment(environment) as hub:
        deliveries = hub.deliveries()
        told = _Told()
        err.print(f"{environment}: streaming to Heap {hub.environment.heap.app_id}")
        try:
            Streaming(hub, deliveries, told.add).run(stop)
        finally:
            deliveries.close()
            told.tell()


class _Told:
    """What was streamed since it was last told, which is once a minute at most."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._at = time.monotonic()

    def add(self, tally: Tally) -> None:
        """Take what a delivery did."""
        self._counts += Counter(sent=tally.accepted, rejected=tally.rejected, suppressed=tally.suppressed)
        if self._counts and time.monotonic() - self._at >= TOLD_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Print it, if there is anything."""
        if self._counts:
            err.print(", ".join(f"{count:,} {name}" for name, count in self._counts.items()))
        self._counts.clear()
        self._at = time.monotonic()


ReasonOption = Annotated[str, typer.Option(help="Only those whose reason holds this text, in any case.")]
DayOption = Annotated[str | None, typer.Option(help="Only those of this UTC day, such as 2026-01-02.")]
SuppressedOption = Annotated[bool, typer.Option("--suppressed", help="Those that a rule kept back, too.")]


@app.command()
def rejected(
    environment: EnvironmentOption,
    reason: ReasonOption = "",
    day: DayOption = None,
    suppressed: SuppressedOption = False,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 100,
) -> None:
    """Print rejected events and refused lines, a JSON object each: why, what they hold and where they come from."""
    from heap_integration.warehouse.events import rejected as find

    with open_environment(environment) as hub:
        hub.settle()
        with hub.warehouse.read() as con:
            rows = find(con, _chosen(reason, day, suppressed), limit)
    for row in rows:
        known = {name: value for name, value in row.items() if value is not None}
        sys.stdout.buffer.write(orjson.dumps(known, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.flush()


@app.command()
def retry(
    environment: EnvironmentOption,
    reason: ReasonOption = "",
    day: DayOption = None,
    suppressed: SuppressedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Prepare rejected events and refused lines again, by today's rules, and send what passes now."""
    from heap_integration.events.days import day_ranges
    from heap_integration.warehouse.events import day_counts

    chosen = _chosen(reason, day, suppressed)
    with open_environment(environment) as hub, progress(as_json) as show:
        retried = hub.retry(chosen)
        ranges = day_ranges(set(retried.days), "all")
        with hub.warehouse.read() as con:
            before = [count for first, last in ranges for count in day_counts(con, first, last)]
        stopped, notes = _send_days(hub, ranges, None, False, show)
        with hub.warehouse.read() as con:
            after = [count for first, last in ranges for count in day_counts(con, first, last)]
    counts = {
        "events": retried.events,
        "lines": retried.lines,
        "sent": sum(count.accepted for count in after) - sum(count.accepted for count in before),
        "rejected": sum(count.rejected for count in after) - sum(count.rejected for count in before),
        "suppressed": sum(count.suppressed for count in after) - sum(count.suppressed for count in before),
        "refused": retried.loaded.refused + retried.lines,
        "pending": sum(count.pending for count in after),
    }
    if as_json:
        print_json({**counts, "notes": notes, "stopped": stopped or None})
    else:
        print_counts(f"rejected → Heap {hub.environment.heap.app_id}", counts)
        print_reasons([("note", note, count) for note, count in notes.items()])
    if stopped:
        end(FAILURE, f"{stopped}. What is pending goes out with the next run.")


@app.command("opt-out")
def opt_out(
    environment: EnvironmentOption,
    identities: Annotated[list[str], typer.Argument(help="Whose events and properties aren't sent to Heap any more.")],
    undo: Annotated[bool, typer.Option("--undo", help="Take them off the list.")] = False,
) -> None:
    """Keep the opt-out list: nothing of who is on it is sent, whatever a source says."""
    from heap_integration.events.opt_outs import count_opt_outs, opt_in
    from heap_integration.events.opt_outs import opt_out as put

    with open_environment(environment) as hub:
        changed = opt_in(hub.store, identities) if undo else put(hub.store, identities, "command line")
        out.print(f"{changed:,} {'taken off' if undo else 'put on'} the list; {count_opt_outs(hub.store):,} are on it")


def _chosen(reason: str, day: str | None, suppressed: bool) -> Chosen:
    from datetime import date

    from heap_integration.warehouse.events import Chosen

    try:
        days = {"first": date.fromisoformat(day), "last": date.fromisoformat(day)} if day else {}
    except ValueError:
        raise ValueError(f"--day is {day!r}: allowed is a date such as 2026-01-02") from None
    return Chosen(reason=reason, suppressed=suppressed, **days)
