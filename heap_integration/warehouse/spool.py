"""Rows on their way from one warehouse to another: neither is held while the other one is at work."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa


class Spool:
    """Rows in a temporary file, which can be read once they are all there."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.rows = 0

    def fill(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Put rows into the file; the first batch, which may be empty, says what their columns are."""
        import pyarrow as pa

        found = iter(batches)
        first = next(found)
        with pa.ipc.new_stream(self._file, first.schema) as writer:
            for batch in chain([first], found):
                writer.write_batch(batch)
                self.rows += batch.num_rows

    @contextmanager
    def read(self) -> Iterator[pa.RecordBatchReader]:
        """Yield the rows from the first one on."""
        import pyarrow as pa

        self._file.seek(0)
        with pa.ipc.open_stream(self._file) as reader:
            yield reader


@contextmanager
def spooled(batches: Iterable[pa.RecordBatch] | None = None) -> Iterator[Spool]:
    """Yield a place for rows, with those in it that are given; the file is gone afterwards."""
    with tempfile.TemporaryFile() as file:
        spool = Spool(file)
        if batches is not None:
            spool.fill(batches)
        yield spool
