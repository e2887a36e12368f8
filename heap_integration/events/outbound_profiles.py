"""Tells Heap of people and accounts, in the order of time, and keeps what became of each call."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from itertools import islice, product
from typing import TYPE_CHECKING, Any

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
from heap_integration.events.merges import KnownMerges, WouldBeDropped
from heap_integration.events.opt_outs import opted_out
from heap_integration.events.outbound import STATUSES, together
from heap_integration.events.prepare import ROW_COLUMNS, PreparedRow, Refused
from heap_integration.events.profiles import ProfilePreparer, ProfileUpdate, Properties
from heap_integration.events.superseded import Newest
from heap_integration.heap.answers import HeapBusy, HeapRefused, HeapRejected, HeapUnavailable
from heap_integration.heap.profiles_api import BATCH_PROFILES, ProfilesApi
from heap_integration.warehouse.events import settle_events
from heap_integration.warehouse.profiles import (
    PROPERTIES_SENT,
    START,
    Kind,
    Position,
    find_newer,
    newer_profiles,
    pending_profiles,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from heap_integration.store import Store
    from heap_integration.warehouse import Warehouse

FLOW = "profiles"
SUPERSEDED = "superseded by a later update"
# Heap takes 30 requests within 30 seconds that hold the same identity. Counted from the answer, with the
# slack of the pace: two that left a second apart may arrive closer together.
SECONDS_APART = 1.01
CHUNK_ROWS = 10_000
ROWS_AT_ONCE = 1_000
# Whoever waits for a lock looks every 0.2 seconds.
LETTING_IN_SECONDS = 0.25
KINDS: tuple[Kind, ...] = ("user", "account")
# Nearly always the newest call says all: the others are looked at only where it doesn't.
NEWEST_FIRST = (range(1, 2), range(2, 11), range(11, 2**62))


class Spacing:
    """Keeps requests that hold the same identity apart."""

    def __init__(self, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._sleep = sleep
        self._last: dict[str, float] = {}

    def wait(self, identities: Iterable[str]) -> None:
        """Return once a request with all of these may go out."""
        now = self._clock()
        self._last = {identity: at for identity, at in self._last.items() if at > now - self._seconds}
        free = max((self._last[identity] for identity in identities if identity in self._last), default=None)
        if free is not None:
            self._sleep(free + self._seconds - now)

    def done(self, identities: Iterable[str]) -> None:
        """Note that a request with these was answered, or may have arrived."""
        self._last |= dict.fromkeys(identities, self._clock())


class ProfileSender:
    """Heap's identify, user properties and account properties as the delivery engine sees them.

    A batch is one call of identify for each merge that Heap hasn't acknowledged yet, one request with the
    properties of all its people and one with those of all its accounts; of several values for one property
    the last one goes out. To send a batch again changes nothing.
    """

    limits = Limits(batch_records=BATCH_PROFILES)

    def __init__(
        self,
        api: ProfilesApi,
        merges: KnownMerges,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.api = api
        self.merges = merges
        self._spacing = Spacing(SECONDS_APART, clock, sleep)

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """Send a batch; see ``Sender.send``. A merge that Heap would drop silently makes its record rejected."""
        updates: list[ProfileUpdate] = [record.payload for record in batch]
        dropped = self._merge(updates)
        # What Heap refuses is more likely of the account: of such a call nothing about the person has gone out then.
        self._set("account", updates, self._send_accounts)
        self._set("user", updates, self._send_users)
        return [_outcome(record, dropped.get(index)) for index, record in enumerate(batch)]

    def _merge(self, updates: Sequence[ProfileUpdate]) -> dict[int, str]:
        dropped: dict[int, str] = {}
        for index, update in enumerate(updates):
            user_id, identity = update.merge, update.identity
            if user_id is None or identity is None:
                continue
            try:
                if self.merges.is_known(user_id, identity):
                    continue
            except WouldBeDropped as reason:
                dropped[index] = str(reason)
                continue
            _told(partial(self.api.identify, user_id, identity, update.timestamp), [[index]])
            self.merges.keep(user_id, identity)
        return dropped

    def _set(
        self,
        kind: Kind,
        updates: Sequence[ProfileUpdate],
        send: Callable[[Mapping[str, Properties]], None],
    ) -> None:
        last: dict[str, Properties] = {}
        owners: dict[str, list[int]] = {}
        for index, update in enumerate(updates):
            for (found, name), properties in update.targets():
                if found == kind:
                    last.setdefault(name, {}).update(properties)
                    owners.setdefault(name, []).append(index)
        if last:
            _told(partial(send, last), list(owners.values()))

    def _send_users(self, properties: Mapping[str, Properties]) -> None:
        self._spacing.wait(properties)
        refused = False
        try:
            self.api.add_user_properties(
                [{"identity": identity, "properties": values} for identity, values in properties.items()]
            )
        except HeapRejected:
            refused = True
            raise
        finally:
            # Who stands beside a culprit is in some twenty refused requests at most: a second for each is too long.
            if not refused:
                self._spacing.done(properties)

    def _send_accounts(self, properties: Mapping[str, Properties]) -> None:
        self.api.add_account_properties(
            [{"account_id": account, "properties": values} for account, values in properties.items()]
        )


def _outcome(record: Record, dropped: str | None) -> Outcome:
    if dropped is None:
        return Outcome(record.key, Status.ACCEPTED)
    sent = PROPERTIES_SENT if any(record.payload.targets()) else ""
    return Outcome(record.key, Status.REJECTED, dropped + sent)


def _told(call: Callable[[], None], owners: Sequence[Sequence[int]]) -> None:
    """Make a call and put its failure in the engine's words; ``owners`` are the records behind each item of it."""
    try:
        call()
    except HeapBusy as error:
        raise RetryLater(str(error), after=error.after, busy=True) from error
    except HeapUnavailable as error:
        raise RetryLater(str(error)) from error
    except HeapRejected as error:
        raise BatchRejected(str(error), culprit=_culprit(error.position, owners)) from error
    except HeapRefused as error:
        raise NotAuthorised(str(error)) from error


def _culprit(position: int | None, owners: Sequence[Sequence[int]]) -> int | None:
    """Return the one record behind the item that Heap names, ``None`` where there are several."""
    if position is None and len(owners) == 1:
        position = 0
    if position is None or position >= len(owners) or len(owners[position]) > 1:
        return None
    return owners[position][0]


@dataclass
class OutboundProfiles:
    """What one environment knows of people and accounts on its way to Heap.

    It goes in the order of time, because the last value wins: an older one that arrives or is sent again
    later doesn't overwrite what a newer one has set. For that, only one process at a time may send.
    ``withheld_sources`` names the sources whose stream is switched off; it is asked again before each
    batch, and a change stops the delivery.
    """

    warehouse: Warehouse
    store: Store
    sender: ProfileSender
    preparer: ProfilePreparer
    withheld_sources: Callable[[], Collection[str]] = frozenset
    notes: Counter[str] = field(default_factory=Counter)

    @property
    def ledger(self) -> Ledger:
        """The ledger of all calls of the environment."""
        return Ledger(self.store, FLOW)

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
        """Send the pending identify, group and alias calls of the UTC days ``first`` to ``last``, both included.

        With ``resend`` those that were acknowledged go out again. One process at a time sends: another waits for
        ``wait`` seconds, ``None`` for ever, and gets its turn after 10,000 calls at the latest.

        Raises:
            Busy: another process was sending all the while.
            DeliveryStopped: Heap stayed out of reach or refuses the request; the rest is pending.
        """
        withheld = frozenset(self.withheld_sources())
        tallies: list[Tally] = []
        after: Position | None = START
        while after is not None and not (tallies and tallies[-1].stopped):
            if tallies:
                time.sleep(LETTING_IN_SECONDS)
            with self.store.exclusive(FLOW, None if tallies else wait):
                self.settle()
                try:
                    items, after = self._page(first, last, after, withheld, resend)
                    tallies.append(
                        deliver(
                            items,
                            self.sender,
                            self.ledger,
                            pace=Pace(self.store, FLOW, ()),
                            go_on=lambda: frozenset(self.withheld_sources()) == withheld,
                            patience=patience,
                            progress=lambda tally: progress(together([*tallies, tally])),
                        )
                    )
                except DeliveryStopped as stopped:
                    # Why the delivery stopped is the news, whatever becomes of its outcomes now.
                    with suppress(DeliveryStopped):
                        self.settle()
                    raise DeliveryStopped(str(stopped), together([*tallies, stopped.tally])) from stopped.__cause__
                self.settle()
        return together(tallies)

    def _page(
        self, first: date, last: date, after: Position, withheld: frozenset[str], resend: bool
    ) -> tuple[Iterator[Record | Outcome], Position | None]:
        """Return the next calls, and after which one to go on; ``None`` where these are the last."""
        with self.warehouse.read() as con:
            page = pending_profiles(
                con,
                first=first,
                last=last,
                after=after,
                rows=CHUNK_ROWS,
                without_sources=withheld,
                resend=resend,
            )
            prepared = [(row[0], position, self.preparer.prepare(row)) for row, position in _rows(page)]
            newest = Newest(update for _, _, update in prepared if isinstance(update, ProfileUpdate))
            if prepared:
                find_newer(con, page)
            for kind, nths in product(KINDS, NEWEST_FIRST):
                if names := newest.open(kind):
                    for batch in newer_profiles(con, kind, names, nths, ROWS_AT_ONCE):
                        self._look_at(kind, batch, newest)
        items = (self._item(key, update, position, newest) for key, position, update in prepared)
        return self._allowed(items), prepared[-1][1] if len(prepared) == CHUNK_ROWS else None

    def _allowed(self, items: Iterator[Record | Outcome]) -> Iterator[Record | Outcome]:
        while piece := list(islice(items, ROWS_AT_ONCE)):
            yield from opted_out(self.store, piece)

    def _look_at(self, kind: Kind, newer: pa.RecordBatch, newest: Newest) -> None:
        for (row, position), name in zip(_rows(newer), newer.column("about").to_pylist(), strict=True):
            if newest.is_open((kind, name)):
                update = self.preparer.prepare(row)
                if isinstance(update, ProfileUpdate):
                    newest.see((kind, name), update, position)

    def _item(
        self, key: bytes, update: ProfileUpdate | Refused, position: Position, newest: Newest
    ) -> Record | Outcome:
        if isinstance(update, Refused):
            return Outcome(key, STATUSES[update.status], update.reason)
        self.notes.update(update.notes)
        left, superseded = newest.left(update, position)
        if superseded:
            self.notes["superseded"] += superseded
        if left.is_empty():
            return Outcome(key, Status.SUPPRESSED, SUPERSEDED)
        return Record(key, left, left.identity, left.size())


def _rows(page: pa.Table | pa.RecordBatch) -> Iterator[tuple[PreparedRow, Position]]:
    columns: dict[str, Any] = {name: page.column(name).to_pylist() for name in ("moment", "seq", *ROW_COLUMNS)}
    rows = zip(*(columns[name] for name in ROW_COLUMNS), strict=True)
    yield from zip(rows, map(Position, columns["moment"], columns["seq"]), strict=True)
