"""DuckDB as the warehouse: the file that also holds the hub's own tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from heap_integration.settings import Name
from heap_integration.warehouse.systems.system import (
    NO_LIMITS,
    Connection,
    Dialect,
    Limits,
    QueryError,
    Schemas,
    Surroundings,
    WarehouseSettings,
)
from heap_integration.warehouse.tables import quoted

if TYPE_CHECKING:
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
        return DuckDBConnection(own if own.url == self.url else Warehouse(self.url, own.ample_mb))

    def dbt_output(self, surroundings: Surroundings) -> dict[str, Any]:
        """Return dbt's profile: the file, in UTC, within the memory that the environment allows."""
        return {
            "type": "duckdb",
            "path": self.url.removeprefix("duckdb:///"),
            "schema": self.schemas().models,
            "threads": 1,
            "settings": {"memory_limit": f"{surroundings.own.ample_mb}MB", "threads": 2, "TimeZone": "UTC"},
        }


class DuckDBConnection:
    """A connection to a DuckDB file, which is open for as long as one statement or transaction takes."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def batches(
        self, sql: str, params: Sequence[object] = (), *, limits: Limits = NO_LIMITS
    ) -> Iterator[pa.RecordBatch]:
        """Run one read-only statement; the file is open for reading until its last row is taken."""
        import duckdb

        with self.warehouse.read(ample=True) as con:
            try:
                yield from con.execute(sql, list(params)).to_arrow_reader(BATCH_ROWS)
            except duckdb.Error as error:
                raise QueryError(str(error)) from error

    def run(self, statements: Sequence[str]) -> None:
        """Run statements in one transaction."""
        import duckdb

        with self.warehouse.write(ample=True) as con:
            try:
                for statement in statements:
                    con.execute(statement)
            except duckdb.Error as error:
                raise QueryError(str(error)) from error

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
        import pyarrow as pa

        rows_to_come = pa.RecordBatchReader.from_batches(columns, batches)
        place = f"{quoted(schema)}.{quoted(table)}"
        with self.warehouse.write(ample=True) as con:
            con.execute(f"create schema if not exists {quoted(schema)}")
            con.register("rows_to_come", rows_to_come)
            con.execute(f"create or replace table {place} as from rows_to_come")
            (rows,) = con.execute(f"select count(*) from {place}").fetchone() or (0,)
        return int(rows)

    def close(self) -> None:
        """Nothing is open between two statements."""
