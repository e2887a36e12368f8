"""Brings tables and views of the warehouse into its events, each row once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from heap_integration.events.mapping import Mapping
from heap_integration.events.pieces import Progress, add_piece, rules_of, under
from heap_integration.events.sources.tables import TableReader, table_reader
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.duck import PACKED_ROWS
from heap_integration.warehouse.events import Loaded, origin_of, resume_point

if TYPE_CHECKING:
    import duckdb

# A step sorts its rows, and a view may join what it likes.
_MEMORY = "256MB"


@dataclass(frozen=True)
class TableInput:
    """A table or view with a cursor (a time, a date or an integer), and how its rows become events.

    ``source`` is the name that the events bear. Rows may arrive late by up to ``look_back`` where the cursor
    is a time.
    """

    source: str
    table: str
    cursor: str
    mapping: Mapping
    look_back: timedelta

    @property
    def fingerprint(self) -> str:
        """What tells the table, read by these rules, from all other inputs."""
        return f"table-{rules_of(self.mapping, 'segment', self.source, self.table, self.cursor)}"

    def reader(self, con: duckdb.DuckDBPyConnection) -> TableReader:
        """Return what reads the table.

        Raises:
            TableError: the table or its cursor isn't there, or the cursor won't do.
            MappingError: the table lacks a column of the mapping.
        """
        return table_reader(
            con,
            source=self.source,
            table=self.table,
            cursor=self.cursor,
            mapping=self.mapping,
            look_back=self.look_back,
            fingerprint=self.fingerprint,
            received_at=datetime.now(UTC),
        )


def load_table(
    warehouse: Warehouse,
    source: str,
    table: str,
    cursor: str,
    mapping: Mapping,
    look_back: timedelta,
    progress: Progress = lambda _: None,
) -> Loaded:
    """Load the rows of a table or view that aren't among the warehouse's events yet, by its column ``cursor``.

    A row that was read isn't read again; one that changed within ``look_back`` is, and counts as a duplicate
    if it has a message id. Rows and the note of how far they reach commit together.

    Raises:
        TableError, MappingError: see ``TableInput.reader``.
    """
    given = TableInput(source, table, cursor, mapping, look_back)
    mark, total = given.fingerprint, Loaded()
    with warehouse.read() as con:
        reader = given.reader(con)
        if not reader.has_news(con):
            return total
    while not reader.done:
        with warehouse.write() as con:
            con.execute(f"set memory_limit = '{_MEMORY}'")
            origin = origin_of(con, reader.table.name, mark)
            for chunk in reader.step(con, resume_point(con, mark) or 0, PACKED_ROWS):
                total += add_piece(con, under(source, chunk), origin, mark)
                del chunk
        progress(total)
    return total


def table_has_news(
    warehouse: Warehouse, source: str, table: str, cursor: str, mapping: Mapping, look_back: timedelta
) -> bool:
    """Say whether a table holds rows that aren't loaded, by a look at its cursor alone.

    Raises:
        TableError, MappingError: see ``TableInput.reader``.
    """
    with warehouse.read() as con:
        return TableInput(source, table, cursor, mapping, look_back).reader(con).has_news(con)
