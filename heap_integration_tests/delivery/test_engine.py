"""The engine gives every record an outcome, whatever the other side does."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_integration.delivery.engine import DeliveryStopped, Patience, Tally, deliver
from heap_integration.delivery.ledger import Ledger, settle
from heap_integration.delivery.pace import Pace
from heap_integration.delivery.records import (
    BatchRejected,
    Limits,
    NotAuthorised,
    Outcome,
    Record,
    RetryLater,
    Status,
    Window,
)
from heap_integration.store import Store
from heap_integration.warehouse import Warehouse

QUICK = Patience(attempts=3, seconds=20, first_wait=0.001, longest_wait=0.002)


def record(number: int) -> Record:
    return Record(number.to_bytes(16, "big"), payload=number, pace_key=f"user {number}", size=10)


class Shop:
    """The other side: keeps what it took, refuses some numbers, and may have a bad day.

    ``points`` says how it names the one it refuses: not at all, the first one rightly, or always wrongly.
    """

    def __init__(
        self, bad: Iterable[int] = (), trouble: Sequence[Exception] = (), points: str = "not", **limits: Any
    ) -> None:
        self.limits = Limits(**{"batch_records": 100, **limits})
        self.bad = set(bad)
        self.trouble = list(trouble)
        self.points = points
        self.taken: list[int] = []
        self.calls: list[int] = []

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        self.calls.append(len(batch))
        if self.trouble:
            raise self.trouble.pop(0)
        if places := [place for place, record in enumerate(batch) if record.payload in self.bad]:
            culprit = {"not": None, "rightly": places[0], "first": 0, "next": places[0] + 1}[self.points]
            raise BatchRejected(f"{batch[places[0]].payload} is bad", culprit)
        self.taken += [record.payload for record in batch]
        return [Outcome(record.key, Status.ACCEPTED) for record in batch]


def run(store: Store, shop: Shop, items: Sequence[Record | Outcome], go_on: Callable[[], bool] = lambda: True) -> Tally:
    return deliver(
        items, shop, Ledger(store, "test"), pace=Pace(store, "test", shop.limits.windows), go_on=go_on, patience=QUICK
    )


def in_ledger(store: Store) -> dict[int, tuple[Status, str]]:
    found: dict[int, tuple[Status, str]] = {}
    for batch in Ledger(store, "test").unsettled(10_000):
        for position, status in enumerate(batch.statuses):
            key = batch.keys[position * 16 : position * 16 + 16]
            assert int.from_bytes(key, "big") not in found, "a record has two outcomes"
            found[int.from_bytes(key, "big")] = (Status(status), batch.reasons.get(position, ""))
    return found


def test_one_bad_record_never_stops_the_good_ones(store: Store) -> None:
    shop = Shop(bad=[17, 555])
    tally = run(store, shop, [record(number) for number in range(1000)])
    assert (tally.read, tally.accepted, tally.rejected) == (1000, 998, 2)
    assert sorted(shop.taken) == [number for number in range(1000) if number not in {17, 555}]
    assert {number: found for number, found in in_ledger(store).items() if found[0] is Status.REJECTED} == {
        17: (Status.REJECTED, "17 is bad"),
        555: (Status.REJECTED, "555 is bad"),
    }


def test_what_was_decided_before_sending_is_kept_with_its_reason(store: Store) -> None:
    refused = Outcome((9).to_bytes(16, "big"), Status.SUPPRESSED, "no consent")
    tally = run(store, Shop(), [record(1), refused, record(2)])
    assert (tally.read, tally.accepted, tally.suppressed) == (3, 2, 1)
    assert in_ledger(store)[9] == (Status.SUPPRESSED, "no consent")


def test_an_answer_that_asks_for_patience_uses_up_no_attempt(store: Store) -> None:
    shop = Shop(trouble=[RetryLater("busy", busy=True, after=0.001)] * 20)
    assert run(store, shop, [record(1)]).accepted == 1


def test_a_side_out_of_reach_leaves_the_rest_pending(store: Store) -> None:
    shop = Shop(batch_records=10)
    records = [record(number) for number in range(30)]
    assert run(store, shop, records[:10]).accepted == 10
    shop.trouble = [RetryLater("down")] * 3
    with pytest.raises(DeliveryStopped, match="down"):
        run(store, shop, records[10:])
    assert sorted(in_ledger(store)) == list(range(10))


def test_refused_credentials_reject_nothing(store: Store) -> None:
    shop = Shop(trouble=[NotAuthorised("wrong key")])
    with pytest.raises(DeliveryStopped, match="wrong key"):
        run(store, shop, [record(number) for number in range(5)])
    assert in_ledger(store) == {}


def test_what_others_were_still_sending_counts_when_a_delivery_stops(store: Store) -> None:
    closed = threading.Event()

    class Gate(Shop):
        def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
            if batch[0].payload:
                closed.set()
                raise NotAuthorised("closed")
            assert closed.wait(10)
            time.sleep(0.05)
            return super().send(batch)

    with pytest.raises(DeliveryStopped, match="closed") as stopped:
        run(store, Gate(batch_records=1, concurrency=2), [record(0), record(1)])
    assert stopped.value.tally.accepted == len(in_ledger(store)) == 1


def test_a_side_that_takes_nothing_at_all_stops_the_delivery(store: Store) -> None:
    shop = Shop(bad=range(1000))
    with pytest.raises(DeliveryStopped, match="the first 10 records were all refused"):
        run(store, shop, [record(number) for number in range(1000)])
    assert in_ledger(store) == {}


def test_one_bad_record_that_is_named_costs_one_more_request(store: Store) -> None:
    shop = Shop(bad=range(7, 1000, 100), points="rightly")
    tally = run(store, shop, [record(number) for number in range(1000)])
    assert (tally.accepted, tally.rejected) == (990, 10)
    assert shop.calls == [100, 99] * 10
    assert in_ledger(store)[707] == (Status.REJECTED, "707 is bad")


def test_two_that_are_named_in_a_batch_have_to_be_refused_alone(store: Store) -> None:
    shop = Shop(bad=[3, 4], points="rightly")
    assert run(store, shop, [record(number) for number in range(100)]).rejected == 2
    assert shop.calls == [100, 99, 98, 1, 1]


@pytest.mark.parametrize("points", ["first", "next"])
def test_a_wrong_word_about_who_is_refused_costs_requests_and_nobody_an_outcome(store: Store, points: str) -> None:
    shop = Shop(bad=[17, 55], points=points)
    tally = run(store, shop, [record(number) for number in range(200)])
    assert (tally.accepted, tally.rejected) == (198, 2)
    assert sorted(shop.taken) == [number for number in range(200) if number not in {17, 55}]
    assert len(shop.calls) < 60


def test_a_mistake_in_all_records_stops_the_delivery_before_it_uses_them_up(store: Store) -> None:
    shop = Shop(bad=range(50, 2000), points="rightly", batch_records=1000)
    records = [record(number) for number in range(2000)]
    with pytest.raises(DeliveryStopped, match="100 records in a row were all refused") as stopped:
        run(store, shop, records)
    assert len(shop.calls) < 400
    assert 100 <= stopped.value.tally.rejected < 200
    found = in_ledger(store)
    assert {status for status, _ in found.values()} == {Status.ACCEPTED, Status.REJECTED}
    assert sorted(shop.taken) == sorted(number for number, (status, _) in found.items() if status is Status.ACCEPTED)


def test_a_few_that_are_refused_without_a_word_about_them_are_no_proof(store: Store) -> None:
    with pytest.raises(DeliveryStopped, match="nothing was taken"):
        run(store, Shop(bad=range(5)), [record(number) for number in range(5)])
    assert in_ledger(store) == {}
    shop = Shop(bad=range(5), batch_records=5)
    assert run(store, shop, [record(number) for number in range(6)]).rejected == 5


def test_a_few_that_are_refused_by_name_are_rejected_though_nothing_else_is_there(store: Store) -> None:
    assert run(store, Shop(bad=range(5), points="rightly"), [record(number) for number in range(5)]).rejected == 5


def test_what_passed_before_the_credentials_were_refused_is_kept(store: Store) -> None:
    class Fired(Shop):
        def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
            if len(self.calls) == 3:
                raise NotAuthorised("wrong key")
            return super().send(batch)

    shop = Fired(bad=[99])
    with pytest.raises(DeliveryStopped, match="wrong key") as stopped:
        run(store, shop, [record(number) for number in range(100)])
    assert sorted(in_ledger(store)) == shop.taken == list(range(50))
    assert stopped.value.tally.accepted == 50


def test_a_wish_to_be_left_alone_is_granted_or_ends_the_delivery(store: Store) -> None:
    shop = Shop(trouble=[RetryLater("busy", busy=True, after=0.3), RetryLater("busy", busy=True, after=0)])
    began = time.monotonic()
    assert run(store, shop, [record(1)]).accepted == 1
    assert 0.3 <= time.monotonic() - began < 1
    with pytest.raises(DeliveryStopped, match="come back tomorrow"):
        run(store, Shop(trouble=[RetryLater("come back tomorrow", busy=True, after=86_400)]), [record(2)])
    assert 2 not in in_ledger(store)


def test_a_side_that_stays_busy_ends_the_delivery_when_patience_does_and_not_before(store: Store) -> None:
    shop = Shop(trouble=[RetryLater("busy", busy=True)] * 100_000)
    pace, patience = Pace(store, "test", ()), Patience(attempts=2, seconds=0.7, first_wait=0.001, longest_wait=0.01)
    began = time.monotonic()
    with pytest.raises(DeliveryStopped, match="busy"):
        deliver([record(1)], shop, Ledger(store, "test"), pace=pace, patience=patience)
    assert 0.7 <= time.monotonic() - began < 5
    assert len(shop.calls) > 10


def test_an_error_elsewhere_does_not_wait_for_a_side_that_is_busy(store: Store) -> None:
    def breaks() -> Iterator[Record]:
        yield from map(record, range(100))
        raise LookupError("no more")

    shop = Shop(trouble=[RetryLater("busy", busy=True)] * 100_000)
    began = time.monotonic()
    with pytest.raises(LookupError, match="no more"):
        deliver(breaks(), shop, Ledger(store, "test"), pace=Pace(store, "test", ()), patience=QUICK)
    assert time.monotonic() - began < QUICK.seconds / 2


def test_a_delivery_leaves_the_share_that_is_reserved(store: Store) -> None:
    shop = Shop(windows=(window := Window(100, 0.5),))
    pace = Pace(store, "test", shop.limits.windows)
    others_find: list[int] = []
    deliver(
        map(record, range(120)),
        shop,
        Ledger(store, "test"),
        pace=pace,
        reserve=0.6,
        progress=lambda _: others_find.append(window.records - pace.used(window)),
    )
    assert shop.taken == list(range(120))
    assert max(shop.calls) == 40
    assert min(others_find) >= 60


def test_switching_off_ends_the_wait_for_a_side_that_is_busy(store: Store) -> None:
    shop = Shop(trouble=[RetryLater("busy", busy=True)] * 10_000)
    tally = run(store, shop, [record(1)], go_on=lambda: len(shop.calls) < 5)
    assert (tally.stopped, len(shop.calls), tally.accepted) == ("switched off", 5, 0)
    assert in_ledger(store) == {}


def test_a_store_that_somebody_holds_is_waited_for_and_then_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heap_integration.store.store.BUSY_SECONDS", 1.0)
    impatient = Store(f"sqlite:///{tmp_path}/store.db")
    try:
        with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None, check_same_thread=False)) as other:
            other.execute("begin immediate")
            threading.Timer(0.3, other.rollback).start()
            assert run(impatient, Shop(), [record(1)]).accepted == 1
            other.execute("begin immediate")
            with pytest.raises(DeliveryStopped, match="the store can't be used: database is locked"):
                run(impatient, Shop(), [record(2)])
    finally:
        impatient.close()
    assert sorted(in_ledger(store)) == [1]


def test_a_busy_key_waits_with_everything_it_has_while_the_others_go_on(store: Store) -> None:
    windows = (Window(10**6, 1.5), Window(50, 1.5, per_key=True))
    shop = Shop(windows=windows)
    busy = [Record(number.to_bytes(16, "big"), number, "busy", 10) for number in range(100)]
    others = [record(number) for number in range(100, 2_000)]
    assert run(store, shop, [*busy, *others]).accepted == 2_000
    assert shop.taken[:50] == list(range(50))
    assert sorted(shop.taken[50:1_950]) == list(range(100, 2_000))
    assert shop.taken[1_950:] == list(range(50, 100))


def test_switching_off_stops_before_the_next_batch(store: Store) -> None:
    shop = Shop(batch_records=10)
    tally = run(store, shop, [record(number) for number in range(100)], go_on=lambda: len(shop.taken) < 30)
    assert tally.stopped == "switched off"
    assert 30 <= len(shop.taken) <= 40
    assert sorted(in_ledger(store)) == sorted(shop.taken)


@settings(max_examples=50)
@given(
    bad=st.sets(st.integers(0, 120), max_size=8),
    size=st.integers(1, 60),
    workers=st.integers(1, 4),
    points=st.sampled_from(["not", "rightly", "first", "next"]),
)
def test_counts_add_up_for_any_batch_size_and_any_bad_records(
    tmp_path_factory: pytest.TempPathFactory, bad: set[int], size: int, workers: int, points: str
) -> None:
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('store')}/store.db")
    try:
        shop = Shop(bad=bad, batch_records=size, concurrency=workers, points=points)
        tally = run(store, shop, [record(number) for number in range(121)])
        assert tally.accepted + tally.rejected == tally.read == 121
        assert {n for n, (status, _) in in_ledger(store).items() if status is Status.REJECTED} == bad
        assert sorted(shop.taken) == [number for number in range(121) if number not in bad]
    finally:
        store.close()


def test_a_batch_settles_once_even_if_its_note_was_lost(store: Store, tmp_path: Path) -> None:
    warehouse = Warehouse(f"duckdb:///{tmp_path}/warehouse.duckdb")
    ledger = Ledger(store, "test")
    run(store, Shop(batch_records=3), [record(number) for number in range(10)])
    with warehouse.write() as con:
        con.execute("create table settled (key uuid, status utinyint, reason varchar)")

    def apply(con: object) -> None:
        con.execute("insert into settled select key, status, reason from settling")  # type: ignore[attr-defined]

    class Dies(Exception):
        pass

    original = ledger.mark_settled
    ledger.mark_settled = lambda numbers: (_ for _ in ()).throw(Dies)  # type: ignore[method-assign]
    with pytest.raises(Dies):
        settle(ledger, warehouse, apply)
    ledger.mark_settled = original  # type: ignore[method-assign]
    assert settle(ledger, warehouse, apply) == 4
    assert settle(ledger, warehouse, apply) == 0
    with warehouse.read() as con:
        assert con.execute("select count(*), count(distinct key) from settled").fetchone() == (10, 10)
