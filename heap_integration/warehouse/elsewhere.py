"""Tables, views and dbt models of a warehouse that isn't DuckDB, found by the names people give them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlglot import exp
from sqlglot.errors import SqlglotError

from heap_integration.warehouse.names import relation
from heap_integration.warehouse.systems.system import Connection, Dialect, Schemas
from heap_integration.warehouse.tables import Table, TableError, nearest

_TYPE = exp.DataType.Type
JSON = frozenset({_TYPE.JSON, _TYPE.JSONB, _TYPE.VARIANT, _TYPE.OBJECT, _TYPE.SUPER})
PART = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^".]+))\s*')


@dataclass(frozen=True)
class Elsewhere:
    """A warehouse at work: an open connection, the SQL that it speaks, and where the environment's tables lie."""

    connection: Connection
    schemas: Schemas
    dialect: Dialect

    @property
    def logical(self) -> dict[str, str]:
        """The environment's schemas by what they are called in DuckDB, whatever they are called here."""
        names = self.schemas
        return {
            "main": names.hub,
            "models": names.models,
            "heap_connect": names.heap_connect,
            "exports": names.exports,
        }

    def find(self, name: str) -> Table:
        """Find a table or view by ``name`` or ``schema.name``, each plain or in double quotes; case doesn't matter.

        A schema is one of the warehouse's, or what the environment's own are called in DuckDB: ``main``, ``models``,
        ``heap_connect`` or ``exports``, which are all looked through where none is named. The table's ``name``
        begins with its schema's.

        Raises:
            TableError: it isn't there; the message has the nearest names.
        """
        schema, table = _parts(name)
        here = self._tables(schema)
        wanted = [key for key in here if key[1].casefold() == table.casefold()]
        if len(wanted) > 1:
            raise TableError(f"table {name!r} stands for several tables: {', '.join('.'.join(key) for key in wanted)}")
        if not wanted:
            known = [".".join(key) for key in here]
            raise TableError(f"table {name!r} is not there; {nearest(name, known, 'the warehouse')}")
        (found,) = wanted
        return Table(".".join(found), relation(*found, self.dialect), self.connection.columns(*found))

    def _tables(self, schema: str | None) -> list[tuple[str, str]]:
        """Return the tables of a schema, or of all of the environment's."""
        asked = list(self.logical.values())
        if schema is not None:
            asked = [schema, self.logical.get(schema.casefold(), schema.casefold())]
        found = ((each, table) for each in dict.fromkeys(asked) for table in self.connection.tables(each))
        return [key for key in found if not key[1].startswith("_hub_")]


def kind_of(type_name: str, dialect: Dialect) -> exp.DataType | None:
    """Return a column's type in terms that all systems share, ``None`` where it is none of theirs."""
    try:
        return exp.DataType.build(type_name, dialect=dialect)
    except SqlglotError:
        return None


def is_json(type_name: str, dialect: Dialect) -> bool:
    """Say whether a column holds JSON, which comes as text."""
    found = kind_of(type_name, dialect)
    return found is not None and found.this in JSON


def _parts(name: str) -> tuple[str | None, str]:
    found = re.fullmatch(rf"(?:{PART.pattern}\.)?{PART.pattern}", name)
    if found is None:
        raise TableError(f"{name!r} is no name of a table: wanted is table or schema.table")
    schema, table = found[1] or found[2], found[3] or found[4]
    return schema and _plain(schema), _plain(table)


def _plain(name: str) -> str:
    return name.strip().replace('""', '"')
