"""The records of an Avro file, with whatever codec it was written."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import fastavro
import pyarrow as pa
from fastavro.read import BLOCK_READERS

MAGIC = b"Obj\x01"

_LARGEST_BLOCK = 256_000_000


class Damaged(ValueError):
    """An Avro file that ends too early, or isn't one."""


class Records:
    """The records of an Avro container file, each as a dict; logical types as Python's.

    Raises:
        Damaged: the header can't be read; while records are read, the same for what follows.
    """

    def __init__(self, stream: BinaryIO) -> None:
        try:
            self._reader = fastavro.reader(stream)
            schema: Any = self._reader.writer_schema
        except Exception as error:
            raise Damaged(_said(error)) from error
        if not isinstance(schema, dict) or schema.get("type") != "record":
            raise Damaged("its values are no records")
        self.columns: list[str] = [field["name"] for field in schema["fields"]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        records = iter(self._reader)
        while True:
            try:
                record: Any = next(records)
            except StopIteration:
                return
            except Exception as error:
                # fastavro raises whatever its bytes lead it to: struct.error, IndexError, EOFError, zlib.error
                raise Damaged(_said(error)) from error
            yield record


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _snappy(stream: Any) -> io.BytesIO:
    data = stream.read(_number(stream))[:-4]  # without the checksum
    size = _number(io.BytesIO(data), signed=False)
    if size > _LARGEST_BLOCK:
        raise Damaged(f"a block of {size:,} bytes")
    return io.BytesIO(pa.decompress(data, decompressed_size=size, codec="snappy", asbytes=True))


def _zstandard(stream: Any) -> io.BytesIO:
    data = io.BytesIO(stream.read(_number(stream)))
    return io.BytesIO(pa.CompressedInputStream(data, "zstd").read(_LARGEST_BLOCK))


def _number(stream: Any, *, signed: bool = True) -> int:
    """Read a number of seven bits a byte, Avro's with the sign in the last bit."""
    value, shift = 0, 0
    while True:
        byte: int = stream.read(1)[0]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1) if signed else value


# fastavro wants a package more for each of the two; Arrow has both codecs
BLOCK_READERS.update({"snappy": _snappy, "zstandard": _zstandard})
