"""Rows of Arrow's columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pyarrow as pa

from heap_integration.events.encoding import encode
from heap_integration.events.event import Refusal
from heap_integration.events.sources.values import EPOCH

Row = tuple[Any, ...]


def rows_of(batch: pa.RecordBatch) -> Iterator[Row | Refusal]:
    """Yield the rows of ``batch`` in order; one with a value that can't be read is a refusal of its own."""
    try:
        yield from zip(*map(_values, batch.columns), strict=True)
    except (ValueError, OverflowError):
        # one bad value (text that isn't UTF-8, a year beyond 9999) must not cost the whole batch
        for index in range(len(batch)):
            try:
                yield tuple(_values(column.slice(index, 1))[0] for column in batch.columns)
            except (ValueError, OverflowError) as error:
                yield Refusal(f"the row holds what can't be read: {error}")


def row_text(columns: Sequence[str], row: Sequence[Any]) -> str | bytes:
    """Return a row for somebody to look at."""
    try:
        return encode(dict(zip(columns, row, strict=True)))
    except TypeError:
        return repr(row)


def _values(column: pa.Array) -> list[Any]:
    if not pa.types.is_timestamp(column.type):
        return list(column.to_pylist())
    # several times faster than pyarrow's own way, which also refuses nanoseconds
    stamps = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64()).to_pylist()
    return [None if stamp is None else EPOCH + timedelta(microseconds=stamp) for stamp in stamps]
