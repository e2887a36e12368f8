"""Segment's HTTP API, which Segment's and Customer.io's clients and many others speak."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final

import orjson

from heap_integration.receiver.bodies import BodyReader, TooLarge, inflated, parsed_object
from heap_integration.receiver.calls import batch_problem, call_problem
from heap_integration.receiver.exchange import Answer, Endpoint, Headers, Refused, Request, as_json
from heap_integration.receiver.intake import Intake, Received
from heap_integration.receiver.metrics import Metrics
from heap_integration.receiver.settings import Client
from heap_integration.receiver.webhooks import ASK_BASIC, basic_credentials

PATHS: Final = {
    "track": "track",
    "identify": "identify",
    "page": "page",
    "screen": "screen",
    "group": "group",
    "alias": "alias",
    "batch": "batch",
    # Browsers and phones use the short names, older phones' libraries import.
    "t": "track",
    "i": "identify",
    "p": "page",
    "s": "screen",
    "g": "group",
    "a": "alias",
    "b": "batch",
    "import": "batch",
}
CORS: Final[Headers] = ((b"access-control-allow-origin", b"*"),)
PREFLIGHT: Final = Answer(
    204,
    headers=(
        *CORS,
        (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
        (b"access-control-allow-headers", b"Authorization, Content-Type, Content-Encoding, X-Strict-Mode"),
        (b"access-control-max-age", b"86400"),
    ),
)
TAKEN: Final = {
    "segment": as_json(200, {"success": True}, CORS),
    "customerio": as_json(200, {}, CORS),
}

# A page's beacon says text/plain, because then the browser doesn't ask for leave before.
_CONTENT = re.compile(r"(application/([\w.-]+\+)?json|text/plain)\s*(;.*)?", re.IGNORECASE | re.DOTALL)
_WRITE_KEY = re.compile(rb'"writeKey"\s*:\s*"(?:[^"\\]|\\.)*"')
_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?")


class Clients:
    """The endpoints under ``/v1`` for all clients of one application."""

    def __init__(self, clients: Sequence[Client], bodies: BodyReader, intake: Intake, metrics: Metrics) -> None:
        # By the digest: how long it takes to find a key tells nothing of the others.
        self._clients = {_digest(client.write_key): client for client in clients}
        self._largest_call = max((client.largest_call_bytes for client in clients), default=0)
        self._largest_batch = max((client.largest_batch_bytes for client in clients), default=0)
        self._bodies = bodies
        self._intake = intake
        self._metrics = metrics

    def taker(self, kind: str) -> Endpoint:
        """Return what takes calls of one kind, or batches."""

        async def take(request: Request) -> Answer:
            strict = request.header(b"x-strict-mode") == "1"
            try:
                return await self._take(request, kind, strict=strict)
            except Refused as refusal:
                refusal.headers += CORS
                raise

        return take

    async def settings(self, request: Request) -> Answer:
        """Return what browsers and phones ask for first, under ``/v1/projects/<write key>/settings``."""
        key = request.path.removeprefix("/v1/projects/").removesuffix("/settings")
        client = self._known(key, CORS)
        request.source = client.name
        host = request.header(b"host")
        integration = {"apiKey": key}
        if _HOST.fullmatch(host):
            integration["apiHost"] = f"{host}/v1"
        return as_json(200, {"integrations": {"Segment.io": integration}, "plan": {}}, CORS)

    async def _take(self, request: Request, kind: str, *, strict: bool) -> Answer:
        client = self._by_header(request)
        content = request.header(b"content-type")
        if content and not _CONTENT.fullmatch(content.strip()):
            raise Refused(415, "content_type", "the Content-Type must be application/json")
        try:
            body = await self._body(request, kind, client)
            payload = parsed_object(body)
        except (TooLarge, ValueError) as error:
            reason = "too_large" if isinstance(error, TooLarge) else "json"
            if client is None:
                raise Refused(400, reason, str(error)) from None
            return await self._unusable(client, kind, reason, str(error), strict=strict)
        if client is None:
            client = self._by_body(request, payload)
        return await self._keep(client, kind, body, payload, strict=strict)

    def _by_header(self, request: Request) -> Client | None:
        header = request.header(b"authorization")
        if not header:
            return None
        credentials = basic_credentials(header)
        if credentials is None:
            raise _unknown("the Authorization header is not Basic with the write key as its user")
        client = self._known(credentials[0])
        request.source = client.name
        return client

    def _by_body(self, request: Request, payload: dict[str, Any]) -> Client:
        key = payload.get("writeKey")
        if not isinstance(key, str):
            raise _unknown("there is no write key, neither in the Authorization header nor in the body")
        client = self._known(key)
        request.source = client.name
        return client

    def _known(self, key: str, headers: Headers = ()) -> Client:
        client = self._clients.get(_digest(key))
        if client is None:
            raise _unknown("the write key is not known", headers)
        return client

    async def _body(self, request: Request, kind: str, client: Client | None) -> bytes:
        if kind == "batch":
            limit = client.largest_batch_bytes if client else self._largest_batch
        else:
            limit = client.largest_call_bytes if client else self._largest_call
        encoding = request.header(b"content-encoding")
        body = await self._bodies.read(request, limit)
        return inflated(body, encoding, limit) if encoding else body

    async def _keep(self, client: Client, kind: str, body: bytes, payload: dict[str, Any], *, strict: bool) -> Answer:
        limit = client.largest_batch_bytes if kind == "batch" else client.largest_call_bytes
        if len(body) > limit:
            words = str(TooLarge(limit))
            return await self._unusable(client, kind, "too_large", words, strict=strict)
        large = _over_limit(body, payload, client.largest_call_bytes) if kind == "batch" else []
        if strict:
            problem = batch_problem(payload, large) if kind == "batch" else call_problem(payload, kind)
            if problem:
                raise Refused(400, "invalid", problem)
        for _ in large:
            self._metrics.refused(client.name, "too_large")
        calls = payload.get("batch") if kind == "batch" else None
        await self._intake.keep(
            Received(
                source=client.name,
                adapter=client.dialect,
                body=_landed_body(body, payload, kind),
                identifier=None if kind == "batch" else payload.get("messageId"),
                calls=len(calls) if isinstance(calls, list) else 1,
                over_limit=large,
            )
        )
        return TAKEN[client.dialect]

    async def _unusable(self, client: Client, kind: str, reason: str, words: str, *, strict: bool) -> Answer:
        """Answer a request that holds nothing to be used, as its vendor does: Customer.io says that all is well."""
        if strict or client.dialect == "segment":
            raise Refused(400, reason, words)
        self._metrics.refused(client.name, reason)
        body = orjson.dumps({"type": kind})
        await self._intake.keep(Received(client.name, client.dialect, body, refused=words))
        return TAKEN[client.dialect]


def _over_limit(body: bytes, payload: dict[str, Any], limit: int) -> list[int]:
    calls = payload.get("batch")
    if len(body) <= limit or not isinstance(calls, list):
        return []
    return [place for place, call in enumerate(calls) if len(orjson.dumps(call)) > limit]


def _landed_body(body: bytes, payload: dict[str, Any], kind: str) -> bytes:
    """Return the body without write keys, and with the type that its path has given it.

    It stays as it came otherwise: parsing loses digits of large numbers.
    """
    if b"writeKey" in body:
        body = _WRITE_KEY.sub(b'"writeKey":null', body)
    elif "writeKey" in payload:
        # The name is written with escapes.
        body = orjson.dumps(payload | {"writeKey": None})
    if payload.get("type") == kind:
        return body
    # Of two members of one name the last counts.
    inner = body.strip()[:-1]
    comma = b"," if payload else b""
    return b'%b%b"type":"%b"}' % (inner, comma, kind.encode())


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="replace"), digest_size=16).digest()


def _unknown(words: str, headers: Headers = ()) -> Refused:
    return Refused(401, "credentials", words, (*ASK_BASIC, *headers))
