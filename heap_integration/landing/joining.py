"""Pieces of bytes, read as one file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

BUFFER_BYTES = 1 << 17


def joined(pieces: Iterator[bytes]) -> BinaryIO:
    """Return a file with the pieces' content; the next piece is asked for when one is used up."""
    return io.BufferedReader(_Joined(pieces), BUFFER_BYTES)


class _Joined(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = filter(None, pieces)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        part = self._rest[: len(buffer)]
        buffer[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)
