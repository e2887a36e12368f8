"""Avro files cut, while they are fetched, into small ones whose rows are counted."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from heap_integration.heap.connect_dumps import OWN_PREFIX

_MAGIC = b"Obj\x01"
_SYNC_BYTES = 16
_LARGEST_HEADER = 1 << 24
_LARGEST_BLOCK = 1 << 30
PIECE_BYTES = 8 << 20
# PostgreSQL cuts a longer name, and takes what is alike until there for one
LONGEST_NAME = 63


class BrokenFile(ValueError):
    """An Avro file that ends too early, or isn't one."""


@dataclass(frozen=True)
class Field:
    """A column of a file: the name by which warehouses know it, and whether a value can stand there."""

    name: str
    has_values: bool


@dataclass(frozen=True)
class Piece:
    """A whole Avro file of some of another's blocks: where it lies, how many rows it has, and its columns."""

    path: Path
    rows: int
    fields: tuple[Field, ...]


def cut(stream: BinaryIO, folder: Path, piece_bytes: int = PIECE_BYTES) -> Iterator[Piece]:
    """Yield the pieces of an Avro file, in order; the next one is only made when it is asked for.

    A file without rows is one piece. Blocks are taken over as they are. What is cut at whole blocks is bounded in
    memory wherever it is read, whatever size the file has, and a reader that stops early shows in the count of rows.

    Raises:
        BrokenFile: the stream is no Avro file, ends within a block, or has something else where a block ends.
    """
    header, fields, sync = _header(stream)
    number = 0
    while True:
        path = folder / f"{number:06}.avro"
        rows, done = _write_piece(stream, path, header, sync, piece_bytes)
        if rows or not number:
            yield Piece(path, rows, fields)
        if done:
            return
        number += 1


def _write_piece(stream: BinaryIO, path: Path, header: bytes, sync: bytes, piece_bytes: int) -> tuple[int, bool]:
    """Write as many blocks as fit; return how many rows they have, and whether the file ends with them."""
    rows = 0
    with path.open("wb") as piece:
        piece.write(header)
        while piece.tell() < piece_bytes:
            first = stream.read(1)
            if not first:
                return rows, True
            count, size = _number(stream, first), _number(stream)
            if count < 0 or not 0 <= size <= _LARGEST_BLOCK:
                raise BrokenFile(f"a block of {count:,} rows and {size:,} bytes")
            block = _exactly(stream, size)
            if _exactly(stream, _SYNC_BYTES) != sync:
                raise BrokenFile("a block doesn't end where it should")
            piece.write(_written(count) + _written(size) + block + sync)
            rows += count
    return rows, False


def _header(stream: BinaryIO) -> tuple[bytes, tuple[Field, ...], bytes]:
    """Return the header that pieces get, the columns, and the mark at the end of each block."""
    if stream.read(len(_MAGIC)) != _MAGIC:
        raise BrokenFile("it isn't an Avro file")
    said = {}
    while count := _number(stream):
        if count < 0:
            _number(stream)
        for _ in range(abs(count)):
            name = _bytes(stream)
            said[name] = _bytes(stream)
    sync = _exactly(stream, _SYNC_BYTES)
    schema, fields = _schema(said.get(b"avro.schema", b""))
    kept = {b"avro.codec": said.get(b"avro.codec", b"null"), b"avro.schema": orjson.dumps(schema)}
    pairs = b"".join(_written(len(part)) + part for pair in kept.items() for part in pair)
    return _MAGIC + _written(len(kept)) + pairs + b"\x00" + sync, fields, sync


def _schema(text: bytes) -> tuple[dict[str, Any], tuple[Field, ...]]:
    try:
        schema = orjson.loads(text)
        columns = [dict(field) for field in schema["fields"]] if schema["type"] == "record" else []
        names = [str(field["name"]) for field in columns]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BrokenFile(f"its schema can't be read: {error!r}") from error
    if not columns:
        raise BrokenFile("its schema is no record of columns")
    for field, name in zip(columns, unique(names), strict=True):
        field["name"] = name
    fields = tuple(Field(field["name"], field.get("type") not in ("null", ["null"])) for field in columns)
    return {"type": "record", "name": "row", "fields": columns}, fields


def unique(names: Iterable[str]) -> list[str]:
    """Return names that every warehouse can tell apart.

    No two differ in case alone, none begins as the hub's own do, and what is longer than 63 bytes ends in a hash of it.
    """
    taken: set[str] = set()
    found = []
    for name in names:
        given = name.lstrip("_") if name.casefold().startswith(OWN_PREFIX) else name
        other, number = _short(given), 1
        while other.casefold() in taken:
            number += 1
            other = _short(f"{given}_{number}")
        taken.add(other.casefold())
        found.append(other)
    return found


def _short(name: str) -> str:
    written = name.encode()
    if len(written) <= LONGEST_NAME:
        return name
    ending = "_" + blake2b(written, digest_size=4).hexdigest()
    return written[: LONGEST_NAME - len(ending)].decode(errors="ignore") + ending


def _bytes(stream: BinaryIO) -> bytes:
    size = _number(stream)
    if not 0 <= size <= _LARGEST_HEADER:
        raise BrokenFile(f"its header has a value of {size:,} bytes")
    return _exactly(stream, size)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    parts = []
    missing = size
    while missing:
        part = stream.read(missing)
        if not part:
            raise BrokenFile("it ends too early")
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _number(stream: BinaryIO, first: bytes = b"") -> int:
    """Read a number of seven bits a byte, the sign in the last bit."""
    value, shift = 0, 0
    byte = first or _exactly(stream, 1)
    while True:
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return (value >> 1) ^ -(value & 1)
        shift += 7
        if shift > 63:
            raise BrokenFile("a number of more than 64 bits")
        byte = _exactly(stream, 1)


def _written(number: int) -> bytes:
    value, out = number << 1, io.BytesIO()
    while value >= 0x80:
        out.write(bytes([value & 0x7F | 0x80]))
        value >>= 7
    out.write(bytes([value]))
    return out.getvalue()
