"""Userflow's attributes: operations on them, and the types they show."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal

_NAME = re.compile(r"[A-Za-z0-9_\- ]+")
_OPERATIONS = ("set", "set_once", "add", "subtract", "append", "prepend", "remove")
_TYPES = ("string", "boolean", "number", "datetime", "list")
_SCALARS = (str, bool, int, float)


class Problem(Exception):
    """A request that is answered with Userflow's error object."""

    def __init__(self, message: str, *, status: int = 400, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code


def applied(
    current: dict[str, Any], changes: Any, *, append: Literal["unique", "repeat"]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the attributes after the changes, and the data type of each one named.

    A bare value sets, null removes, an object holds one operation; what is not named stays.

    Raises:
        Problem: a name, a value or an operation that Userflow does not know.
    """
    if type(changes) is not dict:
        raise Problem("attributes must be an object")
    after, types = dict(current), {}
    for name, change in changes.items():
        if not _NAME.fullmatch(name):
            raise Problem(f"attribute name {name[:80]!r} may contain only a-z, A-Z, 0-9, _, - and space")
        if change is None:
            after.pop(name, None)
            continue
        value, data_type = _changed(name, after.get(name), change, append)
        if value is None:
            after.pop(name, None)
        else:
            after[name] = value
            types[name] = data_type or _type_of(value)
    return after, types


def event_attributes(given: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return an event's attributes, which know no operation but ``set``, and their data types."""
    if type(given) is dict:
        for name, value in given.items():
            if type(value) is dict and set(value) - {"set", "data_type"}:
                raise Problem(f"event attribute {name!r} can only be set")
    return applied({}, given, append="repeat")


def _changed(name: str, before: Any, change: Any, append: Literal["unique", "repeat"]) -> tuple[Any, str | None]:
    if type(change) is not dict:
        return _checked(name, change), None
    data_type = change.get("data_type")
    if data_type is not None and data_type not in _TYPES:
        raise Problem(f"data_type of {name!r} must be one of {', '.join(_TYPES)}")
    operations = [key for key in change if key != "data_type"]
    if len(operations) != 1 or operations[0] not in _OPERATIONS:
        raise Problem(f"attribute {name!r} needs exactly one of {', '.join(_OPERATIONS)}")
    operation, operand = operations[0], change[operations[0]]
    match operation:
        case "set":
            value = None if operand is None else _checked(name, operand)
        case "set_once":
            value = _checked(name, operand) if before is None else before
        case "add" | "subtract":
            value = _sum(name, before, operand, -1 if operation == "subtract" else 1)
        case _:
            value = _list(name, before, operand, operation, append)
    return (value if data_type is None else _converted(name, value, data_type)), data_type


def _checked(name: str, value: Any) -> Any:
    values = value if type(value) is list else [value]
    if not all(type(each) in _SCALARS for each in values):
        raise Problem(f"attribute {name!r} must be text, a number, a boolean, or a list of those")
    return value


def _sum(name: str, before: Any, operand: Any, sign: int) -> Any:
    try:
        number = operand if type(operand) in (int, float) else float(operand)
    except (TypeError, ValueError):
        raise Problem(f"attribute {name!r}: {operand!r} is not a number") from None
    return (before if type(before) in (int, float) else 0) + sign * number


def _list(name: str, before: Any, operand: Any, operation: str, append: Literal["unique", "repeat"]) -> list[Any]:
    have = list(before) if type(before) is list else [] if before is None else [before]
    values = operand if type(operand) is list else [operand]
    _checked(name, values)
    if operation == "remove":
        return [each for each in have if each not in values]
    if append == "unique":
        values = [each for each in values if each not in have]
    return have + values if operation == "append" else values + have


def _converted(name: str, value: Any, data_type: str) -> Any:
    try:
        match data_type:
            case "number":
                return value if type(value) in (int, float) else float(value)
            case "boolean":
                return value if type(value) is bool else {"true": True, "false": False}[value]
            case "datetime":
                datetime.fromisoformat(value)
                return value
            case "list":
                return value if type(value) is list else [value]
            case _:
                return value if type(value) is str else str(value)
    except (TypeError, ValueError, KeyError):
        raise Problem(f"attribute {name!r}: {value!r} is not a {data_type}") from None


def _type_of(value: Any) -> str:
    if type(value) is bool:
        return "boolean"
    if type(value) in (int, float):
        return "number"
    if type(value) is list:
        return "list"
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return "string"
    return "datetime" if "T" in value else "string"
