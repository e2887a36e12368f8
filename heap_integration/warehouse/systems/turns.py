"""Statements for the systems in which a change of tables ends, or may not be part of, a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heap_integration.warehouse.systems.system import Dialect, QueryError

if TYPE_CHECKING:
    from sqlglot import exp

SHOWN = 120


@dataclass(frozen=True)
class Turns:
    """Statements in three turns: what makes and changes tables, what changes rows together, what drops tables."""

    before: list[str] = field(default_factory=list)
    together: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


def in_turns(statements: Sequence[str], dialect: Dialect) -> Turns:
    """Return statements so that those which change rows follow each other and can be one transaction.

    What changes tables before the first change of rows stays where it is. Later on, new tables and new columns are
    made ahead of all changes of rows, and tables are dropped after them: a crash between two turns leaves a table or
    a column that the same statements find again, and rows that are all changed or all as they were.

    Raises:
        QueryError: an order that can't be kept so, like a table dropped between two changes of rows and made again.
    """
    from sqlglot import exp

    turns, changed, gone = Turns(), set[str](), set[str]()
    for statement in statements:
        tree = _parsed(statement, dialect)
        used = {table.name.lower() for table in tree.find_all(exp.Table)}
        if used & gone:
            raise QueryError(
                f"a table can't be used again that was dropped after a change of rows: {_short(statement)}"
            )
        if _changes_rows(tree):
            turns.together.append(statement)
            changed |= used
        elif not turns.together:
            turns.before.append(statement)
        elif isinstance(tree, exp.Drop):
            turns.after.append(statement)
            gone |= used
        elif _can_be_ahead(tree, used & changed):
            turns.before.append(statement)
        else:
            raise QueryError(f"this can't stand between changes of rows: {_short(statement)}")
    return turns


def must_read(sql: str, dialect: Dialect) -> None:
    """Refuse a statement that isn't a query, for systems whose sessions can't be opened for reading alone.

    Raises:
        QueryError: it changes something, or can't be read.
    """
    from sqlglot import exp

    tree = _parsed(sql, dialect)
    if not isinstance(tree, exp.Query) or tree.find(exp.DML, exp.DDL, exp.Into, exp.Command) is not None:
        raise QueryError("only a query can run here")


def _parsed(statement: str, dialect: Dialect) -> exp.Expr:
    from sqlglot import parse_one
    from sqlglot.errors import SqlglotError

    try:
        return parse_one(statement, dialect=dialect)
    except SqlglotError as error:
        raise QueryError(f"the statement can't be read: {str(error).splitlines()[0]}") from error


def _changes_rows(tree: exp.Expr) -> bool:
    from sqlglot import exp

    return isinstance(tree, exp.DML | exp.Query) and tree.find(exp.Into) is None


def _can_be_ahead(tree: exp.Expr, of_changed_rows: set[str]) -> bool:
    from sqlglot import exp

    if isinstance(tree, exp.Alter):
        return tree.find(exp.AlterRename) is None
    return isinstance(tree, exp.Create | exp.Select) and not of_changed_rows


def _short(statement: str) -> str:
    return " ".join(statement.split())[:SHOWN]
