"""What the receiver has landed, turned into events by the adapter of its source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from heap_integration.events.event import Event, Refusal
from heap_integration.events.sources.rows import Chunk, Rows
from heap_integration.events.sources.streams import Lines
from heap_integration.events.sources.userflow import event_from_notification
from heap_integration.events.sources.values import parse_time, shown

Adapter = Callable[[dict[str, Any]], Event | Refusal | None]

ADAPTERS: dict[str, Adapter] = {"userflow": event_from_notification}


def read_landing(path: Path, *, after_line: int = 0, chunk_rows: int = 20_000) -> Iterator[Chunk]:
    """Read a sealed landing segment after ``after_line``: a line is {"id", "received_at", "source", "body"}."""
    rows = Rows(str(path))
    number = 0
    with path.open("rb") as file:
        for number, line in Lines(file):
            if number <= after_line:
                continue
            if line is None:
                rows.refuse(number, "longer than a landing line can be", "")
            elif not line.isspace():
                _land(rows, number, line)
            if rows.full(chunk_rows):
                yield rows.chunk(number)
    if rows.lines:
        yield rows.chunk(number)


def _land(rows: Rows, number: int, line: bytes) -> None:
    raw = line.decode(errors="backslashreplace").rstrip("\r\n")
    try:
        landed = orjson.loads(line)
        received_at = parse_time(landed["received_at"])
        source, body = landed["source"], landed["body"]
    except (ValueError, LookupError, TypeError) as error:
        rows.refuse(number, f"not a landing line: {error}", raw)
        return
    adapter = ADAPTERS.get(source) if isinstance(source, str) else None
    if adapter is None:
        rows.refuse(number, f"unknown source {shown(source)}", raw)
    elif received_at is None or not isinstance(body, dict):
        rows.refuse(number, "not a landing line: received_at or the body's JSON object is missing", raw)
    else:
        event = adapter(body)
        rows.add(number, Refusal(event.reason, raw) if isinstance(event, Refusal) else event, received_at)
