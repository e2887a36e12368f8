"""The engine gives every record an outcome, whatever the other side does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

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
)
from heap_integration.store import Store
from heap_integration.warehouse import Warehouse

QUICK = Patience(attempts=3, seconds=20, first_wait=0.001, longest_wait=0.002)


def record(number: int) -> Record:
    return Record(number.to_bytes(16, "big"), payload=number, pace_key=f"user {number}", size=10)


class Shop:
    """The other side: keeps what it took, refuses some numbers, and may have a bad day."""

    def __init__(self, bad: Sequence[int] = (), trouble: Sequence[Exception] = (), **limits: int) -> None:
        self.limits = Limits(**{"batch_records": 100, **limits})
        self.bad = set(bad)
        self.trouble = list(trouble)
        self.taken: list[int] = []
        self.calls: list[int] = []

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        self.calls.append(len(batch))
        if self.trouble:
            raise self.trouble.pop(0)
        if bad := self.bad.intersection(record.payload for record in batch):
            raise BatchRejected(f"{min(bad)} is bad")
        self.taken += [record.payload for record in batch]
        return [Outcome(record.key, Status.ACCEPTED) for record in batch]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(f"sqlite:///{tmp_path}/store.db")
    yield store  # type: ignore[misc]
    store.close()


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
    shop = Shop(trouble=[], batch_records=10)
    shop.trouble = []
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


def test_a_side_that_takes_nothing_at_all_stops_the_delivery(store: Store) -> None:
    shop = Shop(bad=range(1000))
    with pytest.raises(DeliveryStopped, match="the first 10 records were all refused"):
        run(store, shop, [record(number) for number in range(1000)])
    assert in_ledger(store) == {}


def test_switching_off_stops_before_the_next_batch(store: Store) -> None:
    shop = Shop(batch_records=10)
    tally = run(store, shop, [record(number) for number in range(100)], go_on=lambda: len(shop.taken) < 30)
    assert tally.stopped == "switched off"
    assert 30 <= len(shop.taken) <= 40
    assert sorted(in_ledger(store)) == sorted(shop.taken)


@settings(max_examples=25, deadline=None)
@given(bad=st.sets(st.integers(0, 120), max_size=8), size=st.integers(1, 60), workers=st.integers(1, 4))
def test_counts_add_up_for_any_batch_size_and_any_bad_records(
    tmp_path_factory: pytest.TempPathFactory, bad: set[int], size: int, workers: int
) -> None:
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('store')}/store.db")
    try:
        shop = Shop(bad=sorted(bad), batch_records=size, concurrency=workers)
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
