"""Faults on demand, between the socket and the stand-ins."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Kind = Literal["latency", "429", "500", "503", "drop", "truncate", "lost_ack"]


class Fault(BaseModel):
    """A rule: requests whose path starts with ``path`` meet the fault.

    Kinds: ``latency`` answers ``seconds`` later; ``429``, ``500`` and ``503`` answer so without applying
    anything; ``drop`` closes the connection without applying anything or answering; ``lost_ack`` applies
    the request, then closes; ``truncate`` applies it and closes halfway through the answer.
    ``next`` limits the rule to that many requests, ``probability`` to a share of them; ``hits`` counts
    those it met.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    path: str = Field(default="/", pattern="^/")
    probability: float = Field(default=1.0, gt=0, le=1)
    next: int | None = Field(default=None, gt=0)
    seconds: float = Field(default=1.0, ge=0)
    retry_after: int | None = Field(default=None, ge=0)
    id: int = 0
    hits: int = 0


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

    def strikes(self, path: str) -> Fault | None:
        """Return the first rule that meets a request for this path, used up by one."""
        if path == "/" or path.startswith("/_"):
            return None
        for rule in self.rules:
            if rule.next == 0 or not path.startswith(rule.path):
                continue
            if rule.probability >= 1 or self._random.random() < rule.probability:
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
        fault = self.faults.strikes(scope["path"]) if scope["type"] == "http" else None
        if fault is None:
            await self.app(scope, receive, send)
        elif fault.kind == "latency":
            await asyncio.sleep(fault.seconds)
            await self.app(scope, receive, send)
        elif fault.kind == "drop":
            await _hang_up(receive)
        elif fault.kind == "lost_ack":
            await self._answer(scope, receive)
            await _hang_up(receive)
        elif fault.kind == "truncate":
            await self._truncated(scope, receive, send)
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

    async def _truncated(self, scope: Scope, receive: Receive, send: Send) -> None:
        start, *parts = await self._answer(scope, receive)
        body = b"".join(part.get("body", b"") for part in parts)
        # an empty or tiny body still has to be cut, so the promise is longer than the answer
        headers = [header for header in start["headers"] if header[0] != b"content-length"]
        promised = str(max(len(body), 2)).encode()
        await send({**start, "headers": [*headers, (b"content-length", promised)]})
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        await _hang_up(receive)


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
