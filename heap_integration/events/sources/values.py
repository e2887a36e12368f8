"""Ids and times as sources write them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from heap_integration.events.encoding import EXACT_INTEGER

TimeUnit = Literal["auto", "s", "ms", "us"]

FIRST_YEAR, LAST_YEAR = 1971, 2100

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?\Z", re.ASCII)
_COMPACT_DATE = 8
_SHOWN = 80
# both are in 1973; as seconds or milliseconds they would lie thousands of years ahead
_LEAST_MILLISECONDS = 1e11
_LEAST_MICROSECONDS = 1e14


class Unreadable(ValueError):
    """A value that can't be the part of an event it stands for."""


def shown(value: object) -> str:
    """Return ``value`` for a message, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def as_text(value: Any) -> str | None:
    """Return an id as text without white space around it; ``None`` where there is none.

    Raises:
        Unreadable: neither text nor a number, or a number that JSON can't carry exactly.
    """
    if type(value) is str:
        return value.strip() or None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unreadable(f"{shown(value)} is neither text nor a number")
    if isinstance(value, float):
        if not value.is_integer() or abs(value) > EXACT_INTEGER:
            raise Unreadable(f"{shown(value)} is not a whole number that stays exact; send it as text")
        value = int(value)
    return str(value)


def parse_time(value: Any, unit: TimeUnit = "auto") -> datetime | None:
    """Return a moment in UTC from ISO 8601 text (no zone means UTC) or a number since 1970.

    ``auto`` tells seconds, milliseconds and microseconds by their size. ``None`` where there is none.

    Raises:
        Unreadable: anything else, and every year outside 1971 to 2100.
    """
    if value is None or value == "":
        return None
    if type(value) is datetime and value.tzinfo is UTC and FIRST_YEAR <= value.year <= LAST_YEAR:
        return value
    try:
        moment = _moment(value, unit)
    except (ValueError, OverflowError) as error:
        raise Unreadable(f"timestamp {shown(value)} can't be read") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    elif moment.tzinfo is not UTC:
        try:
            moment = moment.astimezone(UTC)
        except OverflowError as error:
            raise Unreadable(f"timestamp {shown(value)} can't be read") from error
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise Unreadable(f"timestamp {shown(value)} lies outside the years {FIRST_YEAR} to {LAST_YEAR}")
    return moment


def _moment(value: Any, unit: TimeUnit) -> datetime:
    if isinstance(value, str):
        # digits alone would otherwise be taken for a compact ISO date with a time
        if value[4:5] == "-":
            return datetime.fromisoformat(value.removesuffix(" UTC").rstrip())
        text = value.strip()
        if _NUMBER.match(text) and len(text) != _COMPACT_DATE:
            return _since_epoch(float(text) if "." in text else int(text), unit)
        return datetime.fromisoformat(text)
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _since_epoch(value, unit)
    raise ValueError


def _since_epoch(number: float, unit: TimeUnit) -> datetime:
    if unit == "auto":
        size = abs(number)
        unit = "s" if size < _LEAST_MILLISECONDS else "ms" if size < _LEAST_MICROSECONDS else "us"
    if isinstance(number, int):
        return EPOCH + timedelta(microseconds=number * (1_000_000 // _PER_SECOND[unit]))
    return EPOCH + timedelta(seconds=number / _PER_SECOND[unit])
