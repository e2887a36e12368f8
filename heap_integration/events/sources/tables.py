"""Rows of a table in the warehouse as events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from heap_integration.events.event import Event, Refusal
from heap_integration.events.mapping import Mapping, MappingError, RowReader
from heap_integration.events.sources.columns import row_text, rows_of
from heap_integration.events.sources.rows import Chunk, Rows
from heap_integration.events.sources.values import EPOCH
from heap_integration.warehouse.cursors import (
    CursorTable,
    beside,
    find_table,
    has_news,
    how_far,
    keep_end,
    keep_step,
    next_step,
    unread_rows,
)

if TYPE_CHECKING:
    import duckdb

_BATCH_ROWS = 4_096
_MICROSECOND = timedelta(microseconds=1)


class TableReader:
    """Reads a table step by step, each within one transaction of the caller's; ``done`` after the last one.

    A row bears as its line how many rows were read of the table before it. ``fingerprint`` names the table
    together with the rules by which it is read. ``look_back`` is how late a row may arrive (not for integers).
    """

    def __init__(
        self,
        table: CursorTable,
        mapping: Mapping,
        *,
        source: str,
        fingerprint: str,
        look_back: timedelta,
        received_at: datetime,
    ) -> None:
        self.table = table
        self.done = False
        self._mapping = mapping
        self._source = source
        self._fingerprint = fingerprint
        self._look_back = look_back
        self._received_at = received_at
        self._after: int | None = None
        self._begun = False
        # DuckDB hands JSON out as its text
        self._json_places = [place for place, name in enumerate(table.columns) if name in table.json_columns]

    def has_news(self, con: duckdb.DuckDBPyConnection) -> bool:
        """Say whether there are rows to read, by a look at the cursor alone."""
        return has_news(con, self.table, how_far(con, self._fingerprint))

    def step(self, con: duckdb.DuckDBPyConnection, after_line: int, step_rows: int) -> Iterator[Chunk]:
        """Yield the rows of the next step, and keep that they were read.

        The first step begins with those that arrived late; then come the new ones by their cursor, about
        ``step_rows`` at a time.
        """
        begins, self._begun = not self._begun, True
        if begins:
            for chunk in self._late(con, after_line, step_rows):
                after_line = chunk.last_line
                yield chunk
        last = next_step(con, self.table, self._after, step_rows)
        if last is not None:
            first = None if self._after is None else self._after + 1
            yield from self._rows(con, first, last, after_line, step_rows)
            self._after = last
            return
        if not begins:
            # what came late since the first step would else be taken for read
            for chunk in self._late(con, after_line, step_rows):
                after_line = chunk.last_line
                yield chunk
        yield from self._unplaced(con, after_line)
        self.done = True

    def _late(self, con: duckdb.DuckDBPyConnection, after_line: int, chunk_rows: int) -> Iterator[Chunk]:
        so_far = how_far(con, self._fingerprint)
        if so_far is None or so_far.reached is None:
            return
        back = self._look_back // _MICROSECOND if self.table.is_time else 0
        yield from self._rows(con, so_far.reached - back, so_far.reached, after_line, chunk_rows)
        if self._after is None:
            self._after = so_far.reached

    def _unplaced(self, con: duckdb.DuckDBPyConnection, after_line: int) -> Iterator[Chunk]:
        unplaced = keep_end(con, self.table, self._fingerprint, self._source)
        if unplaced:
            rows = Rows(self.table.name)
            few = f"{unplaced:,} rows have" if unplaced > 1 else "a row has"
            rows.refuse(after_line, f"{few} no {self.table.cursor}: without it they are never read", "")
            yield rows.chunk(after_line)

    def _rows(
        self, con: duckdb.DuckDBPyConnection, first: int | None, last: int, after_line: int, chunk_rows: int
    ) -> Iterator[Chunk]:
        rows, line = Rows(self.table.name), after_line
        reader = RowReader(self._mapping, self.table.columns, self.table.name)
        reading = beside(con)
        for batch in unread_rows(reading, self.table, self._fingerprint, first, last, _BATCH_ROWS):
            for row in rows_of(batch):
                line += 1
                rows.add(line, self._event(reader, row, line), self._received_at)
            if rows.full(chunk_rows):
                yield rows.chunk(line)
        reading.close()
        if rows.lines:
            yield rows.chunk(line)
        keep_step(
            con,
            self.table,
            fingerprint=self._fingerprint,
            source=self._source,
            first=first,
            last=last,
            look_back=self._look_back,
            now=(self._received_at - EPOCH) // _MICROSECOND,
        )

    def _event(self, reader: RowReader, row: Sequence[Any] | Refusal, line: int) -> Event | Refusal:
        if isinstance(row, Refusal):
            return row
        for place in self._json_places:
            row = [*row[:place], _value(row[place]), *row[place + 1 :]]
        event = reader.read(row, line)
        if isinstance(event, Refusal):
            text = row_text(self.table.columns, row)
            return Refusal(event.reason, text if isinstance(text, str) else text.decode())
        return event


def table_reader(
    con: duckdb.DuckDBPyConnection,
    *,
    source: str,
    table: str,
    cursor: str,
    mapping: Mapping,
    look_back: timedelta,
    fingerprint: str,
    received_at: datetime,
) -> TableReader:
    """Return what reads ``table`` by ``mapping``.

    Raises:
        TableError: the table or its cursor isn't there or won't do.
        MappingError: a column of the mapping is missing, or it asks for what a table can't give.
    """
    found = find_table(con, table, cursor)
    mapping.check(found.columns, found.name, "table")
    if mapping.identical_rows == "keep":
        raise MappingError(f"{found.name}: identical_rows: keep needs lines of a file; name a message_id instead")
    columns = mapping.needed(found.columns)
    return TableReader(
        found.only(columns),
        mapping,
        source=source,
        fingerprint=fingerprint,
        look_back=look_back,
        received_at=received_at,
    )


def _value(text: Any) -> Any:
    try:
        return orjson.loads(text) if isinstance(text, str) else text
    except orjson.JSONDecodeError:
        return text
