"""Faults on demand, between the socket and the stand-ins."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Kind = Literal["latency", "401", "403", "410", "429", "500", "503", "drop", "cut", "truncate", "lost_ack", "refuse"]


class Fault(BaseModel):
    """A rule: requests whose path starts with ``path`` meet the fault.

    Kinds: ``latency`` answers ``seconds`` later; ``401`` to ``503`` answer so without applying anything;
    ``drop`` closes the connection without applying anything or answering, and ``cut`` does once half of the
    request's body has come; ``lost_ack`` applies the request, then closes; ``truncate`` applies it and closes
    halfway through the answer.
    ``refuse`` stands for a rule that nobody knows of: it answers 400 to a request with an event named
    ``event``, or any event where that is not given, without applying anything. With ``names`` the answer says
    which is the first of them, in the words in which Heap tells a violation of its schema.
    ``after`` lets that many requests pass first, ``next`` limits the rule to that many, ``probability`` to a
    share of them; ``hits`` counts those it met.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    path: str = Field(default="/", pattern="^/")
    probability: float = Field(default=1.0, gt=0, le=1)
    after: int = Field(default=0, ge=0)
    next: int | None = Field(default=None, gt=0)
    seconds: float = Field(default=1.0, ge=0)
    retry_after: int | None = Field(default=None, ge=0)
    event: str | None = None
    names: bool = True
    id: int = 0
    hits: int = 0

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.event is not None and self.kind != "refuse":
            raise ValueError("only the kind refuse looks at events")
        return self

    def culprit(self, body: bytes) -> int | None:
        """Return the place of the first event in a request that the rule refuses."""
        try:
            events = orjson.loads(body)["events"]
            names = [event["event"] for event in events]
        except (ValueError, TypeError, KeyError):
            return None
        return next((place for place, name in enumerate(names) if self.event in (None, name)), None)


class Faults:
    """The rules in force; they end with the process."""

    def __init__(self) -> None:
        self.rules: list[Fault] = []
        self._ids = itertools.count(1)
        self._random = random.Random()  # noqa: S311 - chance, not secrecy

    def add(self, fault: Fault) -> Fault:
        """Put a rule in force, after those already there."""
        fault = fault.model_copy(update={"id": next(self._ids), "hits": 0})
        self.rules.append(fault)
        return fault

    def remove(self, fault_id: int | None = None) -> None:
        """Lift one rule, or all."""
        self.rules = [] if fault_id is None else [rule for rule in self.rules if rule.id != fault_id]

    def look_inside(self, path: str) -> bool:
        """Say whether a request's body decides whether it meets a rule."""
        return any(rule.kind == "refuse" for rule in self.rules if path.startswith(rule.path))

    def strikes(self, path: str, body: bytes = b"") -> Fault | None:
        """Return the first rule that meets a request for this path, used up by one."""
        if path == "/" or path.startswith("/_"):
            return None
        for rule in self.rules:
            if rule.next == 0 or not path.startswith(rule.path):
                continue
            if rule.kind == "refuse" and rule.culprit(body) is None:
                continue
            if rule.probability < 1 and self._random.random() >= rule.probability:
                continue
            if rule.after:
                rule.after -= 1
                continue
            rule.hits += 1
            if rule.next is not None:
                rule.next -= 1
            return rule
        return None


class FaultsMiddleware:
    """Applies the rules to every request for the stand-ins."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self.app = app
        self.faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or spoil it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        connection, body = receive, b""
        if self.faults.look_inside(scope["path"]):
            body = await _body(receive)
            receive = _again(body, receive)
        fault = self.faults.strikes(scope["path"], body)
        if fault is None:
            await self.app(scope, receive, send)
        elif fault.kind == "latency":
            await asyncio.sleep(fault.seconds)
            await self.app(scope, receive, send)
        elif fault.kind == "drop":
            await _hang_up(connection)
        elif fault.kind == "cut":
            await _half(scope, receive)
            await _hang_up(connection)
        elif fault.kind == "lost_ack":
            await self._answer(scope, receive)
            await _hang_up(connection)
        elif fault.kind == "truncate":
            await self._truncated(scope, receive, send, connection)
        elif fault.kind == "refuse":
            where = f"events[{fault.culprit(body)}].event" if fault.names else "event"
            await PlainTextResponse(f"postBody.{where} sandbox fault refuse", 400)(scope, receive, send)
        else:
            headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            response = PlainTextResponse(f"sandbox fault {fault.kind}", int(fault.kind), headers)
            await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> list[Message]:
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self.app(scope, receive, keep)
        return messages

    async def _truncated(self, scope: Scope, receive: Receive, send: Send, connection: Receive) -> None:
        start, *parts = await self._answer(scope, receive)
        body = b"".join(part.get("body", b"") for part in parts)
        # an empty or tiny body still has to be cut, so the promise is longer than the answer
        headers = [header for header in start["headers"] if header[0] != b"content-length"]
        promised = str(max(len(body), 2)).encode()
        await send({**start, "headers": [*headers, (b"content-length", promised)]})
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        await _hang_up(connection)


async def _body(receive: Receive) -> bytes:
    """Return the whole body of a request, as far as its client sends it."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that was read already, and then goes on with ``receive``."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _half(scope: Scope, receive: Receive) -> None:
    """Wait for half of a request's body."""
    length = int(dict(scope["headers"]).get(b"content-length", b"0"))
    came, there = 0, True
    while came < length / 2 and there:
        message = await receive()
        came += len(message.get("body", b""))
        there = message["type"] != "http.disconnect"


async def _hang_up(receive: Receive) -> None:
    """Close the connection under a request that has not been answered.

    ASGI has no word for it; ``receive`` is a method of uvicorn's request cycle, which has the transport.
    """
    transport: Any = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        raise RuntimeError("the sandbox can drop connections only under uvicorn")
    transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass
