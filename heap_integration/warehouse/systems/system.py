"""What a warehouse is: settings that name it, and the connection that those open."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from heap_integration.settings import Secret, Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from heap_integration.warehouse.duck import Warehouse

Dialect = Literal["duckdb", "postgres", "bigquery", "snowflake", "redshift", "tsql"]


class QueryError(ValueError):
    """A statement that the warehouse refused or that may not run; the message is fit to be shown."""


class LimitExceeded(QueryError):
    """A query that would return more rows, or take longer, than was allowed."""


@dataclass(frozen=True)
class Limits:
    """How many rows a query may return and how many seconds it may take; ``None`` is no limit."""

    rows: int | None = None
    seconds: float | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Schemas:
    """Where an environment's tables lie in its warehouse: schemas (datasets) of its own.

    ``heap_connect`` holds Heap's tables, ``models`` what dbt makes of them, ``hub`` what the hub publishes of its own
    tables, ``exports`` what it exports.
    """

    heap_connect: str
    models: str
    hub: str
    exports: str


@dataclass(frozen=True)
class Surroundings:
    """What a warehouse may know of its environment; ``variables`` holds the values of its secrets."""

    environment: str
    own: Warehouse
    """The hub's own tables; where the warehouse is DuckDB, they lie in the same file, behind the same lock."""
    variables: Mapping[str, str] = field(repr=False)


class Closing(ABC):
    """What is closed at the end of a ``with``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close it."""


class Connection(Protocol):
    """An open connection to a warehouse. Names of schemas, tables and columns are as the settings spell them."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def batches(
        self, sql: str, params: Sequence[object] = (), *, limits: Limits = NO_LIMITS
    ) -> Iterator[pa.RecordBatch]:
        """Run one read-only statement and yield its rows as they come; ``?`` stands for each parameter.

        Even a result without rows yields a batch, so that its columns are known. Until the last row is taken, or the
        iterator closed, nothing else should be asked of the connection: a DuckDB file can't be written to.

        Raises:
            LimitExceeded: there are more rows than allowed, or it took too long.
            QueryError: the warehouse refuses it, or it isn't a single query.
        """

    def run(self, statements: Sequence[str]) -> None:
        """Run statements in one transaction: all of them take effect, or none.

        Raises:
            QueryError: the warehouse refuses one.
        """

    def tables(self, schema: str) -> list[str]:
        """Return the tables and views of a schema; none where there is no such schema."""

    def columns(self, schema: str, table: str) -> dict[str, str]:
        """Return the columns of a table in their order, with the warehouse's types; empty where there is no table."""

    def load(self, schema: str, table: str, batches: Iterable[pa.RecordBatch], columns: pa.Schema) -> int:
        """Put rows into a new table in place of one of that name, and return how many; the schema is made.

        Not atomic: it is for tables that nobody reads yet, which ``run`` then puts to use. The rows may not come out of
        a query of the same connection: for that there is ``run``. What goes wrong in making them is raised as it is.
        Lists, structs and maps become JSON as text, except in DuckDB.

        Raises:
            QueryError: the warehouse refuses them.
        """

    def close(self) -> None:
        """Close the connection."""


class WarehouseSettings(Settings, ABC):
    """The settings of one warehouse; what it is, is known without connecting to it.

    ``schema_prefix`` begins the names of the schemas of an environment; ``{name}`` in it is the environment's name.
    """

    dialect: ClassVar[Dialect]
    title: ClassVar[str]

    def secrets(self) -> dict[str, Secret]:
        """Return the credentials that are given, by their fields."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in values.items() if isinstance(value, Secret)}

    @abstractmethod
    def place(self) -> str:
        """Return the same text for every way to write the same warehouse and schemas."""

    @abstractmethod
    def schemas(self) -> Schemas:
        """Return the schemas of the environment."""

    @abstractmethod
    def connect(self, surroundings: Surroundings) -> Connection:
        """Open a connection; the caller closes it.

        Raises:
            MissingSecret: the variable of a credential isn't set.
            WarehouseError: it can't be reached, or refuses the credentials.
        """

    @abstractmethod
    def dbt_output(self, surroundings: Surroundings) -> dict[str, Any]:
        """Return dbt's profile of it; a secret stands in it as ``{{ env_var('NAME') }}``, never as a value."""


class ServerSettings(WarehouseSettings, ABC):
    """What warehouses that aren't a file have in common."""

    schema_prefix: str = "{name}"

    def schemas(self) -> Schemas:
        """Return the schemas of the environment, each beginning with the prefix."""
        prefix = f"{self.schema_prefix}_" if self.schema_prefix else ""
        return Schemas(f"{prefix}heap_connect", f"{prefix}models", f"{prefix}hub", f"{prefix}exports")

    def named(self, environment: str) -> Self:
        """Return the same settings with the environment's name filled in."""
        return self.model_copy(update={"schema_prefix": self.schema_prefix.replace("{name}", environment)})
