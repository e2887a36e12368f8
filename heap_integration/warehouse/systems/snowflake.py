"""Snowflake as the warehouse."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from heap_integration.settings import Name, Secret
from heap_integration.warehouse.duck import WarehouseError
from heap_integration.warehouse.names import SIMPLE, identifier, relation, spelt
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
    from snowflake.connector import SnowflakeConnection as Session
    from snowflake.connector.cursor import SnowflakeCursor

DBT_THREADS = 4
CONNECT_SECONDS = 20
STAGE = "_hub_arriving"
FILE_ROWS = 1_000_000
# Snowflake's numbers for the types of a result's columns
FIXED, LARGEST_PRECISION = 0, 38


class SnowflakeSettings(ServerSettings):
    """A database of a Snowflake account, with the virtual warehouse that computes.

    It is opened by a password or by a private key (PEM, unencrypted). ``host``, ``port`` and ``protocol`` are for
    another address than the account's own.
    """

    dialect: ClassVar[Dialect] = "snowflake"
    title: ClassVar[str] = "Snowflake"

    type: Literal["snowflake"]
    account: Name
    user: Name
    password: Secret | None = None
    private_key: Secret | None = None
    database: Name
    warehouse: Name
    role: str | None = None
    host: str | None = None
    port: int = Field(443, gt=0, lt=65536)
    protocol: Literal["https", "http"] = "https"

    def place(self) -> str:
        """Return account, database and the schemas' prefix."""
        return f"snowflake:{self.account.lower()}/{self.database.lower()}/{self.schema_prefix.lower()}"

    def connect(self, surroundings: Surroundings) -> Connection:
        """Open a session in UTC."""
        import snowflake.connector
        from snowflake.connector.errors import Error

        given = {
            **self._address(),
            "password": self.password.value(surroundings.variables) if self.password else None,
            "private_key": _der(self.private_key.value(surroundings.variables)) if self.private_key else None,
        }
        try:
            session = snowflake.connector.connect(
                **{name: value for name, value in given.items() if value is not None},
                login_timeout=CONNECT_SECONDS,
                application="heap-integration",
                session_parameters={"TIMEZONE": "UTC", "QUERY_TAG": "heap-integration"},
                arrow_number_to_decimal=True,
            )
        except Error as error:
            raise WarehouseError(f"Snowflake account {self.account} can't be reached: {error.msg}") from error
        return SnowflakeConnection(session, self.database)

    def dbt_output(self, _surroundings: Surroundings) -> dict[str, Any]:
        """Return dbt's profile of the database."""
        secrets = {name: f"{{{{ env_var('{secret.env}') }}}}" for name, secret in self.secrets().items()}
        given = {**self._address(), **secrets}
        return {
            "type": "snowflake",
            **{name: value for name, value in given.items() if value is not None},
            "schema": self.schemas().models,
            "threads": DBT_THREADS,
            "connect_timeout": CONNECT_SECONDS,
            "client_session_keep_alive": False,
        }

    def _address(self) -> dict[str, Any]:
        elsewhere = {"host": self.host, "port": self.port, "protocol": self.protocol} if self.host else {}
        return {
            "account": self.account,
            "user": self.user,
            "database": self.database,
            "warehouse": self.warehouse,
            "role": self.role,
            **elsewhere,
        }


class SnowflakeConnection(Closing):
    """A session of Snowflake: queries come as Arrow, tables go as Parquet by way of a stage.

    Names in small letters are Snowflake's names in capitals, as everywhere where they aren't quoted. A schema may be
    written with its database, ``database.schema``.
    """

    def __init__(self, session: Session, database: str) -> None:
        self._session = session
        self._database = database

    def batches(
        self, sql: str, params: Sequence[object] = (), *, limits: Limits = NO_LIMITS
    ) -> Iterator[pa.RecordBatch]:
        """Run one query; Snowflake cancels it when its time is over.

        No session of Snowflake is read-only: that it is a query is read from it, and what else may be done is a matter
        of the role's grants.
        """
        statement, deadline = one_query(sql, params, "snowflake"), Deadline(limits)
        must_read(statement, "snowflake")
        with self._cursor(deadline) as cursor:
            cursor.execute(statement, timeout=deadline.whole_seconds)
            yield from within(deadline.kept_by(_result(cursor)), limits)

    def run(self, statements: Sequence[str]) -> None:
        """Run statements; those that change rows are one transaction, see ``in_turns``."""
        turns = in_turns(statements, "snowflake")
        with self._cursor() as cursor:
            for statement in turns.before:
                cursor.execute(statement)
            if turns.together:
                self._transaction(cursor, turns.together)
            for statement in turns.after:
                cursor.execute(statement)

    def tables(self, schema: str) -> list[str]:
        """Return the tables and views of a schema."""
        found = self._described("select table_name from {}.tables where table_schema = {}", schema)
        return sorted(_small(name) for (name,) in found)

    def columns(self, schema: str, table: str) -> dict[str, str]:
        """Return the columns of a table in their order, with their types."""
        found = self._described(
            "select column_name, data_type from {}.columns where table_schema = {} and table_name = {}"
            " order by ordinal_position",
            schema,
            table,
        )
        return {_small(name): kind for name, kind in found}

    def load(self, schema: str, table: str, batches: Iterable[pa.RecordBatch], columns: pa.Schema) -> int:
        """Put rows into a new table in place of one of that name, by Parquet files in a stage of the schema."""
        form = storable(columns)
        target = Columns(in_utc(form.schema, None), lambda column, field: as_type(column, field.type))
        ready = (target.of(without_code_0(form.of(batch))) for batch in batches)
        place, stage = relation(schema, table, "snowflake"), relation(schema, f"{STAGE}_{table}", "snowflake")
        with tempfile.TemporaryDirectory() as folder, self._cursor() as cursor:
            rows = _written(Path(folder), ready, _capitals(target.schema))
            # the right to make a schema is needed only where it isn't there
            if not self._described("select schema_name from {}.schemata where schema_name = {}", schema):
                cursor.execute(f"create schema {spelt(schema, 'snowflake')}")
            cursor.execute(f"create or replace table {place} ({declared(target.schema, 'snowflake')})")
            if rows:
                cursor.execute(f"create or replace temporary stage {stage}")
                for file in sorted(Path(folder).iterdir()):
                    cursor.execute(f"put 'file://{file}' @{stage} auto_compress=false")
                cursor.execute(
                    f"copy into {place} from @{stage} file_format=(type=parquet use_logical_type=true)"
                    " match_by_column_name=case_sensitive purge=true"
                )
        return rows

    def close(self) -> None:
        """Close the session."""
        self._session.close()

    @contextmanager
    def _cursor(self, deadline: Deadline | None = None) -> Iterator[SnowflakeCursor]:
        from snowflake.connector.errors import Error

        with closing(self._session.cursor()) as cursor:
            try:
                yield cursor
            except Error as error:
                if deadline and deadline.is_over:
                    raise deadline.exceeded() from error
                raise QueryError(str(error.msg)) from error

    def _transaction(self, cursor: SnowflakeCursor, statements: Sequence[str]) -> None:
        cursor.execute("begin")
        try:
            for statement in statements:
                cursor.execute(statement)
            cursor.execute("commit")
        except BaseException:
            cursor.execute("rollback")
            raise

    def _described(self, query: str, schema: str, *names: str) -> list[tuple[str, ...]]:
        database, _, name = schema.rpartition(".")
        catalog = relation(database or self._database, "information_schema", "snowflake")
        shown = [literal(identifier(each, "snowflake").name, "snowflake") for each in (name, *names)]
        with self._cursor() as cursor:
            return list(cursor.execute(query.format(catalog, *shown)).fetchall())


def _result(cursor: SnowflakeCursor) -> Iterator[pa.RecordBatch]:
    """Yield a result whose columns have the same types in all its pieces: Snowflake takes the narrowest for each."""
    import pyarrow as pa

    none = cursor.fetch_arrow_all(force_return_table=True) if not cursor.rowcount else None
    pieces = [none] if none is not None else cursor.fetch_arrow_batches()
    form: Columns | None = None
    for piece in pieces:
        if form is None:
            fields = zip(piece.schema, cursor.description, strict=True)
            schema = pa.schema([pa.field(_small(field.name), _settled(field.type, told)) for field, told in fields])
            form = Columns(schema, lambda column, field: as_type(column, field.type))
            yield empty(form.schema)
        for batch in piece.to_batches():
            yield form.of(batch)


def _settled(kind: pa.DataType, told: Any) -> pa.DataType:
    import pyarrow as pa

    if told.type_code == FIXED:
        return pa.decimal128(LARGEST_PRECISION, told.scale) if told.scale else pa.int64()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    return pa.date32() if pa.types.is_date(kind) else kind


def _written(folder: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write batches to files that Snowflake can read beside each other; return the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, writer = 0, None
    try:
        for batch in batches:
            if writer is None or rows // FILE_ROWS != (rows + batch.num_rows) // FILE_ROWS:
                if writer is not None:
                    writer.close()
                writer = pq.ParquetWriter(folder / f"{rows:012}.parquet", schema)
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
            rows += batch.num_rows
    finally:
        if writer is not None:
            writer.close()
    return rows


def _capitals(schema: pa.Schema) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([pa.field(identifier(field.name, "snowflake").name, field.type) for field in schema])


def _small(name: str) -> str:
    """Return a name of Snowflake's as it is written without quotes."""
    return name.lower() if SIMPLE.fullmatch(name.lower()) and name.isupper() else name


def _der(pem: str) -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_der_private_key,
        load_pem_private_key,
    )

    try:
        # a variable of one line holds the key without its first and last line
        key = (
            load_pem_private_key(pem.encode(), None)
            if "-----" in pem
            else load_der_private_key(base64.b64decode(pem), None)
        )
    except ValueError as error:
        raise WarehouseError("the private key can't be read: it must be PEM, without a passphrase") from error
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
