"""Files of events: CSV, NDJSON (either plain or gzip) and Parquet, read in chunks of bounded size."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from heap_integration.events.encoding import encode
from heap_integration.events.event import Event, Refusal
from heap_integration.events.mapping import Mapping, MappingError, RowReader
from heap_integration.events.sources.rows import Chunk, Rows, event_rows
from heap_integration.events.sources.segment import event_from_segment
from heap_integration.events.sources.streams import LONGEST_LINE, Lines
from heap_integration.events.sources.values import EPOCH

__all__ = ["Chunk", "event_rows", "fingerprint", "read_file", "read_stream"]

CHUNK_ROWS = 20_000

_PARQUET_MAGIC = b"PAR1"
_PARQUET_ROWS = 4_096
_TOO_LONG = f"longer than {LONGEST_LINE // 1_000_000} MB"

# a line's event or refusal; None marks an empty line, which is not counted
_Read = tuple[int, Event | Refusal | None, str | bytes]


def fingerprint(path: Path) -> str:
    """Return a hash of the content, so that a file is loaded once and a changed one is noticed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def read_file(
    path: Path,
    mapping: Mapping | None,
    *,
    received_at: datetime,
    after_line: int = 0,
    chunk_rows: int = CHUNK_ROWS,
) -> Iterator[Chunk]:
    """Read the events of a file after ``after_line``; no content makes it fail.

    Without a mapping a line is a Segment-style call. In Parquet a line is a row, the first is 1; in CSV
    the header is line 1 and a row bears the line on which it begins. What is wrong with the file as a
    whole stands at line 0.

    Raises:
        MappingError: CSV or Parquet without a mapping, or a mapping that names a missing column.
        OSError: the file can't be opened or read.
    """
    rows = Rows(str(path))
    with path.open("rb") as file:
        if path.suffix.lower() in (".parquet", ".pq") or file.peek(4).startswith(_PARQUET_MAGIC):
            yield from _chunks(_parquet(path, mapping, after_line), rows, received_at, chunk_rows)
            return
        suffix = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
        delimiter = {".csv": ",", ".tsv": "\t"}.get(suffix.lower())
        read = _text(Lines(file), path, mapping, delimiter, after_line)
        yield from _chunks(read, rows, received_at, chunk_rows)


def read_stream(
    stream: BinaryIO,
    name: str,
    mapping: Mapping | None,
    *,
    received_at: datetime,
    chunk_rows: int = CHUNK_ROWS,
) -> Iterator[Chunk]:
    """Read NDJSON, or with a mapping also CSV, from a stream such as standard input.

    Raises:
        MappingError: the mapping names a missing column.
    """
    lines = Lines(stream)
    is_table = mapping is not None and lines.start().lstrip()[:1] not in (b"{", b"")
    read = _text(lines, name, mapping, "," if is_table else None, 0)
    yield from _chunks(read, Rows(name), received_at, chunk_rows)


def _chunks(read: Iterator[_Read], rows: Rows, received_at: datetime, chunk_rows: int) -> Iterator[Chunk]:
    number = 0
    for number, event, raw in read:
        if isinstance(event, Refusal):
            text = raw if isinstance(raw, str) else raw.decode(errors="backslashreplace")
            rows.refuse(number, event.reason, text.rstrip("\r\n"))
        elif event is not None:
            rows.add(number, event, received_at)
        if rows.full(chunk_rows):
            yield rows.chunk(number)
    if rows.lines:
        yield rows.chunk(number)


def _text(
    lines: Lines, file: Path | str, mapping: Mapping | None, delimiter: str | None, after_line: int
) -> Iterator[_Read]:
    if delimiter is None:
        yield from _ndjson(lines, file, mapping, after_line)
    else:
        yield from _csv(lines, file, mapping, delimiter, after_line)
    if lines.damage and lines.number + 1 > after_line:
        yield lines.number + 1, Refusal(f"the file is damaged, here or before: {lines.damage}"), ""


def _ndjson(lines: Lines, file: Path | str, mapping: Mapping | None, after_line: int) -> Iterator[_Read]:
    reader = RowReader(mapping, None, file) if mapping else None
    for number, line in lines:
        if number <= after_line:
            continue
        if line is None:
            yield number, Refusal(_TOO_LONG), ""
            continue
        if line.isspace():
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
        else:
            yield number, event_from_segment(row), line


def _csv(lines: Lines, file: Path | str, mapping: Mapping | None, delimiter: str, after_line: int) -> Iterator[_Read]:
    broken: dict[int, str] = {}
    # strict: a stray quote is an error of its row instead of a value that swallows the rows after it
    table = csv.reader(_decoded(lines, broken), delimiter=delimiter, strict=True)
    header = _header(table, file)
    if not header:
        return
    reader = RowReader(_checked(mapping, header, file), header, file)
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
            event = reader.read([field or None for field in fields], start)
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


def _checked(mapping: Mapping | None, columns: list[str], file: Path | str) -> Mapping:
    if mapping is None:
        raise MappingError(f"{file}: a table needs a mapping of its columns: {', '.join(columns)}")
    mapping.check(columns, file)
    return mapping


def _parquet(path: Path, mapping: Mapping | None, after_line: int) -> Iterator[_Read]:
    number = after_line
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            mapping = _checked(mapping, names, path)
            columns = mapping.needed(names)
            reader = RowReader(mapping, columns, path)
            for batch in _batches(file, columns, after_line):
                for row in _rows(batch):
                    number += 1
                    if isinstance(row, Refusal):
                        yield number, row, ""
                        continue
                    event = reader.read(row, number)
                    yield number, event, _raw(columns, row) if isinstance(event, Refusal) else ""
    except (pa.ArrowException, OSError) as error:
        yield number and number + 1, Refusal(f"not readable as Parquet: {error}"), ""


def _batches(file: pq.ParquetFile, columns: list[str], after_line: int) -> Iterator[pa.RecordBatch]:
    skip, groups = after_line, list(range(file.metadata.num_row_groups))
    while groups and skip >= file.metadata.row_group(groups[0]).num_rows:
        skip -= file.metadata.row_group(groups.pop(0)).num_rows
    for batch in file.iter_batches(_PARQUET_ROWS, row_groups=groups, columns=columns, use_threads=False):
        if skip < len(batch):
            yield batch.slice(skip)
        skip = max(0, skip - len(batch))


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...] | Refusal]:
    try:
        yield from zip(*map(_values, batch.columns), strict=True)
    except (ValueError, OverflowError):
        # one bad value (text that isn't UTF-8, a year beyond 9999) must not cost the whole batch
        for index in range(len(batch)):
            try:
                yield tuple(_values(column.slice(index, 1))[0] for column in batch.columns)
            except (ValueError, OverflowError) as error:
                yield Refusal(f"the row holds what can't be read: {error}")


def _values(column: pa.Array) -> list[Any]:
    if not pa.types.is_timestamp(column.type):
        return list(column.to_pylist())
    # several times faster than pyarrow's own way, which also refuses nanoseconds
    stamps = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64()).to_pylist()
    return [None if stamp is None else EPOCH + timedelta(microseconds=stamp) for stamp in stamps]


def _raw(columns: list[str], row: tuple[Any, ...]) -> str | bytes:
    try:
        return encode(dict(zip(columns, row, strict=True)))
    except TypeError:
        return repr(row)
