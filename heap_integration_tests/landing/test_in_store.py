"""Lines in the store come out once, whole and in segments that never change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event, insert

from heap_integration.landing import LandingClosed, Segment, StoreArrivals, StoreLanding
from heap_integration.store import Store
from heap_integration.store.tables import landing_lines
from heap_integration_tests.store.conftest import postgres, postgres_database, url

__all__ = ["postgres", "postgres_database", "url"]


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(url)
    yield opened
    opened.close()


def land(store: Store, *lines: bytes) -> None:
    """Append all lines at once and close."""

    async def append_all() -> None:
        landing = StoreLanding(store)
        await asyncio.gather(*map(landing.append, lines))
        await landing.close()

    asyncio.run(append_all())


def content(segment: Segment) -> list[bytes]:
    with segment.open() as lines:
        return lines.read().splitlines()


def test_lines_come_out_in_the_order_of_their_arrival_and_are_gone_when_removed(store: Store) -> None:
    arrivals = StoreArrivals(store, segment_rows=40)
    assert not arrivals.has_waiting()
    sent = [b'{"n":%d}' % number for number in range(100)]
    land(store, *sent)
    assert arrivals.has_waiting()
    segments = arrivals.waiting()
    assert [len(content(segment)) for segment in segments] == [40, 40, 20]
    assert [line for segment in segments for line in content(segment)] == sent
    for segment in segments:
        segment.remove()
        segment.remove()
    assert arrivals.waiting() == []
    assert not arrivals.has_waiting()


def test_a_segment_never_changes_and_its_name_is_never_used_again(store: Store) -> None:
    arrivals = StoreArrivals(store)
    land(store, b"first")
    (first,) = arrivals.waiting()
    land(store, b"second")
    assert arrivals.waiting()[0].name == first.name
    assert content(first) == [b"first"]
    names = set()
    for number in range(3):
        for segment in arrivals.waiting():
            names.add(segment.name)
            segment.remove()
        land(store, b"%d" % number)
    assert len(names) == 4
    assert sorted(names)[0] == first.name


def test_what_arrives_together_is_one_transaction(store: Store) -> None:
    commits: list[object] = []
    event.listen(store._engine, "commit", commits.append)
    land(store, *[b"x" * 1000] * 3000)
    assert len(commits) == 1
    assert sum(len(content(segment)) for segment in StoreArrivals(store).waiting()) == 3000


def test_lines_that_are_committed_late_get_a_segment_of_their_own(postgres_database: str) -> None:
    store = Store(postgres_database)
    arrivals = StoreArrivals(store)
    with store.begin() as slow:
        slow.execute(insert(landing_lines).values(line=b"late"))
        land(store, b"early")
        (early,) = arrivals.waiting()
        assert content(early) == [b"early"]
    assert sorted(content(segment) for segment in arrivals.waiting()) == [[b"early"], [b"late"]]
    assert content(early) == [b"early"]
    store.close()


def test_two_loaders_never_see_a_line_in_two_segments(store: Store) -> None:
    sent = [b"%d" % number for number in range(500)]
    land(store, *sent)
    with ThreadPoolExecutor(4) as loaders:
        seen = list(loaders.map(lambda _: StoreArrivals(store, segment_rows=7).waiting(), range(4)))
    segments = {segment.name: segment for found in seen for segment in found}
    assert sorted(line for segment in segments.values() for line in content(segment)) == sorted(sent)


def test_a_large_segment_is_read_piece_by_piece(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = [bytes([97 + number % 26]) * 300_000 for number in range(20)]
    land(store, *sent)
    (segment,) = StoreArrivals(store).waiting()
    statements: list[str] = []
    event.listen(store._engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    with segment.open() as lines:
        assert lines.readline() == sent[0] + b"\n"
        first_line_took = len(statements)
        assert [line.rstrip() for line in lines] == sent[1:]
    assert len(statements) > first_line_took + 3


def test_reading_what_somebody_else_has_removed_fails(store: Store) -> None:
    land(store, *[b"x" * 300_000] * 10)
    (segment,) = StoreArrivals(store).waiting()
    with segment.open() as lines:
        lines.readline()
        segment.remove()
        with pytest.raises(RuntimeError, match="removed"):
            lines.read()
    with segment.open() as lines, pytest.raises(RuntimeError, match="removed"):
        lines.read()


def test_a_closed_landing_takes_nothing_and_an_open_one_says_that_it_is_ready(store: Store) -> None:
    async def use() -> None:
        landing = StoreLanding(store)
        before = time.monotonic()
        await landing.append(b"line")
        assert before < (landing.last_durable or 0) <= time.monotonic()
        assert landing.ready() == ""
        await landing.close()
        await landing.close()
        with pytest.raises(LandingClosed):
            await landing.append(b"late")

    asyncio.run(use())
