"""Landed lines in the store, for receivers that share a database and no disk."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import BinaryIO, TypeVar

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from heap_integration.landing.commits import GroupCommit, LandingUnavailable
from heap_integration.landing.interface import Segment
from heap_integration.landing.joining import joined
from heap_integration.store import Store
from heap_integration.store.tables import landing_lines

T = TypeVar("T")
columns = landing_lines.c

log = logging.getLogger(__name__)

# Anybody may ask whether the receiver is ready: where the store is stays in the log.
UNREACHABLE = "the store takes nothing"

SEGMENT_ROWS = 10_000
PIECE_BYTES = 1 << 20


class StoreLanding:
    """Puts lines into the store; any number of processes may do so at once.

    Lines that arrive while a transaction runs share the next one.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows = GroupCommit(self._insert)

    @property
    def last_durable(self) -> float | None:
        """When a line was last made durable, on the monotonic clock."""
        return self._rows.last_durable

    async def append(self, line: bytes) -> None:
        """Put one line, without its newline, into the store and return when it is committed.

        Raises:
            LandingClosed: this was closed.
            LandingUnavailable: the store can't be reached, or is locked.
        """
        await self._rows.append(line)

    def ready(self) -> str:
        """Return why no lines can be taken now; asks the store."""
        if trouble := self._rows.trouble():
            return trouble
        try:
            with self._store.read() as connection:
                connection.execute(select(1))
        except SQLAlchemyError as error:
            log.error("the store can't be reached: %s", _cause(error))
            return UNREACHABLE
        return ""

    async def close(self) -> None:
        """Commit what is pending. Closing again does nothing."""
        await self._rows.close()

    def _insert(self, lines: list[bytes]) -> None:
        try:
            with self._store.begin() as connection:
                # A statement is in memory as a whole, at twice the size of its lines.
                for piece in _pieces(lines, len):
                    connection.execute(insert(landing_lines), [{"line": line} for line in piece])
        except SQLAlchemyError as error:
            raise LandingUnavailable(UNREACHABLE) from _cause(error)


class StoreArrivals:
    """The lines in the store, taken in by segments of up to ``segment_rows``.

    A line gets the name of its segment when somebody asks what waits. Lines that are committed later
    get another one, whatever their numbers: PostgreSQL doesn't commit in the order of numbers.
    """

    def __init__(self, store: Store, *, segment_rows: int = SEGMENT_ROWS) -> None:
        self.store = store
        self.segment_rows = segment_rows

    def has_waiting(self) -> bool:
        """Return whether there are lines."""
        with self.store.read() as connection:
            return connection.execute(select(columns.id).limit(1)).first() is not None

    def gather(self) -> None:
        """Do nothing: segments are as large as they can be."""

    def waiting(self) -> list[Segment]:
        """Give all lines that have no segment yet one, and return all segments, oldest first."""
        while self._name() == self.segment_rows:
            pass
        names = select(columns.segment).where(columns.segment.is_not(None)).distinct()
        with self.store.read() as connection:
            return [StoreSegment(self.store, name) for name in sorted(connection.execute(names).scalars())]

    def _name(self) -> int:
        """Make the next segment and return how many lines it has."""
        nameless = select(columns.id).where(columns.segment.is_(None)).order_by(columns.id).limit(self.segment_rows)
        with self.store.begin(serial="landing segments") as connection:
            first = connection.execute(nameless.limit(1)).scalar()
            if first is None:
                return 0
            # The number of a line is never given again in this store, and no clock makes it smaller. In
            # a new store numbers begin again: the rest tells them apart.
            name = f"store-{first:019d}-{secrets.token_hex(8)}"
            named = update(landing_lines).where(columns.id.in_(nameless)).values(segment=name)
            return connection.execute(named).rowcount


class StoreSegment:
    """Lines in the store that have a segment's name."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name

    def open(self) -> BinaryIO:
        """Return the lines in the order of their numbers; about a megabyte is in memory at a time.

        Reading raises RuntimeError when somebody else has removed the segment meanwhile.
        """
        return joined(self._lines())

    def remove(self) -> None:
        """Delete the lines."""
        with self.store.begin() as connection:
            connection.execute(delete(landing_lines).where(columns.segment == self.name))

    def _lines(self) -> Iterator[bytes]:
        mine = columns.segment == self.name
        with self.store.read() as connection:
            sizes = connection.execute(
                select(columns.id, func.length(columns.line)).where(mine).order_by(columns.id)
            ).tuples()
            numbered = list(sizes)
        if not numbered:
            raise RuntimeError(f"{self.name} has been removed")
        for piece in _pieces(numbered, itemgetter(1)):
            part = mine & columns.id.between(piece[0][0], piece[-1][0])
            with self.store.read() as connection:
                lines = connection.execute(select(columns.line).where(part).order_by(columns.id)).scalars().all()
            if len(lines) != len(piece):
                raise RuntimeError(f"{self.name} was removed while it was being read")
            yield b"\n".join([*lines, b""])


def _pieces(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield the items in lists of no more than ``PIECE_BYTES`` together, but of one at least."""
    piece: list[T] = []
    filled = 0
    for item in items:
        filled += size(item)
        if piece and filled > PIECE_BYTES:
            yield piece
            piece, filled = [], size(item)
        piece.append(item)
    if piece:
        yield piece


def _cause(error: SQLAlchemyError) -> BaseException:
    # Its own text would have the whole statement.
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
