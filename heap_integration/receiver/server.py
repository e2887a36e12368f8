"""Serves the receiver until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

# Each may hold a body in memory before its signature can be checked; beyond it the answer is 503.
CONCURRENT_CONNECTIONS = 500
GRACE_SECONDS = 10


class ServerFailed(RuntimeError):
    """The server did not start; its log says why."""


def build_server(app: ASGIApp) -> uvicorn.Server:
    """Return a server that isn't started: without an access log, and patient with open requests."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="on",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONCURRENT_CONNECTIONS,
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
