"""Takes Userflow's events and Heap's segments, and answers once they are safe on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

import orjson
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from heap_integration.events.sources import userflow
from heap_integration.heap import segment_sync
from heap_integration.landing import LandingClosed, LandingWriter
from heap_integration.receiver.bodies import read_body
from heap_integration.receiver.pages import keep_page
from heap_integration.store import Store

log = logging.getLogger(__name__)

# Whoever reads a landed line takes 5 MB of it at most, and the line says more than the body.
BODY_BYTES = 4_900_000
LONGEST_ID = 255
REPORT_SECONDS = 60.0

Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(
    *,
    store: Store,
    landing: LandingWriter,
    userflow_secret: str | None,
    segment_sync_secret: str | None,
    segment_sync_id_token: str | None = None,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """Build the application.

    ``POST /userflow`` takes Userflow's webhooks into ``landing``, ``POST /heap/segments`` takes Heap's
    Segment Sync into ``store``, ``GET /health`` tells that all is well. A source without a secret
    answers 404. With ``segment_sync_id_token`` only that Heap customer's segments are taken. The
    application closes ``landing`` when it shuts down.
    """
    receiver = _Receiver(store, landing, clock, segment_sync_id_token)
    routes = [Route("/health", receiver.health)]
    if userflow_secret is not None:
        take = receiver.userflow(userflow_secret)
        routes.append(Route("/userflow", receiver.counted("userflow", take), methods=["POST"]))
    if segment_sync_secret is not None:
        take = receiver.segments(segment_sync_secret)
        routes.append(Route("/heap/segments", receiver.counted("heap/segments", take), methods=["POST"]))
    return Starlette(routes=routes, lifespan=lambda _app: receiver.lifespan())


@dataclass
class _Receiver:
    store: Store
    landing: LandingWriter
    clock: Callable[[], float]
    id_token: str | None
    answers: Counter[str] = field(default_factory=Counter)
    last_page: float | None = None

    def userflow(self, secret: str) -> Endpoint:
        async def take(request: Request) -> Response:
            body = await read_body(request, BODY_BYTES)
            now = self.clock()
            try:
                userflow.verify(secret, request.headers.get("userflow-signature", ""), body, now)
            except userflow.BadSignature as error:
                return JSONResponse({"error": str(error)}, 401)
            try:
                line = _landing_line("userflow", body, now)
            except ValueError as error:
                return JSONResponse({"error": str(error)}, 400)
            try:
                await self.landing.append(line)
            except (OSError, LandingClosed) as error:
                log.error("can't land a notification: %s", error or "the receiver is closing")
                return JSONResponse({"error": "can't keep it now, send it again"}, 503)
            return JSONResponse({})

        return take

    def segments(self, secret: str) -> Endpoint:
        async def take(request: Request) -> Response:
            body = await read_body(request, BODY_BYTES)
            now = self.clock()
            try:
                signed_at = segment_sync.verify(secret, request.headers.get("heap-hash", ""), body, now)
            except segment_sync.BadTimestamp as error:
                return PlainTextResponse(str(error), 400)
            except segment_sync.BadSignature:
                return JSONResponse({"error": "Invalid signature"}, 403)
            # Parsing a large page would hold up everybody else as much as storing it.
            return await run_in_threadpool(self._keep, body, signed_at, now)

        return take

    def _keep(self, body: bytes, signed_at: int, now: float) -> Response:
        try:
            page = segment_sync.read_page(body, signed_at)
            if self.id_token not in {None, page.id_token}:
                return JSONResponse({"error": "The id_token belongs to another Heap environment"}, 403)
            keep_page(self.store, page, now)
        except segment_sync.BadPage as error:
            return PlainTextResponse(str(error), 400)
        except SQLAlchemyError as error:
            log.error("can't keep a segment's page: %s", error)
            return PlainTextResponse("can't keep it now, send it again", 503)
        self.last_page = time.monotonic()
        return PlainTextResponse("OK")

    async def health(self, _request: Request) -> Response:
        moments = [moment for moment in (self.landing.last_durable, self.last_page) if moment is not None]
        seconds = round(time.monotonic() - max(moments), 3) if moments else None
        return JSONResponse({"status": "ok", "seconds_since_last_durable_write": seconds})

    def counted(self, source: str, endpoint: Endpoint) -> Endpoint:
        async def answer(request: Request) -> Response:
            try:
                response = await endpoint(request)
            except HTTPException as refusal:
                self.answers[f"{source} {refusal.status_code}"] += 1
                raise
            self.answers[f"{source} {response.status_code}"] += 1
            return response

        return answer

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        reports = asyncio.create_task(self._report_regularly())
        try:
            yield
        finally:
            reports.cancel()
            await self.landing.close()
            self._report()

    async def _report_regularly(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            self._report()

    def _report(self) -> None:
        if self.answers:
            log.info("answers: %s", ", ".join(f"{what}: {n}" for what, n in sorted(self.answers.items())))
            self.answers.clear()


def _landing_line(source: str, body: bytes, now: float) -> bytes:
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    if not isinstance(payload, dict):
        raise ValueError("the body is not a JSON object")
    # The original text, because parsing loses digits of large numbers. A line break in JSON can only
    # stand between its tokens.
    original = body.replace(b"\n", b" ").replace(b"\r", b" ")
    identifier = payload.get("id")
    return orjson.dumps(
        {
            "id": identifier if _short_text(identifier) else str(uuid4()),
            "received_at": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
            "source": source,
            "body": orjson.Fragment(original),
        }
    )


def _short_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_ID
