"""Shows what would be sent to Heap for a file, and sends nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa

from heap_integration.events.mapping import Mapping
from heap_integration.events.prepare import ROW_COLUMNS, Preparer, Refused
from heap_integration.events.sources.files import Chunk, read_file, read_stream
from heap_integration.heap.events_api import BATCH_EVENTS, TRACK_PATH, bulk_track_body

_REPEATED = Refused("rejected", "the same event as an earlier line")


def preview(
    source: Path | BinaryIO,
    mapping: Mapping | None,
    preparer: Preparer,
    *,
    url: str,
    app_id: str,
    received_at: datetime | None = None,
    batch_records: int = BATCH_EVENTS,
) -> Iterator[dict[str, Any]]:
    """Yield each request as {"method", "url", "json"} and each line not sent as {"line", "rejected"}.

    ``source`` is a file or a stream of lines such as standard input; ``url`` is Heap's address
    without a path; ``received_at``, now if not given, stands for missing times. An event that an
    earlier line holds already is sent once.

    Raises:
        MappingError, OSError: see ``read_file``.
    """
    seen: set[bytes] = set()
    payloads: list[bytes] = []
    for chunk in _chunks(source, mapping, received_at or datetime.now(UTC)):
        for refused in chunk.refused.select(["line", "reason"]).to_pylist():
            yield {"line": refused["line"], "rejected": refused["reason"]}
        for line, row in _rows(chunk.events):
            known = row[0] in seen
            seen.add(row[0])
            outcome = _REPEATED if known else preparer.prepare(row)
            if isinstance(outcome, Refused):
                yield {"line": line, "rejected": outcome.reason}
                continue
            payloads.append(outcome.payload)
            if len(payloads) == batch_records:
                yield _request(url, app_id, payloads)
                payloads = []
    if payloads:
        yield _request(url, app_id, payloads)


def _chunks(source: Path | BinaryIO, mapping: Mapping | None, received_at: datetime) -> Iterator[Chunk]:
    if isinstance(source, Path):
        return read_file(source, mapping, received_at=received_at)
    return read_stream(source, "standard input", mapping, received_at=received_at)


def _rows(events: pa.Table) -> Iterator[tuple[int, Any]]:
    columns = {name: events.column(name).to_pylist() for name in ("line", *ROW_COLUMNS)}
    columns["timestamp"] = [f"{moment.isoformat()}Z" for moment in columns["timestamp"]]
    yield from zip(columns["line"], zip(*(columns[name] for name in ROW_COLUMNS), strict=True), strict=True)


def _request(url: str, app_id: str, payloads: list[bytes]) -> dict[str, Any]:
    body = orjson.loads(bulk_track_body(app_id, payloads))
    return {"method": "POST", "url": url.rstrip("/") + TRACK_PATH, "json": body}
