"""How long a query may take, counted from its begin until its last row is taken."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from heap_integration.warehouse.systems.system import LimitExceeded, Limits

if TYPE_CHECKING:
    import pyarrow as pa


class Deadline:
    """The end of a query's time, which begins now; without a limit it never comes."""

    def __init__(self, limits: Limits) -> None:
        self._seconds = limits.seconds
        self._begin = time.monotonic()

    @property
    def whole_seconds(self) -> int | None:
        """The limit as drivers take it, at least a second."""
        return None if self._seconds is None else max(1, round(self._seconds))

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return self._seconds is not None and time.monotonic() - self._begin >= self._seconds

    def exceeded(self) -> LimitExceeded:
        """Return the error that says so."""
        return LimitExceeded(f"the query has taken longer than {self._seconds or 0:g} seconds")

    def kept_by(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield batches for as long as there is time.

        Raises:
            LimitExceeded: there is none left.
        """
        for batch in batches:
            if self.is_over:
                raise self.exceeded()
            yield batch
