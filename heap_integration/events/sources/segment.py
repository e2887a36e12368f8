"""Segment's calls, as every Segment-style client and Customer.io Data Pipelines send them."""

from __future__ import annotations

from typing import Any, get_args

from heap_integration.events.event import Event, EventType, Refusal
from heap_integration.events.sources.values import Unreadable, as_text, parse_time, shown

_TYPES: tuple[EventType, ...] = get_args(EventType)
# the write key is a secret; the rest has a place of its own in an event
_PLACED = frozenset(
    [
        "type",
        "event",
        "name",
        "userId",
        "anonymousId",
        "messageId",
        "timestamp",
        "properties",
        "traits",
        "context",
        "writeKey",
    ]
)


def event_from_segment(payload: dict[str, Any]) -> Event | Refusal:
    """Read one call. Fields without a place of their own are kept in the context."""
    try:
        kind = _type(payload)
        name = payload.get("event") if kind == "track" else payload.get("name")
        event = Event(
            type=kind,
            name=as_text(name) or "",
            user_id=as_text(payload.get("userId")),
            anonymous_id=as_text(payload.get("anonymousId")),
            timestamp=parse_time(payload.get("timestamp") or payload.get("originalTimestamp")),
            message_id=as_text(payload.get("messageId")) or "",
            properties=_object(payload, "properties"),
            traits=_object(payload, "traits"),
            context=_object(payload, "context"),
            source="segment",
        )
    except Unreadable as error:
        return Refusal(str(error))
    if event.user_id is None and event.anonymous_id is None:
        return Refusal("no user: neither userId nor anonymousId")
    if kind == "track" and not event.name:
        return Refusal("no event name")
    others = {key: value for key, value in payload.items() if key not in _PLACED}
    if others:
        event.context = others | event.context
    return event


def _type(payload: dict[str, Any]) -> EventType:
    kind = payload.get("type")
    if kind is None and payload.get("event"):
        return "track"
    for known in _TYPES:
        if kind == known:
            return known
    raise Unreadable("no type" if kind is None else f"type {shown(kind)} is none of {', '.join(_TYPES)}")


def _object(payload: dict[str, Any], field: str) -> dict[str, Any]:
    value = payload.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Unreadable(f"{field} is not an object: {shown(value)}")
    return value
