"""Sliding windows that several processes keep together."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from zlib import crc32

from sqlalchemy import bindparam, delete, func, insert, select, update

from heap_integration.delivery.records import Record, Window
from heap_integration.store.tables import rate_grants

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from heap_integration.store import Store

# A grant counts from its answer on, by when the other side has counted it, and for half a percent longer than
# the window: clocks differ, and whoever dies before the answer leaves only the moment of the question.
SLACK = 1.005
# The least part of a batch that goes out alone: without parts, up to a batch of each window stays unused.
LEAST_SHARE = 0.1

_grants = rate_grants.c
_mine = _grants.limiter == bindparam("mine")
# Made once: to put a statement together takes longer than to run it.
_USED = select(func.coalesce(func.sum(_grants.records), 0), func.min(_grants.at), func.max(_grants.at)).where(_mine)
_FORGET = delete(rate_grants).where(_mine, _grants.at <= bindparam("until"))
_BRING_BACK = update(rate_grants).where(_mine, _grants.at > bindparam("beyond")).values(at=bindparam("now"))
_ALIVE = select(_grants.id, _grants.at).where(_mine)
_NOTE = insert(rate_grants).returning(_grants.id)
_STAMP = update(rate_grants).where(_grants.id == bindparam("number")).values(at=bindparam("now"))


@dataclass
class Grant:
    """Leave to send ``records`` now.

    ``held`` waits for ``wait`` seconds: because the keys in ``closed`` have used up their window, or,
    where that is empty, because the window over all records has.
    """

    records: list[Record]
    held: list[Record]
    wait: float = 0.0
    closed: frozenset[str | None] = frozenset()
    number: int = 0


@dataclass
class _Seen:
    at: float
    records: int
    keys: Counter[int] = field(default_factory=Counter)


class Pace:
    """The share of a destination's windows that is left, over all processes with the same store.

    Every batch that goes out is one row in the store with how many records of each key it has. A
    limiter that keeps one row a record, or one bucket a key, costs more than sending: a window of
    Heap's holds 15,000 records of any number of identities.
    """

    def __init__(
        self, store: Store, name: str, windows: Sequence[Window], clock: Callable[[], float] = time.time
    ) -> None:
        self.store = store
        self.name = name
        self.clock = clock
        self._overall = [_Use(window) for window in windows if not window.per_key]
        self._by_key = [_Use(window) for window in windows if window.per_key]
        self._reach = max((window.seconds for window in windows), default=0.0) * SLACK
        self._narrowest = min((window.records for window in windows), default=0)
        self._seen: dict[int, _Seen] = {}

    def ask(self, records: Sequence[Record], reserve: float = 0.0) -> Grant:
        """Grant as many of ``records`` as the windows leave, all the rest is held back in order.

        Records whose own key has used up its window step aside for the others. What the window over all
        records has left is granted where that is worth a request, else nothing. ``reserve`` is the share of
        each window over all records that is never granted here, so that others find it free.
        """
        if not self._reach:
            return Grant(list(records), [])
        wanted = _counted(records)
        with self.store.begin(serial=f"pace {self.name}") as connection:
            now = self.clock()
            if self._total(connection, now) + len(records) <= self._narrowest * (1 - reserve):
                grant = Grant(list(records), [])
                self._note(grant, wanted, connection, now)
                return grant
            self._refresh(connection, now)
            grant, wanted = self._granted(records, wanted, now, reserve)
            if grant.records:
                self._note(grant, wanted, connection, now)
                self._see(grant.number, _Seen(now, len(grant.records), wanted))
        return grant

    def done(self, grant: Grant, connection: Connection) -> None:
        """Let a grant count from now: the other side has counted it by now at the latest."""
        if not grant.records or not self._reach:
            return
        now = self.clock()
        if not connection.execute(_STAMP, {"number": grant.number, "now": now}).rowcount:
            # The answer took so long that the grant was forgotten.
            self._note(grant, _counted(grant.records), connection, now)

    def used(self, window: Window) -> int:
        """Return how many records count against a window now, over all keys."""
        with self.store.begin(serial=f"pace {self.name}") as connection:
            now = self.clock()
            self._total(connection, now)
            self._refresh(connection, now)
        return next(use.total for use in (*self._overall, *self._by_key) if use.window == window)

    def _note(self, grant: Grant, keys: Counter[int], connection: Connection, now: float) -> None:
        row = {"limiter": self.name, "at": now, "records": len(grant.records), "keys": _packed(keys)}
        grant.number = int(connection.execute(_NOTE, row).scalar_one())

    def _total(self, connection: Connection, now: float) -> int:
        """Return how many records count against the longest window at most: where they fit all, no detail matters."""
        total, oldest, newest = connection.execute(_USED, {"mine": self.name}).one()
        if newest is not None and newest > now + self._reach:
            # The clock was set back. What was sent before counts from now at the latest: to wait until the
            # clock is there again would take as long as the step, to forget it would be too early.
            connection.execute(_BRING_BACK, {"mine": self.name, "beyond": now + self._reach, "now": now})
        if oldest is not None and oldest <= now - self._reach:
            connection.execute(_FORGET, {"mine": self.name, "until": now - self._reach})
        return int(total)

    def _granted(
        self, records: Sequence[Record], wanted: Counter[int], now: float, reserve: float
    ) -> tuple[Grant, Counter[int]]:
        fitting, held, closed = list(records), list[Record](), frozenset[str | None]()
        if any(use.lacks_room(wanted) for use in self._by_key):
            fitting, held, closed, wanted = self._fitting(records)
        wait = min((use.reopens(closed) - now for use in self._by_key), default=0.0) if closed else 0.0
        room = min((use.room(reserve) for use in self._overall), default=len(fitting))
        if len(fitting) <= room:
            return Grant(fitting, held, wait, closed), wanted
        if room >= len(fitting) * LEAST_SHARE:
            return _first(room, fitting, records)
        room_at = max(use.room_at(len(fitting), reserve) for use in self._overall)
        return Grant([], list(records), room_at - now), wanted

    def _refresh(self, connection: Connection, now: float) -> None:
        alive = {row.id: row.at for row in connection.execute(_ALIVE, {"mine": self.name})}
        for number in self._seen.keys() - alive.keys():
            gone = self._seen.pop(number)
            for use in (*self._overall, *self._by_key):
                use.forget(number, gone)
        unknown = alive.keys() - self._seen.keys()
        query = select(rate_grants, _grants["keys"].label("packed")).where(_grants.id.in_(unknown))
        for row in connection.execute(query) if unknown else ():
            self._see(row.id, _Seen(row.at, row.records, _unpacked(row.packed)))
        for number, at in alive.items():
            if at != (seen := self._seen[number]).at:
                seen.at = at
                for use in (*self._overall, *self._by_key):
                    use.add(number, seen)
        for use in (*self._overall, *self._by_key):
            use.expire(now)

    def _see(self, number: int, seen: _Seen) -> None:
        self._seen[number] = seen
        for use in (*self._overall, *self._by_key):
            use.add(number, seen)

    def _fitting(
        self, records: Sequence[Record]
    ) -> tuple[list[Record], list[Record], frozenset[str | None], Counter[int]]:
        fitting: list[Record] = []
        held: list[Record] = []
        closed: set[str | None] = set()
        wanted: Counter[int] = Counter()
        for record in records:
            key = record.pace_key
            if key is None:
                fitting.append(record)
                continue
            number = crc32(key.encode())
            if key in closed or any(use.is_full(number, wanted[number]) for use in self._by_key):
                closed.add(key)
                held.append(record)
            else:
                wanted[number] += 1
                fitting.append(record)
        return fitting, held, frozenset(closed), wanted


class _Use:
    """What counts against one window: kept up to date grant by grant, not summed anew for each batch."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.grants: dict[int, _Seen] = {}
        self.keys: Counter[int] = Counter()
        self.total = 0

    def add(self, number: int, seen: _Seen) -> None:
        """Count a grant, once; one that was forgotten counts again where its answer has stamped it anew."""
        if number in self.grants:
            return
        self.grants[number] = seen
        self.total += seen.records
        if self.window.per_key:
            self.keys.update(seen.keys)

    def forget(self, number: int, seen: _Seen) -> None:
        if self.grants.pop(number, None) is None:
            return
        self.total -= seen.records
        if self.window.per_key:
            for key, count in seen.keys.items():
                self.keys[key] -= count
                if not self.keys[key]:
                    del self.keys[key]

    def expire(self, now: float) -> None:
        old = [(number, seen) for number, seen in self.grants.items() if self._end(seen) <= now]
        for number, seen in old:
            self.forget(number, seen)

    def lacks_room(self, wanted: Counter[int]) -> bool:
        return any(self.keys[key] + count > self.window.records for key, count in wanted.items())

    def is_full(self, key: int, wanted: int) -> bool:
        return self.keys[key] + wanted >= self.window.records

    def room(self, reserve: float) -> int:
        return max(share(self.window, reserve) - self.total, 0)

    def room_at(self, wanted: int, reserve: float) -> float:
        """Return when ``wanted`` records fit; the past where they fit already."""
        room = share(self.window, reserve) - self.total
        at = 0.0
        for seen in sorted(self.grants.values(), key=lambda seen: seen.at):
            if room >= wanted:
                break
            room += seen.records
            at = self._end(seen)
        return at

    def reopens(self, closed: Collection[str | None]) -> float:
        """Return when the first of the closed keys gets room again."""
        numbers = {crc32(key.encode()) for key in closed if key is not None}
        ends = [self._end(seen) for seen in self.grants.values() if not numbers.isdisjoint(seen.keys)]
        return min(ends, default=0.0)

    def _end(self, seen: _Seen) -> float:
        return seen.at + self.window.seconds * SLACK


def share(window: Window, reserve: float) -> int:
    """Return how many records of a window are left where a share of it is kept for others."""
    return max(int(window.records * (1 - reserve)), 1)


def _first(room: int, fitting: Sequence[Record], records: Sequence[Record]) -> tuple[Grant, Counter[int]]:
    """Grant the first of the fitting records; all others keep their order, whatever held them back."""
    granted = list(fitting[:room])
    numbers = set(map(id, granted))
    return Grant(granted, [record for record in records if id(record) not in numbers]), _counted(granted)


def _counted(records: Sequence[Record]) -> Counter[int]:
    return Counter([crc32(key.encode()) for record in records if (key := record.pace_key) is not None])


def _packed(keys: Counter[int]) -> bytes:
    return array("I", [number for pair in keys.items() for number in pair]).tobytes()


def _unpacked(packed: bytes) -> Counter[int]:
    numbers = array("I", packed)
    return Counter(dict(zip(numbers[::2], numbers[1::2], strict=True)))
