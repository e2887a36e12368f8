"""Where audiences are computed: in the hub's own file, or in another warehouse, in its SQL."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import orjson
from sqlglot import exp

from heap_integration.segments.audiences.compiler import HUB_USERS, IDENTITY, ColumnKind
from heap_integration.segments.audiences.dialects import Dialect, Engine
from heap_integration.warehouse.elsewhere import Elsewhere, kind_of
from heap_integration.warehouse.names import in_dialect, relation
from heap_integration.warehouse.publishing import TRAITS, rows_of
from heap_integration.warehouse.spool import Spool, spooled
from heap_integration.warehouse.tables import Table, find_table

if TYPE_CHECKING:
    import duckdb

    from heap_integration.warehouse import Warehouse

HUB_TRAITS = "main.hub_traits"
NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")
KINDS: tuple[tuple[tuple[str, ...], ColumnKind], ...] = (
    (("TIMESTAMP WITH TIME ZONE",), "zoned time"),
    (("TIMESTAMP", "DATE"), "time"),
    (("VARCHAR", "ENUM"), "text"),
    (("BOOLEAN",), "boolean"),
    ((*NUMBERS, *(f"U{name}" for name in NUMBERS)), "number"),
)
_TYPE = exp.DataType.Type
KINDS_ELSEWHERE: tuple[tuple[Collection[object], ColumnKind], ...] = (
    ({_TYPE.TIMESTAMPTZ, _TYPE.TIMESTAMPLTZ}, "zoned time"),
    (exp.DataType.TEMPORAL_TYPES - {_TYPE.TIME, _TYPE.TIMETZ}, "time"),
    (exp.DataType.TEXT_TYPES, "text"),
    ({_TYPE.BOOLEAN, _TYPE.BIT}, "boolean"),
    (exp.DataType.NUMERIC_TYPES, "number"),
)
# A property that most rows have is among these; for the message about one that isn't there, that is enough.
LOOKED_THROUGH = 50_000
LOOKED_THROUGH_ELSEWHERE = 2_000


class Place(Protocol):
    """A warehouse in which a definition is looked at and computed; its queries are sqlglot's expressions."""

    @property
    def dialect(self) -> Dialect:
        """The SQL that it speaks."""

    def told(self, table: str) -> str | None:
        """Return where the traits of the hub's users stand as they were told; ``None`` for other tables of users."""

    def own(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """Return a connection to the hub's own tables, open for as long as it takes to ask them something."""

    def find(self, name: str) -> Table:
        """Find a table; see ``find_table``."""

    def kinds(self, table: Table) -> dict[str, ColumnKind]:
        """Return how the columns of a table compare."""

    def rows(self, query: exp.Select) -> list[tuple[Any, ...]]:
        """Return the rows of a query that has few."""

    def keys(self, query: exp.Select) -> set[str]:
        """Return the names of the members of JSON objects, the one column of a query, by looking at some of them."""

    def identities(self, query: exp.Select) -> exp.Select:
        """Return a select, for here, of the one column of a query to the hub's own tables."""


class OwnPlace:
    """The hub's own file, through an open connection."""

    dialect: Dialect = "duckdb"

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con = con

    def told(self, table: str) -> str | None:
        """Return the view of identify calls for the view of users."""
        return HUB_TRAITS if table == HUB_USERS else None

    def own(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """Return the connection."""
        return nullcontext(self.con)

    def find(self, name: str) -> Table:
        """Find a table of the file."""
        return find_table(self.con, name)

    def kinds(self, table: Table) -> dict[str, ColumnKind]:
        """Return how the columns of a table compare."""
        return {name: _kind(type_name) for name, type_name in table.columns.items()}

    def rows(self, query: exp.Select) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self.con.execute(query.sql("duckdb")).fetchall()

    def keys(self, query: exp.Select) -> set[str]:
        """Return the names of members of JSON objects."""
        some = query.limit(LOOKED_THROUGH).sql("duckdb")
        found = self.con.execute(f"select distinct unnest(try(json_keys(found))) from ({some}) as looked_at(found)")
        return {str(name) for (name,) in found.fetchall()}

    def identities(self, query: exp.Select) -> exp.Select:
        """Return the query: it is asked here."""
        return query


class OtherPlace:
    """Another warehouse; what it needs of the hub's own tables is brought there, and gone once it is closed."""

    def __init__(self, there: Elsewhere, warehouse: Warehouse) -> None:
        self.there = there
        self.warehouse = warehouse
        self._engine = Engine(there.dialect)
        self._brought: list[str] = []

    @property
    def dialect(self) -> Dialect:
        """The SQL of the warehouse."""
        return self.there.dialect

    def told(self, table: str) -> str | None:
        """Return the published table of traits for the published view of users."""
        hub = self.there.schemas.hub
        return f"{hub}.{TRAITS}" if table == f"{hub}.{HUB_USERS.partition('.')[2]}" else None

    def own(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """Open the hub's own file for reading."""
        return self.warehouse.read(ample=True)

    def find(self, name: str) -> Table:
        """Find a table of the warehouse."""
        return self.there.find(name)

    def kinds(self, table: Table) -> dict[str, ColumnKind]:
        """Return how the columns of a table compare."""
        return {name: _kind_elsewhere(type_name, self.dialect) for name, type_name in table.columns.items()}

    def rows(self, query: exp.Select) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return list(rows_of(self.there.connection.batches(in_dialect(query, self.dialect))))

    def keys(self, query: exp.Select) -> set[str]:
        """Return the names of members of JSON objects."""
        texts = (text for (text,) in self.rows(query.limit(LOOKED_THROUGH_ELSEWHERE)))
        return {key for text in texts for key in _object(text)}

    def identities(self, query: exp.Select) -> exp.Select:
        """Bring the rows of a query into a table of their own."""
        name, schema = f"_hub_asked_{uuid.uuid4().hex}", self.there.schemas.hub
        with spooled() as spool:
            with self.own() as con:
                fill(spool, con.execute(query.sql("duckdb")))
            with spool.read() as reader:
                self._brought.append(relation(schema, name, self.dialect))
                self.there.connection.load(schema, name, reader, reader.schema)
        identity = exp.alias_(self._engine.column(IDENTITY), IDENTITY, quoted=True)
        return exp.select(identity).from_(self._engine.table(f"{schema}.{name}"))

    def close(self) -> None:
        """Remove what was brought here."""
        for table in self._brought:
            self.there.connection.run([f"drop table if exists {table}"])


def fill(spool: Spool, found: duckdb.DuckDBPyConnection) -> None:
    """Put the result of a statement into a spool, its columns also where it has no rows."""
    import pyarrow as pa

    reader = found.to_arrow_reader(10_000)
    spool.fill(chain([pa.RecordBatch.from_pylist([], schema=reader.schema)], reader))


@contextmanager
def elsewhere(there: Elsewhere, warehouse: Warehouse) -> Iterator[OtherPlace]:
    """Yield another warehouse as the place of an audience."""
    place = OtherPlace(there, warehouse)
    try:
        yield place
    finally:
        place.close()


def _object(given: object) -> Sequence[str]:
    try:
        found = orjson.loads(given) if isinstance(given, str | bytes) else None
    except orjson.JSONDecodeError:
        return ()
    return list(found) if isinstance(found, dict) else ()


def _kind(type_name: str) -> ColumnKind:
    if "[" in type_name:
        return "other"
    return next((kind for names, kind in KINDS if type_name.startswith(names)), "other")


def _kind_elsewhere(type_name: str, dialect: Dialect) -> ColumnKind:
    found = kind_of(type_name, dialect)
    return next((kind for types, kind in KINDS_ELSEWHERE if found and found.this in types), "other")
