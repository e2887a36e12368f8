"""Events are loaded once, and exactly those without an outcome are pending."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_integration.events.event import Event
from heap_integration.events.sources.rows import event_rows
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.events import (
    Loaded,
    balance,
    day_counts,
    load_chunk,
    origin_counts,
    origin_reasons,
    pending_days,
    pending_events,
    reasons,
    settle_events,
)

FIRST, LAST = date(2026, 1, 1), date(2026, 1, 4)
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def con(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with Warehouse(f"duckdb:///{tmp_path}/warehouse.duckdb").write() as con:
        yield con


def event(number: int, day: int = 0, source: str = "shop") -> Event:
    return Event(
        type="track",
        name="Bought",
        message_id=f"message-{number}",
        user_id=f"user {number}",
        anonymous_id=None,
        timestamp=datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=day),
        source=source,
    )


def load(con: duckdb.DuckDBPyConnection, events: list[Event], origin: str = "file") -> Loaded:
    chunk = event_rows(enumerate(events, start=1), origin, NOW)
    return load_chunk(
        con,
        chunk.events,
        chunk.refused,
        origin=origin,
        fingerprint=origin,
        last_line=chunk.last_line,
        read=chunk.lines,
        unused=chunk.unused,
        complete=True,
    )


def decide(con: duckdb.DuckDBPyConnection, outcomes: Sequence[tuple[int, int]]) -> None:
    """Settle outcomes, (number of the event, status), in this order."""
    con.execute("create or replace temp table settling (key uuid, status utinyint, reason varchar, position bigint)")
    for position, (number, status) in enumerate(outcomes):
        con.execute(
            "insert into settling select event_key, ?, 'why', ? from product_events where message_id = ?",
            [status, position, f"message-{number}"],
        )
    settle_events(con)


def pending(con: duckdb.DuckDBPyConnection, rows: int = 10, **more: Any) -> list[str]:
    """Return the pending message ids, asked for in pieces as a delivery does."""
    found: list[str] = []
    after = 0
    while True:
        table = pending_events(con, first=FIRST, last=LAST, after=after, rows=rows, **more)
        if not table.num_rows:
            return found
        assert table.num_rows <= rows
        after = table.column("seq")[-1].as_py()
        found += table.column("message_id").to_pylist()


def ids(numbers: list[int]) -> list[str]:
    return [f"message-{number}" for number in numbers]


def test_an_event_is_loaded_once_however_often_it_is_read(con: duckdb.DuckDBPyConnection) -> None:
    assert load(con, [event(1), event(2), event(1), event(3)]) == Loaded(4, 3, 1)
    assert load(con, [event(3), event(4), event(4)], "other") == Loaded(3, 1, 2)
    assert load(con, [event(1), event(2)], "known") == Loaded(2, 0, 2)
    rows = con.execute("select seq, message_id, origin, line from product_events order by seq").fetchall()
    assert rows == [
        (1, "message-1", "file", 1),
        (2, "message-2", "file", 2),
        (3, "message-3", "file", 4),
        (4, "message-4", "other", 2),
    ]
    assert balance(con).faults == []


def test_sequence_numbers_follow_the_lines_of_a_large_piece(con: duckdb.DuckDBPyConnection) -> None:
    numbers = [*range(5_000), *range(100), *range(5_000, 9_000)]
    assert load(con, [event(number) for number in numbers]).duplicates == 100
    rows = con.execute("select message_id from product_events order by seq").fetchall()
    assert [message for (message,) in rows] == ids(list(range(9_000)))
    assert con.execute("select min(seq), max(seq), count(distinct seq) from product_events").fetchone() == (
        1,
        9_000,
        9_000,
    )
    assert pending(con, rows=1_000) == ids(list(range(9_000)))


def test_keys_come_back_as_they_went_in(con: duckdb.DuckDBPyConnection) -> None:
    chunk = event_rows([(1, event(1))], "file", NOW)
    load(con, [event(1)])
    table = pending_events(con, first=FIRST, last=LAST, after=0, rows=1)
    assert table.column("event_key").to_pylist() == chunk.events.column("event_key").to_pylist()
    assert table.column("timestamp").to_pylist() == ["2026-01-01T12:00:00.000Z"]
    stored = con.execute("select event_key from product_events").fetchone()
    assert stored == (uuid.UUID(bytes=table.column("event_key")[0].as_py()),)


@settings(max_examples=40)
@given(
    days=st.lists(st.integers(-1, 5), min_size=1, max_size=120),
    decided=st.sets(st.integers(0, 119)),
    withheld=st.sets(st.integers(0, 119)),
    rows=st.integers(1, 40),
)
def test_pieces_hold_each_pending_event_of_the_days_once_and_in_order(
    con: duckdb.DuckDBPyConnection, days: list[int], decided: set[int], withheld: set[int], rows: int
) -> None:
    for table in ("product_events", "event_outcomes", "loaded_inputs"):
        con.execute(f"delete from {table}")
    source = {number: "withheld" if number in withheld else "shop" for number in range(len(days))}
    load(con, [event(number, day, source[number]) for number, day in enumerate(days)])
    decide(con, [(number, 1) for number in decided])
    wanted = [number for number, day in enumerate(days) if 0 <= day <= 3 and number not in withheld]
    open_ones = [number for number in wanted if number not in decided]
    assert pending(con, rows, without_sources=["withheld"]) == ids(open_ones)
    assert pending(con, rows, without_sources=["withheld"], resend=True) == ids(wanted)
    found = pending_days(con, ["withheld"])
    assert sum(count for day, (count, _) in found.items() if FIRST <= day <= LAST) == len(open_ones)
    assert sum(day.pending for day in day_counts(con, FIRST, LAST)) == len(
        [number for number, day in enumerate(days) if 0 <= day <= 3 and number not in decided]
    )


def test_of_several_outcomes_the_last_one_counts(con: duckdb.DuckDBPyConnection) -> None:
    load(con, [event(1), event(2), event(3)])
    decide(con, [(1, 2), (2, 2), (2, 1)])
    (counts,) = day_counts(con, FIRST, LAST)
    assert (counts.rejected, counts.accepted, counts.pending) == (1, 1, 1)
    decide(con, [(1, 1), (3, 3)])
    (counts,) = day_counts(con, FIRST, LAST)
    assert (counts.rejected, counts.accepted, counts.suppressed, counts.pending) == (0, 2, 1, 0)
    found = origin_counts(con, "file")
    assert (found.read, found.accepted, found.suppressed, found.pending) == (3, 2, 1, 0)
    assert origin_reasons(con, "file") == [("why", 1)]
    assert reasons(con) == [("suppressed", "why", 1)]
    assert con.execute("select count(*) from event_outcomes").fetchone() == (3,)
    assert balance(con).faults == []
