"""Heap Connect tables that Heap itself writes into the warehouse: which are there, and how fresh they are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from heap_integration.heap_connect.event_tables import NOT_EVENTS
from heap_integration.warehouse.systems.system import QueryError

if TYPE_CHECKING:
    from heap_integration.heap_connect.settings import TablesSettings
    from heap_integration.warehouse.systems.system import Connection, Dialect

ALWAYS = ("users", "sessions", "pageviews")
"""The tables that Heap syncs whatever a customer has chosen."""

_TABLE, _UNTIL, _ENDED = "event_table_name", "synced_to_time", "sync_ended"
_ORDER = "order by table_name, ordinal_position"


class TablesMissing(QueryError):
    """Heap's tables aren't where the settings say; the message names the place and what is there."""


@dataclass(frozen=True)
class TableFreshness:
    """How far a table's data goes, and when the sync that brought it ended; both in UTC."""

    table: str
    synced_to: datetime | None
    synced_at: datetime | None

    def stale(self, now: datetime, hours: float) -> bool:
        """Tell whether the data ends more than ``hours`` before ``now``; what is unknown isn't stale."""
        newest = self.synced_to or self.synced_at
        return newest is not None and now - newest > timedelta(hours=hours)


class TablesInPlace:
    """The tables of one Heap environment in a warehouse, as the settings name them."""

    def __init__(self, settings: TablesSettings, connection: Connection, dialect: Dialect) -> None:
        self._settings = settings
        self._connection = connection
        self._dialect = dialect

    def tables(self) -> dict[str, tuple[str, ...]]:
        """Return every table and view of the schema with its columns, in their order.

        Raises:
            TablesMissing: one of those that Heap always syncs isn't there.
            QueryError: the warehouse doesn't tell.
        """
        settings = self._settings
        found = tables_in(self._connection, self._dialect, settings.db_schema, settings.database)
        missing = [table for table in ALWAYS if table not in found]
        if missing:
            there = ", ".join(sorted(found)[:10]) or "nothing that this user may see"
            raise TablesMissing(f"Heap's tables {', '.join(missing)} are missing in {self._place()}: it has {there}")
        return found

    def freshness(self) -> list[TableFreshness]:
        """Return how far each table goes, by Heap's own table of its syncs; without that, by the newest session.

        Raises:
            TablesMissing: Heap's tables aren't there.
            QueryError: the warehouse doesn't tell.
        """
        tables, info = self.tables(), self._settings.sync_info
        columns = tables.get(info or "", ())
        if info is None or _TABLE not in columns or not {_UNTIL, _ENDED} & {*columns}:
            ((newest,),) = _rows(self._connection, f"select max(time) from {self._from('sessions')}")
            return [TableFreshness("sessions", _utc(newest), None)]
        until, ended = (f"{f'max({name})' if name in columns else 'null'} as {name}" for name in (_UNTIL, _ENDED))
        found = _rows(
            self._connection, f"select {_TABLE}, {until}, {ended} from {self._from(info)} group by {_TABLE} order by 1"
        )
        return [TableFreshness(_named(table, self._dialect), _utc(to), _utc(at)) for table, to, at in found]

    def stale(self, now: datetime | None = None) -> list[TableFreshness]:
        """Return the tables whose data is older than the settings allow.

        Tables of single events don't count: one whose event was archived in Heap stays as it is.
        """
        moment, hours = now or datetime.now(UTC), self._settings.stale_after_hours
        return [each for each in self.freshness() if each.table in NOT_EVENTS and each.stale(moment, hours)]

    def _place(self) -> str:
        return ".".join(part for part in (self._settings.database, self._settings.db_schema) if part)

    def _from(self, table: str) -> str:
        from sqlglot import exp

        return exp.table_(table, db=self._settings.db_schema, catalog=self._settings.database).sql(self._dialect)


def tables_in(
    connection: Connection, dialect: Dialect, schema: str, database: str | None = None
) -> dict[str, tuple[str, ...]]:
    """Return every table and view of a schema with its columns, in their order; none where there is no such schema.

    ``database`` is the database or project where it isn't the connection's own. Names are as statements write them
    without quotes.

    Raises:
        QueryError: the warehouse doesn't tell.
    """
    if dialect == "bigquery" and not database and not connection.tables(schema):
        # A dataset that isn't there can't be asked for its columns.
        return {}
    found: dict[str, list[str]] = {}
    for table, column in _rows(connection, *_catalogue(dialect, schema, database)):
        found.setdefault(_named(table, dialect), []).append(_named(column, dialect))
    return {table: tuple(columns) for table, columns in found.items()}


def _catalogue(dialect: Dialect, schema: str, database: str | None) -> tuple[str, tuple[str, ...]]:
    """Return the query for the tables and columns of a schema, and its parameters."""
    from sqlglot import exp

    if dialect == "bigquery":
        dataset = exp.table_(schema, db=database).sql("bigquery")
        return f"select table_name, column_name from {dataset}.INFORMATION_SCHEMA.COLUMNS {_ORDER}", ()
    if dialect == "redshift" and database:
        # The usual view tells of the session's own database only.
        where = "database_name = ? and schema_name = ?"
        return f"select table_name, column_name from svv_all_columns where {where} {_ORDER}", (database, schema)
    view = exp.table_("columns", db="information_schema", catalog=database).sql(dialect)
    where = "lower(table_schema) = lower(?)"
    if dialect == "duckdb":
        where += " and table_catalog = current_database()"
    return f"select table_name, column_name from {view} where {where} {_ORDER}", (schema,)


def _named(name: str, dialect: Dialect) -> str:
    # What Snowflake keeps in capitals was given without quotes.
    return name.lower() if dialect == "snowflake" and name.isupper() else name


def _rows(connection: Connection, sql: str, params: tuple[str, ...] = ()) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for batch in connection.batches(sql, params) for row in batch.to_pylist()]


def _utc(given: datetime | str | None) -> datetime | None:
    if given is None:
        return None
    moment = datetime.fromisoformat(given) if isinstance(given, str) else given
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
