"""What was received on its way into the landing: one line a request, and no answer before it is durable."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson

from heap_integration.landing import Landing, LandingClosed
from heap_integration.receiver.exchange import try_again
from heap_integration.receiver.metrics import Metrics
from heap_integration.receiver.settings import Switch

log = logging.getLogger(__name__)

LONGEST_ID = 255


@dataclass(slots=True)
class Received:
    """One request's content.

    ``source`` is the name that its events bear, ``adapter`` who can read the body, ``body`` the JSON text
    as it came. ``refused`` says why nothing of it is to be used, ``over_limit`` which calls of a batch are
    larger than allowed (from 0), ``calls`` how many there are.
    """

    source: str
    adapter: str
    body: bytes
    identifier: object = None
    calls: int = 1
    refused: str = ""
    over_limit: Sequence[int] = ()


class Intake:
    """Writes landing lines, unless the switch of their source says otherwise."""

    def __init__(self, landing: Landing, switch: Switch, clock: Callable[[], float], metrics: Metrics) -> None:
        self._landing = landing
        self._switch = switch
        self._clock = clock
        self._metrics = metrics

    async def keep(self, received: Received) -> None:
        """Return when the line is durable.

        Raises:
            Refused: 503, because it can't be kept now.
        """
        suppressed = self._switch(received.source) == "drop"
        line = landing_line(received, self._clock(), suppressed=suppressed)
        started = time.perf_counter()
        try:
            await self._landing.append(line)
        except LandingClosed:
            raise try_again("the receiver is being stopped, send it again") from None
        except Exception as error:
            # Whatever it is, nothing was kept; its text may quote the line.
            log.debug("a line was not kept: %s", type(error).__name__)
            raise try_again("can't keep it now, send it again") from None
        self._metrics.landed(received.source, received.calls, len(line), time.perf_counter() - started, suppressed)


def landing_line(received: Received, now: float, *, suppressed: bool) -> bytes:
    """Return the line of one request, received at ``now`` seconds since the epoch."""
    line: dict[str, Any] = {
        "id": received.identifier if _short_text(received.identifier) else str(uuid4()),
        "received_at": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
        "source": received.source,
        "adapter": received.adapter,
    }
    if suppressed:
        line["suppressed"] = f"received while the stream of {received.source} was off"
    if received.refused:
        line["refused"] = received.refused
    if received.over_limit:
        line["over_limit"] = received.over_limit
    # The original text, because parsing loses digits of large numbers. A line break in JSON can only
    # stand between its tokens.
    body = received.body
    if b"\n" in body or b"\r" in body:
        body = body.replace(b"\n", b" ").replace(b"\r", b" ")
    line["body"] = orjson.Fragment(body)
    return orjson.dumps(line)


def _short_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_ID
