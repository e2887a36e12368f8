"""Azure Synapse as the warehouse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from heap_integration.settings import Name, Secret
from heap_integration.warehouse.duck import WarehouseError
from heap_integration.warehouse.names import relation
from heap_integration.warehouse.systems.arrow import Columns, as_type, empty, storable, within, without_code_0
from heap_integration.warehouse.systems.columns import declared, in_utc
from heap_integration.warehouse.systems.deadline import Deadline
from heap_integration.warehouse.systems.statements import literal, one_query
from heap_integration.warehouse.systems.system import (
    NO_LIMITS,
    Closing,
    Connection,
    Dialect,
    Limits,
    QueryError,
    ServerSettings,
    Surroundings,
)
from heap_integration.warehouse.systems.turns import in_turns, must_read

if TYPE_CHECKING:
    import pyarrow as pa

DBT_THREADS = 4
CONNECT_SECONDS = 15
FETCHED_ROWS = 10_000
# What T-SQL says of how a new table is kept: a columnstore has no room for texts of any length.
KEPT = "with (heap, distribution = round_robin)"


class SynapseSettings(ServerSettings):
    """A dedicated SQL pool of Azure Synapse, reached by Microsoft's ODBC driver."""

    dialect: ClassVar[Dialect] = "tsql"
    title: ClassVar[str] = "Azure Synapse"

    type: Literal["synapse"]
    host: Name
    port: int = Field(1433, gt=0, lt=65536)
    database: Name
    user: Name
    password: Secret
    driver: Name = "ODBC Driver 18 for SQL Server"

    def place(self) -> str:
        """Return server, database and the schemas' prefix."""
        return f"synapse:{self.host.lower()}:{self.port}/{self.database.lower()}/{self.schema_prefix.lower()}"

    def connect(self, surroundings: Surroundings) -> Connection:
        """Open a session by ODBC."""
        try:
            import pyodbc
        except ImportError as error:
            raise WarehouseError(f"ODBC's driver manager isn't installed on this machine: {error}") from error
        given = {
            "DRIVER": self.driver,
            "SERVER": f"{self.host},{self.port}",
            "DATABASE": self.database,
            "UID": self.user,
            "PWD": self.password.value(surroundings.variables),
            "Encrypt": "yes",
            "APP": "heap-integration",
        }
        address = ";".join(f"{name}={_braced(value)}" for name, value in given.items())
        try:
            session = pyodbc.connect(address, autocommit=True, timeout=CONNECT_SECONDS)
        except pyodbc.Error as error:
            raise WarehouseError(f"Azure Synapse at {self.host} can't be reached: {_message(error)}") from error
        return SynapseConnection(session, pyodbc.Error)

    def dbt_output(self, _surroundings: Surroundings) -> dict[str, Any]:
        """Return dbt's profile of the pool."""
        return {
            "type": "synapse",
            "driver": self.driver,
            "server": self.host,
            "port": self.port,
            "database": self.database,
            "schema": self.schemas().models,
            "authentication": "sql",
            "user": self.user,
            "password": f"{{{{ env_var('{self.password.env}') }}}}",
            "encrypt": True,
            "threads": DBT_THREADS,
        }


class SynapseConnection(Closing):
    """A session of a dedicated SQL pool, by a driver as PEP 249 describes them.

    ``session`` commits every statement by itself; ``refusal`` is the driver's error.
    """

    def __init__(self, session: Any, refusal: type[Exception]) -> None:
        self._session = session
        self._refusal = refusal

    def batches(
        self, sql: str, params: Sequence[object] = (), *, limits: Limits = NO_LIMITS
    ) -> Iterator[pa.RecordBatch]:
        """Run one query, which the driver cancels when its time is over.

        No session of a pool is read-only: that it is a query is read from it, and what else may be done is a matter
        of the user's grants.
        """
        # the driver knows parameters by the same sign
        statement, deadline = one_query(sql, (), "tsql"), Deadline(limits)
        must_read(statement, "tsql")
        self._session.timeout = deadline.whole_seconds or 0
        try:
            with self._cursor(deadline) as cursor:
                cursor.execute(statement, *params)
                yield from within(deadline.kept_by(_fetched(cursor)), limits)
        finally:
            self._session.timeout = 0

    def run(self, statements: Sequence[str]) -> None:
        """Run statements; those that change rows are one transaction, see ``in_turns``."""
        turns = in_turns(statements, "tsql")
        with self._cursor() as cursor:
            for statement in turns.before:
                cursor.execute(statement)
            if turns.together:
                self._transaction(cursor, turns.together)
            for statement in turns.after:
                cursor.execute(statement)

    def tables(self, schema: str) -> list[str]:
        """Return the tables and views of a schema."""
        found = self._described(
            "select table_name from information_schema.tables where table_schema = {} order by table_name", schema
        )
        return [name for (name,) in found]

    def columns(self, schema: str, table: str) -> dict[str, str]:
        """Return the columns of a table in their order, with their types."""
        found = self._described(
            "select column_name, data_type from information_schema.columns where table_schema = {} and table_name = {}"
            " order by ordinal_position",
            schema,
            table,
        )
        return {str(name): str(kind) for name, kind in found}

    def load(self, schema: str, table: str, batches: Iterable[pa.RecordBatch], columns: pa.Schema) -> int:
        """Put rows into a new table in place of one of that name, by inserts of many rows."""
        form = storable(columns)
        target = Columns(in_utc(form.schema, None), lambda column, field: as_type(column, field.type))
        place, rows = relation(schema, table, "tsql"), 0
        if not self._described("select schema_name from information_schema.schemata where schema_name = {}", schema):
            self.run([f"create schema [{schema}]"])
        if table in self.tables(schema):
            self.run([f"drop table {place}"])
        self.run([f"create table {place} ({declared(target.schema, 'tsql')}) {KEPT}"])
        marks = ", ".join("?" * len(target.schema))
        with self._cursor() as cursor:
            cursor.fast_executemany = True
            for batch in batches:
                values = target.of(without_code_0(form.of(batch))).to_pylist()
                if values:
                    cursor.executemany(f"insert into {place} values ({marks})", [list(row.values()) for row in values])
                rows += len(values)
        return rows

    def close(self) -> None:
        """Close the session."""
        self._session.close()

    @contextmanager
    def _cursor(self, deadline: Deadline | None = None) -> Iterator[Any]:
        cursor = self._session.cursor()
        try:
            yield cursor
        except self._refusal as error:
            if deadline and deadline.is_over:
                raise deadline.exceeded() from error
            raise QueryError(_message(error)) from error
        finally:
            cursor.close()

    def _transaction(self, cursor: Any, statements: Sequence[str]) -> None:
        cursor.execute("begin transaction")
        try:
            for statement in statements:
                cursor.execute(statement)
            cursor.execute("commit transaction")
        except BaseException:
            cursor.execute("rollback transaction")
            raise

    def _described(self, query: str, *names: str) -> list[Any]:
        with self._cursor() as cursor:
            cursor.execute(query.format(*(literal(name, "tsql") for name in names)))
            return list(cursor.fetchall())


def _fetched(cursor: Any) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    schema = pa.schema([_field(*column) for column in cursor.description])
    yield empty(schema)
    while rows := cursor.fetchmany(FETCHED_ROWS):
        columns = zip(zip(*rows, strict=True), schema, strict=True)
        yield pa.RecordBatch.from_arrays([pa.array(values, field.type) for values, field in columns], schema=schema)


def _field(name: str, kind: Any, _shown: object, _size: object, precision: Any, scale: Any, _null: object) -> pa.Field:
    import datetime
    from decimal import Decimal

    import pyarrow as pa

    known = {
        bool: pa.bool_(),
        int: pa.int64(),
        float: pa.float64(),
        bytes: pa.binary(),
        bytearray: pa.binary(),
        datetime.date: pa.date32(),
        datetime.datetime: pa.timestamp("us"),
    }
    return pa.field(name, pa.decimal128(precision, scale) if kind is Decimal else known.get(kind, pa.string()))


def _braced(value: str) -> str:
    # a semicolon ends a value of ODBC, but within braces
    return "{" + value.replace("}", "}}") + "}"


def _message(error: Exception) -> str:
    # the driver's second argument begins with where it comes from, each place in brackets
    told = str(error.args[-1] if error.args else error)
    return told.rsplit("]", 1)[-1].strip() or told
