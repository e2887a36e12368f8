"""What strict mode asks of Segment's calls: no more than that they can be loaded, said without their content."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from heap_integration.events.sources.values import Unreadable, as_text, parse_time

TYPES: Final = ("track", "identify", "page", "screen", "group", "alias")
# The members of each type that are ids or names.
_TEXTS = dict.fromkeys(TYPES, ("userId", "anonymousId", "messageId", "name")) | {
    "track": ("userId", "anonymousId", "messageId", "event"),
    "group": ("userId", "anonymousId", "messageId", "name", "groupId"),
    "alias": ("userId", "anonymousId", "messageId", "name", "previousId"),
}
_OBJECTS = ("properties", "traits", "context")


def call_problem(call: dict[str, Any], kind: object) -> str:
    """Return what is wrong with a call of type ``kind``; empty where nothing is."""
    if not isinstance(kind, str) or kind not in TYPES:
        return f"type is not one of {', '.join(TYPES)}"
    for name in _TEXTS[kind]:
        if not _readable(as_text, call.get(name)):
            return f"{name} is neither text nor a whole number"
    if not _readable(parse_time, call.get("timestamp") or call.get("originalTimestamp")):
        return "timestamp is not a moment in ISO 8601"
    for name in _OBJECTS:
        if not isinstance(call.get(name), dict | None):
            return f"{name} is not an object"
    return _missing({name for name in _TEXTS[kind] if as_text(call.get(name))}, kind)


def batch_problem(payload: dict[str, Any], over_limit: Collection[int]) -> str:
    """Return what is wrong with the first bad call of a batch; empty where nothing is.

    ``over_limit`` are the places, from 0, of calls that are too large.
    """
    calls = payload.get("batch")
    if not isinstance(calls, list):
        return "batch is not a list of calls"
    for name in ("context", "integrations"):
        if not isinstance(payload.get(name), dict | None):
            return f"{name} is not an object"
    for place, call in enumerate(calls):
        if place in over_limit:
            return f"batch[{place}] is larger than a call may be"
        problem = call_problem(call, call.get("type")) if isinstance(call, dict) else "the call is not an object"
        if problem:
            return f"batch[{place}]: {problem}"
    return ""


def _missing(given: set[str], kind: str) -> str:
    if kind == "alias":
        return "" if {"userId", "previousId"} <= given else "an alias needs userId and previousId"
    if kind == "group":
        return "" if "groupId" in given else "a group call needs groupId"
    if not given & {"userId", "anonymousId"}:
        return "userId or anonymousId is missing"
    return "a track call needs event" if kind == "track" and "event" not in given else ""


def _readable(read: Callable[[Any], object], value: Any) -> bool:
    try:
        read(value)
    except Unreadable:
        return False
    return True
