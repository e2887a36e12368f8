"""Calls about people and accounts come in the order of time, and what newer has been taken is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_integration.events.event import Event
from heap_integration.events.sources.rows import event_rows
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.events import load_chunk, settle_events
from heap_integration.warehouse.profiles import (
    PROPERTIES_SENT,
    START,
    Kind,
    Position,
    find_newer,
    newer_profiles,
    pending_profiles,
)

FIRST, LAST = date(2026, 1, 1), date(2026, 1, 4)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture
def con(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with Warehouse(f"duckdb:///{tmp_path}/warehouse.duckdb").write() as con:
        yield con


def call(number: int, hours: int, who: str | None = "ada", kind: Any = "identify", **more: Any) -> Event:
    moment = NOON + timedelta(hours=hours)
    return Event(kind, "", who, None, moment, f"message {number:02}", **{"source": "shop", **more})


def load(con: duckdb.DuckDBPyConnection, calls: Sequence[Event], received_at: datetime = LATER) -> None:
    chunk = event_rows(enumerate(calls, start=1), "file", received_at)
    load_chunk(
        con,
        chunk.events,
        chunk.refused,
        origin="file",
        fingerprint="file",
        last_line=chunk.last_line,
        read=chunk.lines,
        unused=chunk.unused,
        complete=True,
    )


def decide(con: duckdb.DuckDBPyConnection, numbers: Sequence[int], status: int = 1, reason: str = "") -> None:
    con.execute("create or replace temp table settling (key uuid, status utinyint, reason varchar, position bigint)")
    for number in numbers:
        con.execute(
            "insert into settling select event_key, ?, ?, 0 from product_events where message_id = ?",
            [status, reason, f"message {number:02}"],
        )
    settle_events(con)


def pages(con: duckdb.DuckDBPyConnection, rows: int = 10, **more: Any) -> list[pa.Table]:
    found: list[pa.Table] = []
    after = START
    while True:
        page = pending_profiles(con, first=FIRST, last=LAST, after=after, rows=rows, **more)
        if not page.num_rows:
            return found
        assert page.num_rows <= rows
        after = Position(page.column("moment")[-1].as_py(), page.column("seq")[-1].as_py())
        found.append(page)


def pending(con: duckdb.DuckDBPyConnection, rows: int = 10, **more: Any) -> list[int]:
    messages = [text for page in pages(con, rows, **more) for text in page.column("message_id").to_pylist()]
    return [int(text.split()[1]) for text in messages]


def newer(con: duckdb.DuckDBPyConnection, kind: Kind, nths: range) -> list[tuple[str, int]]:
    (page,) = pages(con)
    find_newer(con, page)
    found = newer_profiles(con, kind, ["ada", "eve", "Acme"], nths, rows=2)
    return [(row["about"], int(row["message_id"].split()[1])) for batch in found for row in batch.to_pylist()]


@settings(max_examples=30)
@given(
    hours=st.lists(st.integers(-30, 110), min_size=1, max_size=20),
    decided=st.sets(st.integers(0, 19)),
    tracks=st.sets(st.integers(0, 19)),
    withheld=st.sets(st.integers(0, 19)),
    rows=st.integers(1, 7),
)
def test_pages_hold_each_pending_call_once_and_in_the_order_of_time(
    con: duckdb.DuckDBPyConnection,
    hours: list[int],
    decided: set[int],
    tracks: set[int],
    withheld: set[int],
    rows: int,
) -> None:
    for table in ("product_events", "event_outcomes", "loaded_inputs"):
        con.execute(f"delete from {table}")
    kinds = {number: "track" if number in tracks else "identify" for number in range(20)}
    sources = {number: "withheld" if number in withheld else "shop" for number in range(20)}
    load(con, [call(number, at, kind=kinds[number], source=sources[number]) for number, at in enumerate(hours)])
    decide(con, [number for number in decided if number < len(hours)])
    in_days = [number for number, at in enumerate(hours) if FIRST <= (NOON + timedelta(hours=at)).date() <= LAST]
    wanted = sorted((n for n in in_days if n not in tracks | withheld), key=lambda number: (hours[number], number))

    assert pending(con, rows, without_sources=["withheld"]) == [n for n in wanted if n not in decided]
    assert pending(con, rows, without_sources=["withheld"], resend=True) == wanted
    assert pending(con, rows, without_sources=["*"]) == []


def test_a_call_is_never_newer_than_its_arrival(con: duckdb.DuckDBPyConnection) -> None:
    load(con, [call(1, hours=60), call(2, hours=1)], received_at=NOON)

    assert pending(con) == [1, 2]


def test_what_was_suppressed_on_arrival_never_goes_out(con: duckdb.DuckDBPyConnection) -> None:
    load(con, [call(1, hours=1, suppressed="switched off"), call(2, hours=2)])

    assert pending(con, resend=True) == [2]


def test_newer_calls_that_heap_has_taken_are_found_by_person_and_by_account(con: duckdb.DuckDBPyConnection) -> None:
    acme = {"kind": "group", "context": {"groupId": "Acme"}}
    load(
        con,
        [
            call(1, hours=5, who=" ada\u00a0"),
            call(2, hours=5, who="eve", **acme),
            call(3, hours=6),
            call(4, hours=4),
            call(5, hours=6, who="bob"),
            call(6, hours=7, who="ada", kind="track"),
            call(7, hours=8, who=None, kind="group", context={"groupId": " Acme "}),
            call(8, hours=8, who="bob", kind="group", context={"groupId": "Other"}),
            call(9, hours=9),
            call(10, hours=10),
            call(11, hours=11, who="eve", kind="alias"),
        ],
    )
    decide(con, [3, 4, 5, 6, 7, 8, 11])
    decide(con, [9], 2, f"Heap would drop it{PROPERTIES_SENT}")
    decide(con, [10], 2, "wrong")

    everything = range(1, 100)
    assert newer(con, "account", everything) == [("Acme", 7)]
    assert sorted(newer(con, "user", range(1, 2))) == [("ada", 9), ("eve", 11)]
    assert newer(con, "user", range(2, 100)) == [("ada", 3)]
