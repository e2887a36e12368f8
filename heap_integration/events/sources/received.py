"""What the receiver has landed, turned into events by the adapter of its source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import orjson

from heap_integration.events.event import Event, Refusal
from heap_integration.events.sources import customerio, heap_webhooks, segment, userflow, userpilot
from heap_integration.events.sources.landed import WRITE_KEY, Landed
from heap_integration.events.sources.rows import Chunk, Rows
from heap_integration.events.sources.streams import Lines
from heap_integration.events.sources.values import Unreadable, shown

Adapter = Callable[[Landed], Iterator[Event | Refusal | None]]

# Names in landing lines: a line of an adapter that is gone can't be read any more.
ADAPTERS: dict[str, Adapter] = {
    "userflow": userflow.read_landed,
    "userflow_events": userflow.read_landed_events,
    "userpilot": userpilot.read_landed,
    "segment": segment.read_landed,
    "customerio": customerio.read_landed,
    "heap_webhooks": heap_webhooks.read_landed,
}

CHUNK_ROWS = 20_000
_SHOWN_CHARACTERS = 2_000


def read_landing(
    stream: BinaryIO, origin: str, *, after_line: int = 0, chunk_rows: int = CHUNK_ROWS
) -> Iterator[Chunk]:
    """Read the landing lines of ``stream`` after ``after_line``; ``origin`` is what they are called.

    A line may hold a batch: each call of it counts, and a chunk ends with a line. What is refused is kept as
    a landing line of its own, which holds that call alone and can be read again.
    """
    lines = ((number, line) for number, line in Lines(stream) if number > after_line)
    yield from read_landed_lines(lines, origin, chunk_rows=chunk_rows)


def read_landed_lines(
    lines: Iterable[tuple[int, bytes | None]], origin: str, *, chunk_rows: int = CHUNK_ROWS
) -> Iterator[Chunk]:
    """Read numbered landing lines, such as those that were refused; ``None`` stands for one that is too long."""
    rows = Rows(origin)
    number = 0
    for number, line in lines:
        if line is None:
            rows.refuse(number, "longer than a landing line can be", "")
        elif not line.isspace():
            _land(rows, number, line)
        if rows.full(chunk_rows):
            yield rows.chunk(number)
    if rows.lines:
        yield rows.chunk(number)


def _land(rows: Rows, number: int, line: bytes) -> None:
    try:
        landed = Landed.read(orjson.loads(line))
    except (orjson.JSONDecodeError, Unreadable) as error:
        rows.refuse(number, f"not a landing line: {error}", _text(line)[:_SHOWN_CHARACTERS])
        return
    adapter = ADAPTERS.get(landed.adapter)
    if landed.refused or adapter is None:
        rows.refuse(number, landed.refused or f"unknown adapter {shown(landed.adapter)}", _text(line))
        return
    for event in adapter(landed):
        if isinstance(event, Refusal):
            rows.refuse(number, event.reason, event.raw or _kept(landed, line))
            continue
        if event is not None:
            event.source = landed.source
        rows.add(number, event, landed.received_at, suppressed=landed.suppressed)


def _kept(landed: Landed, line: bytes) -> str:
    # the text as it came is exact, also in numbers that a parser rounds
    return landed.text(landed.body) if landed.body.get(WRITE_KEY) is not None else _text(line)


def _text(line: bytes) -> str:
    return line.decode(errors="backslashreplace").rstrip("\r\n")
