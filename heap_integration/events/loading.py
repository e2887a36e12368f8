"""Brings files and landed segments into the warehouse, each line once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa

from heap_integration.events.mapping import Mapping
from heap_integration.events.sources.files import Chunk, fingerprint, read_file
from heap_integration.events.sources.received import read_landing
from heap_integration.landing import waiting
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.duck import PACKED_ROWS
from heap_integration.warehouse.events import Loaded, load_chunk, origin_of, resume_point


def load_file(
    warehouse: Warehouse,
    path: Path,
    mapping: Mapping | None,
    progress: Callable[[Loaded], None] = lambda _: None,
    *,
    source: str | None = None,
) -> Loaded:
    """Load what of a file isn't in the warehouse yet, in pieces that are whole or not there.

    A file that was loaded before, under any name, is not read again; one that has changed is read
    whole, and its known events count as duplicates. ``source`` is the switch that holds its events back,
    whatever source they name themselves.
    """
    mark = file_mark(path, mapping)
    with warehouse.read() as con:
        after_line = resume_point(con, mark)
        origin = origin_of(con, path.name, mark)
    if after_line is None:
        return Loaded()
    chunks = read_file(path, mapping, received_at=datetime.now(UTC), after_line=after_line, chunk_rows=PACKED_ROWS)
    if source is not None:
        chunks = map(partial(_under, source), chunks)
    return _load(warehouse, chunks, origin=origin, mark=mark, last_line=after_line, progress=progress)


def load_landed(warehouse: Warehouse, folder: Path, progress: Callable[[Loaded], None] = lambda _: None) -> Loaded:
    """Load the closed segments of a landing folder and remove each after its last piece is in."""
    total = Loaded()
    for segment in waiting(folder):
        with warehouse.read() as con:
            after_line = resume_point(con, segment.name)
        if after_line is not None:
            chunks = read_landing(segment, after_line=after_line, chunk_rows=PACKED_ROWS)
            total += _load(
                warehouse,
                chunks,
                origin=segment.name,
                mark=segment.name,
                last_line=after_line,
                progress=progress,
            )
        segment.unlink()
    return total


def _under(source: str, chunk: Chunk) -> Chunk:
    events = chunk.events
    column = events.schema.get_field_index("source")
    named = pa.repeat(source, events.num_rows)
    return replace(chunk, events=events.set_column(column, events.schema.field(column), named))


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
        with warehouse.write(frugal=True) as con:
            total += load_chunk(
                con,
                chunk.events,
                chunk.refused,
                origin=origin,
                fingerprint=mark,
                last_line=last_line,
                read=chunk.lines,
                unused=chunk.unused,
                complete=False,
            )
        # Without this two pieces are in memory while the next one is read.
        del chunk
        progress(total)
    with warehouse.write() as con:
        con.execute(
            "insert into loaded_inputs values (?, ?, ?, true, 0, 0, 0, 0, 0, now()::timestamp)",
            [origin, mark, last_line],
        )
    return total


def file_mark(path: Path, mapping: Mapping | None) -> str:
    """Return what tells a file's content, read by these rules, from all others."""
    rules = mapping.model_dump_json() if mapping else ""
    return f"{fingerprint(path)}-{blake2b(rules.encode(), digest_size=4).hexdigest()}"
