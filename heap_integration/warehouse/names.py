"""Names of tables and columns as each system spells them, and SQL that is written once for all of them."""

from __future__ import annotations

import re

from sqlglot import exp, parse_one

from heap_integration.warehouse.systems.system import Dialect

SIMPLE = re.compile(r"[a-z_][a-z0-9_]*")


def identifier(name: str, dialect: Dialect) -> exp.Identifier:
    """Return a name, quoted: a system that keeps unquoted names in capitals gets capitals."""
    shown = name.upper() if dialect == "snowflake" and SIMPLE.fullmatch(name) else name
    return exp.Identifier(this=shown, quoted=True)


def spelt(name: str, dialect: Dialect) -> str:
    """Return a name as a piece of SQL."""
    return identifier(name, dialect).sql(dialect)


def relation(schema: str, table: str, dialect: Dialect) -> str:
    """Return a table of a schema as a piece of SQL."""
    return exp.Table(this=identifier(table, dialect), db=identifier(schema, dialect)).sql(dialect)


def translated(sql: str, dialect: Dialect) -> str:
    """Return a statement in DuckDB's SQL in that of another system, with every name quoted."""
    return in_dialect(parse_one(sql, dialect="duckdb"), dialect)


def in_dialect(statement: exp.Expr, dialect: Dialect) -> str:
    """Return a statement as SQL of a system, with every name quoted."""

    def quote(node: exp.Expr) -> exp.Expr:
        return identifier(node.name, dialect) if isinstance(node, exp.Identifier) else node

    return statement.transform(quote).sql(dialect)
