"""Only differences are sent, and only what was acknowledged moves the baseline."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_integration.delivery.engine import DeliveryStopped, Patience
from heap_integration.delivery.records import Limits, NotAuthorised, Outcome, Record, Status
from heap_integration.segments.heap_segments import apply_pages
from heap_integration.segments.sync import SegmentSync, SyncReport
from heap_integration.store import Store
from heap_integration.warehouse import Warehouse
from heap_integration_tests.segments.pages import receive

_numbers = count(1)


class Club:
    """A destination: knows its members, refuses some people, and may slam the door."""

    def __init__(self, refused: Collection[str] = ()) -> None:
        self.limits = Limits(batch_records=1, concurrency=2)
        self.refused = set(refused)
        self.members: set[str] = set()
        self.calls: list[tuple[str, bool]] = []
        self.calls_left = 10**9

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        return [self._send(record) for record in batch]

    def _send(self, record: Record) -> Outcome:
        identity, member = record.payload.identity, record.payload.member
        if self.calls_left <= 0:
            raise NotAuthorised("the door is closed")
        self.calls_left -= 1
        self.calls.append((identity, member))
        if identity in self.refused:
            return Outcome(record.key, Status.REJECTED, "not you")
        (self.members.add if member else self.members.discard)(identity)
        return Outcome(record.key, Status.ACCEPTED)


class Segment:
    """A segment of Heap that is synced to a club."""

    def __init__(self, store: Store, warehouse: Warehouse, club: Club, *, remove: bool = True) -> None:
        self.store, self.warehouse, self.club = store, warehouse, club
        self.number = next(_numbers)
        self.members: set[str] = set()
        self.sync = SegmentSync(
            name=f"club/{self.number}",
            segment_name=f"Segment {self.number}",
            warehouse=warehouse,
            store=store,
            sender=club,
            remove=remove,
        )

    def become(self, members: Collection[str]) -> None:
        at = next(_numbers)
        added, removed = set(members) - self.members, self.members - set(members)
        receive(self.store, self.number, f"task {at}", at, added=sorted(added), removed=sorted(removed))
        apply_pages(self.store, self.warehouse)
        self.members = set(members)

    def run(self) -> SyncReport:
        self.club.calls.clear()
        report = self.sync.run(patience=Patience(attempts=2, first_wait=0.001))
        assert report.read == report.sent + report.unchanged + report.rejected + report.pending
        return report


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Warehouse]]:
    folder = tmp_path_factory.mktemp("homes")
    store = Store(f"sqlite:///{folder}/store.db")
    yield store, Warehouse(f"duckdb:///{folder}/warehouse.duckdb")
    store.close()


def test_only_differences_are_sent(homes: tuple[Store, Warehouse]) -> None:
    segment = Segment(*homes, Club())
    segment.become({"ann", "bob", "cleo"})
    first = segment.run()
    assert (first.added, first.removed, first.unchanged, first.sent) == (3, 0, 0, 3)
    assert segment.run().unchanged == 3
    assert segment.club.calls == []
    segment.become({"bob", "cleo", "dan"})
    third = segment.run()
    assert (third.added, third.removed, third.unchanged, third.sent) == (1, 1, 2, 2)
    assert sorted(segment.club.calls) == [("ann", False), ("dan", True)]
    assert segment.club.members == segment.members


def test_whom_the_destination_refuses_is_tried_again_by_the_next_sync(homes: tuple[Store, Warehouse]) -> None:
    segment = Segment(*homes, Club(refused=["bob"]))
    segment.become({"ann", "bob"})
    report = segment.run()
    assert (report.sent, report.rejected) == (1, 1)
    segment.club.refused.clear()
    assert segment.run().sent == 1
    assert segment.club.calls == [("bob", True)]
    assert segment.club.members == {"ann", "bob"}


def test_who_leaves_stays_where_the_sync_only_adds(homes: tuple[Store, Warehouse]) -> None:
    segment = Segment(*homes, Club(), remove=False)
    segment.become({"ann", "bob"})
    segment.run()
    segment.become({"bob", "cleo"})
    report = segment.run()
    assert (report.added, report.removed) == (1, 0)
    assert segment.club.members == {"ann", "bob", "cleo"}


def test_a_sync_that_was_stopped_is_finished_by_the_next_one(homes: tuple[Store, Warehouse]) -> None:
    segment = Segment(*homes, Club())
    people = {f"person {number}" for number in range(30)}
    segment.become(people)
    segment.club.calls_left = 11
    with pytest.raises(DeliveryStopped, match="the door is closed"):
        segment.run()
    assert len(segment.club.members) == 11
    segment.club.calls_left = 100
    report = segment.run()
    assert (report.added, report.unchanged, report.sent) == (19, 11, 19)
    assert segment.club.members == people


def test_a_segment_that_heap_never_told_of_is_empty_and_removes_nobody(homes: tuple[Store, Warehouse]) -> None:
    report = Segment(*homes, Club()).run()
    assert (report.wanted, report.read, report.sent) == (0, 0, 0)


@settings(max_examples=12)
@given(
    wanted=st.lists(st.sets(st.sampled_from("abcdef")), min_size=1, max_size=4),
    doors=st.lists(st.integers(0, 4), min_size=4, max_size=4),
)
def test_after_any_interruptions_a_whole_sync_makes_both_sides_equal(
    homes: tuple[Store, Warehouse], wanted: list[set[str]], doors: list[int]
) -> None:
    segment = Segment(*homes, Club())
    for members, door in zip(wanted, doors, strict=False):
        segment.become(members)
        segment.club.calls_left = door
        try:
            segment.run()
        except DeliveryStopped:
            assert segment.club.calls_left == 0
    segment.club.calls_left = 100
    segment.run()
    assert segment.club.members == segment.members
    assert segment.run().planned == 0
