"""Heap's own event webhooks (beta), kept for those who want Heap's events within seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from heap_integration.events.event import Event, Refusal
from heap_integration.events.sources.landed import Landed
from heap_integration.events.sources.paths import find, without
from heap_integration.events.sources.values import Unreadable, parse_time

HEAPS_OWN = "Heap's own event: it is not sent back to Heap"

# Each webhook's body is made in Heap by hand, with one level of nesting: where its parts are likely to stand.
_NAMES = ("event", "event_name", "eventName", "event.name", "event.event_name", "name")
_IDENTITIES = ("identity", "user_identity", "user.identity", "user.user_identity", "user", "email", "user.email")
_USER_IDS = ("user_id", "userId", "heap_user_id", "user.user_id", "user.id")
_TIMES = ("time", "timestamp", "event_time", "event.time", "event.timestamp", "occurred_at")


def read_landed(landed: Landed) -> Iterator[Event | Refusal | None]:
    """Read a landed webhook."""
    event = event_from_heap(landed.body)
    if isinstance(event, Event) and event.timestamp is None:
        landed.tell_apart(event)
    yield event


def event_from_heap(payload: dict[str, Any]) -> Event | Refusal:
    """Read one event of Heap's, which is kept and never sent back.

    An identity becomes the user id, Heap's own number of a user the anonymous id; what has no meaning of
    its own stays a property.
    """
    name, identity, number, time = (find(payload, paths) for paths in (_NAMES, _IDENTITIES, _USER_IDS, _TIMES))
    if not name.path:
        return Refusal(f"no event name: none of {', '.join(_NAMES)} is there")
    if not identity.path and not number.path:
        return Refusal(f"no user: none of {', '.join((*_IDENTITIES, *_USER_IDS))} is there")
    try:
        return Event(
            type="track",
            name=name.text or "",
            user_id=identity.text,
            anonymous_id=number.text,
            timestamp=parse_time(time.value),
            properties=without(payload, name, identity, number, time),
            source="heap_webhooks",
            suppressed=HEAPS_OWN,
        )
    except Unreadable as error:
        return Refusal(str(error))
