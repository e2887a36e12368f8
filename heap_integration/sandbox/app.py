"""Puts the stand-ins, their inspection and the console page together, and serves them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware

from heap_integration.sandbox.console import console_route
from heap_integration.sandbox.customerio import CustomerioApi
from heap_integration.sandbox.faults import Faults, FaultsMiddleware
from heap_integration.sandbox.heap import HeapApi
from heap_integration.sandbox.heap_connect import HeapConnect
from heap_integration.sandbox.inspection import Inspection
from heap_integration.sandbox.segment_sync import SegmentSync
from heap_integration.sandbox.settings import SandboxSettings, settings_from
from heap_integration.sandbox.state import State
from heap_integration.sandbox.userflow import UserflowApi
from heap_integration.sandbox.userflow_webhooks import UserflowWebhooks
from heap_integration.sandbox.userpilot import UserpilotApi
from heap_integration.sandbox.vendor import Vendor
from heap_integration.sandbox.webhook_sink import WebhookSink

_WEBHOOK_TIMEOUT = 30.0


def create_app(settings: SandboxSettings, state_path: Path) -> Starlette:
    """Build the ASGI app over the state at ``state_path``, which is created where it is missing.

    Heap's API lies at the root (``/api/...``), every other vendor's under its name (``/userflow``).
    """
    state = State(state_path)
    clients: list[httpx.AsyncClient] = []
    heap = HeapApi(settings, state)
    segments = SegmentSync(settings, state, lambda: clients[0])
    webhooks = UserflowWebhooks(settings, state, lambda: clients[0])
    userflow = UserflowApi(settings, state, webhooks)
    vendors: list[Vendor] = [
        userflow,
        UserpilotApi(settings, state),
        CustomerioApi(settings, state),
        WebhookSink(settings, state),
    ]
    state.vendors = tuple(vendor.name for vendor in vendors)
    faults = Faults()
    inspection = Inspection(
        settings, state, heap=heap, segments=segments, userflow=userflow, vendors=vendors, faults=faults
    )

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        # the proxies of the machine are not for the webhooks of a sandbox
        async with httpx.AsyncClient(timeout=_WEBHOOK_TIMEOUT, trust_env=False) as client:
            clients[:] = [client]
            background = asyncio.create_task(webhooks.run())
            try:
                yield
            finally:
                background.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await background
                state.close()

    return Starlette(
        routes=[
            console_route(),
            *heap.routes(),
            *segments.routes(),
            *HeapConnect(settings, state).routes(),
            *(route for vendor in vendors for route in vendor.routes()),
            *inspection.routes(),
        ],
        middleware=[Middleware(FaultsMiddleware, faults=faults)],
        lifespan=lifespan,
    )


def serve(host: str, port: int, state: Path, settings: SandboxSettings | None = None) -> None:
    """Serve until interrupted; without settings they come from HEAP_SANDBOX_ENVIRONMENTS.

    Raises:
        ValueError: the variable can't be read.
    """
    app = create_app(settings or settings_from(), state)
    # addresses carry one-time codes, so requests are not logged
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=2,
    )
