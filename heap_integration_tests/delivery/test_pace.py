"""The windows of a destination are never exceeded, and their budget is used."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_integration.delivery.pace import Pace
from heap_integration.delivery.records import Record, Window
from heap_integration.store import Store

ALL = Window(100, 60.0)
EACH = Window(10, 60.0, per_key=True)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def records(count: int, key: str = "a") -> list[Record]:
    return [Record(number.to_bytes(16, "big"), number, key) for number in range(count)]


def test_the_window_over_all_records_is_used_up_but_not_in_crumbs(store: Store) -> None:
    clock = Clock()
    pace = Pace(store, "heap", [ALL], clock)
    assert len(pace.ask(records(60)).records) == 60
    part = pace.ask(records(60))
    assert [record.payload for record in part.records] == list(range(40))
    assert [record.payload for record in part.held] == list(range(40, 60))
    clock.now += 30
    refused = pace.ask(records(60))
    assert (refused.records, len(refused.held)) == ([], 60)
    assert 30 <= refused.wait <= 31
    clock.now += refused.wait + 0.001
    assert len(pace.ask(records(60)).records) == 60


def test_what_does_not_fit_into_a_window_keeps_its_order(store: Store) -> None:
    pace = Pace(store, "heap", [ALL, EACH], Clock())
    pace.ask([record for key in "abcdefghi" for record in records(10, key)])
    mixed = [record for pair in zip(records(15, "busy"), records(15, "calm"), strict=True) for record in pair]
    grant = pace.ask(mixed)
    assert grant.records == mixed[:10]
    assert grant.held == mixed[10:]


def test_a_busy_identity_steps_aside_for_the_others(store: Store) -> None:
    pace = Pace(store, "heap", [ALL, EACH], Clock())
    grant = pace.ask([*records(30, "busy"), *records(5, "calm")])
    assert [record.pace_key for record in grant.records] == ["busy"] * 10 + ["calm"] * 5
    assert len(grant.held) == 20
    assert grant.closed == {"busy"}


def test_two_processes_share_one_budget(store: Store) -> None:
    clock = Clock()
    one, other = Pace(store, "heap", [ALL, EACH], clock), Pace(store, "heap", [ALL, EACH], clock)
    assert len(one.ask(records(10)).records) == 10
    assert other.ask(records(1)).records == []
    assert other.used(ALL) == 10
    assert len(Pace(store, "another environment's", [ALL], clock).ask(records(100)).records) == 100


def test_a_share_of_the_window_stays_free_for_others(store: Store) -> None:
    clock = Clock()
    backfill, live = Pace(store, "heap", [ALL, EACH], clock), Pace(store, "heap", [ALL, EACH], clock)
    people = [record for key in "abcdefghijkl" for record in records(9, key)]
    assert len(backfill.ask(people, reserve=0.2).records) == 80
    assert backfill.ask(records(5, "m"), reserve=0.2).records == []
    assert len(live.ask(records(10, "z")).records) == 10
    waits = backfill.ask(records(5, "m"), reserve=0.2)
    assert (waits.records, 60 <= waits.wait <= 61) == ([], True)
    assert len(live.ask(records(10, "y")).records) == 10
    clock.now += waits.wait + 0.001
    assert len(backfill.ask(people, reserve=0.2).records) == 80


@pytest.mark.parametrize("step", [3_600.0, 30 * 86_400.0])
def test_a_clock_that_is_set_back_neither_blocks_nor_forgets(store: Store, step: float) -> None:
    clock = Clock()
    one, other = Pace(store, "heap", [ALL], clock), Pace(store, "heap", [ALL], clock)
    one.ask(records(100))
    clock.now -= step
    for pace in (one, other):
        refused = pace.ask(records(50))
        assert (refused.records, 60 <= refused.wait <= 61) == ([], True)
    clock.now += 61
    assert len(other.ask(records(100)).records) == 100
    assert one.ask(records(1)).records == []


def test_a_small_step_back_of_the_clock_costs_no_more_than_itself(store: Store) -> None:
    clock = Clock()
    pace = Pace(store, "heap", [ALL], clock)
    pace.ask(records(100))
    clock.now -= 20
    assert 80 <= pace.ask(records(50)).wait <= 81


def test_an_answer_that_took_longer_than_the_window_still_counts(store: Store) -> None:
    clock = Clock()
    pace, other = Pace(store, "heap", [ALL, EACH], clock), Pace(store, "heap", [ALL, EACH], clock)
    grant = pace.ask(records(10))
    clock.now += 300
    assert other.used(ALL) == 0
    with store.begin() as connection:
        pace.done(grant, connection)
    assert other.used(ALL) == 10
    assert pace.ask(records(1)).records == []


@settings(max_examples=40)
@given(steps=st.lists(st.tuples(st.integers(1, 60), st.floats(0, 30), st.floats(0, 2)), max_size=25))
def test_no_window_of_the_other_side_ever_overflows(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, float, float]]
) -> None:
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('store')}/store.db")
    clock = Clock()
    pace = Pace(store, "heap", [ALL], clock)
    arrivals: list[tuple[float, int]] = []
    try:
        for wanted, pause, latency in steps:
            clock.now += pause
            grant = pace.ask(records(wanted))
            if grant.records:
                # Anywhere between the request and its answer the other side may have counted it.
                arrivals.append((clock.now + latency, len(grant.records)))
                clock.now += latency
                with store.begin() as connection:
                    pace.done(grant, connection)
        for end, _ in arrivals:
            assert sum(count for at, count in arrivals if end - 60 < at <= end) <= ALL.records
    finally:
        store.close()
