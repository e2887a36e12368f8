"""Tables, views and dbt models of the warehouse, found by the names people give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from typing import TYPE_CHECKING

from heap_integration.warehouse.ddl import TABLE_NAMES

if TYPE_CHECKING:
    import duckdb

# Where tables of another warehouse lie that were brought here; each is called as somebody named it.
BROUGHT = "_brought"
HUB_VIEWS = frozenset({"hub_events", "hub_traits", "hub_users"})
_CLOSEST = 3
_LISTED = 12


class TableError(ValueError):
    """A table that can't be read: it or a column of it isn't there, or won't do."""


@dataclass(frozen=True)
class Table:
    """A table or view; ``relation`` is its name for SQL, ``columns`` are its columns' types by their names."""

    name: str
    relation: str
    columns: Mapping[str, str]

    def column(self, name: str) -> str:
        """Return how the warehouse spells a column; case doesn't matter.

        Raises:
            TableError: the table has no such column; the message has the nearest names.
        """
        found = self.find(name)
        if found is None:
            raise TableError(f"table {self.name} has no column {name!r}; {nearest(name, self.columns)}")
        return found

    def find(self, name: str) -> str | None:
        """Return how the warehouse spells a column, or ``None`` where there is none."""
        if name in self.columns:
            return name
        return next((column for column in self.columns if column.casefold() == name.casefold()), None)


def quoted(name: str) -> str:
    """Return an identifier for SQL."""
    return '"' + name.replace('"', '""') + '"'


def nearest(name: str, known: Iterable[str], owner: str = "it") -> str:
    """Return what ``name`` may stand for, to end a message with; where nothing is close, what ``owner`` has."""
    names = {each.casefold(): each for each in known}
    close = [names[each] for each in get_close_matches(name.casefold(), names, n=_CLOSEST)]
    if close:
        return f"did you mean {' or '.join(close)}?"
    listed = [*names.values()][:_LISTED] + ["..."] * (len(names) > _LISTED)
    return f"{owner} has {', '.join(listed) or 'none'}"


def is_own_view(name: str) -> bool:
    """Say whether a name is one of the hub's own views, which are always in its own file."""
    schema, _, table = name.replace('"', "").strip().casefold().rpartition(".")
    return schema == "sync_log" or (schema in ("", "main") and table in HUB_VIEWS)


def find_table(con: duckdb.DuckDBPyConnection, name: str) -> Table:
    """Find a table or view by ``name`` or ``schema.name``, each plain or in double quotes.

    Case doesn't matter, as in DuckDB. The hub's own tables are none of these, its views are.

    Raises:
        TableError: it isn't there, or can't be read; the message has the nearest names.
    """
    keys = con.execute(
        "select schema_name, table_name from duckdb_tables() where database_name = current_database() and not internal"
        " union all"
        " select schema_name, view_name from duckdb_views() where database_name = current_database() and not internal"
        " order by all"
    ).fetchall()
    wanted = name.strip().casefold()
    brought = wanted.startswith(f"{quoted(BROUGHT)}.")
    tables: list[tuple[str, str]] = [
        (schema, table) for schema, table in keys if table not in TABLE_NAMES and (schema == BROUGHT) == brought
    ]
    found = [key for key in tables if wanted in _spellings(*key)]
    found = [key for key in found if key[0] == "main"] or found
    if len(found) > 1:
        raise TableError(f"table {name!r} stands for several tables: {', '.join('.'.join(key) for key in found)}")
    if not found:
        known = [table if "." not in name and schema == "main" else f"{schema}.{table}" for schema, table in tables]
        raise TableError(f"table {name!r} is not there; {nearest(name, known, 'the warehouse')}")
    return _described(con, found[0])


def _spellings(schema: str, table: str) -> set[str]:
    tables = (table, quoted(table))
    both = (".".join(each) for each in product((schema, quoted(schema)), tables))
    return {each.casefold() for each in (*tables, *both)}


def _described(con: duckdb.DuckDBPyConnection, key: tuple[str, str]) -> Table:
    import duckdb

    name, relation = key[1] if key[0] == BROUGHT else ".".join(key), ".".join(map(quoted, key))
    try:
        columns = {str(row[0]): str(row[1]) for row in con.execute(f"describe {relation}").fetchall()}
    except duckdb.Error as error:
        # a view of what has changed or is gone
        raise TableError(f"table {name} can't be read: {error}") from error
    return Table(name, relation, columns)
