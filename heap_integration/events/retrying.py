"""Gives what was rejected another chance, by today's rules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from uuid import uuid4

from heap_integration.events.sources.received import read_landed_lines
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.events import (
    Chosen,
    Loaded,
    days_after,
    forget_rejections,
    load_chunk,
    newest_event,
    take_refused_lines,
)

ORIGIN = "retry"


@dataclass(frozen=True)
class Retried:
    """What is to be prepared again: so many events, so many lines with what became of them, on these days."""

    events: int
    lines: int
    loaded: Loaded
    days: frozenset[date]


def retry(warehouse: Warehouse, chosen: Chosen) -> Retried:
    """Make the chosen events pending, and read the chosen lines once more, all in one transaction."""
    mark = f"{ORIGIN}-{uuid4()}"
    with warehouse.write() as con:
        before = newest_event(con)
        forgotten = forget_rejections(con, chosen)
        lines = take_refused_lines(con, chosen)
        loaded = Loaded(refused=-len(lines))
        for chunk in read_landed_lines(enumerate(lines, start=1), ORIGIN):
            loaded += load_chunk(
                con,
                chunk.events,
                chunk.refused,
                origin=ORIGIN,
                fingerprint=mark,
                last_line=chunk.last_line,
                # They were counted as read when they were refused.
                read=0,
                unused=chunk.unused,
                complete=False,
            )
        days = days_after(con, before) | forgotten.keys()
    return Retried(sum(forgotten.values()), len(lines), loaded, frozenset(days))
