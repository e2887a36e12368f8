"""One segment on its way to one destination: the difference, its delivery, the baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from heap_integration.delivery.engine import DeliveryStopped, Patience, Tally, deliver
from heap_integration.delivery.ledger import Ledger, settle
from heap_integration.delivery.pace import Pace
from heap_integration.delivery.records import MemberChange, Record, Sender
from heap_integration.store import Store
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.memberships import (
    Difference,
    acknowledged_changes,
    forget_plan,
    member_count,
    plan_sync,
    planned_changes,
    record_run,
    segment_ids,
    settle_memberships,
)


@dataclass(frozen=True)
class SyncReport:
    """What a sync did; ``read = sent + unchanged + rejected + pending``.

    ``wanted`` is the size of the segment; ``added`` and ``removed`` are what the destination
    acknowledged of the ``planned`` changes.
    """

    wanted: int
    planned: int
    added: int
    removed: int
    unchanged: int
    tally: Tally

    @property
    def sent(self) -> int:
        """Changes the destination acknowledged."""
        return self.tally.accepted

    @property
    def rejected(self) -> int:
        """Changes the destination refused; each is tried again by the next sync."""
        return self.tally.rejected

    @property
    def read(self) -> int:
        """Members that are wanted or were there: everybody the sync had to decide on."""
        return self.unchanged + self.planned

    @property
    def pending(self) -> int:
        """Changes without an outcome."""
        return self.planned - self.sent - self.rejected


@dataclass
class SegmentSync:
    """Keeps a destination's members equal to a Heap segment's.

    The baseline is what the destination has acknowledged: only the difference to it is sent, and only
    an acknowledgement moves it. So a sync that dies is finished by the next one, and somebody the
    destination refused is tried again.
    """

    name: str
    segment_name: str
    warehouse: Warehouse
    store: Store
    sender: Sender
    segment_id: int | None = None
    remove: bool = True

    @property
    def ledger(self) -> Ledger:
        """The ledger of this sync."""
        return Ledger(self.store, self.name)

    def run(
        self,
        *,
        go_on: Callable[[], bool] = lambda: True,
        patience: Patience | None = None,
        progress: Callable[[Tally], None] = lambda _: None,
    ) -> SyncReport:
        """Send the difference.

        Raises:
            DeliveryStopped: the destination stayed out of reach or refuses the credentials.
        """
        with self.store.exclusive(self.name, None):
            self._settle()
            with self.warehouse.read(ample=True) as con:
                before = acknowledged_changes(con, self.name)
            wanted, difference = self._plan()
            pace = Pace(self.store, self.name, self.sender.limits.windows)
            try:
                tally = deliver(
                    self._records(),
                    self.sender,
                    self.ledger,
                    pace=pace,
                    go_on=go_on,
                    patience=patience,
                    progress=progress,
                )
            except DeliveryStopped as stopped:
                self._finish(wanted, difference, before, stopped.tally)
                raise
            return self._finish(wanted, difference, before, tally)

    def find_segment(self) -> int | None:
        """Return Heap's id of the segment, or ``None`` while Heap has told nothing of it."""
        if self.segment_id is not None:
            return self.segment_id
        with self.warehouse.read(ample=True) as con:
            return segment_ids(con).get(self.segment_name)

    def _plan(self) -> tuple[int, Difference]:
        segment = self.find_segment()
        with self.warehouse.write(ample=True) as con:
            if segment is None:
                forget_plan(con, self.name)
                return 0, Difference(0, 0, 0)
            return member_count(con, segment), plan_sync(con, self.name, segment, remove=self.remove)

    def _records(self) -> Iterator[Record]:
        with self.warehouse.read(ample=True) as con:
            changes = planned_changes(con, self.name)
        for batch in changes.to_batches(max_chunksize=1000):
            for key, identity, member in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield Record(key, MemberChange(identity, member), size=len(identity))

    def _settle(self) -> None:
        settle(self.ledger, self.warehouse, lambda con: settle_memberships(con, self.name), ample=True)

    def _finish(self, wanted: int, difference: Difference, before: tuple[int, int], tally: Tally) -> SyncReport:
        self._settle()
        with self.warehouse.write(ample=True) as con:
            added, removed = acknowledged_changes(con, self.name)
            report = SyncReport(
                wanted=wanted,
                planned=difference.added + difference.removed,
                added=added - before[0],
                removed=removed - before[1],
                unchanged=difference.unchanged,
                tally=tally,
            )
            counts = (report.added, report.removed, report.unchanged, report.rejected, report.pending)
            record_run(con, self.name, counts)
        return report
