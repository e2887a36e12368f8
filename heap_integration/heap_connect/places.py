"""Where staged tables are applied: a DuckDB file, which reads them itself, or a warehouse to which they are sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

from heap_integration.heap.connect_dumps import OWN_PREFIX
from heap_integration.heap_connect.applying import Arriving, LostColumns, Plan, Target
from heap_integration.heap_connect.reports import LoadedTable, TableReport
from heap_integration.heap_connect.staging import StagedTable
from heap_integration.warehouse.names import relation, translated
from heap_integration.warehouse.systems.duckdb import DuckDBConnection
from heap_integration.warehouse.systems.system import Connection, Dialect, QueryError
from heap_integration.warehouse.tables import quoted

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

DUMPS, TABLES = f"{OWN_PREFIX}dumps", f"{OWN_PREFIX}tables"
_STAGED = f"{OWN_PREFIX}staged_"
_BATCH_ROWS = 50_000
# A dump is written at once and only read afterwards: what DuckDB would take for itself is the cheapest.
_PACKED_ROWS = 122_880

# Times are ISO 8601 as text: what a time is, no two systems agree on.
_NOTES: dict[str, dict[str, str]] = {
    DUMPS: {
        "dump_id": "bigint",
        "loaded_at": "varchar",
        "tables": "bigint",
        "rows_read": "bigint",
        "rows_inserted": "bigint",
        "rows_updated": "bigint",
        "bytes_read": "bigint",
    },
    TABLES: {
        "table_name": "varchar",
        "key_column": "varchar",
        "dump_id": "bigint",
        "replaced_by": "bigint",
        "table_rows": "bigint",
        "loaded_at": "varchar",
    },
}


class Notes:
    """What is noted of dumps and tables beside Heap's tables; it changes together with them."""

    def __init__(self, connection: Connection, schema: str, dialect: Dialect) -> None:
        self._connection = connection
        self._schema = schema
        self._dialect = dialect

    def dumps(self) -> set[int]:
        """Return the dumps that are loaded."""
        return {int(dump_id) for (dump_id,) in self._rows(DUMPS, "dump_id")}

    def tables(self) -> list[LoadedTable]:
        """Return what stands of each table that was ever loaded."""
        return [
            LoadedTable(
                name=str(name),
                key=str(key),
                dump_id=int(dump_id),
                replaced_by=None if replaced_by is None else int(replaced_by),
                rows=int(rows),
                loaded_at=datetime.fromisoformat(str(loaded_at)),
            )
            for name, key, dump_id, replaced_by, rows, loaded_at in self._rows(TABLES, ", ".join(_NOTES[TABLES]))
        ]

    def make(self) -> None:
        """Make the tables of the notes, where they aren't there."""
        import pyarrow as pa

        there = set(self._connection.tables(self._schema))
        types = {"bigint": pa.int64(), "varchar": pa.string()}
        for name, columns in _NOTES.items():
            if name not in there:
                schema = pa.schema([(column, types[kind]) for column, kind in columns.items()])
                self._connection.load(self._schema, name, [pa.RecordBatch.from_pylist([], schema)], schema)

    def of(
        self,
        dump_id: int,
        staged: Sequence[StagedTable],
        reports: Sequence[TableReport],
        before: Sequence[LoadedTable],
    ) -> list[str]:
        """Return the statements that note a dump; ``before`` is what was noted of tables until then."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        totals = [sum(getattr(each, name) for each in reports) for name in ("read", "inserted", "updated", "bytes")]
        place = {name: f"{quoted(self._schema)}.{quoted(name)}" for name in _NOTES}
        statements = [f"insert into {place[DUMPS]} values ({dump_id}, '{now}', {len(reports)}, {_listed(totals)})"]
        earlier = {table.name: table.replaced_by for table in before}
        for each, report in zip(staged, reports, strict=True):
            name = _literal(report.name)
            replaced = dump_id if each.table.replaces else earlier.get(report.name)
            values = [name, _literal(each.table.key), dump_id, "null" if replaced is None else replaced, report.rows]
            statements.append(f"delete from {place[TABLES]} where table_name = {name}")
            statements.append(f"insert into {place[TABLES]} values ({_listed(values)}, '{now}')")
        return [translated(statement, self._dialect) for statement in statements]

    def _rows(self, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
        if table not in self._connection.tables(self._schema):
            return
        sql = translated(f"select {columns} from {quoted(self._schema)}.{quoted(table)}", self._dialect)
        for batch in self._connection.batches(sql):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


class Place(Protocol):
    """Heap's tables in a warehouse."""

    def apply(self, dump_id: int, staged: Sequence[StagedTable]) -> list[TableReport]:
        """Put a dump into them, with its note: all of it, or nothing."""


def place_for(connection: Connection, schema: str, dialect: Dialect, lost_columns: LostColumns) -> Place:
    """Return Heap's tables behind a connection."""
    if isinstance(connection, DuckDBConnection):
        return InFile(connection, schema, lost_columns)
    return AtServer(connection, schema, dialect, lost_columns)


class InFile:
    """Heap's tables in a DuckDB file; it is locked while the rows are written, and at no other time."""

    def __init__(self, connection: DuckDBConnection, schema: str, lost_columns: LostColumns) -> None:
        self._connection = connection
        self._schema = schema
        self._lost_columns: LostColumns = lost_columns

    def apply(self, dump_id: int, staged: Sequence[StagedTable]) -> list[TableReport]:
        """Put a dump into the file, with its note: all of it, or nothing."""
        import duckdb

        notes = Notes(self._connection, self._schema, "duckdb")
        notes.make()
        before = notes.tables()
        reports: list[TableReport] = []
        with self._connection.warehouse.write(ample=True, packed=_PACKED_ROWS) as con:
            target = Target(_FileTables(con, self._schema), self._schema, "duckdb", self._lost_columns)
            try:
                for each in staged:
                    types = {row[0]: row[1] for row in con.execute(f"describe from {each.relation}").fetchall()}
                    known = {name: types[name] for name in each.columns}
                    plan = target.plan(Arriving(each, each.relation, known), dump_id)
                    for statement in plan.together:
                        con.execute(statement)
                    reports.append(plan.report)
                for statement in notes.of(dump_id, staged, reports, before):
                    con.execute(statement)
            except duckdb.DependencyException as error:
                advice = "an index on a table of Heap's is in the way: drop it"
                raise QueryError(f"dump {dump_id} can't be applied: {error} Perhaps {advice}") from error
            except duckdb.ProgrammingError as error:
                raise QueryError(f"dump {dump_id} can't be applied: {error}") from error
        return reports


class _FileTables:
    def __init__(self, con: duckdb.DuckDBPyConnection, schema: str) -> None:
        self._con = con
        self._schema = schema

    def columns(self, table: str) -> dict[str, str]:
        found = self._con.execute(
            "select column_name, data_type from duckdb_columns() where database_name = current_database()"
            " and schema_name = ? and lower(table_name) = lower(?) order by column_index",
            [self._schema, table],
        ).fetchall()
        return dict(found)

    def row(self, sql: str) -> Sequence[Any]:
        return self._con.execute(sql).fetchone() or ()


class AtServer:
    """Heap's tables in a warehouse that rows have to be sent to, before a transaction puts them in their place."""

    def __init__(self, connection: Connection, schema: str, dialect: Dialect, lost_columns: LostColumns) -> None:
        self._connection = connection
        self._schema = schema
        self._dialect = dialect
        self._lost_columns: LostColumns = lost_columns

    def apply(self, dump_id: int, staged: Sequence[StagedTable]) -> list[TableReport]:
        """Put a dump into the tables, with its note: all of it, or nothing."""
        notes = Notes(self._connection, self._schema, self._dialect)
        notes.make()
        self._clear()
        target = Target(self, self._schema, self._dialect, self._lost_columns)
        arriving = [self._sent(number, each) for number, each in enumerate(staged)]
        plans = [target.plan(each, dump_id) for each in arriving]
        reports = [plan.report for plan in plans]
        self._run(plans, "before")
        noted = notes.of(dump_id, staged, reports, notes.tables())
        self._connection.run([statement for plan in plans for statement in plan.together] + noted)
        self._run(plans, "after")
        self._clear()
        return reports

    def columns(self, table: str) -> dict[str, str]:
        """Return the columns of a table; see ``Tables``."""
        return self._connection.columns(self._schema, table)

    def row(self, sql: str) -> Sequence[Any]:
        """Return the first row of a query; see ``Tables``."""
        rows = [row for batch in self._connection.batches(sql) for row in zip(*batch.to_pydict().values(), strict=True)]
        return rows[0]

    def _sent(self, number: int, staged: StagedTable) -> Arriving:
        name = f"{_STAGED}{number}"
        with _batches(staged) as reader:
            self._connection.load(self._schema, name, reader, reader.schema)
        found = {column.casefold(): kind for column, kind in self.columns(name).items()}
        types: Mapping[str, str] = {column: found[column.casefold()] for column in staged.columns}
        return Arriving(staged, relation(self._schema, name, self._dialect), types)

    def _run(self, plans: Sequence[Plan], what: Literal["before", "after"]) -> None:
        # one by one: where columns can't change in a transaction, several statements would be one
        for plan in plans:
            for statement in plan.before if what == "before" else plan.after:
                self._connection.run([statement])

    def _clear(self) -> None:
        for name in self._connection.tables(self._schema):
            if name.lower().startswith(_STAGED):
                self._connection.run([f"drop table {relation(self._schema, name, self._dialect)}"])


@contextmanager
def _batches(staged: StagedTable) -> Iterator[pa.RecordBatchReader]:
    """Yield the rows of a staged table."""
    import duckdb

    with duckdb.connect(config={"threads": 1, "memory_limit": "200MB"}) as con:
        columns = ", ".join(map(quoted, staged.columns))
        yield con.execute(f"select {columns} from {staged.relation}").to_arrow_reader(_BATCH_ROWS)


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
