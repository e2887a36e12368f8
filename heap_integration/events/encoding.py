"""JSON text of whatever a source holds, the same text for the same content."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import orjson

_OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
EXACT_INTEGER = 2**53


def encode(value: Any) -> bytes:
    """Return compact JSON, the keys in the order given.

    Raises:
        TypeError: nested more than 254 deep, an integer beyond 64 bits, text that is not UTF-8.
    """
    return orjson.dumps(value, _plain, _OPTIONS)


def canonical(value: Any) -> bytes:
    """Return compact JSON that does not depend on the order of keys.

    Raises:
        TypeError: as ``encode``.
    """
    return orjson.dumps(value, _plain, _OPTIONS | orjson.OPT_SORT_KEYS)


def _plain(value: Any) -> Any:
    """Give the JSON form of what a Parquet column can hold and JSON doesn't know."""
    if isinstance(value, Decimal):
        exact = value.is_finite() and value == value.to_integral_value() and abs(value) <= EXACT_INTEGER
        return int(value) if exact else float(value)
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)
