"""The canonical form of an event, after the Segment spec."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

EventType = Literal["track", "identify", "page", "screen", "group", "alias"]


@dataclass(slots=True)
class Event:
    """What somebody did, as a source told it.

    ``message_id`` is unique within the environment, or empty where the source gives none: then the
    content names the event. ``timestamp`` is aware and in UTC; ``None`` where the source gave none,
    which means the moment of receipt. ``occurrence`` tells apart events without a message id whose
    content is the same and which are still not the same event (the line of a file, say). ``suppressed``
    is why the event is kept and never sent to Heap; empty where it may go out.
    """

    type: EventType
    name: str
    user_id: str | None
    anonymous_id: str | None
    timestamp: datetime | None
    message_id: str = ""
    properties: dict[str, Any] = field(default_factory=dict)
    traits: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    occurrence: str = ""
    suppressed: str = ""


@dataclass(slots=True, frozen=True)
class Refusal:
    """Input that can't be an event: why, and what it was, where that is less than what its reader knows anyway."""

    reason: str
    raw: str = ""
