"""Which columns of other tables a model's columns come from, as its compiled SQL tells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

Columns = Mapping[str, str]

# To follow the columns of a union of dozens of tables takes longer than all other models together.
LONGEST_SQL = 20_000


class Origin(NamedTuple):
    """A column of a table, which is named as SQL names it, without quotes."""

    table: str
    column: str


def column_lineage(sql: str, dialect: str, tables: Mapping[str, Columns]) -> dict[str, list[Origin]]:
    """Return where each column of a query comes from; what isn't told by the SQL is left out.

    ``tables`` are the tables that the query reads, with the types of their columns. A very long query isn't followed.
    """
    if len(sql) > LONGEST_SQL:
        return {}
    from sqlglot import MappingSchema, exp, parse_one
    from sqlglot.errors import SqlglotError
    from sqlglot.lineage import lineage
    from sqlglot.optimizer.qualify import qualify
    from sqlglot.optimizer.scope import build_scope

    schema = MappingSchema(dialect=dialect)
    found: dict[str, list[Origin]] = {}
    try:
        for name, columns in tables.items():
            schema.add_table(exp.to_table(name, dialect=dialect), dict(columns), dialect=dialect)
        query = qualify(parse_one(sql, dialect=dialect), schema=schema, dialect=dialect, validate_qualify_columns=False)
        scope = build_scope(query)
        for column in query.named_selects if isinstance(query, exp.Query) else ():
            leaves = (
                node for node in lineage(column, query, scope=scope, dialect=dialect).walk() if not node.downstream
            )
            origins = {_origin(node.name, node.source, dialect) for node in leaves}
            found[column.lower()] = sorted(origin for origin in origins if origin)
    except SqlglotError:
        # A word of the dialect that the parser doesn't know: the table's own lineage is there all the same.
        return found
    return {column: origins for column, origins in found.items() if origins}


def _origin(name: str, source: object, dialect: str) -> Origin | None:
    from sqlglot import exp

    if not isinstance(source, exp.Table):
        return None
    table = ".".join(part.name for part in source.parts).lower()
    return Origin(table, exp.to_column(name, dialect=dialect).name.lower())


class LineageNotes:
    """The lineage of models as it was found last, in a file: to follow all columns takes longer than to build them."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._known: dict[str, dict[str, list[list[str]]]] = json.loads(file.read_text())
        except (OSError, json.JSONDecodeError):
            self._known = {}
        self._asked: dict[str, dict[str, list[list[str]]]] = {}

    def lineage(self, sql: str, dialect: str, tables: Mapping[str, Columns]) -> dict[str, list[Origin]]:
        """Return what ``column_lineage`` does."""
        told = json.dumps([sql, dialect, {name: dict(columns) for name, columns in tables.items()}], sort_keys=True)
        key = hashlib.sha256(told.encode()).hexdigest()
        if key not in self._known:
            self._known[key] = {
                column: [list(origin) for origin in origins]
                for column, origins in column_lineage(sql, dialect, tables).items()
            }
        self._asked[key] = self._known[key]
        return {column: [Origin(*each) for each in origins] for column, origins in self._asked[key].items()}

    def keep(self) -> None:
        """Write down what was asked for, and forget the rest."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self._asked))


def plain(relation: str, quotes: Sequence[str] = ('"', "`", "[", "]")) -> str:
    """Return the name of a table without its quotes, in small letters."""
    for quote in quotes:
        relation = relation.replace(quote, "")
    return relation.lower()
