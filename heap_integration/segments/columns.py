"""How the values of a table's columns become ids and attributes, in SQL: all rows alike, none read by Python."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

from heap_integration.identities import PLACEHOLDERS
from heap_integration.warehouse.profiles import BLANK
from heap_integration.warehouse.tables import Table, TableError, quoted

AttributeType = Literal["text", "number", "boolean", "datetime", "list"]

# Numbers are doubles nearly everywhere that JSON is read: beyond this, neighbours become the same one.
LARGEST_NUMBER = 2**53 - 1
LARGEST_FLOAT = 2**24

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
INTEGERS = frozenset([*_INTEGERS, *(f"U{name}" for name in _INTEGERS), "BIGNUM"])
FLOATS = frozenset(["FLOAT", "DOUBLE"])
MOMENTS = frozenset(
    ["TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S", "DATE"],
)
UNSENDABLE = frozenset(["BLOB", "BIT", "GEOMETRY"])
ISO = "%Y-%m-%dT%H:%M:%S.%gZ"
TRUE_WORDS, FALSE_WORDS = ("true", "t", "yes", "y", "1", "on"), ("false", "f", "no", "n", "0", "off")

_EXACT = f"between -{LARGEST_NUMBER} and {LARGEST_NUMBER}"
_ENTRY = "hub_entry"


def literal(text: str) -> str:
    """Return a text for SQL."""
    return "'" + text.replace("'", "''") + "'"


def one_of(value: str, words: tuple[str, ...] | list[str]) -> str:
    """Return the condition that a text is one of some words."""
    return f"{value} in ({', '.join(map(literal, words))})"


def is_placeholder(value: str) -> str:
    """Return the condition that an identity stands for nobody."""
    return one_of(f"lower({value})", sorted(PLACEHOLDERS))


def pointer(name: str) -> str:
    """Return where a member of a JSON object is, for SQL."""
    return literal("/" + name.replace("~", "~0").replace("/", "~1"))


def identity_of(table: Table, column: str, row: str = "hub_row") -> str:
    """Return an identity as text, null where there is none; ``row`` is the table's alias.

    Numbers have no ``.0``; one that a floating-point column can't hold exactly is none.

    Raises:
        TableError: the column isn't there, or holds something else than text, numbers and UUIDs.
    """
    name = table.column(column)
    kind, value = table.columns[name], f"{row}.{quoted(name)}"
    if kind in INTEGERS:
        return f"{value}::varchar"
    if kind in FLOATS:
        return _exact(value, kind)
    if kind.startswith("DECIMAL"):
        return _decimal_text(value)
    if kind in ("VARCHAR", "UUID") or kind.startswith("ENUM"):
        return trimmed(f"{value}::varchar")
    raise TableError(f"table {table.name}: {name} is {kind}; an identity is text, a number or a UUID")


def json_identity(value: str, name: str) -> str:
    """Return a member of a JSON object as an identity, null where it is none."""
    at = pointer(name)
    text = f"json_extract_string({value}, {at})"
    number = _exact(f"try_cast({text} as double)", "DOUBLE")
    return (
        f"case json_type({value}, {at}) when 'VARCHAR' then {trimmed(text)} when 'BIGINT' then {text}"
        f" when 'UBIGINT' then {text} when 'DOUBLE' then {number} end"
    )


def as_json(value: str, kind: str) -> str:
    """Return a column's value as JSON, null where it is none."""
    if kind == "JSON":
        return value
    return f"try_cast({value} as json)" if kind == "VARCHAR" else f"to_json({value})"


def trimmed(value: str) -> str:
    """Return a text without blanks around it, null where nothing is left."""
    # To trim all that is blank costs ten times as much as to see that there is nothing to trim.
    return (
        f"case when regexp_matches({value}, '{_BLANK_ENDS}') then nullif(trim({value}, {_BLANKS}), '') else {value} end"
    )


class Attribute(NamedTuple):
    """A value as JSON text (null where it is null), and the condition under which it doesn't fit, in words."""

    json: str
    unfit: str | None = None
    words: str = ""


def attribute_of(table: Table, column: str, wanted: AttributeType | None, *, as_set: bool = False) -> Attribute:
    """Return a column as an attribute; without ``wanted`` it has the column's own type.

    ``as_set`` sorts a list's entries and leaves out repeated ones.

    Raises:
        TableError: no value of the column can be of that type.
    """
    name = table.column(column)
    kind, value = table.columns[name], f"hub_row.{quoted(name)}"
    if kind in UNSENDABLE:
        raise TableError(f"table {table.name}: {name} is {kind}, which no attribute can hold; leave it out by `fields`")
    found = _list(value, kind, as_set=as_set) if (wanted or _own_type(kind)) == "list" else None
    if found is None:
        found = _SCALARS[wanted or _own_type(kind)](value, kind) if wanted != "list" else None
    if found is None:
        raise TableError(f"table {table.name}: {name} is {kind}, of which no {wanted} can be made")
    return found._replace(words=f"{name} {found.words}")


def _own_type(kind: str) -> AttributeType:
    if kind in INTEGERS or kind in FLOATS or kind.startswith("DECIMAL"):
        return "number"
    if kind == "BOOLEAN":
        return "boolean"
    if kind in MOMENTS and kind != "DATE":
        return "datetime"
    return "list" if _entries(kind) else "text"


def _entries(kind: str) -> str | None:
    """Return the type of a list's entries, or ``None`` where it is no list of single values."""
    found = re.fullmatch(r"(.*)\[\d*\]", kind)
    entry = found[1] if found else ""
    nested = entry.endswith("]") or entry.startswith(("STRUCT", "MAP", "UNION"))
    return None if not entry or nested or entry in UNSENDABLE else entry


def _text(value: str, kind: str) -> Attribute:
    unfit, words = None, ""
    if kind in MOMENTS:
        moment = f"{value}::timestamp"
        text = f"{value}::varchar" if kind == "DATE" else f"strftime({moment}, '{ISO}')"
        unfit, words = _no_moment(moment), "is no moment of the years 1 to 9999"
    elif kind in FLOATS:
        text, unfit, words = _float_text(value, kind), f"not isfinite({value})", "is not a finite number"
    elif kind.startswith("DECIMAL"):
        text = _decimal_text(value)
    elif kind == "JSON":
        text = f"({value} ->> '$')"
    elif kind.endswith("]") or kind.startswith(("STRUCT", "MAP")):
        text = f"to_json({value})::varchar"
    else:
        text = value if kind == "VARCHAR" else f"{value}::varchar"
    return Attribute(f"to_json({text})::varchar", unfit, words)


def _number(value: str, kind: str) -> Attribute | None:
    beyond = "is beyond 2^53, where numbers lose digits: send it as text"
    if kind in INTEGERS:
        # a negative number can't be compared with the largest of the unsigned types
        unfit = f"{value} > {LARGEST_NUMBER}" if kind.startswith("U") else f"{value} not {_EXACT}"
        return Attribute(f"{value}::varchar", unfit, beyond)
    if kind in FLOATS:
        return Attribute(_float_text(value, kind), f"not isfinite({value})", "is not a finite number")
    if kind.startswith("DECIMAL"):
        number = f"try_cast({value} as double)"
        return Attribute(_float_text(number, "DOUBLE"), f"{value} not {_EXACT}", beyond)
    if kind == "BOOLEAN":
        return Attribute(f"{value}::integer::varchar")
    if kind in ("VARCHAR", "JSON"):
        given = trimmed(_text_value(value, kind))
        number = f"try_cast({given} as double)"
        unfit = f"{given} is not null and coalesce(not isfinite({number}) or {number} not {_EXACT}, true)"
        return Attribute(_float_text(number, "DOUBLE"), unfit, "is not a number, or beyond 2^53")
    return None


def _boolean(value: str, kind: str) -> Attribute | None:
    if kind == "BOOLEAN":
        return Attribute(f"{value}::varchar")
    if kind in INTEGERS or kind in FLOATS or kind.startswith("DECIMAL"):
        return Attribute(
            f"case {value} when 1 then 'true' when 0 then 'false' end", f"{value} not in (0, 1)", _NO_BOOLEAN
        )
    if kind in ("VARCHAR", "JSON"):
        given = f"lower({trimmed(_text_value(value, kind))})"
        yes, no = one_of(given, TRUE_WORDS), one_of(given, FALSE_WORDS)
        return Attribute(f"case when {yes} then 'true' when {no} then 'false' end", f"not ({yes} or {no})", _NO_BOOLEAN)
    return None


def _datetime(value: str, kind: str) -> Attribute | None:
    given, unreadable = value, "false"
    if kind in ("VARCHAR", "JSON"):
        text = trimmed(_text_value(value, kind))
        # without a zone it is UTC, as the warehouse's own
        given = f"try_cast({text} as timestamptz)"
        unreadable = f"({text} is not null and {given} is null)"
    elif kind not in MOMENTS:
        return None
    moment = f"{given}::timestamp"
    unfit = f"{unreadable} or {_no_moment(moment)}"
    return Attribute(f"to_json(strftime({moment}, '{ISO}'))::varchar", unfit, "is no moment of the years 1 to 9999")


def _list(value: str, kind: str, *, as_set: bool) -> Attribute | None:
    entry = _entries(kind)
    if entry:
        inner = _SCALARS[_own_type(entry)](_ENTRY, entry)
        if inner is None:
            return None
        entries = _each(inner.json, f"{value}::{entry}[]", f"{_ENTRY} is not null")
        unfit = _some(f"{value}::{entry}[]", inner.unfit) if inner.unfit else None
        return Attribute(_json_list(entries, as_set=as_set), unfit, f"has an entry that {inner.words}")
    if kind not in ("VARCHAR", "JSON"):
        return None
    value = value if kind == "JSON" else trimmed(value)
    array = as_json(value, kind)
    parts = f"json_extract({array}, '$[*]')"
    wrong = f"json_type({_ENTRY}) in ('OBJECT', 'ARRAY') or try_cast({_ENTRY}::varchar as hugeint) not {_EXACT}"
    unfit = (
        f"{value} is not null and (coalesce(json_type({array}), '') not in ('ARRAY', 'NULL') or {_some(parts, wrong)})"
    )
    entries = _each(f"{_ENTRY}::varchar", parts, f"json_type({_ENTRY}) <> 'NULL'")
    json = f"case json_type({array}) when 'ARRAY' then {_json_list(entries, as_set=as_set)} end"
    return Attribute(json, unfit, "is not a JSON array of texts, booleans and numbers up to 2^53")


def _each(value: str, entries: str, condition: str) -> str:
    return f"list_transform(list_filter({entries}, lambda {_ENTRY}: {condition}), lambda {_ENTRY}: {value})"


def _some(entries: str, condition: str) -> str:
    return f"len(list_filter({entries}, lambda {_ENTRY}: {condition})) > 0"


def _json_list(entries: str, *, as_set: bool) -> str:
    return f"'[' || array_to_string({f'list_sort(list_distinct({entries}))' if as_set else entries}, ',') || ']'"


def _text_value(value: str, kind: str) -> str:
    return f"({value} ->> '$')" if kind == "JSON" else value


def _no_moment(moment: str) -> str:
    return f"(not isfinite({moment}) or year({moment}) not between 1 and 9999)"


def _float_text(value: str, kind: str) -> str:
    largest = LARGEST_FLOAT if kind == "FLOAT" else LARGEST_NUMBER
    whole = f"{value} = trunc({value}) and abs({value}) <= {largest}"
    return f"case when {whole} then try_cast({value} as bigint)::varchar else {value}::varchar end"


def _exact(value: str, kind: str) -> str:
    largest = LARGEST_FLOAT if kind == "FLOAT" else LARGEST_NUMBER
    return f"case when isfinite({value}) and abs({value}) <= {largest} then {_float_text(value, kind)} end"


def _decimal_text(value: str) -> str:
    whole = f"trunc({value})"
    return f"case when {value} = {whole} then {whole}::hugeint::varchar else rtrim({value}::varchar, '0') end"


_BLANKS = literal(BLANK)
_BLANK_ENDS = r"^$|^[\s\x0b\x1c-\x1f\x85\p{Z}]|[\s\x0b\x1c-\x1f\x85\p{Z}]$"
_NO_BOOLEAN = "is neither true nor false"
_SCALARS: dict[str, Callable[[str, str], Attribute | None]] = {
    "text": _text,
    "number": _number,
    "boolean": _boolean,
    "datetime": _datetime,
}
