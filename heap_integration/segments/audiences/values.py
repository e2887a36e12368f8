"""What a condition may compare with: numbers, texts, true and false, moments."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime
from typing import Any, Literal

from pydantic_core import PydanticCustomError

ValueKind = Literal["number", "boolean", "time", "text"]
Value = bool | int | float | str

WANTED = "must be text, a number, true or false, or a date"
# From here on two neighbouring whole numbers are the same to an engine that counts in doubles.
LARGEST_NUMBER = 2**53
DAY = (
    "(([12][0-9](0[48]|[2468][048]|[13579][26])|1[26]00|2[048]00)-02-29"
    "|[12][0-9]{3}-(02-(0[1-9]|1[0-9]|2[0-8])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    "|(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])))"
)
OFFSET = "(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])"
CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,6})?"
# Whatever matches is a day or a moment of the calendar that every engine can read.
MOMENT = f"^{DAY}([T ]{CLOCK}{OFFSET}?)?$"
# Whatever matches fits into a double of every engine.
NUMBER = "^[+-]?[0-9]{1,30}([.][0-9]{1,60})?([eE][+-]?[0-9]{1,2})?$"


def text(given: str) -> str:
    """Return a text that every engine can hold."""
    if "\0" in given:
        raise PydanticCustomError("text", "must not hold the character NUL")
    if any("\ud800" <= character <= "\udfff" for character in given):
        raise PydanticCustomError("text", "must not hold half a character (a lone surrogate)")
    return given


def value(given: Any) -> Value:
    """Return what a condition compares with; a date or a time of YAML as its ISO text."""
    if given is None:
        raise PydanticCustomError("value", "must not be null; whether there is a value asks {exists: true}")
    if isinstance(given, bool):
        return given
    if isinstance(given, int | float):
        if not math.isfinite(given) or abs(given) > LARGEST_NUMBER:
            raise PydanticCustomError("value", "must be a number up to 2^53; write a longer id as text")
        return given
    if isinstance(given, datetime | date):
        return given.isoformat()
    if isinstance(given, str):
        return text(given)
    raise PydanticCustomError("value", WANTED)


def kind_of(given: Value) -> ValueKind:
    """Return how a value compares; text that is an ISO date or time compares as a moment."""
    if isinstance(given, bool):
        return "boolean"
    if isinstance(given, int | float):
        return "number"
    return "time" if re.fullmatch(MOMENT.strip("^$"), given) else "text"


def moment(given: str) -> datetime:
    """Return the moment of an ISO text, in UTC; without an offset it is meant in UTC."""
    found = datetime.fromisoformat(given)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
