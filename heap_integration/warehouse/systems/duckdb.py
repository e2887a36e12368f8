"""DuckDB as the warehouse: the file that also holds the hub's own tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from heap_integration.settings import Name
from heap_integration.warehouse.systems.arrow import empty, reader_of, within
from heap_integration.warehouse.systems.system import (
    NO_LIMITS,
    Closing,
    Connection,
    Dialect,
    LimitExceeded,
    Limits,
    QueryError,
    Schemas,
    Surroundings,
    WarehouseSettings,
)
from heap_integration.warehouse.tables import quoted

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from heap_integration.warehouse.duck import Warehouse

BATCH_ROWS = 10_000


class DuckDBSettings(WarehouseSettings):
    """One DuckDB file, by its address ``duckdb:///path/to/file.duckdb``."""

    dialect: ClassVar[Dialect] = "duckdb"
    title: ClassVar[str] = "DuckDB"

    type: Literal["duckdb"] = "duckdb"
    url: Name

    def place(self) -> str:
        """Return the file's address."""
        return self.url

    def schemas(self) -> Schemas:
        """Return the schemas inside the file: a file belongs to one environment, so they need no prefix."""
        return Schemas("heap_connect", "models", "main", "exports")

    def connect(self, surroundings: Surroundings) -> Connection:
        """Open the file for one statement or one transaction at a time, behind the lock of the hub's own tables."""
        from heap_integration.warehouse.duck import Warehouse

        own = surroundings.own
        return DuckDBConnection(
            own if own.url == self.url else Warehouse(self.url, own.ample_mb, holds_own_tables=False)
        )

    def dbt_output(self, surroundings: Surroundings) -> dict[str, Any]:
        """Return dbt's profile: the file under the name by which the hub attaches it, so that views work for both.

        It is in UTC, and within the memory that the environment allows; what doesn't fit waits beside the file. Opened
        for another number of rows to pack together, DuckDB would pack the hub's own tables again.
        """
        from heap_integration.warehouse.duck import PACKED_ROWS

        path = self.url.removeprefix("duckdb:///")
        return {
            "type": "duckdb",
            "path": ":memory:",
            "database": "hub",
            "attach": [{"path": path, "alias": "hub", "options": {"row_group_size": PACKED_ROWS}}],
            "schema": self.schemas().models,
            "threads": 1,
            "config_options": {
                "memory_limit": f"{surroundings.own.ample_mb}MB",
                "threads": 2,
                "temp_directory": f"{path}.waiting-models",
                "preserve_insertion_order": "false",
            },
            "settings": {"TimeZone": "UTC"},
        }


class DuckDBConnection(Closing):
    """A connection to a DuckDB file, which is open for as long as one statement or transaction takes."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        self._readers = 0
        self._writing = False

    def batches(
        self, sql: str, params: Sequence[object] = (), *, limits: Limits = NO_LIMITS
    ) -> Iterator[pa.RecordBatch]:
        """Run one read-only statement; the file is open for reading until its last row is taken.

        No other file can be read by it, and nothing fetched from elsewhere.
        """
        with self._reader(), _in_words(), self.warehouse.read(ample=True) as con, _stopwatch(con, limits):
            con.execute("set enable_external_access = false; set lock_configuration = true")
            reader = con.execute(_query(con, sql), list(params)).to_arrow_reader(BATCH_ROWS)
            yield empty(reader.schema)
            yield from within(reader, limits)

    def run(self, statements: Sequence[str]) -> None:
        """Run statements in one transaction."""
        with self._writer(), _in_words(), self.warehouse.write(ample=True) as con:
            for statement in statements:
                con.execute(statement)

    def tables(self, schema: str) -> list[str]:
        """Return the tables and views of a schema."""
        with self.warehouse.read() as con:
            found = con.execute(
                "select table_name from information_schema.tables"
                " where table_catalog = current_database() and table_schema = ? order by table_name",
                [schema],
            ).fetchall()
        return [str(name) for (name,) in found]

    def columns(self, schema: str, table: str) -> dict[str, str]:
        """Return the columns of a table in their order, with their types."""
        with self.warehouse.read() as con:
            found = con.execute(
                "select column_name, data_type from information_schema.columns where table_catalog = current_database()"
                " and table_schema = ? and table_name = ? order by ordinal_position",
                [schema, table],
            ).fetchall()
        return {str(name): str(kind) for name, kind in found}

    def load(self, schema: str, table: str, batches: Iterable[pa.RecordBatch], columns: pa.Schema) -> int:
        """Put rows into a new table in place of one of that name."""
        place = f"{quoted(schema)}.{quoted(table)}"
        with (
            self._writer(),
            reader_of(batches, columns) as rows,
            _in_words(),
            self.warehouse.write(ample=True) as con,
        ):
            con.execute(f"create schema if not exists {quoted(schema)}")
            con.register("rows_to_come", rows)
            con.execute(f"create or replace table {place} as from rows_to_come")
            (count,) = con.execute(f"select count(*) from {place}").fetchone() or (0,)
        return int(count)

    def close(self) -> None:
        """Nothing is open between two statements."""

    # Who reads and writes at a time would wait for its own lock, for ever.

    @contextmanager
    def _reader(self) -> Iterator[None]:
        if self._writing:
            raise RuntimeError("rows can't be read from a DuckDB file while some are written to it: write first")
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    @contextmanager
    def _writer(self) -> Iterator[None]:
        if self._readers or self._writing:
            raise RuntimeError("a DuckDB file can't be written to while a query of it is read: take all rows first")
        self._writing = True
        try:
            yield
        finally:
            self._writing = False


def _query(con: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    import duckdb

    statements = con.extract_statements(sql)
    if len(statements) != 1:
        raise QueryError(f"there are {len(statements)} statements: one at a time can be run")
    if statements[0].type != duckdb.StatementType.SELECT:
        raise QueryError(f"the statement is {statements[0].type.name}: only queries can be run")
    return statements[0]


@contextmanager
def _stopwatch(con: duckdb.DuckDBPyConnection, limits: Limits) -> Iterator[None]:
    if limits.seconds is None:
        yield
        return
    timer = Timer(limits.seconds, con.interrupt)
    timer.start()
    try:
        yield
    except QueryError:
        raise
    except Exception as error:
        if timer.finished.is_set():
            raise LimitExceeded(f"the query has taken longer than {limits.seconds:g} seconds") from error
        raise
    finally:
        timer.cancel()
        timer.join()


@contextmanager
def _in_words() -> Iterator[None]:
    import duckdb
    import pyarrow as pa

    try:
        yield
    except (duckdb.Error, pa.ArrowException) as error:
        raise QueryError(str(error)) from error
