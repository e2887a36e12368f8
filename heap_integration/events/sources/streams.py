"""Bytes of a file, plain, gzip or Zstandard, and its lines, whatever state the file is in."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from heap_integration.events.sources.storage import Watched

LONGEST_LINE = 5_000_000

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTANDARD_MAGIC = b"\x28\xb5\x2f\xfd"
_GZIP_WINDOW = 31
_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 15
_BUFFER = 1 << 17


class _Inflated(io.RawIOBase):
    """What a gzip stream holds; it ends where the damage begins, and says so, instead of raising."""

    def __init__(self, compressed: BinaryIO) -> None:
        super().__init__()
        self._compressed = compressed
        self._member = zlib.decompressobj(_GZIP_WINDOW)
        self._input = b""
        self.damage = ""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        piece = self._piece(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def _piece(self, size: int) -> bytes:
        while not self.damage:
            if self._member.eof:
                # the next member, or the zeros that tape and tar leave behind
                self._input = (self._member.unused_data or self._compressed.read(_BLOCK)).lstrip(b"\0")
                if not self._input:
                    return b""
                self._member = zlib.decompressobj(_GZIP_WINDOW)
            data = self._input or self._compressed.read(_BLOCK)
            if not data:
                self.damage = "the gzip data ends too early"
                break
            try:
                piece = self._member.decompress(data, size)
            except zlib.error as error:
                self.damage = f"the gzip data is damaged: {error}"
                break
            self._input = self._member.unconsumed_tail
            if piece:
                return piece
        return b""


class _Unpacked(io.RawIOBase):
    """What a Zstandard stream holds; it ends where the damage begins, as ``_Inflated`` does."""

    def __init__(self, compressed: BinaryIO) -> None:
        import pyarrow as pa

        super().__init__()
        self._compressed = Watched(compressed, "the compressed stream")
        self._inner = pa.CompressedInputStream(self._compressed, "zstd")
        self.damage = ""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        piece = self._piece(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def _piece(self, size: int) -> bytes:
        if self.damage:
            return b""
        try:
            return bytes(self._inner.read(size))
        except OSError as error:
            self._compressed.check()
            self.damage = f"the Zstandard data is damaged or ends too early: {error}"
            return b""


class Lines:
    """The numbered lines of a stream, the first is 1, with their ends.

    ``None`` stands for a line longer than 5 MB, which is passed over without being held in memory.
    ``damage`` says after the last line what is wrong with the compressed data, if anything; an unfinished
    line before the damage is left out. ``number`` is that of the last line given.
    """

    def __init__(self, stream: BinaryIO) -> None:
        # a second buffer around a file would close it when it goes
        self._buffered = stream if isinstance(stream, io.BufferedReader) else _buffered(stream)
        self._inflated: _Inflated | _Unpacked | None = None
        start = self._buffered.peek(len(_ZSTANDARD_MAGIC))
        if start.startswith(_GZIP_MAGIC):
            self._inflated = _Inflated(self._buffered)
        elif start.startswith(_ZSTANDARD_MAGIC):
            self._inflated = _Unpacked(self._buffered)
        if self._inflated:
            self._buffered = _buffered(self._inflated)
        self.number = 0

    @property
    def damage(self) -> str:
        """Return what is wrong with the compressed data, empty where nothing is."""
        return self._inflated.damage if self._inflated else ""

    def start(self) -> bytes:
        """Return the first bytes without consuming them."""
        return self._buffered.peek(len(_BOM)).removeprefix(_BOM)

    def read(self, size: int) -> bytes:
        """Return the next bytes, unpacked, whatever lines they are; empty at the end."""
        return self._buffered.read1(size)

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        readline = self._buffered.readline
        while line := readline(LONGEST_LINE + 1):
            whole: bytes | None = line
            if line[-1] != ord("\n"):
                if len(line) > LONGEST_LINE:
                    while line and line[-1] != ord("\n"):
                        line = readline(LONGEST_LINE)
                    whole = None
                if self.damage:
                    return
            self.number += 1
            if self.number == 1 and whole is not None:
                whole = whole.removeprefix(_BOM)
            yield self.number, whole


def _buffered(stream: Any) -> io.BufferedReader:
    return io.BufferedReader(stream, _BUFFER)
