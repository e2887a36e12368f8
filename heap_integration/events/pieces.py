"""What all loads into the warehouse have in common: the name of their rules, and adding a piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING

import pyarrow as pa

from heap_integration.events.mapping import Mapping
from heap_integration.events.sources.rows import Chunk
from heap_integration.warehouse.events import Loaded, load_chunk

if TYPE_CHECKING:
    import duckdb

Progress = Callable[[Loaded], None]


def rules_of(mapping: Mapping | None, row_format: str = "segment", *others: str) -> str:
    """Return a short name for how rows are read; by other rules they are read anew."""
    rules = mapping.model_dump_json(exclude_defaults=True) if mapping else "" if row_format == "segment" else row_format
    return blake2b("\n".join((rules, *others)).encode(), digest_size=4).hexdigest()


def under(source: str, chunk: Chunk) -> Chunk:
    """Return a piece whose events bear ``source``, whatever source they name themselves."""
    events = chunk.events
    column = events.schema.get_field_index("source")
    named = pa.repeat(source, events.num_rows)
    return replace(chunk, events=events.set_column(column, events.schema.field(column), named))


def add_piece(con: duckdb.DuckDBPyConnection, chunk: Chunk, origin: str, fingerprint: str) -> Loaded:
    """Load a piece together with the note of its last line, in the caller's transaction."""
    return load_chunk(
        con,
        chunk.events,
        chunk.refused,
        origin=origin,
        fingerprint=fingerprint,
        last_line=chunk.last_line,
        read=chunk.lines,
        unused=chunk.unused,
        complete=False,
    )
