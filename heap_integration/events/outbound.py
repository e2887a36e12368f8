"""Sends the pending events of some days to Heap and keeps what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from heap_integration.delivery.engine import Patience, deliver
from heap_integration.delivery.ledger import Ledger, settle
from heap_integration.delivery.pace import Pace
from heap_integration.delivery.records import (
    BatchRejected,
    DeliveryStopped,
    Limits,
    NotAuthorised,
    Outcome,
    Record,
    RetryLater,
    Status,
    Tally,
    Window,
)
from heap_integration.events.lanes import Lane, lanes
from heap_integration.events.opt_outs import opted_out
from heap_integration.events.prepare import ROW_COLUMNS, PreparedRow, Preparer, Refused
from heap_integration.heap.answers import HeapBusy, HeapRefused, HeapRejected, HeapUnavailable
from heap_integration.heap.events_api import BATCH_EVENTS, EventsApi
from heap_integration.store import Store
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.events import pending_events, settle_events

FLOW = "events"
CHUNK_ROWS = 20_000
STATUSES = {"rejected": Status.REJECTED, "suppressed": Status.SUPPRESSED}


def together(tallies: Sequence[Tally]) -> Tally:
    """Return what several deliveries did as one."""
    return Tally(
        read=sum(tally.read for tally in tallies),
        batches=sum(tally.batches for tally in tallies),
        statuses=sum((tally.statuses for tally in tallies), Counter()),
        reasons=sum((tally.reasons for tally in tallies), Counter()),
        stopped=tallies[-1].stopped if tallies else "",
    )


class EventSender:
    """Heap's bulk track API as the delivery engine sees it.

    One request at a time, so that nobody's events arrive out of order.
    """

    def __init__(self, api: EventsApi, *, per_minute: int, per_minute_per_identity: int) -> None:
        self.api = api
        windows = (Window(per_minute, 60.0), Window(per_minute_per_identity, 60.0, per_key=True))
        self.limits = Limits(
            batch_records=BATCH_EVENTS, windows=tuple(window for window in windows if window.records > 0)
        )

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """Send a batch; see ``Sender.send``."""
        try:
            self.api.track([record.payload for record in batch])
        except HeapBusy as error:
            raise RetryLater(str(error), after=error.after, busy=True) from error
        except HeapUnavailable as error:
            raise RetryLater(str(error)) from error
        except HeapRejected as error:
            raise BatchRejected(str(error), culprit=error.position) from error
        except HeapRefused as error:
            raise NotAuthorised(str(error)) from error
        return [Outcome(record.key, Status.ACCEPTED) for record in batch]


@dataclass
class Outbound:
    """The events of one environment on their way to Heap.

    ``withheld_sources`` names the sources whose stream is switched off; it is asked again before
    each batch, and a change stops the delivery. ``live_share`` is what a backfill leaves of Heap's limit
    to the events of today.
    """

    warehouse: Warehouse
    store: Store
    sender: EventSender
    preparer: Preparer
    withheld_sources: Callable[[], Collection[str]] = frozenset
    live_share: float = 0.0
    notes: Counter[str] = field(default_factory=Counter)

    @property
    def ledger(self) -> Ledger:
        """The ledger of all events of the environment."""
        return Ledger(self.store, FLOW)

    @property
    def pace(self) -> Pace:
        """Heap's windows, over all processes."""
        return Pace(self.store, FLOW, self.sender.limits.windows)

    def settle(self) -> None:
        """Bring the outcomes that a run left behind, dead or alive, into the warehouse."""
        settle(self.ledger, self.warehouse, settle_events)

    def send(
        self,
        first: date,
        last: date,
        *,
        resend: bool = False,
        patience: Patience | None = None,
        progress: Callable[[Tally], None] = lambda _: None,
        wait: float | None = None,
    ) -> Tally:
        """Send the pending events of the UTC days ``first`` to ``last``, both included.

        With ``resend`` those that were acknowledged go out again, under the same idempotency keys. The
        last two days go first. One process at a time sends them, and one the days before: another waits for
        ``wait`` seconds, ``None`` for ever.

        Raises:
            Busy: another process was sending all the while.
            DeliveryStopped: Heap stayed out of reach or refuses the request; the rest is pending.
        """
        tallies: list[Tally] = []
        for lane in lanes(first, last, datetime.now(UTC).date()):
            with lane.mine(self.store, FLOW, wait):
                self.settle()
                try:
                    tallies.append(self._deliver(lane, resend, patience, progress))
                except DeliveryStopped:
                    # Why the delivery stopped is the news, whatever becomes of its outcomes now.
                    with suppress(DeliveryStopped):
                        self.settle()
                    raise
                self.settle()
            if tallies[-1].stopped:
                break
        return together(tallies)

    def _deliver(self, lane: Lane, resend: bool, patience: Patience | None, progress: Callable[[Tally], None]) -> Tally:
        withheld = frozenset(self.withheld_sources())
        return deliver(
            self._items(lane.first, lane.last, withheld, resend),
            self.sender,
            self.ledger,
            pace=self.pace,
            go_on=lambda: frozenset(self.withheld_sources()) == withheld,
            patience=patience,
            progress=progress,
            reserve=0.0 if lane.live else self.live_share,
        )

    def _items(self, first: date, last: date, withheld: frozenset[str], resend: bool) -> Iterator[Record | Outcome]:
        after = 0
        while True:
            with self.warehouse.read() as con:
                events = pending_events(
                    con,
                    first=first,
                    last=last,
                    after=after,
                    rows=CHUNK_ROWS,
                    without_sources=withheld,
                    resend=resend,
                )
            if not events.num_rows:
                return
            after = events.column("seq")[-1].as_py()
            for batch in events.to_batches(max_chunksize=BATCH_EVENTS):
                rows = zip(*(batch.column(name).to_pylist() for name in ROW_COLUMNS), strict=True)
                yield from opted_out(self.store, list(map(self._item, rows)))
            # Without this two chunks are in memory while the next one is read.
            del events, batch

    def _item(self, row: PreparedRow) -> Record | Outcome:
        key = row[0]
        prepared = self.preparer.prepare(row)
        if isinstance(prepared, Refused):
            return Outcome(key, STATUSES[prepared.status], prepared.reason)
        if prepared.notes:
            self.notes.update(prepared.notes)
        return Record(key, prepared.payload, prepared.identity, len(prepared.payload))
