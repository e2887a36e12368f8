"""Tables and views of the warehouse, read by a column that grows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from heap_integration.warehouse import tables
from heap_integration.warehouse.tables import TableError, quoted

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

# by the column's type: how a position becomes a value to compare the column with
_MOMENTS = ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S", "DATE")
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class CursorTable:
    """A table or view with its cursor and the columns that are read; names as the warehouse spells them.

    A position is the cursor as a number: microseconds since 1970 of a date or a moment, else the number itself.
    """

    name: str
    relation: str
    cursor: str
    kind: str
    columns: tuple[str, ...]
    json_columns: frozenset[str]

    @property
    def is_time(self) -> bool:
        """Say whether the cursor is a date or a moment."""
        return self.kind in _MOMENTS

    def only(self, columns: Sequence[str]) -> CursorTable:
        """Return the same table with fewer columns."""
        return replace(self, columns=tuple(columns))

    @property
    def _position(self) -> str:
        cursor = quoted(self.cursor)
        return f"epoch_us({cursor}::timestamp)" if self.is_time else f"{cursor}::bigint"

    @property
    def _row_hash(self) -> str:
        return f"hash({', '.join(map(quoted, dict.fromkeys((self.cursor, *self.columns))))})"

    def _between(self, first: int | None, last: int | None) -> str:
        """Return a condition; a bound on the column itself lets DuckDB pass over what lies beyond it."""
        conditions = [f"{self._position} is not null"]
        if first is not None:
            conditions += [f"{quoted(self.cursor)} >= {self._value(first)}", f"{self._position} >= {first}"]
        if last is not None:
            # a position has no nanoseconds
            conditions += [f"{quoted(self.cursor)} <= {self._value(last + 1)}", f"{self._position} <= {last}"]
        return " and ".join(conditions)

    def _value(self, position: int) -> str:
        return f"make_timestamp({position})::{self.kind}" if self.is_time else str(position)


@dataclass(frozen=True)
class Reached:
    """How far a table was read.

    From ``floor`` to ``reached``, and beyond it where rows bear a time to come, the rows that were read are
    known one by one; both are ``None`` where no row has a cursor yet. ``window_mark`` sums up those rows;
    ``unplaced`` counts rows without a cursor.
    """

    reached: int | None
    floor: int | None
    window_mark: str
    unplaced: int


def find_table(con: duckdb.DuckDBPyConnection, name: str, cursor: str) -> CursorTable:
    """Find a table or view with its cursor; see ``tables.find_table``.

    Raises:
        TableError: it, or the cursor, isn't there, or the cursor is neither a time nor an integer.
    """
    table = tables.find_table(con, name)
    spelt = table.column(cursor)
    if table.columns[spelt] not in (*_MOMENTS, *_NUMBERS):
        raise TableError(
            f"table {table.name}: {spelt} is {table.columns[spelt]}; "
            "a cursor is a timestamp, a date or an integer of up to 64 bits"
        )
    json_columns = frozenset(column for column, kind in table.columns.items() if kind == "JSON")
    return CursorTable(table.name, table.relation, spelt, table.columns[spelt], tuple(table.columns), json_columns)


def how_far(con: duckdb.DuckDBPyConnection, fingerprint: str) -> Reached | None:
    """Return how far a table was read by some rules; ``None`` where it never was."""
    row = con.execute(
        "select reached, floor, window_mark, unplaced from table_cursors where fingerprint = ?", [fingerprint]
    ).fetchone()
    return Reached(*row) if row else None


def has_news(con: duckdb.DuckDBPyConnection, table: CursorTable, so_far: Reached | None) -> bool:
    """Say whether a table holds rows that were not read, by a look at its cursor alone.

    A row that changed and kept its cursor is not noticed.
    """
    if so_far is None:
        return con.execute(f"select 1 from {table.relation} limit 1").fetchone() is not None
    return _window(con, table, so_far.floor) != (so_far.window_mark, so_far.unplaced)


def _window(con: duckdb.DuckDBPyConnection, table: CursorTable, floor: int | None) -> tuple[str, int]:
    inside = "placed is not null" if floor is None else f"placed >= {floor}"
    row = con.execute(
        f"select count(*) filter ({inside}) || ':' || coalesce(bit_xor(hash(cursor)) filter ({inside}), 0),"
        " count(*) - count(placed)"
        f" from (select {quoted(table.cursor)} as cursor, {table._position} as placed from {table.relation})"
    ).fetchone()
    return (str(row[0]), int(row[1])) if row else ("", 0)


def next_step(con: duckdb.DuckDBPyConnection, table: CursorTable, after: int | None, rows: int) -> int | None:
    """Return up to where the next ``rows`` rows after a position reach; ``None`` where there are none.

    All rows that share the last position belong to the step.
    """
    row = con.execute(
        f"select max(placed) from (select {table._position} as placed from {table.relation}"
        f" where {table._between(None if after is None else after + 1, None)} order by placed limit {rows})"
    ).fetchone()
    return int(row[0]) if row and row[0] is not None else None


def beside(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Return a second connection to the same warehouse, to read by while the first one writes."""
    second = con.cursor()
    second.execute("use hub; set timezone = 'UTC'")
    return second


def unread_rows(
    con: duckdb.DuckDBPyConnection, table: CursorTable, fingerprint: str, first: int | None, last: int, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield the rows from ``first`` to ``last`` that aren't known, in the cursor's order."""
    columns = ", ".join(map(quoted, table.columns))
    found = con.execute(
        f"select {columns} from (select *, {table._position} as hub_position, {table._row_hash} as hub_row"
        f" from {table.relation} where {table._between(first, last)})"
        " where hub_row not in (select row_hash from table_rows where fingerprint = $1) order by hub_position",
        [fingerprint],
    )
    yield from found.to_arrow_reader(batch_rows)


def keep_step(
    con: duckdb.DuckDBPyConnection,
    table: CursorTable,
    *,
    fingerprint: str,
    source: str,
    first: int | None,
    last: int,
    look_back: timedelta,
    now: int,
) -> None:
    """Keep that the rows from ``first`` to ``last`` were read, in the caller's transaction.

    The end of what was read never passes ``now`` (a position): a row with a time far ahead would hide all
    that come until then.
    """
    earlier = how_far(con, fingerprint)
    reached = min(last, now) if table.is_time else last
    if earlier and earlier.reached is not None:
        reached = max(reached, earlier.reached)
    floor = reached - look_back // _MICROSECOND if table.is_time else reached
    con.execute("delete from table_rows where fingerprint = ? and position < ?", [fingerprint, floor])
    con.execute(
        f"insert into table_rows select $1, {table._position}, {table._row_hash} from {table.relation}"
        f" where {table._between(floor if first is None else max(first, floor), last)}"
        f" and {table._row_hash} not in (select row_hash from table_rows where fingerprint = $1)",
        [fingerprint],
    )
    _keep(con, table, fingerprint, source, Reached(reached, floor, "", earlier.unplaced if earlier else 0))


def keep_end(con: duckdb.DuckDBPyConnection, table: CursorTable, fingerprint: str, source: str) -> int:
    """Keep that all rows there are were read; return how many rows without a cursor are there that weren't before."""
    so_far = how_far(con, fingerprint) or Reached(None, None, "", 0)
    mark, unplaced = _window(con, table, so_far.floor)
    _keep(con, table, fingerprint, source, replace(so_far, window_mark=mark, unplaced=unplaced))
    return max(0, unplaced - so_far.unplaced)


def _keep(con: duckdb.DuckDBPyConnection, table: CursorTable, fingerprint: str, source: str, reached: Reached) -> None:
    con.execute("delete from table_cursors where fingerprint = ?", [fingerprint])
    con.execute(
        "insert into table_cursors values (?, ?, ?, ?, ?, ?, ?, now()::timestamp)",
        [fingerprint, source, table.name, reached.reached, reached.floor, reached.window_mark, reached.unplaced],
    )
