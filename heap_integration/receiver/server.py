"""Serves the receiver until it is told to stop."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable

import orjson
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Beyond it the answer is 503; half of what the process may open is left for files and the store.
CONCURRENT_CONNECTIONS = 4_000
GRACE_SECONDS = 10
HEAD_BYTES = 32 * 1024
HEAD_SECONDS = 15.0

_TOO_LARGE = (b"431 Request Header Fields Too Large", f"the request's headers are larger than {HEAD_BYTES} bytes")
_TOO_SLOW = (b"408 Request Timeout", f"the request's headers took longer than {HEAD_SECONDS:g} s")
_TOO_MANY = (b"503 Service Unavailable\r\nretry-after: 5", "too many connections are open, send it again")
_MALFORMED = (b"400 Bad Request", "this is not HTTP/1.1")


class ServerFailed(RuntimeError):
    """The server did not start; its log says why."""


class _Stop(Exception):
    """The parser is to stop: the request is refused."""


class LimitedProtocol(HttpToolsProtocol):
    """HTTP/1.1 with limits on the size of a request's line and headers, and on the time that they take.

    The parser itself has none: it would gather headers without end, for as long as they come. What is
    refused here is answered in JSON, as everywhere.
    """

    _head_bytes = 0
    _head_open = True
    _refusal = _MALFORMED
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock for the first request."""
        super().connection_made(transport)
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and stop when a head has no end."""
        super().data_received(data)
        if self._head_open and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(*_TOO_LARGE)
            elif self._deadline is None:
                self._start_clock()

    def on_message_begin(self) -> None:
        """Begin to count a request's head."""
        self._head_open, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop the clock, and refuse a large head that came at once, or one connection too many."""
        self._head_open = False
        self._stop_clock()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            self._refusal = _TOO_LARGE
            raise _Stop
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            self._refusal = _TOO_MANY
            raise _Stop
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer what the parser has refused."""
        self._refuse(*self._refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def _start_clock(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._refuse, *_TOO_SLOW)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: bytes, words: str) -> None:
        self._stop_clock()
        if self.transport.is_closing():
            return
        body = orjson.dumps({"error": words})
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, len(body)) + body)
        self.transport.close()


def build_server(app: ASGIApp) -> uvicorn.Server:
    """Return a server that isn't started: without an access log, and patient with open requests."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=LimitedProtocol,
            lifespan="on",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_connections(),
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )


def serve(app: ASGIApp, host: str, port: int, ready: Callable[[str], None] = lambda _url: None) -> None:
    """Serve until SIGINT or SIGTERM, then let open requests finish and shut the application down.

    ``port`` 0 takes any free one; ``ready`` gets the URL as soon as connections are taken.

    Raises:
        OSError: the address can't be listened on.
        ServerFailed: the application did not start.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=2048) as listener:
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        ready(f"http://{shown}:{listener.getsockname()[1]}")
        server = build_server(app)
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            return
        if not server.started:
            raise ServerFailed("the receiver did not start: its log says why")


def _connections() -> int:
    """Return how many connections are taken; the process may open as many files as its hard limit says."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CONCURRENT_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return CONCURRENT_CONNECTIONS if soft == resource.RLIM_INFINITY else min(CONCURRENT_CONNECTIONS, soft // 2)
