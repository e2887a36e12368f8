"""The receiver: takes what other systems push, and answers once it is safe."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import Callable
from typing import Literal

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Receive, Scope, Send

from heap_integration.events.sources import userflow, userpilot
from heap_integration.landing import Landing
from heap_integration.receiver.bodies import BodyReader
from heap_integration.receiver.clients import CORS, PATHS, PREFLIGHT, Clients
from heap_integration.receiver.exchange import Answer, Endpoint, Refused, Request, as_json
from heap_integration.receiver.intake import Intake
from heap_integration.receiver.metrics import Metrics
from heap_integration.receiver.openapi import describe
from heap_integration.receiver.settings import ReceiverSettings, SwitchState
from heap_integration.receiver.webhooks import SegmentSync, Webhooks
from heap_integration.store import Store
from heap_integration.store.tables import meta

log = logging.getLogger(__name__)

REPORT_SECONDS = 60.0
# Asked more often, the store is not asked again.
READY_SECONDS = 1.0

V1 = "/v1/"
PROJECTS = "/v1/projects/"


def always_on(_source: str) -> Literal["on"]:
    """Return that a source's stream is on."""
    return "on"


def nobody() -> None:
    """Return that no customer of Heap is connected."""


def create_app(
    *,
    settings: ReceiverSettings,
    store: Store,
    landing: Landing,
    switch: Callable[[str], SwitchState] = always_on,
    connected: Callable[[], str | None] = nobody,
    clock: Callable[[], float] = time.time,
) -> ASGIApp:
    """Build the application.

    Events go into ``landing``, pages of Heap's Segment Sync into ``store``. ``switch`` tells by the name
    that a source's events bear whether its stream is on; what comes while it is off is landed to be kept,
    or with a note that it is to be dropped. ``connected`` tells the id of the Heap customer whose segments alone
    are taken, where the settings name none; ``None`` is any. A source that ``settings`` don't set answers 404. The
    application closes ``landing`` when it shuts down.
    """
    return _Receiver(settings, store, landing, switch, connected, clock)


class _Receiver:
    def __init__(
        self,
        settings: ReceiverSettings,
        store: Store,
        landing: Landing,
        switch: Callable[[str], SwitchState],
        connected: Callable[[], str | None],
        clock: Callable[[], float],
    ) -> None:
        self._connected = connected
        self._store = store
        self._landing = landing
        self._bodies = BodyReader()
        self._metrics = Metrics(lambda: self._bodies.held, clock)
        self._intake = Intake(landing, switch, clock, self._metrics)
        self._pages: SegmentSync | None = None
        self._unready = ""
        self._asked_at = -READY_SECONDS
        self._description = as_json(200, describe(settings))
        self._routes: dict[str, dict[str, Endpoint]] = {
            "/health": {"GET": self._health},
            "/ready": {"GET": self._ready},
            "/metrics": {"GET": self._show_metrics},
            "/openapi.json": {"GET": self._describe},
        }
        self._add_webhooks(settings, clock)
        self._clients = Clients(settings.clients, self._bodies, self._intake, self._metrics)
        if settings.clients:
            for path, kind in PATHS.items():
                self._routes[V1 + path] = {"POST": self._clients.taker(kind), "OPTIONS": _preflight}

    def _add_webhooks(self, settings: ReceiverSettings, clock: Callable[[], float]) -> None:
        webhooks = Webhooks(self._bodies, self._intake, clock)
        if settings.userflow_secret is not None:
            adapter = "userflow" if settings.userflow_profiles else "userflow_events"
            self._routes["/userflow"] = {
                "POST": webhooks.signed(
                    "userflow", adapter, b"userflow-signature", settings.userflow_secret, userflow.verify
                )
            }
        if settings.userpilot_secret is not None:
            self._routes["/userpilot"] = {
                "POST": webhooks.signed(
                    "userpilot", "userpilot", b"x-signature", settings.userpilot_secret, userpilot.verify
                )
            }
        if settings.heap_webhooks is not None:
            self._routes["/heap/events"] = {"POST": webhooks.heap_events(*settings.heap_webhooks)}
        if settings.segment_sync_secret is not None:
            self._pages = SegmentSync(
                self._bodies,
                self._store,
                clock,
                self._metrics,
                secret=settings.segment_sync_secret,
                id_token=settings.segment_sync_id_token,
                connected=self._connected,
            )
            self._routes["/heap/segments"] = {"POST": self._pages.take}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve(Request(scope, receive), send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            raise ValueError(f"the receiver speaks no {scope['type']}")

    async def _serve(self, request: Request, send: Send) -> None:
        try:
            answer = await self._endpoint(request)(request)
        except Refused as refusal:
            self._metrics.refused(request.source or "none", refusal.reason)
            answer = _refusal(request, refusal)
        except Exception as error:
            # An error's text may quote what was sent; where it was raised doesn't.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("an answer failed with %s:\n%s", type(error).__name__, where)
            answer = _refusal(request, Refused(500, "internal", "the receiver failed, send it again"))
        finally:
            self._bodies.release(request)
        self._metrics.answered(request.source or "none", answer.status)
        await answer.send(send)

    def _endpoint(self, request: Request) -> Endpoint:
        methods = self._routes.get(request.path)
        if methods is None:
            if not (request.path.startswith(PROJECTS) and request.path.endswith("/settings")):
                raise Refused(404, "path", "there is nothing at this path")
            methods = {"GET": self._clients.settings, "OPTIONS": _preflight}
        method = "GET" if request.method == "HEAD" else request.method
        endpoint = methods.get(method)
        if endpoint is None:
            allowed = ", ".join(methods)
            raise Refused(405, "method", f"only {allowed} is possible here", ((b"allow", allowed.encode()),))
        return endpoint

    async def _health(self, _request: Request) -> Answer:
        moments = (self._landing.last_durable, self._pages.last_page if self._pages else None)
        known = [moment for moment in moments if moment is not None]
        seconds = round(time.monotonic() - max(known), 3) if known else None
        return as_json(200, {"status": "ok", "seconds_since_last_durable_write": seconds})

    async def _ready(self, _request: Request) -> Answer:
        if time.monotonic() - self._asked_at >= READY_SECONDS:
            self._asked_at = time.monotonic()
            self._unready = await asyncio.to_thread(self._why_unready)
        if self._unready:
            return as_json(503, {"status": "unavailable", "error": self._unready}, ((b"retry-after", b"5"),))
        return as_json(200, {"status": "ready"})

    def _why_unready(self) -> str:
        if trouble := self._landing.ready():
            return f"nothing can be landed: {trouble}"
        try:
            with self._store.read() as connection:
                connection.execute(select(meta.c.value))
        except (SQLAlchemyError, OSError) as error:
            log.error("the store can't be reached: %s", type(error).__name__)
            return "the store can't be reached"
        return ""

    async def _show_metrics(self, _request: Request) -> Answer:
        content, kind = self._metrics.text()
        return Answer(200, content, kind.encode())

    async def _describe(self, _request: Request) -> Answer:
        return self._description

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        reports = asyncio.create_task(self._report_regularly())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        reports.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reports
        await self._landing.close()
        self._report()
        await send({"type": "lifespan.shutdown.complete"})

    async def _report_regularly(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            self._report()

    def _report(self) -> None:
        if news := self._metrics.news():
            log.info("answers: %s", news)


async def _preflight(_request: Request) -> Answer:
    return PREFLIGHT


def _refusal(request: Request, refusal: Refused) -> Answer:
    content = {"error": refusal.words}
    headers = refusal.headers
    if request.path.startswith(V1):
        # Clients look for these two, and a browser shows them to nobody without its leave.
        content |= {"code": refusal.reason, "message": refusal.words}
        if CORS[0] not in headers:
            headers += CORS
    return as_json(refusal.status, content, headers)
