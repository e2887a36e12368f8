"""Request bodies, read with a limit on their size and on the time that they take."""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

BODY_SECONDS = 30.0


async def read_body(request: Request, limit: int, seconds: float = BODY_SECONDS) -> bytes:
    """Return the body as it came.

    Raises:
        HTTPException: 413 beyond ``limit`` bytes, 408 after ``seconds``, 400 when the client left.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _collect(request, limit)
    except TimeoutError:
        raise HTTPException(408, f"the body took longer than {seconds:g} s", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "the client left before its body had arrived") from None


async def _collect(request: Request, limit: int) -> bytes:
    # What Content-Length says is a promise; what arrives is counted.
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise HTTPException(413, f"the body is larger than {limit} bytes", {"Connection": "close"})
        pieces.append(piece)
    return b"".join(pieces)
