"""Statements that people write: one query and no more, with its parameters in their places."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from heap_integration.warehouse.systems.system import Dialect, QueryError

if TYPE_CHECKING:
    from sqlglot.tokenizer_core import Token


BEGINNINGS = ("SELECT", "WITH", "VALUES", "TABLE", "FROM", "(")


def one_query(sql: str, params: Sequence[object], dialect: Dialect) -> str:
    """Return a query without its end and what follows it, each ``?`` replaced by the literal of a parameter.

    All else stays as it is written. Without parameters a ``?`` is what it is to the warehouse. What begins as a query
    can still write, in a common table expression for example: that it doesn't is for the session to ensure.

    Raises:
        QueryError: there are several statements, or none, or something else than a query, or as many ``?`` as
            parameters aren't there.
    """
    tokens = tokens_of_query(sql, dialect)
    marks = _marks(tokens) if params else []
    if len(marks) != len(params):
        raise QueryError(f"the statement has {len(marks)} of the sign ? for {len(params)} parameters")
    start, pieces = tokens[0].start, []
    for mark, value in zip(marks, params, strict=True):
        pieces += [sql[start : mark.start], literal(value, dialect)]
        start = mark.end + 1
    return "".join([*pieces, sql[start : tokens[-1].end + 1]])


def literal(value: object, dialect: Dialect) -> str:
    """Return a value as SQL.

    Raises:
        QueryError: it is none of text, number, truth, day, time and nothing.
    """
    from sqlglot import exp

    if value is not None and not isinstance(value, str | int | float | Decimal | date | datetime):
        raise QueryError(f"a parameter is {type(value).__name__}: it can be text, a number, true or false, or a time")
    if isinstance(value, Decimal):
        return f"{value:f}" if value.is_finite() else literal(str(value), dialect)
    if isinstance(value, str) and "\0" in value:
        raise QueryError("a parameter holds a character of the code 0")
    if isinstance(value, str) and dialect == "tsql" and not value.isascii():
        # Without the N the engine takes the text for one of its code page.
        return f"({exp.National(this=value).sql(dialect)})"
    return f"({exp.convert(value).sql(dialect)})"


def tokens_of_query(sql: str, dialect: Dialect) -> list[Token]:
    """Return the words and signs of a query, without its end.

    Raises:
        QueryError: there are several statements, or none, or something else than a query.
    """
    from sqlglot import Dialect as Dialects
    from sqlglot.errors import TokenError
    from sqlglot.tokenizer_core import TokenType

    try:
        tokens = Dialects.get_or_raise(dialect).tokenize(sql)
    except TokenError as error:
        raise QueryError(f"the statement can't be read: {error}") from error
    while tokens and tokens[-1].token_type == TokenType.SEMICOLON:
        tokens.pop()
    if not tokens:
        raise QueryError("there is no statement")
    if any(token.token_type == TokenType.SEMICOLON for token in tokens):
        raise QueryError("there are several statements: one at a time can be run")
    if tokens[0].text.upper() not in BEGINNINGS:
        raise QueryError(f"the statement begins with {tokens[0].text}: only queries can be run")
    return tokens


def _marks(tokens: Sequence[Token]) -> list[Token]:
    from sqlglot.tokenizer_core import TokenType

    return [token for token in tokens if token.token_type == TokenType.PLACEHOLDER and token.text == "?"]
