"""Amazon Redshift as the warehouse."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from heap_integration.settings import Name, Secret
from heap_integration.warehouse.duck import WarehouseError
from heap_integration.warehouse.names import relation, spelt
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
from heap_integration.warehouse.systems.turns import must_read

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg2.extensions import connection as Session
    from psycopg2.extensions import cursor as Cursor

DBT_THREADS = 4
CONNECT_SECONDS = 10
# What a cluster of one node hands out at a time, and what a statement may hold (16 MB).
FETCHED_ROWS = 1_000
INSERTED_ROWS, INSERTED_CHARACTERS = 1_000, 4_000_000
LARGEST_PRECISION = 38
TIMED_OUT = "57014"


def _folder_in_s3(given: str) -> str:
    if not re.fullmatch(r"s3://[^/]+(/.*)?", given):
        raise PydanticCustomError("staging", "must be like s3://bucket/folder")
    return given.rstrip("/")


class RedshiftSettings(ServerSettings):
    """A database of a Redshift cluster or workgroup.

    ``staging`` is a folder of S3 by which many rows go into tables; Redshift reads it as ``staging_role``, the ARN of
    a role or ``default``. ``staging_credentials`` is the variable that holds the options of the object storage as
    JSON, without which the machine's own identity writes there. Without ``staging`` rows go by INSERT, which is slow.
    """

    dialect: ClassVar[Dialect] = "redshift"
    title: ClassVar[str] = "Redshift"

    type: Literal["redshift"]
    host: Name
    port: int = Field(5439, gt=0, lt=65536)
    database: Name
    user: Name
    password: Secret
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "require"
    staging: Annotated[str, AfterValidator(_folder_in_s3)] | None = None
    staging_role: Name = "default"
    staging_credentials: Secret | None = None

    def place(self) -> str:
        """Return server, database and the schemas' prefix."""
        return f"redshift:{self.host.lower()}:{self.port}/{self.database}/{self.schema_prefix}"

    def connect(self, surroundings: Surroundings) -> Connection:
        """Open a session; each query has one of its own beside it."""
        address = {
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "user": self.user,
            "password": self.password.value(surroundings.variables),
            "sslmode": self.sslmode,
        }
        return RedshiftConnection(address, self._staging(surroundings.variables))

    def dbt_output(self, _surroundings: Surroundings) -> dict[str, Any]:
        """Return dbt's profile of the database."""
        return {
            "type": "redshift",
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "user": self.user,
            "password": f"{{{{ env_var('{self.password.env}') }}}}",
            "sslmode": self.sslmode,
            "schema": self.schemas().models,
            "threads": DBT_THREADS,
            "connect_timeout": CONNECT_SECONDS,
        }

    def _staging(self, variables: Mapping[str, str]) -> Staging | None:
        if self.staging is None:
            return None
        options: dict[str, Any] = {}
        if self.staging_credentials:
            try:
                options = json.loads(self.staging_credentials.value(variables))
            except ValueError as error:
                raise WarehouseError(f"{self.staging_credentials.env} doesn't hold a JSON object") from error
        return Staging(self.staging, self.staging_role, options)


class Staging:
    """The folder of S3 from which Redshift copies."""

    def __init__(self, folder: str, role: str, options: dict[str, Any]) -> None:
        self._folder = folder
        self._role = role
        self._options = options

    @contextmanager
    def holding(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[tuple[int, str]]:
        """Write rows there; yield how many and what of COPY comes after the table. The files are gone afterwards."""
        import fsspec
        import pyarrow.parquet as pq

        files, folder = fsspec.url_to_fs(self._folder, **self._options)
        place, rows = f"{folder}/{uuid.uuid4().hex}", 0
        try:
            with files.open(f"{place}/part-0.parquet", "wb") as file, pq.ParquetWriter(file, schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
                    rows += batch.num_rows
            role = "default" if self._role == "default" else literal(self._role, "redshift").strip("()")
            yield rows, f"from 's3://{place}/' iam_role {role} format as parquet"
        except OSError as error:
            raise WarehouseError(f"{self._folder} can't be written: {error}") from error
        finally:
            if files.exists(place):
                files.rm(place, recursive=True)


class RedshiftConnection(Closing):
    """Sessions at Redshift: queries come by a cursor of the server, tables go by S3 and COPY, else by INSERT.

    A schema may be written with its database, ``database.schema``.
    """

    def __init__(self, address: Mapping[str, Any], staging: Staging | None) -> None:
        self._address = address
        self._staging = staging
        self._session = _open(address)

    def batches(
        self, sql: str, params: Sequence[object] = (), *, limits: Limits = NO_LIMITS
    ) -> Iterator[pa.RecordBatch]:
        """Run one query in a read-only transaction of a session of its own, which the time limit stops."""
        statement = one_query(sql, params, "redshift")
        must_read(statement, "redshift")
        session, deadline = _open(self._address), Deadline(limits)
        try:
            with session.cursor() as cursor, _in_words(deadline):
                if limits.seconds is not None:
                    cursor.execute(f"set statement_timeout to {max(1, round(limits.seconds * 1000))}")
                cursor.execute("begin read only")
                cursor.execute(f"declare rows_to_come cursor for {statement}")
                yield from within(deadline.kept_by(_fetched(cursor)), limits)
        finally:
            session.close()

    def run(self, statements: Sequence[str]) -> None:
        """Run statements in one transaction."""
        with self._transaction() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def tables(self, schema: str) -> list[str]:
        """Return the tables and views of a schema."""
        found = self._described("select table_name from svv_all_tables where {} order by 1", schema)
        return [name for (name,) in found]

    def columns(self, schema: str, table: str) -> dict[str, str]:
        """Return the columns of a table in their order, with their types."""
        found = self._described(
            "select column_name, data_type from svv_all_columns where {} and table_name = {} order by ordinal_position",
            schema,
            table,
        )
        return dict(found)

    def load(self, schema: str, table: str, batches: Iterable[pa.RecordBatch], columns: pa.Schema) -> int:
        """Put rows into a new table in place of one of that name."""
        form = storable(columns)
        target = Columns(in_utc(form.schema, None), lambda column, field: as_type(column, field.type))
        ready = (target.of(without_code_0(form.of(batch))) for batch in batches)
        place = relation(schema, table, "redshift")
        making = [
            *self._making_schema(schema),
            f"drop table if exists {place}",
            f"create table {place} ({declared(target.schema, 'redshift')})",
        ]
        if self._staging is None:
            return self._insert(place, making, ready)
        with self._staging.holding(ready, target.schema) as (rows, source):
            self.run([*making, *([f"copy {place} {source}"] if rows else [])])
        return rows

    def close(self) -> None:
        """Close the session."""
        self._session.close()

    @contextmanager
    def _transaction(self) -> Iterator[Cursor]:
        with self._session.cursor() as cursor, _in_words():
            cursor.execute("begin")
            try:
                yield cursor
                cursor.execute("commit")
            except BaseException:
                if not self._session.closed:
                    cursor.execute("rollback")
                raise

    def _insert(self, place: str, making: Sequence[str], batches: Iterable[pa.RecordBatch]) -> int:
        rows = 0
        with self._transaction() as cursor:
            for statement in making:
                cursor.execute(statement)
            for values in _pieces(batches):
                cursor.execute(f"insert into {place} values {', '.join(values)}")
                rows += len(values)
        return rows

    def _making_schema(self, schema: str) -> list[str]:
        with self._session.cursor() as cursor, _in_words():
            cursor.execute(f"select 1 from pg_namespace where nspname = {literal(schema, 'redshift')}")
            # the right to make a schema is needed only where it isn't there
            return [] if cursor.fetchall() else [f"create schema {spelt(schema, 'redshift')}"]

    def _described(self, query: str, schema: str, *names: str) -> list[Any]:
        database, _, name = schema.rpartition(".")
        where = f"schema_name = {literal(name, 'redshift')} and database_name = " + (
            literal(database, "redshift") if database else "current_database()"
        )
        with self._session.cursor() as cursor, _in_words():
            cursor.execute(query.format(where, *(literal(each, "redshift") for each in names)))
            return list(cursor.fetchall())


def _open(address: Mapping[str, Any]) -> Session:
    import psycopg2

    try:
        session = psycopg2.connect(**address, connect_timeout=CONNECT_SECONDS, application_name="heap-integration")
    except psycopg2.Error as error:
        raise WarehouseError(f"Redshift at {address['host']} can't be reached: {str(error).strip()}") from error
    # transactions begin and end where the statements say so
    session.autocommit = True
    return session


def _fetched(cursor: Cursor) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    schema: pa.Schema | None = None
    while True:
        cursor.execute(f"fetch forward {FETCHED_ROWS} from rows_to_come")
        rows = cursor.fetchall()
        if schema is None:
            schema = pa.schema([_field(column) for column in cursor.description])
            yield empty(schema)
        if not rows:
            return
        arrays = [_array(values, field) for values, field in zip(zip(*rows, strict=True), schema, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: Sequence[Any], field: pa.Field) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_floating(field.type):
        values = [None if value is None else float(value) for value in values]
    return pa.array(values, field.type)


def _field(column: Any) -> pa.Field:
    import psycopg2
    import psycopg2.extensions as kinds
    import pyarrow as pa

    if column.type_code in kinds.DECIMAL.values and 0 < (column.precision or 0) <= LARGEST_PRECISION:
        return pa.field(column.name, pa.decimal128(column.precision, column.scale))
    known = (
        (kinds.BOOLEAN, pa.bool_()),
        (kinds.LONGINTEGER, pa.int64()),
        (kinds.INTEGER, pa.int64()),
        (kinds.FLOAT, pa.float64()),
        (kinds.DECIMAL, pa.float64()),
        (kinds.PYDATE, pa.date32()),
        (kinds.PYDATETIMETZ, pa.timestamp("us", "UTC")),
        (kinds.PYDATETIME, pa.timestamp("us")),
        (psycopg2.BINARY, pa.binary()),
    )
    kind = next((arrow for types, arrow in known if column.type_code in types.values), pa.string())
    return pa.field(column.name, kind)


def _pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[list[str]]:
    """Yield rows as SQL, as many at a time as a statement takes."""
    values = (
        f"({', '.join(_value(value) for value in row.values())})" for batch in batches for row in batch.to_pylist()
    )
    while piece := list(islice(values, INSERTED_ROWS)):
        held, size = list[str](), 0
        for row in piece:
            if held and size + len(row) > INSERTED_CHARACTERS:
                yield held
                held, size = [], 0
            held.append(row)
            size += len(row)
        yield held


def _value(value: object) -> str:
    return f"from_hex('{value.hex()}')" if isinstance(value, bytes) else literal(value, "redshift")


@contextmanager
def _in_words(deadline: Deadline | None = None) -> Iterator[None]:
    import psycopg2

    try:
        yield
    except psycopg2.Error as error:
        if deadline and error.pgcode == TIMED_OUT:
            raise deadline.exceeded() from error
        raise QueryError(str(error).strip()) from error
