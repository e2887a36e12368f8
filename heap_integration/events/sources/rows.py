"""Events and refusals of one origin, gathered into tables for the warehouse."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from heap_integration.events.encoding import encode
from heap_integration.events.event import Event, Refusal
from heap_integration.events.keys import event_key
from heap_integration.events.sources.values import EPOCH
from heap_integration.warehouse.schema import EVENT_SCHEMA, REJECT_SCHEMA

# what a chunk may hold in memory besides its number of rows
_CHUNK_BYTES = 16_000_000
# as Python objects the rows of a whole chunk would cost several times the memory
_PIECE_ROWS = 4_096
_MICROSECOND = timedelta(microseconds=1)
# Whoever corrects a rule reads a refused line again: it is kept whole, but for what no client sends.
_RAW_CHARACTERS = 1_000_000


@dataclass(slots=True, frozen=True)
class Chunk:
    """A part of a file.

    ``events`` has EVENT_SCHEMA, ``refused`` REJECT_SCHEMA. ``lines`` counts what was read:
    events, refused and ``unused`` (read, understood, not an event). ``last_line`` is where reading resumes.
    """

    events: pa.Table
    refused: pa.Table
    last_line: int
    lines: int
    unused: int = 0


class Rows:
    """Gathers rows until they make a chunk."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self._received_at: datetime | None = None
        self._received = 0
        self._start()

    def _start(self) -> None:
        self._events: list[tuple[Any, ...]] = []
        self._pieces: list[pa.Table] = []
        self._refused: list[tuple[str, int, str, str]] = []
        self._unused = 0
        self.lines = 0
        self._bytes = 0

    def add(
        self, line: int, event: Event | Refusal | None, received_at: datetime, suppressed: str | None = None
    ) -> None:
        """Take one line's event, its refusal, or ``None`` for a line of no use.

        ``suppressed`` is why the event is kept and never sent, unless it has a reason of its own.
        """
        if event is None:
            self._unused += 1
            self.lines += 1
            return
        if isinstance(event, Refusal):
            self.refuse(line, event.reason, event.raw)
            return
        if received_at is not self._received_at:
            # a file's rows share one moment: Arrow takes a number ten times faster than a datetime
            self._received_at = received_at
            self._received = (received_at - EPOCH) // _MICROSECOND
        try:
            properties = encode(event.properties)
            traits = encode(event.traits) if event.traits else b"{}"
            context = encode(event.context) if event.context else b"{}"
            row = (
                event_key(event),
                event.message_id.encode(),
                event.type,
                event.name.encode(),
                event.user_id and event.user_id.encode(),
                event.anonymous_id and event.anonymous_id.encode(),
                event.timestamp or received_at,
                self._received,
                event.source,
                properties,
                traits,
                context,
                self.origin,
                line,
                event.suppressed or suppressed or None,
            )
        except (TypeError, UnicodeError) as error:
            self.refuse(line, f"no JSON form: {error}", "")
            return
        self._events.append(row)
        self.lines += 1
        self._bytes += len(properties) + len(traits) + len(context)
        if len(self._events) >= _PIECE_ROWS:
            self._pieces.append(_table(self._events, EVENT_SCHEMA))
            self._events = []

    def full(self, chunk_rows: int) -> bool:
        """Say whether it is time for a chunk."""
        return self.lines >= chunk_rows or self._bytes >= _CHUNK_BYTES

    def refuse(self, line: int, reason: str, raw: str) -> None:
        """Take one line that is no event."""
        kept = raw[:_RAW_CHARACTERS]
        self._refused.append((self.origin, line, _utf8(reason), _utf8(kept)))
        self.lines += 1
        self._bytes += len(kept)

    def chunk(self, last_line: int) -> Chunk:
        """Return what was gathered and start anew."""
        chunk = Chunk(
            events=pa.concat_tables([*self._pieces, _table(self._events, EVENT_SCHEMA)]),
            refused=_table(self._refused, REJECT_SCHEMA),
            last_line=last_line,
            lines=self.lines,
            unused=self._unused,
        )
        self._start()
        return chunk


def event_rows(events: Iterable[tuple[int, Event | Refusal | None]], origin: str, received_at: datetime) -> Chunk:
    """Return one chunk of the numbered ``events``; ``None`` counts as unused."""
    rows = Rows(origin)
    last_line = 0
    for line, event in events:
        rows.add(line, event, received_at)
        last_line = line
    return rows.chunk(last_line)


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    if not rows:
        return schema.empty_table()
    columns = zip(*rows, strict=True)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def _utf8(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
