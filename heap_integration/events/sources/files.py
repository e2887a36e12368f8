"""Files of events: NDJSON, JSON arrays, CSV, Avro and Parquet, read in chunks of bounded size."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from heap_integration.events.encoding import encode
from heap_integration.events.event import Event, Refusal
from heap_integration.events.mapping import Mapping, MappingError, RowReader
from heap_integration.events.sources.columns import row_text, rows_of
from heap_integration.events.sources.customerio import event_from_customerio
from heap_integration.events.sources.json_array import Items
from heap_integration.events.sources.landed import Landed
from heap_integration.events.sources.rows import Chunk, Rows, event_rows
from heap_integration.events.sources.segment import event_from_segment, read_calls
from heap_integration.events.sources.storage import Watched
from heap_integration.events.sources.streams import LONGEST_LINE, Lines
from heap_integration.events.sources.userpilot import event_from_row
from heap_integration.events.sources.values import EPOCH

__all__ = ["Chunk", "RowFormat", "event_rows", "fingerprint", "fingerprints", "read_file", "read_input", "read_stream"]

CHUNK_ROWS = 20_000

RowFormat = Literal["segment", "customerio", "userpilot"]
"""Who wrote the rows of a file, where no mapping says what its columns mean."""

_Adapter = Callable[[dict[str, Any]], Event | Refusal | None]
_RowAdapter = Callable[[Sequence[Any], int], Event | Refusal | None]

_ADAPTERS: dict[RowFormat, _Adapter] = {
    "segment": event_from_segment,
    "customerio": event_from_customerio,
    "userpilot": event_from_row,
}
_PARQUET_MAGIC = b"PAR1"
_AVRO_MAGIC = b"Obj\x01"
_PARQUET_ROWS = 4_096
_PARQUET_BUFFER = 1 << 17
_BUFFER = 1 << 17
_HASHED = 1 << 20
_TOO_LONG = f"longer than {LONGEST_LINE // 1_000_000} MB"

# a line's event, its refusal, or None for one of no use
_Read = tuple[int, Event | Refusal | None, str | bytes]


def fingerprint(path: Path) -> str:
    """Return a hash of the content, so that a file is loaded once and a changed one is noticed."""
    with path.open("rb") as file:
        return fingerprints(file, 0)[0]


def fingerprints(file: BinaryIO, beginning: int) -> tuple[str, str]:
    """Return the hash of the content, and that of its first ``beginning`` bytes: has a file only grown?"""
    digest = hashlib.blake2b(digest_size=16)
    while beginning > 0 and (block := file.read(min(beginning, _HASHED))):
        digest.update(block)
        beginning -= len(block)
    before = digest.hexdigest()
    while block := file.read(_HASHED):
        digest.update(block)
    return digest.hexdigest(), before


def read_file(
    path: Path,
    mapping: Mapping | None,
    *,
    received_at: datetime,
    after_line: int = 0,
    chunk_rows: int = CHUNK_ROWS,
    row_format: RowFormat = "segment",
) -> Iterator[Chunk]:
    """Read the events of a local file; see ``read_input``.

    Raises:
        MappingError: see ``read_input``.
        OSError: the file can't be opened or read.
    """
    with path.open("rb") as file:
        yield from read_input(
            file,
            str(path),
            mapping,
            received_at=received_at,
            after_line=after_line,
            chunk_rows=chunk_rows,
            row_format=row_format,
        )


def read_input(
    stream: BinaryIO,
    name: str,
    mapping: Mapping | None,
    *,
    received_at: datetime,
    after_line: int = 0,
    chunk_rows: int = CHUNK_ROWS,
    row_format: RowFormat = "segment",
) -> Iterator[Chunk]:
    """Read the events of a file after ``after_line``; no content makes it fail.

    ``stream`` can be sought in; ``name`` tells by its ending what the content doesn't tell. Without a mapping
    the rows are ``row_format``'s. In Avro, Parquet and a JSON array a line is a row, the first is 1; in CSV
    the header is line 1 and a row bears the line on which it begins. A line of Segment's format may hold a
    whole batch: each of its calls counts, and a chunk ends with a line. What is wrong with the file as a
    whole stands at line 0.

    Raises:
        MappingError: a table without a mapping, or a mapping that names a missing column.
        OSError: the stream failed.
    """
    watched = Watched(stream, name)
    buffered = io.BufferedReader(watched, _BUFFER)
    start, ending = buffered.peek(4), Path(name).suffix.lower()
    read: Iterator[_Read]
    if start.startswith(_PARQUET_MAGIC) or ending in (".parquet", ".pq"):
        read = _parquet(watched, _row_adapter(name, mapping, row_format), name, mapping, after_line)
    elif start.startswith(_AVRO_MAGIC) or ending == ".avro":
        read = _avro(watched, _row_adapter(name, mapping, row_format), after_line)
    else:
        read = _text(Lines(buffered), name, mapping, row_format, _delimiter(name), after_line)
    yield from _chunks(read, Rows(name), received_at, chunk_rows)


def read_stream(
    stream: BinaryIO,
    name: str,
    mapping: Mapping | None,
    *,
    received_at: datetime,
    chunk_rows: int = CHUNK_ROWS,
) -> Iterator[Chunk]:
    """Read NDJSON, a JSON array, or with a mapping also CSV, from a stream such as standard input.

    Raises:
        MappingError: the mapping names a missing column.
    """
    lines = Lines(stream)
    is_table = mapping is not None and lines.start().lstrip()[:1] not in (b"{", b"[", b"")
    read = _text(lines, name, mapping, "segment", "," if is_table else None, 0)
    yield from _chunks(read, Rows(name), received_at, chunk_rows)


def _delimiter(name: str) -> str | None:
    path = Path(name)
    ending = Path(path.stem).suffix if path.suffix.lower() in (".gz", ".zst") else path.suffix
    return {".csv": ",", ".tsv": "\t"}.get(ending.lower())


def _chunks(read: Iterator[_Read], rows: Rows, received_at: datetime, chunk_rows: int) -> Iterator[Chunk]:
    last = 0
    for number, event, raw in read:
        # reading resumes after a line, so that a chunk may not end within a batch
        if number != last and rows.full(chunk_rows):
            yield rows.chunk(last)
        last = number
        if isinstance(event, Refusal):
            text = event.raw or (raw if isinstance(raw, str) else raw.decode(errors="backslashreplace"))
            rows.refuse(number, event.reason, text.rstrip("\r\n"))
        else:
            rows.add(number, event, received_at)
    if rows.lines:
        yield rows.chunk(last)


def _text(
    lines: Lines,
    name: str,
    mapping: Mapping | None,
    row_format: RowFormat,
    delimiter: str | None,
    after_line: int,
) -> Iterator[_Read]:
    numbered: Lines | Items = lines
    if delimiter is not None:
        yield from _csv(lines, _row_adapter(name, mapping, row_format), name, delimiter, after_line)
    else:
        if lines.start().lstrip()[:1] == b"[":
            numbered = Items(lines)
        yield from _json(numbered, name, mapping, row_format, after_line)
    if numbered.damage and numbered.number + 1 > after_line:
        yield numbered.number + 1, Refusal(f"the file is damaged, here or before: {numbered.damage}"), ""


def _json(
    texts: Iterable[tuple[int, bytes | None]],
    name: str,
    mapping: Mapping | None,
    row_format: RowFormat,
    after_line: int,
) -> Iterator[_Read]:
    reader = RowReader(mapping, None, name) if mapping else None
    adapter = _ADAPTERS[row_format]
    may_be_batch = row_format != "userpilot"
    for number, line in texts:
        if number <= after_line:
            continue
        if line is None:
            yield number, Refusal(_TOO_LONG), ""
            continue
        if not line or line.isspace():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield number, Refusal(f"not JSON: {error.msg} at character {error.pos + 1}"), line
            continue
        if type(row) is not dict:
            yield number, Refusal("not a JSON object"), line
        elif reader is not None:
            yield number, reader.read(row, number), line
        elif may_be_batch and "batch" in row and row.get("type", "batch") == "batch":
            for event in _calls(row, adapter):
                yield number, event, line
        else:
            yield number, adapter(row), line


def _calls(batch: dict[str, Any], adapter: _Adapter) -> Iterator[Event | Refusal | None]:
    """Yield the calls of a body as clients send it to ``/v1/batch``."""
    for event in read_calls(Landed("", EPOCH, "", "", "", {**batch, "type": "batch"}), adapter):
        if isinstance(event, Event):
            # a file may be read again: the content alone has to name an event without an id
            event.occurrence = ""
        yield Refusal(event.reason, _call_text(event.raw)) if isinstance(event, Refusal) else event


def _call_text(landing_line: str) -> str:
    return encode(orjson.loads(landing_line)["body"]).decode() if landing_line else ""


def _csv(
    lines: Lines, adapt: Callable[[list[str]], _RowAdapter], name: str, delimiter: str, after_line: int
) -> Iterator[_Read]:
    broken: dict[int, str] = {}
    # strict: a stray quote is an error of its row instead of a value that swallows the rows after it
    table = csv.reader(_decoded(lines, broken), delimiter=delimiter, strict=True)
    header = _header(table, name)
    if not header:
        return
    read = adapt(header)
    while True:
        start = table.line_num + 1
        try:
            fields = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            fields = []
            broken[start] = f"not CSV: {error}"
        if start <= after_line:
            continue
        problem = next((broken[line] for line in range(start, table.line_num + 1) if line in broken), None)
        broken.clear()
        if problem is None and not fields:
            continue
        if problem is None and len(fields) != len(header):
            problem = f"{len(fields)} fields where the header has {len(header)}"
        if problem is not None:
            yield start, Refusal(problem), delimiter.join(fields)
        else:
            event = read([field or None for field in fields], start)
            yield start, event, delimiter.join(fields) if isinstance(event, Refusal) else ""


def _decoded(lines: Lines, broken: dict[int, str]) -> Iterator[str]:
    for number, line in lines:
        if line is None:
            broken[number] = _TOO_LONG
            yield "\n"
            continue
        try:
            yield line.decode()
        except UnicodeDecodeError:
            broken[number] = "not UTF-8"
            yield line.decode(errors="replace")


def _header(table: Any, file: Path | str) -> list[str]:
    try:
        header = [name.strip() for name in next(table, [])]
    except csv.Error as error:
        raise MappingError(f"{file}:1: not a CSV header: {error}") from error
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise MappingError(f"{file}:1: the header names {', '.join(sorted(twice))} twice")
    return header


def _row_adapter(name: str, mapping: Mapping | None, row_format: RowFormat) -> Callable[[list[str]], _RowAdapter]:
    """Return what makes, of a table's columns, a reader of its rows.

    Raises (the function returned):
        MappingError: there is no mapping and the format doesn't know tables, or a column is missing.
    """

    def adapt(columns: list[str]) -> _RowAdapter:
        if mapping is not None:
            mapping.check(columns, name)
            return RowReader(mapping, columns, name).read
        if row_format != "userpilot":
            raise MappingError(f"{name}: a table needs a mapping of its columns: {', '.join(columns)}")
        return lambda row, _: event_from_row(dict(zip(columns, row, strict=True)))

    return adapt


def _avro(file: Watched, adapt: Callable[[list[str]], _RowAdapter], after_line: int) -> Iterator[_Read]:
    from heap_integration.events.sources.avro import Damaged, Records

    file.seek(0)
    try:
        records = Records(io.BufferedReader(file, _BUFFER))
    except Damaged as error:
        file.check()
        yield 0, Refusal(f"not readable as Avro: {error}"), ""
        return
    read, number = adapt(records.columns), 0
    try:
        for number, record in enumerate(records, start=1):
            if number > after_line:
                row = list(record.values())
                event = read(row, number)
                yield number, event, row_text(records.columns, row) if isinstance(event, Refusal) else ""
    except Damaged as error:
        file.check()
        if number >= after_line:
            yield number + 1, Refusal(f"the file is damaged, here or before: {error}"), ""


def _parquet(
    file: Watched,
    adapt: Callable[[list[str]], _RowAdapter],
    name: str,
    mapping: Mapping | None,
    after_line: int,
) -> Iterator[_Read]:
    number = after_line
    try:
        file.seek(0)
        # Else whole row groups are read ahead, and what that takes stays with the process.
        with pq.ParquetFile(file, buffer_size=_PARQUET_BUFFER, pre_buffer=False) as table:
            names = table.schema_arrow.names
            if mapping is not None:
                mapping.check(names, name)
            columns = mapping.needed(names) if mapping else names
            read = adapt(columns)
            for batch in _batches(table, columns, after_line):
                for row in rows_of(batch):
                    number += 1
                    if isinstance(row, Refusal):
                        yield number, row, ""
                        continue
                    event = read(row, number)
                    yield number, event, row_text(columns, row) if isinstance(event, Refusal) else ""
    except (pa.ArrowException, OSError) as error:
        file.check()
        yield number and number + 1, Refusal(f"not readable as Parquet: {error}"), ""


def _batches(table: pq.ParquetFile, columns: list[str], after_line: int) -> Iterator[pa.RecordBatch]:
    skip, groups = after_line, list(range(table.metadata.num_row_groups))
    while groups and skip >= table.metadata.row_group(groups[0]).num_rows:
        skip -= table.metadata.row_group(groups.pop(0)).num_rows
    for batch in table.iter_batches(_PARQUET_ROWS, row_groups=groups, columns=columns, use_threads=False):
        if skip < len(batch):
            yield batch.slice(skip)
        skip = max(0, skip - len(batch))
