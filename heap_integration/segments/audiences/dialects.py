"""How each engine reads a property out of JSON and tells numbers and moments from other texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import get_args

from sqlglot import exp

from heap_integration.segments.audiences.values import MOMENT, NUMBER, OFFSET
from heap_integration.warehouse.names import identifier
from heap_integration.warehouse.systems.system import Dialect

__all__ = ["DIALECTS", "Dialect", "Engine"]

# The names that lead to a value.
Path = tuple[str, ...]
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)

# Where a path leads to the value, a name is a piece of the path.
NOT_IN_A_PATH = re.compile(r'["\\\x00-\x1f]')
NOT_A_NAME = re.compile(r"[.`\\\x00-\x1f]")


class Engine:
    """The parts of SQL in which the engines differ, as expressions: no text is ever put together.

    Where a property is read as text, what is no text, number, true or false (a list, an object, null) is null.
    """

    def __init__(self, dialect: Dialect) -> None:
        if dialect not in DIALECTS:
            raise ValueError(f"there is no dialect {dialect}: allowed are {', '.join(DIALECTS)}")
        self.dialect = dialect

    def name(self, name: str) -> exp.Identifier:
        """Return a name of the warehouse, quoted: an engine that keeps unquoted names in capitals gets capitals.

        Raises:
            ValueError: nothing can be called like that there.
        """
        if self.dialect == "bigquery" and NOT_A_NAME.search(name):
            raise ValueError(f"{name!r} can't be a name in {self.dialect}")
        return identifier(name, self.dialect)

    def table(self, dotted: str) -> exp.Table:
        """Return a table by its name, of up to three parts."""
        parts = dotted.split(".")
        if not 1 <= len(parts) <= 3 or not all(parts):
            raise ValueError(
                f"{dotted!r} is no name of a table: wanted is table, schema.table or database.schema.table"
            )
        return exp.Table(**dict(zip(("this", "db", "catalog"), map(self.name, reversed(parts)), strict=False)))

    def column(self, name: str, table: str | None = None) -> exp.Column:
        """Return a column."""
        return exp.Column(this=self.name(name), table=self.name(table) if table else None)

    def text(self, given: str) -> exp.Expr:
        """Return a text as a literal."""
        literal = exp.Literal.string(given)
        # Without the N the engine takes the text for one of its code page.
        return exp.National(this=given) if self.dialect == "tsql" and not given.isascii() else literal

    def as_text(self, value: exp.Expr) -> exp.Expr:
        """Return a value as text."""
        if self.dialect == "tsql":
            return exp.Cast(this=value, to=exp.DataType.build("NVARCHAR(MAX)", dialect="tsql"))
        return exp.cast(value, "text")

    def moment(self, at: datetime, *, zoned: bool) -> exp.Expr:
        """Return a moment (UTC) as a literal, for columns with or without a time zone."""
        given = at.replace(tzinfo=None).isoformat(" ", "microseconds")
        if zoned or self.dialect == "bigquery":
            return exp.cast(exp.Literal.string(f"{given}+00:00"), "timestamptz")
        return exp.cast(exp.Literal.string(given), "timestamp")

    def days_after(self, moment: exp.Expr, days: int) -> exp.Expr:
        """Return the moment so many days later."""
        number = exp.Literal.number(days)
        kind = exp.TimestampAdd if self.dialect == "bigquery" else exp.DateAdd
        return kind(this=moment, expression=number, unit=exp.var("DAY"))

    def contains(self, text: exp.Expr, part: str) -> exp.Expr:
        """Return whether a text holds another."""
        return exp.GT(this=exp.StrPosition(this=text, substr=self.text(part)), expression=exp.Literal.number(0))

    def property_text(self, properties: exp.Expr, name: str) -> exp.Expr:
        """Return a property out of JSON as text; ``page.path`` is its own name, or ``path`` within ``page``.

        Raises:
            ValueError: the engine's way to it can't say this name.
        """
        first, *others = (_READERS[self.dialect](self, properties.copy(), path) for path in _paths(name))
        return exp.Coalesce(this=first, expressions=others) if others else first

    def property_exists(self, properties: exp.Expr, name: str) -> exp.Expr:
        """Return whether JSON holds a property with a value; a list and an object are values too."""
        found = [_EXISTS[self.dialect](self, properties.copy(), path) for path in _paths(name)]
        return found[0] if len(found) == 1 else exp.or_(*found)

    def number(self, text: exp.Expr) -> exp.Expr:
        """Return the number that a text is, else null."""
        if self.dialect == "tsql":
            # It would read an empty text as 0 and knows no regular expressions.
            digit = exp.Like(this=text.copy(), expression=exp.Literal.string("%[0-9]%"))
            other = exp.Like(this=text.copy(), expression=exp.Literal.string("%[^0-9.eE+-]%"))
            return _where(exp.and_(digit, exp.not_(other)), self._cast(text, "double"))
        return _where(_matches(text, NUMBER), self._cast(text, "double"))

    def time(self, text: exp.Expr) -> exp.Expr:
        """Return the moment that a text is, with its time zone, else null; one that names no zone is in UTC."""
        if self.dialect in ("bigquery", "tsql"):  # both take it for UTC by themselves
            found = self._cast(text, "timestamptz")
            return found if self.dialect == "tsql" else _where(_matches(text, MOMENT), found)
        whole = (
            exp.case()
            .when(_matches(text, f"^.*{OFFSET}$"), text.copy())
            .when(_matches(text, "^.*:.*$"), _joined(text, "Z"))
            .else_(_joined(text, "T00:00:00Z"))
        )
        return _where(_matches(text, MOMENT), self._cast(whole, "timestamptz"))

    def _cast(self, text: exp.Expr, kind: str) -> exp.Expr:
        if self.dialect in ("postgres", "redshift"):  # neither has another one
            return exp.cast(text.copy(), kind)
        given = self.as_text(text.copy()) if self.dialect == "snowflake" else text.copy()
        return exp.TryCast(this=given, to=exp.DataType.build(kind))

    def path(self, path: Path) -> exp.Expr:
        """Return the way to a value in the words of JSONPath.

        Raises:
            ValueError: a name can't be said in it.
        """
        for name in path:
            if NOT_IN_A_PATH.search(name):
                words = "its name holds a quote, a backslash or a line break"
                raise ValueError(f"the property {name!r} can't be asked for in {self.dialect}: {words}")
        return self.text("$" + "".join(f'."{name}"' for name in path))


def _paths(name: str) -> list[Path]:
    """Return where a property may stand: under its whole name, or inside of others."""
    parts = tuple(name.split("."))
    return [(name,), parts] if len(parts) > 1 and all(parts) else [(name,)]


def _where(condition: exp.Expr, value: exp.Expr) -> exp.Expr:
    return exp.case().when(condition, value)


def _matches(text: exp.Expr, pattern: str) -> exp.Expr:
    return exp.RegexpLike(this=text.copy(), expression=exp.Literal.string(pattern))


def _joined(text: exp.Expr, ending: str) -> exp.Expr:
    return exp.DPipe(this=text.copy(), expression=exp.Literal.string(ending), safe=True)


def _call(function: str, *arguments: exp.Expr) -> exp.Anonymous:
    return exp.Anonymous(this=function, expressions=list(arguments))


def _names(path: Path) -> list[exp.Expr]:
    return [exp.Literal.string(name) for name in path]


def _pointer(path: Path) -> exp.Expr:
    return exp.Literal.string("".join("/" + name.replace("~", "~0").replace("/", "~1") for name in path))


def _duckdb(_: Engine, properties: exp.Expr, path: Path) -> exp.Expr:
    scalar = _call("TRY", _call("JSON_VALUE", properties, _pointer(path)))
    return _call("JSON_EXTRACT_STRING", scalar, exp.Literal.string("$"))


def _duckdb_exists(_: Engine, properties: exp.Expr, path: Path) -> exp.Expr:
    kind = _call("TRY", _call("JSON_TYPE", properties, _pointer(path)))
    return exp.NEQ(this=kind, expression=exp.Literal.string("NULL"))


def _postgres_type(properties: exp.Expr, path: Path) -> exp.Expr:
    return _call("JSONB_TYPEOF", _call("JSONB_EXTRACT_PATH", exp.cast(properties, "jsonb"), *_names(path)))


def _postgres(_: Engine, properties: exp.Expr, path: Path) -> exp.Expr:
    found = _call("JSONB_EXTRACT_PATH_TEXT", exp.cast(properties.copy(), "jsonb"), *_names(path))
    return _where(exp.not_(_postgres_type(properties, path).isin("array", "object")), found)


def _postgres_exists(_: Engine, properties: exp.Expr, path: Path) -> exp.Expr:
    return exp.NEQ(this=_postgres_type(properties, path), expression=exp.Literal.string("null"))


def _bigquery(engine: Engine, properties: exp.Expr, path: Path) -> exp.Expr:
    return _call("JSON_VALUE", properties, engine.path(path))


def _bigquery_exists(engine: Engine, properties: exp.Expr, path: Path) -> exp.Expr:
    listed = _call("JSON_QUERY_ARRAY", properties.copy(), engine.path(path))
    return exp.or_(_given(_bigquery(engine, properties, path)), _given(listed))


def _snowflake_value(properties: exp.Expr, path: Path) -> exp.Expr:
    value: exp.Expr = _call("TRY_PARSE_JSON", _call("TO_VARCHAR", properties))
    for name in _names(path):
        value = _call("GET", value, name)
    return value


def _snowflake(_: Engine, properties: exp.Expr, path: Path) -> exp.Expr:
    value = _snowflake_value(properties, path)
    compound = _call("TYPEOF", value.copy()).isin("ARRAY", "OBJECT")
    return _where(exp.not_(compound), exp.cast(value, "text"))


def _snowflake_exists(_: Engine, properties: exp.Expr, path: Path) -> exp.Expr:
    kind = _call("TYPEOF", _snowflake_value(properties, path))
    return exp.NEQ(this=kind, expression=exp.Literal.string("NULL_VALUE"))


def _redshift(_: Engine, properties: exp.Expr, path: Path) -> exp.Expr:
    # The last argument: what is no JSON has no properties. One that isn't there comes back empty.
    found = _call("JSON_EXTRACT_PATH_TEXT", properties, *_names(path), exp.true())
    return exp.Nullif(this=found, expression=exp.Literal.string(""))


def _redshift_exists(engine: Engine, properties: exp.Expr, path: Path) -> exp.Expr:
    return _given(_redshift(engine, properties, path))


def _tsql_valid(properties: exp.Expr, found: exp.Expr) -> exp.Expr:
    return _where(exp.EQ(this=_call("ISJSON", properties.copy()), expression=exp.Literal.number(1)), found)


def _tsql(engine: Engine, properties: exp.Expr, path: Path) -> exp.Expr:
    return _tsql_valid(properties, _call("JSON_VALUE", properties, engine.path(path)))


def _tsql_exists(engine: Engine, properties: exp.Expr, path: Path) -> exp.Expr:
    compound = _tsql_valid(properties, _call("JSON_QUERY", properties.copy(), engine.path(path)))
    return exp.or_(_given(_tsql(engine, properties, path)), _given(compound))


def _given(value: exp.Expr) -> exp.Expr:
    return exp.not_(exp.Is(this=value, expression=exp.null()))


Reader = Callable[[Engine, exp.Expr, Path], exp.Expr]
_READERS: dict[Dialect, Reader] = {
    "duckdb": _duckdb,
    "postgres": _postgres,
    "bigquery": _bigquery,
    "snowflake": _snowflake,
    "redshift": _redshift,
    "tsql": _tsql,
}
_EXISTS: dict[Dialect, Reader] = {
    "duckdb": _duckdb_exists,
    "postgres": _postgres_exists,
    "bigquery": _bigquery_exists,
    "snowflake": _snowflake_exists,
    "redshift": _redshift_exists,
    "tsql": _tsql_exists,
}
