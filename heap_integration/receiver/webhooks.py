"""Webhooks that other systems send: what proves that they are theirs, and how they are answered."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import time
from collections.abc import Callable
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from heap_integration.events.sources.signatures import BadSignature
from heap_integration.heap import segment_sync
from heap_integration.receiver.bodies import BodyReader, parsed_object
from heap_integration.receiver.exchange import TEXT, Answer, Endpoint, Headers, Refused, Request, as_json
from heap_integration.receiver.intake import Intake, Received
from heap_integration.receiver.metrics import Metrics
from heap_integration.receiver.pages import keep_page
from heap_integration.store import Store

log = logging.getLogger(__name__)

Verify = Callable[[str, str, bytes, float], None]

TAKEN: Final = as_json(200, {})
OK: Final = Answer(200, b"OK", TEXT)
# Without it the answer 401 would not say how to prove oneself.
ASK_BASIC: Final[Headers] = ((b"www-authenticate", b'Basic realm="receiver"'),)


def basic_credentials(header: str) -> tuple[str, str] | None:
    """Return the user and password of an ``Authorization`` header; ``None`` if it holds none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None


class Webhooks:
    """The endpoints that take events from Userflow, Userpilot and Heap."""

    def __init__(self, bodies: BodyReader, intake: Intake, clock: Callable[[], float]) -> None:
        self._bodies = bodies
        self._intake = intake
        self._clock = clock

    def signed(self, source: str, adapter: str, header: bytes, secret: str, verify: Verify) -> Endpoint:
        """Return what takes JSON objects whose signature ``verify`` finds in ``header``."""

        async def take(request: Request) -> Answer:
            request.source = source
            body = await whole_body(self._bodies, request)
            try:
                verify(secret, request.header(header), body, self._clock())
            except BadSignature as error:
                raise Refused(401, "signature", str(error)) from None
            return await self._keep(source, adapter, body)

        return take

    def heap_events(self, user: str, password: str) -> Endpoint:
        """Return what takes Heap's event webhooks, which bear a user and a password."""
        expected = f"{user}:{password}".encode()

        async def take(request: Request) -> Answer:
            request.source = "heap_webhooks"
            given = ":".join(basic_credentials(request.header(b"authorization")) or ())
            if not hmac.compare_digest(given.encode(), expected):
                raise Refused(401, "credentials", "the user and password are not this webhook's", ASK_BASIC)
            body = await whole_body(self._bodies, request)
            return await self._keep("heap_webhooks", "heap_webhooks", body)

        return take

    async def _keep(self, source: str, adapter: str, body: bytes) -> Answer:
        try:
            payload = parsed_object(body)
        except ValueError as error:
            raise Refused(400, "json", str(error)) from None
        await self._intake.keep(Received(source, adapter, body, payload.get("id")))
        return TAKEN


class SegmentSync:
    """The endpoint of Heap's Segment Sync, with the answers that Heap documents."""

    def __init__(
        self,
        bodies: BodyReader,
        store: Store,
        clock: Callable[[], float],
        metrics: Metrics,
        *,
        secret: str,
        id_token: str | None,
        connected: Callable[[], str | None],
    ) -> None:
        self.last_page: float | None = None
        """When a page was last made durable, on the monotonic clock."""
        self._bodies = bodies
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._secret = secret
        self._id_token = id_token
        self._connected = connected

    async def take(self, request: Request) -> Answer:
        """Keep a page."""
        request.source = "segment_sync"
        body = await whole_body(self._bodies, request)
        # Parsing a large page would hold up everybody else as much as storing it.
        return await asyncio.to_thread(self._keep, request.header(b"heap-hash"), body, self._clock())

    def _keep(self, header: str, body: bytes, now: float) -> Answer:
        try:
            signed_at = segment_sync.verify(self._secret, header, body, now)
            page = segment_sync.read_page(body, signed_at)
            # Asked for each page: a customer may have been connected since the receiver was started.
            if (self._id_token or self._connected()) not in {None, page.id_token}:
                words = "The id_token belongs to another Heap environment"
                return self._refused("customer", as_json(403, {"error": words}))
            keep_page(self._store, page, now)
        except segment_sync.BadTimestamp as error:
            return self._refused("timestamp", Answer(400, str(error).encode(), TEXT))
        except segment_sync.BadSignature:
            return self._refused("signature", as_json(403, {"error": "Invalid signature"}))
        except segment_sync.BadPage as error:
            return self._refused("page", Answer(400, str(error).encode(), TEXT))
        except SQLAlchemyError as error:
            log.error("can't keep a segment's page: %s", error)
            unkept = Answer(503, b"can't keep it now, send it again", TEXT, ((b"retry-after", b"5"),))
            return self._refused("unavailable", unkept)
        self.last_page = time.monotonic()
        self._metrics.stored()
        return OK

    def _refused(self, reason: str, answer: Answer) -> Answer:
        self._metrics.refused("segment_sync", reason)
        return answer


async def whole_body(bodies: BodyReader, request: Request) -> bytes:
    """Return a webhook's body as its vendor has signed it.

    Raises:
        Refused: it is too large, too slow, or compressed.
    """
    if request.header(b"content-encoding").lower() not in {"", "identity"}:
        raise Refused(415, "encoding", "the body must not be compressed")
    return await bodies.read(request)
