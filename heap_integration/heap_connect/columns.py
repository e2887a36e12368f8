"""What the columns of a dump become: their kinds, how values are read as them, and what two kinds have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

from heap_integration.warehouse.systems.system import Dialect
from heap_integration.warehouse.tables import quoted

Kind = Literal["bigint", "double", "boolean", "text", "timestamp", "date"]

IDS = frozenset({"user_id", "session_id", "event_id", "from_user_id", "to_user_id"})
"""What is a whole number in all of Heap's tables, of 53 bits."""

DUCKDB_TYPES: dict[Kind, str] = {
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "text": "VARCHAR",
    "timestamp": "TIMESTAMP",
    "date": "DATE",
}
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT"), "bigint"),
    **dict.fromkeys(("FLOAT", "DOUBLE"), "double"),
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"), "timestamp"),
    "BOOLEAN": "boolean",
    "DATE": "date",
}
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
_NESTED = ("STRUCT", "MAP", "UNION")

# Up to which number, in either direction, an epoch counts in which unit: seconds and milliseconds until the year 5138.
# What a number counts isn't said anywhere, and differs between Heap's own documents.
_UNITS = ((1e11, "* 1000000.0"), (1e14, "* 1000.0"), (1e17, ""), (1e20, "/ 1000.0"))


def kind_of(duckdb_type: str) -> Kind:
    """Return what a column of a DuckDB type is; whatever is none of the others is text."""
    return _KINDS.get(duckdb_type, "text")


def common(kinds: Iterable[Kind]) -> Kind:
    """Return the kind that holds what all of these hold."""
    found = set(kinds)
    if len(found) == 1:
        return found.pop()
    return "double" if found == {"bigint", "double"} else "text"


def planned(name: str, duckdb_type: str, times: Collection[str]) -> Kind:
    """Return what a column of a file becomes, by its name before its type."""
    if name in IDS:
        return "bigint"
    return "timestamp" if name in times else kind_of(duckdb_type)


def reading(name: str, duckdb_type: str, times: Collection[str]) -> tuple[str, bool]:
    """Return SQL that reads a column of a file as what it becomes, and whether a value may be lost by it."""
    column, kind = quoted(name), planned(name, duckdb_type, times)
    if kind == kind_of(duckdb_type):
        if kind == "text" and (duckdb_type.startswith(_NESTED) or duckdb_type.endswith("[]")):
            return _nested(column, duckdb_type), False
        return column if DUCKDB_TYPES[kind] == duckdb_type else f"cast({column} as {DUCKDB_TYPES[kind]})", False
    if kind == "bigint":
        return _id(column, duckdb_type), True
    return _time(column, duckdb_type), True


def _nested(column: str, duckdb_type: str) -> str:
    # a union of plain types is the value itself
    return f"cast({column} as varchar)" if duckdb_type.startswith("UNION") else f"cast(to_json({column}) as varchar)"


def _id(column: str, duckdb_type: str) -> str:
    if kind_of(duckdb_type) == "double":
        return f"case when {column} = trunc({column}) then try_cast({column} as bigint) end"
    text = f"trim(cast({column} as varchar))"
    # a cast alone would round what has a fraction
    return f"case when regexp_full_match({text}, '-?[0-9]+') then try_cast({text} as bigint) end"


def _time(column: str, duckdb_type: str) -> str:
    if duckdb_type in _WHOLE or kind_of(duckdb_type) == "double":
        return _epoch(f"cast({column} as double)")
    if kind_of(duckdb_type) == "date":
        return f"cast({column} as timestamp)"
    text = column if duckdb_type == "VARCHAR" else f"cast({column} as varchar)"
    has_zone = f"contains(substr({text}, 11), '+') or contains(substr({text}, 11), '-')"
    # Without a zone a time is UTC. The plain cast is the fast one, but leaves out what a zone means.
    zoned = f"try_cast({text} as timestamptz) at time zone 'UTC'"
    plain = f"case when {has_zone} then {zoned} else try_cast({text} as timestamp) end"
    return f"coalesce({plain}, {_epoch(f'try_cast({text} as double)')})"


def _epoch(number: str) -> str:
    cases = " ".join(
        f"when {number} between -{most:.0f} and {most:.0f} then make_timestamp(cast({number} {factor} as bigint))"
        for most, factor in _UNITS
    )
    return f"case {cases} end"


_FAMILIES: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("timestamp", ("timestamp", "datetime")),
    ("date", ("date",)),
    ("boolean", ("bool", "bit")),
    ("double", ("double", "float", "real", "numeric", "decimal")),
    ("bigint", ("bigint", "int", "smallint", "tinyint", "number")),
)


def kind_in(warehouse_type: str) -> Kind:
    """Return what a column of a warehouse holds, by the beginning of its type's name in any of the six systems."""
    given = warehouse_type.lower()
    return next((kind for kind, beginnings in _FAMILIES if given.startswith(beginnings)), "text")


def type_of(kind: Kind, dialect: Dialect) -> str:
    """Return the type of a kind in a system's SQL."""
    from sqlglot import exp

    return exp.DataType.build(DUCKDB_TYPES[kind], dialect="duckdb").sql(dialect)


def guessed(name: str, times: Collection[str]) -> Kind:
    """Return what a column becomes of which no file tells the type."""
    return "bigint" if name in IDS else "timestamp" if name in times else "text"
