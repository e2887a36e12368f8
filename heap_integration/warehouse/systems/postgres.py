"""PostgreSQL as the warehouse."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from heap_integration.settings import Name, Secret
from heap_integration.warehouse.duck import WarehouseError
from heap_integration.warehouse.systems.arrow import (
    Columns,
    as_type,
    empty,
    is_text_inside,
    reader_of,
    storable,
    within,
    without_code_0,
)
from heap_integration.warehouse.systems.statements import one_query
from heap_integration.warehouse.systems.system import (
    NO_LIMITS,
    Closing,
    Connection,
    Dialect,
    LimitExceeded,
    Limits,
    QueryError,
    ServerSettings,
    Surroundings,
)
from heap_integration.warehouse.tables import quoted

if TYPE_CHECKING:
    import pyarrow as pa
    from adbc_driver_manager.dbapi import Connection as Session

CONNECT_SECONDS = 10
DBT_THREADS = 2
# A limit is noticed with a batch: the driver's own are sixteen times as large.
BATCHES = {"adbc.postgresql.batch_size_hint_bytes": str(2**20)}
RELATIONS = "relkind in ('r', 'p', 'v', 'm', 'f')"
LARGEST_PRECISION = 38


class PostgresSettings(ServerSettings):
    """A database of a PostgreSQL server; ``host`` may be the folder of its socket."""

    dialect: ClassVar[Dialect] = "postgres"
    title: ClassVar[str] = "PostgreSQL"

    type: Literal["postgres"]
    host: Name
    port: int = Field(5432, gt=0, lt=65536)
    database: Name
    user: Name
    password: Secret | None = None
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"

    def place(self) -> str:
        """Return server, database and the schemas' prefix."""
        return f"postgres:{self.host.lower()}:{self.port}/{self.database}/{self.schema_prefix}"

    def connect(self, surroundings: Surroundings) -> Connection:
        """Open a session; each query has one of its own beside it, so that both can be used at a time."""
        return PostgresConnection(
            {
                "host": self.host,
                "port": str(self.port),
                "dbname": self.database,
                "user": self.user,
                "password": self.password.value(surroundings.variables) if self.password else "",
                "sslmode": self.sslmode,
            }
        )

    def dbt_output(self, _surroundings: Surroundings) -> dict[str, Any]:
        """Return dbt's profile of the database."""
        return {
            "type": "postgres",
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "user": self.user,
            "password": f"{{{{ env_var('{self.password.env}') }}}}" if self.password else "",
            "sslmode": self.sslmode,
            "schema": self.schemas().models,
            "threads": DBT_THREADS,
            "connect_timeout": CONNECT_SECONDS,
        }


class PostgresConnection(Closing):
    """A session at a PostgreSQL server, by the ADBC driver: rows come and go as Arrow, by binary COPY.

    ``address`` holds libpq's parameters.
    """

    def __init__(self, address: dict[str, str]) -> None:
        self._address = address
        self._session = _open(address, "")

    def batches(
        self, sql: str, params: Sequence[object] = (), *, limits: Limits = NO_LIMITS
    ) -> Iterator[pa.RecordBatch]:
        """Run one query in a read-only session of its own; the time counts until its last row is taken.

        Columns of ``numeric`` come as decimals where their declaration says how many places they have, as doubles
        where it doesn't; ``uuid`` and JSON come as text.
        """
        statement = one_query(sql, params, "postgres")
        options = "-c default_transaction_read_only=on"
        if limits.seconds is not None:
            options += f" -c statement_timeout={max(1, round(limits.seconds * 1000))}"
        with (
            closing(_open(self._address, options)) as session,
            _in_words(limits),
            closing(session.cursor(adbc_stmt_kwargs=BATCHES)) as cursor,
        ):
            cursor.execute(statement)
            reader = cursor.fetch_record_batch()
            columns = _readable(reader.schema)
            try:
                yield empty(columns.schema)
                yield from within((columns.of(batch) for batch in reader), limits)
            finally:
                # closing alone leaves the server at work until it has a row to send
                cursor.adbc_cancel()

    def run(self, statements: Sequence[str]) -> None:
        """Run statements in one transaction."""
        with self._transaction() as session, closing(session.cursor()) as cursor:
            for statement in statements:
                cursor.execute(statement)

    def tables(self, schema: str) -> list[str]:
        """Return the tables and views of a schema."""
        found = self._rows(
            "select relname::text from pg_class join pg_namespace on pg_namespace.oid = relnamespace"
            f" where nspname = cast(? as name) and {RELATIONS} order by 1",
            (schema,),
        )
        return [name for (name,) in found]

    def columns(self, schema: str, table: str) -> dict[str, str]:
        """Return the columns of a table in their order, with their types."""
        found = self._rows(
            "select attname::text, format_type(atttypid, atttypmod) from pg_attribute"
            " join pg_class on pg_class.oid = attrelid join pg_namespace on pg_namespace.oid = relnamespace"
            f" where nspname = cast(? as name) and relname = cast(? as name) and {RELATIONS}"
            " and attnum > 0 and not attisdropped order by attnum",
            (schema, table),
        )
        return dict(found)

    def load(self, schema: str, table: str, batches: Iterable[pa.RecordBatch], columns: pa.Schema) -> int:
        """Put rows into a new table in place of one of that name."""
        form = storable(columns)
        changed = (without_code_0(form.of(batch)) for batch in batches)
        with (
            reader_of(changed, form.schema) as rows,
            self._transaction() as session,
            closing(session.cursor()) as cursor,
        ):
            cursor.execute(f"create schema if not exists {quoted(schema)}")
            count = cursor.adbc_ingest(table, rows, mode="replace", db_schema_name=schema)
            # what is done with the rows next can't wait for the server to notice how many they are
            cursor.execute(f"analyze {quoted(schema)}.{quoted(table)}")
            return count

    def close(self) -> None:
        """Close the session."""
        self._session.close()

    def _rows(self, sql: str, params: Sequence[object]) -> list[Any]:
        with self._transaction() as session, closing(session.cursor()) as cursor:
            cursor.execute(one_query(sql, params, "postgres"))
            return cursor.fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with _in_words(NO_LIMITS):
            try:
                yield self._session
                self._session.commit()
            except BaseException:
                self._session.rollback()
                raise


def _open(address: dict[str, str], options: str) -> Session:
    import adbc_driver_manager
    import adbc_driver_postgresql.dbapi

    given = {
        **address,
        "connect_timeout": str(CONNECT_SECONDS),
        "application_name": "heap-integration",
        "options": f"-c TimeZone=UTC {options}",
    }
    try:
        session: Session = adbc_driver_postgresql.dbapi.connect(
            " ".join(f"{name}={_value(each)}" for name, each in given.items())
        )
    except adbc_driver_manager.Error as error:
        raise WarehouseError(f"PostgreSQL at {address['host']} can't be reached: {_message(error)}") from error
    return session


def _value(given: str) -> str:
    escaped = given.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


@contextmanager
def _in_words(limits: Limits) -> Iterator[None]:
    import adbc_driver_manager
    import pyarrow as pa

    begin = time.monotonic()
    try:
        yield
    # a server's error that comes between two batches is Arrow's or the system's
    except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
        if limits.seconds is not None and time.monotonic() - begin >= limits.seconds:
            raise LimitExceeded(f"the query has taken longer than {limits.seconds:g} seconds") from error
        raise QueryError(_message(error)) from error


def _message(error: Exception) -> str:
    text = str(error).split("\n\nQuery was:")[0]
    return text.split("ERROR:  ")[-1].removeprefix("IO: ").strip()


def _readable(schema: pa.Schema) -> Columns:
    import pyarrow as pa

    fields = [pa.field(field.name, _readable_type(field)) for field in schema]
    return Columns(pa.schema(fields), lambda column, field: as_type(column, field.type))


def _readable_type(field: pa.Field) -> pa.DataType:
    import pyarrow as pa

    if not isinstance(field.type, pa.OpaqueType):
        return pa.string() if is_text_inside(field.type) else field.type
    if field.type.type_name != "numeric":
        raise QueryError(f"column {field.name} is of the type {field.type.type_name}: cast it to text")
    modifier = int(field.metadata[b"POSTGRESQL:typmod"]) - 4
    precision, scale = modifier >> 16, modifier & 0x7FF
    exact = 0 < precision <= LARGEST_PRECISION and scale <= precision
    return pa.decimal128(precision, scale) if exact else pa.float64()
