"""A request and its answer, straight on ASGI: a framework's objects would cost as much as all the rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import orjson
from starlette.types import Message, Receive, Scope, Send

Headers = tuple[tuple[bytes, bytes], ...]

JSON: Final = b"application/json"
TEXT: Final = b"text/plain; charset=utf-8"
CLOSE: Final[Headers] = ((b"connection", b"close"),)


class Request:
    """One request. ``source`` is whose call it is, once that is known; ``held`` the bytes it has in memory."""

    __slots__ = ("headers", "held", "method", "path", "receive", "source")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
        self.receive = receive
        self.source = ""
        self.held = 0

    def header(self, name: bytes) -> str:
        """Return a header's value by its name in small letters; empty where there is none."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return ""


Endpoint = Callable[[Request], Awaitable["Answer"]]


class Answer:
    """What a request is answered; it may be sent more than once."""

    __slots__ = ("content", "start", "status")

    def __init__(self, status: int, body: bytes = b"", kind: bytes = JSON, headers: Headers = ()) -> None:
        described = () if status == 204 else ((b"content-type", kind), (b"content-length", b"%d" % len(body)))
        self.status = status
        self.start: Message = {
            "type": "http.response.start",
            "status": status,
            "headers": [*described, *headers],
        }
        self.content: Message = {"type": "http.response.body", "body": body}

    async def send(self, send: Send) -> None:
        """Send it."""
        await send(self.start)
        await send(self.content)


class Refused(Exception):
    """A request is refused: ``reason`` names the kind for the metrics, ``words`` say it to the client."""

    def __init__(self, status: int, reason: str, words: str, headers: Headers = ()) -> None:
        super().__init__(words)
        self.status = status
        self.reason = reason
        self.words = words
        self.headers = headers


def as_json(status: int, content: Any, headers: Headers = ()) -> Answer:
    """Return an answer in JSON."""
    return Answer(status, orjson.dumps(content), JSON, headers)


def try_again(words: str, headers: Headers = ()) -> Refused:
    """Return the refusal of what could be taken a little later."""
    return Refused(503, "unavailable", words, ((b"retry-after", b"5"), *headers))
