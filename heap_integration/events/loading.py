"""Brings files, landed segments and tables into the warehouse's events, each line once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from heap_integration.events.loading_files import load_files, waiting_files
from heap_integration.events.loading_tables import load_table, table_has_news
from heap_integration.events.mapping import Mapping
from heap_integration.events.pieces import add_piece, rules_of
from heap_integration.events.sources.files import Chunk, fingerprint, read_file
from heap_integration.events.sources.received import read_landing
from heap_integration.landing import Arrivals
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.duck import PACKED_ROWS
from heap_integration.warehouse.events import Loaded, origin_of, resume_point
from heap_integration.warehouse.inputs import finish_inputs

__all__ = ["file_mark", "load_file", "load_files", "load_landed", "load_table", "table_has_news", "waiting_files"]


def load_file(
    warehouse: Warehouse,
    path: Path,
    mapping: Mapping | None,
    progress: Callable[[Loaded], None] = lambda _: None,
) -> Loaded:
    """Load what of a local file isn't in the warehouse yet, in pieces that are whole or not there.

    A file that was loaded before, under any name, is not read again; one that has changed is read
    whole, and its known events count as duplicates.
    """
    mark = file_mark(path, mapping)
    with warehouse.read() as con:
        after_line = resume_point(con, mark)
        origin = origin_of(con, path.name, mark)
    if after_line is None:
        return Loaded()
    chunks = read_file(path, mapping, received_at=datetime.now(UTC), after_line=after_line, chunk_rows=PACKED_ROWS)
    return _load(warehouse, chunks, origin=origin, mark=mark, last_line=after_line, progress=progress)


def load_landed(
    warehouse: Warehouse, arrivals: Arrivals, progress: Callable[[Loaded], None] = lambda _: None
) -> Loaded:
    """Load what has landed and remove each segment after its last piece is in."""
    total = Loaded()
    arrivals.gather()
    for segment in arrivals.waiting():
        with warehouse.read() as con:
            after_line = resume_point(con, segment.name)
        if after_line is not None:
            with segment.open() as lines:
                total += _load(
                    warehouse,
                    read_landing(lines, segment.name, after_line=after_line, chunk_rows=PACKED_ROWS),
                    origin=segment.name,
                    mark=segment.name,
                    last_line=after_line,
                    progress=progress,
                )
        segment.remove()
    return total


def _load(
    warehouse: Warehouse,
    chunks: Iterable[Chunk],
    *,
    origin: str,
    mark: str,
    last_line: int,
    progress: Callable[[Loaded], None],
) -> Loaded:
    total = Loaded()
    for chunk in chunks:
        last_line = chunk.last_line
        with warehouse.write() as con:
            total += add_piece(con, chunk, origin, mark)
        # Without this two pieces are in memory while the next one is read.
        del chunk
        progress(total)
    with warehouse.write() as con:
        finish_inputs(con, [(origin, mark, last_line)])
    return total


def file_mark(path: Path, mapping: Mapping | None) -> str:
    """Return what tells a file's content, read by these rules, from all others."""
    return f"{fingerprint(path)}-{rules_of(mapping)}"
