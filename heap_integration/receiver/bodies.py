"""Request bodies, read with limits on their size, on the time that they take, and on how much all hold at once."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any, Final

import orjson

from heap_integration.receiver.exchange import CLOSE, Refused, Request, try_again

# Whoever reads a landed line takes 5 MB of it at most, and the line says more than the body.
BODY_BYTES: Final = 4_900_000
BODY_SECONDS: Final = 30.0
# Bodies are held until they are durable: this many bytes of them, whoever sent them. Larger bodies get half of
# it: those who send them slowly, and never prove who they are, must not keep the others out.
HELD_BYTES: Final = 256_000_000
SMALL_BYTES: Final = 64 * 1024
LEVELS: Final = 100

_GZIP_WINDOW = 31


class TooLarge(Exception):
    """The body is larger than its limit, in bytes; it was read to its end and forgotten."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes")


class BodyReader:
    """Reads the bodies of one application."""

    def __init__(self, held_bytes: int = HELD_BYTES, seconds: float = BODY_SECONDS) -> None:
        self.held = 0
        self._held_bytes = held_bytes
        self._seconds = seconds

    async def read(self, request: Request, limit: int = BODY_BYTES) -> bytes:
        """Return the body as it came, with chunks put together.

        It counts as held until ``release``.

        Raises:
            TooLarge: it has more than ``limit`` bytes.
            Refused: 413 for more than anybody may send, 408 after too long a time, 503 while too much is
                held, 400 when the client left.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await self._collect(request, limit)
        except TimeoutError:
            words = f"the body took longer than {self._seconds:g} s"
            raise Refused(408, "slow", words, CLOSE) from None

    def release(self, request: Request) -> None:
        """Forget a request's body."""
        self.held -= request.held
        request.held = 0

    async def _collect(self, request: Request, limit: int) -> bytes:
        # What Content-Length says is a promise; what arrives is counted.
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "left", "the client left before its body had arrived")
            piece: bytes = message.get("body", b"")
            size += len(piece)
            if size > BODY_BYTES:
                raise Refused(413, "too_large", f"the body is larger than {BODY_BYTES} bytes", CLOSE)
            if size > limit:
                # A client whose connection breaks off tries again; one that is answered doesn't.
                pieces.clear()
                self.release(request)
            else:
                self._hold(request, len(piece))
                pieces.append(piece)
            if not message.get("more_body", False):
                break
        if size > limit:
            raise TooLarge(limit)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _hold(self, request: Request, size: int) -> None:
        small = request.held + size <= SMALL_BYTES
        if self.held + size > (self._held_bytes if small else self._held_bytes // 2):
            raise try_again("too much is on its way to the disk, send it again", CLOSE)
        self.held += size
        request.held += size


def inflated(body: bytes, encoding: str, limit: int) -> bytes:
    """Return a body without its ``Content-Encoding``, gzip or none.

    Raises:
        TooLarge: it would have more than ``limit`` bytes; no more are made.
        Refused: another encoding, or damaged data.
    """
    if encoding.strip().lower() in {"", "identity"}:
        return body
    if encoding.strip().lower() not in {"gzip", "x-gzip"}:
        raise Refused(415, "encoding", "the Content-Encoding must be gzip, or left out")
    stream = zlib.decompressobj(_GZIP_WINDOW)
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error:
        raise Refused(400, "encoding", "the body is not valid gzip") from None
    if len(plain) > limit:
        raise TooLarge(limit)
    if not stream.eof or stream.unused_data:
        raise Refused(400, "encoding", "the body is not one whole gzip stream")
    return plain


def parsed(body: bytes) -> Any:
    """Return the body's JSON.

    Raises:
        ValueError: it isn't JSON, or is nested more than 100 levels deep; the words hold none of it.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the body is not JSON: {error.msg} at character {error.pos + 1}") from None
    # The parser itself stops at 1,024 levels; few bodies have as many brackets as would be too deep.
    if body.count(b"{") + body.count(b"[") > LEVELS and _too_deep(value):
        raise ValueError(f"the body's JSON is nested more than {LEVELS} levels deep")
    return value


def parsed_object(body: bytes) -> dict[str, Any]:
    """Return the body's JSON object.

    Raises:
        ValueError: as ``parsed``, or another kind of value.
    """
    value = parsed(body)
    if not isinstance(value, dict):
        raise ValueError("the body is not a JSON object")
    return value


def _too_deep(value: Any) -> bool:
    level = [value] if type(value) is dict or type(value) is list else []
    for _ in range(LEVELS):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return False
    return True
