"""BigQuery as the warehouse."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from heap_integration.settings import Name, Secret, WebAddress
from heap_integration.warehouse.duck import WarehouseError
from heap_integration.warehouse.systems.arrow import Columns, as_type, storable, within
from heap_integration.warehouse.systems.columns import declared, in_utc
from heap_integration.warehouse.systems.deadline import Deadline
from heap_integration.warehouse.systems.statements import one_query
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
from heap_integration.warehouse.systems.turns import in_turns

if TYPE_CHECKING:
    import pyarrow as pa
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.credentials import Credentials
    from google.cloud.bigquery import Client, QueryJob

DBT_THREADS = 4
CONNECT_SECONDS = 10
PAGE_ROWS = 50_000


class BigQuerySettings(ServerSettings):
    """A project of BigQuery; schemas are its datasets.

    ``credentials`` is the variable that holds a service account's key as JSON; without it the machine's own identity
    (application default credentials) is used. ``endpoint`` is another address of the API; one of http is asked
    without any identity.
    """

    dialect: ClassVar[Dialect] = "bigquery"
    title: ClassVar[str] = "BigQuery"

    type: Literal["bigquery"]
    project: Name
    location: Name = "US"
    credentials: Secret | None = None
    endpoint: WebAddress | None = None

    def place(self) -> str:
        """Return the project and the datasets' prefix."""
        return f"bigquery:{self.project}/{self.schema_prefix}"

    def connect(self, surroundings: Surroundings) -> Connection:
        """Make a client; each statement is a job of its own."""
        from google.cloud.bigquery import Client

        return BigQueryConnection(
            Client(
                project=self.project,
                location=self.location,
                credentials=self._identity(surroundings),
                client_options={"api_endpoint": self.endpoint} if self.endpoint else None,
            )
        )

    def dbt_output(self, _surroundings: Surroundings) -> dict[str, Any]:
        """Return dbt's profile of the project."""
        output: dict[str, Any] = {
            "type": "bigquery",
            "project": self.project,
            "dataset": self.schemas().models,
            "location": self.location,
            "threads": DBT_THREADS,
        }
        if self.endpoint:
            output["api_endpoint"] = self.endpoint
        if self.credentials:
            key = f"{{{{ env_var('{self.credentials.env}') | as_native }}}}"
            return {**output, "method": "service-account-json", "keyfile_json": key}
        return (
            {**output, "method": "oauth-secrets", "token": "none"} if self._is_open else {**output, "method": "oauth"}
        )

    @property
    def _is_open(self) -> bool:
        return (self.endpoint or "").startswith("http:")

    def _identity(self, surroundings: Surroundings) -> Credentials:
        import google.auth
        from google.auth.credentials import AnonymousCredentials
        from google.auth.exceptions import DefaultCredentialsError
        from google.oauth2.service_account import Credentials as ServiceAccount

        if self.credentials:
            try:
                key = json.loads(self.credentials.value(surroundings.variables))
                return ServiceAccount.from_service_account_info(key)
            except ValueError as error:
                raise WarehouseError(f"{self.credentials.env} doesn't hold a service account's key as JSON") from error
        if self._is_open:
            return AnonymousCredentials()
        try:
            identity, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/bigquery"])
        except DefaultCredentialsError as error:
            raise WarehouseError("this machine has no identity for BigQuery: give credentials") from error
        return identity


class BigQueryConnection(Closing):
    """A client of BigQuery's API: queries come as pages of Arrow, tables go as Parquet.

    A schema may be written with its project, ``project.dataset``.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def batches(
        self, sql: str, params: Sequence[object] = (), *, limits: Limits = NO_LIMITS
    ) -> Iterator[pa.RecordBatch]:
        """Run one query; BigQuery itself says beforehand whether it is one."""
        from google.cloud.bigquery import QueryJobConfig

        statement = one_query(sql, params, "bigquery")
        with _in_words():
            kind = self._client.query(statement, job_config=QueryJobConfig(dry_run=True)).statement_type
            if kind != "SELECT":
                raise QueryError(f"only a query can run here, not {kind}")
            job = self._client.query(statement)
            try:
                yield from within(_pages(job, limits), limits)
            finally:
                if job.state != "DONE":
                    job.cancel()

    def run(self, statements: Sequence[str]) -> None:
        """Run statements; those that change rows are one transaction, see ``in_turns``."""
        turns = in_turns(statements, "bigquery")
        changes = [_with_condition(statement) for statement in turns.together]
        script = ["begin transaction", *changes, "commit transaction"] if changes else []
        with _in_words():
            for job in [*turns.before, ";\n".join(script), *turns.after]:
                if job:
                    self._client.query(job).result()

    def tables(self, schema: str) -> list[str]:
        """Return the tables and views of a dataset."""
        from google.api_core.exceptions import NotFound

        with _in_words():
            try:
                return sorted(str(table.table_id) for table in self._client.list_tables(self._full(schema)))
            except NotFound:
                return []

    def columns(self, schema: str, table: str) -> dict[str, str]:
        """Return the columns of a table in their order, with their types."""
        from google.api_core.exceptions import NotFound

        with _in_words():
            try:
                found = self._client.get_table(f"{self._full(schema)}.{table}").schema
            except NotFound:
                return {}
        return {str(field.name): str(field.field_type) for field in found}

    def load(self, schema: str, table: str, batches: Iterable[pa.RecordBatch], columns: pa.Schema) -> int:
        """Put rows into a new table in place of one of that name, by one load job of Parquet."""
        import pyarrow.parquet as pq
        from google.cloud.bigquery import LoadJobConfig

        form = storable(columns)
        target = Columns(in_utc(form.schema, "UTC"), lambda column, field: as_type(column, field.type))
        place = f"{self._full(schema)}.{table}"
        with tempfile.TemporaryFile() as file, _in_words():
            with pq.ParquetWriter(file, target.schema) as writer:
                for batch in batches:
                    writer.write_batch(target.of(form.of(batch)))
            file.seek(0)
            self._make_dataset(schema)
            self._client.query(f"create or replace table `{place}` ({declared(target.schema, 'bigquery')})").result()
            how = LoadJobConfig(source_format="PARQUET", write_disposition="WRITE_APPEND")
            job = self._client.load_table_from_file(file, place, job_config=how).result()
        return int(job.output_rows or 0)

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def _make_dataset(self, schema: str) -> None:
        from google.api_core.exceptions import NotFound

        try:
            self._client.get_dataset(self._full(schema))
        except NotFound:  # the right to make one is needed only where it isn't there
            self._client.create_dataset(self._full(schema), exists_ok=True)

    def _full(self, schema: str) -> str:
        return schema if "." in schema else f"{self._client.project}.{schema}"


def _pages(job: QueryJob, limits: Limits) -> Iterator[pa.RecordBatch]:
    import concurrent.futures

    from google.api_core.exceptions import DeadlineExceeded, RetryError

    deadline = Deadline(limits)
    # one more than allowed is enough to know it
    most = None if limits.rows is None else limits.rows + 1
    try:
        rows = job.result(page_size=PAGE_ROWS, max_results=most, timeout=limits.seconds)
    except (concurrent.futures.TimeoutError, DeadlineExceeded, RetryError) as error:
        raise deadline.exceeded() from error
    with warnings.catch_warnings():
        # pages come by the same API: the one for large results wants rights of its own
        warnings.filterwarnings("ignore", message="BigQuery Storage module not found", category=UserWarning)
        yield from deadline.kept_by(rows.to_arrow_iterable())


def _with_condition(statement: str) -> str:
    """Return a statement with the condition that BigQuery asks of every delete and update."""
    from sqlglot import exp, parse_one

    tree = parse_one(statement, dialect="bigquery")
    lacks = isinstance(tree, exp.Delete | exp.Update) and tree.args.get("where") is None
    return f"{statement.rstrip().rstrip(';')} where true" if lacks else statement


@contextmanager
def _in_words() -> Iterator[None]:
    from google.api_core.exceptions import Forbidden, GoogleAPICallError, Unauthorized
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import ConnectionError as NotReached

    try:
        yield
    except (Unauthorized, GoogleAuthError) as error:
        raise WarehouseError(f"BigQuery refuses the credentials: {error}") from error
    except NotReached as error:
        raise WarehouseError("BigQuery can't be reached") from error
    except Forbidden as error:
        raise QueryError(f"BigQuery doesn't allow it: {_message(error)}") from error
    except GoogleAPICallError as error:
        raise QueryError(_message(error)) from error


def _message(error: GoogleAPICallError) -> str:
    told = error.errors[0].get("message") if error.errors else None
    return str(told or error.message).strip()
