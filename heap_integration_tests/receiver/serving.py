"""Receivers on real sockets, and what they have kept."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from heap_integration.landing import Landing, LandingWriter, waiting
from heap_integration.receiver import Client, ReceiverSettings, create_app
from heap_integration.receiver.server import build_server
from heap_integration.store import Store
from heap_integration_tests.receiver.signing import (
    HEAP_PASSWORD,
    HEAP_USER,
    SEGMENT_SECRET,
    USERFLOW_SECRET,
    USERPILOT_SECRET,
)

WEB_KEY, PIPELINES_KEY = "web-5ekret", "pipelines-5ekret"

EVERYTHING = ReceiverSettings(
    userflow_secret=USERFLOW_SECRET,
    userpilot_secret=USERPILOT_SECRET,
    heap_webhooks=(HEAP_USER, HEAP_PASSWORD),
    clients=(Client("web", WEB_KEY), Client("pipelines", PIPELINES_KEY, "customerio")),
    segment_sync_secret=SEGMENT_SECRET,
)


@contextmanager
def receiver(
    folder: Path, *, landing: Landing | None = None, app: Any = None, **changes: Any
) -> Iterator[httpx.Client]:
    """Serve a receiver and yield a client of it; ``changes`` are of its settings, ``app`` of its other parameters."""
    store = Store(f"sqlite:///{folder}/hub.db")
    built = create_app(
        settings=replace(EVERYTHING, **changes),
        store=store,
        landing=landing or LandingWriter(folder / "landing"),
        **(app or {}),
    )
    server = build_server(built)
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as ending:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        ending.callback(thread.join)
        ending.callback(setattr, server, "should_exit", True)
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=20) as client:
            yield client
    store.close()


def landed_text(folder: Path) -> list[bytes]:
    """Return the landed lines as they stand on the disk, oldest first."""
    return [line for path in waiting(folder / "landing") for line in path.read_bytes().splitlines()]


def landed(folder: Path) -> list[dict[str, Any]]:
    """Return what the landed lines say."""
    return [json.loads(line) for line in landed_text(folder)]
