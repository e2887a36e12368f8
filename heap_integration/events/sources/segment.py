"""Segment's calls, as every Segment-style client and Customer.io Data Pipelines send them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, get_args

from heap_integration.events.encoding import encode
from heap_integration.events.event import Event, EventType, Refusal
from heap_integration.events.sources.landed import WRITE_KEY, Landed
from heap_integration.events.sources.values import Unreadable, as_text, parse_time, shown

NOT_FOR_HEAP = "the call's integrations leave out Heap"
TOO_LARGE = "the call is larger than its client's limit"

_TYPES: tuple[EventType, ...] = get_args(EventType)
# the rest has no place of its own in an event, and is kept in the context
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
        WRITE_KEY,
    ]
)
# what a call of another type holds, where it doesn't say its type
_TELLING: tuple[tuple[str, EventType], ...] = (
    ("event", "track"),
    ("previousId", "alias"),
    ("groupId", "group"),
    ("traits", "identify"),
)
# What a batch says once for all of its calls is kept with each of them, and a call may be two characters.
_SHARED_BYTES = 16_000_000
_MOST_CALLS = 50_000

Reader = Callable[[dict[str, Any]], Event | Refusal | None]


def read_landed(landed: Landed) -> Iterator[Event | Refusal | None]:
    """Read a landed call, or each call of a batch."""
    yield from read_calls(landed, event_from_segment)


def read_calls(landed: Landed, read: Reader) -> Iterator[Event | Refusal | None]:
    """Read a landed call or batch, each call by ``read``; ``None`` for an empty batch.

    ``context`` and ``integrations`` of a batch hold for all of its calls, which may say otherwise for
    themselves. Without a message id it is the landing line and the place in it that make a call unlike
    others: two like calls are two events.
    """
    if landed.body.get("type") != "batch":
        yield _told_apart(read(landed.body), landed, None)
        return
    try:
        calls, shared = _batch(landed.body)
    except Unreadable as error:
        yield Refusal(str(error))
        return
    if not calls:
        yield None
    for place, call in enumerate(calls):
        if not isinstance(call, dict):
            refusal = Refusal(f"the call is not a JSON object: {shown(call)}")
            yield _alone(refusal, landed, {"type": "batch", "batch": [call]}, place)
            continue
        whole = _with(shared, call) if shared else call
        event = Refusal(TOO_LARGE) if place in landed.over_limit else read(whole)
        if isinstance(event, Refusal):
            yield _alone(event, landed, whole, place)
        else:
            yield _told_apart(event, landed, place)


def event_from_segment(payload: dict[str, Any]) -> Event | Refusal:
    """Read one call. Members without a place of their own are kept in the context, but not the write key."""
    try:
        event = _event(payload)
        missing = _missing(event)
    except Unreadable as error:
        return Refusal(str(error))
    if missing:
        return Refusal(missing)
    return event


def _event(payload: dict[str, Any]) -> Event:
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
        suppressed="" if _for_heap(payload.get("integrations")) else NOT_FOR_HEAP,
    )
    others = {key: value for key, value in payload.items() if key not in _PLACED}
    if others:
        event.context = others | event.context
    if kind == "group":
        event.context = event.context | {"groupId": as_text(payload.get("groupId"))}
    elif kind == "alias":
        event.context = event.context | {"previousId": as_text(payload.get("previousId"))}
    return event


def _missing(event: Event) -> str:
    """Return what a call lacks in words; empty where it has all that its type needs."""
    if event.type == "group":
        return "" if event.context["groupId"] else "no group: groupId is missing"
    if event.type == "alias":
        return "" if event.context["previousId"] and event.user_id else "an alias needs userId and previousId"
    if event.user_id is None and event.anonymous_id is None:
        return "no user: neither userId nor anonymousId"
    return "" if event.type != "track" or event.name else "no event name"


def _type(payload: dict[str, Any]) -> EventType:
    kind = payload.get("type")
    if kind is None:
        for member, told in _TELLING:
            if payload.get(member):
                return told
        raise Unreadable("no type")
    for known in _TYPES:
        if kind == known:
            return known
    raise Unreadable(f"type {shown(kind)} is none of {', '.join(_TYPES)}")


def _object(payload: dict[str, Any], field: str) -> dict[str, Any]:
    value = payload.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Unreadable(f"{field} is not an object: {shown(value)}")
    return value


def _for_heap(integrations: Any) -> bool:
    """Say whether a call may go to Heap: ``Heap`` decides where it is named, else ``All``; settings are a yes."""
    if not isinstance(integrations, dict):
        return True
    said = {name.casefold(): wanted for name, wanted in integrations.items() if wanted is not None}
    return bool(said.get("heap", said.get("all", True)) is not False)


def _batch(body: dict[str, Any]) -> tuple[list[Any], dict[str, dict[str, Any]]]:
    calls = body.get("batch")
    if not isinstance(calls, list):
        raise Unreadable("batch is not a list of calls")
    if len(calls) > _MOST_CALLS:
        raise Unreadable(f"the batch holds more than {_MOST_CALLS:,} calls")
    shared = {name: told for name in ("context", "integrations") if (told := _object(body, name))}
    if shared and _size(shared) * len(calls) > _SHARED_BYTES:
        raise Unreadable("the context that the batch's calls share is too large for so many calls")
    return calls, shared


def _size(shared: dict[str, dict[str, Any]]) -> int:
    try:
        return len(encode(shared))
    except TypeError as error:
        raise Unreadable(f"the batch's context has no JSON form: {error}") from error


def _with(shared: dict[str, dict[str, Any]], call: dict[str, Any]) -> dict[str, Any]:
    """Return a call with what its batch says for all of them; what isn't an object is left for the reader."""
    merged = dict(call)
    for name, told in shared.items():
        own = call.get(name)
        if own is None:
            merged[name] = told
        elif isinstance(own, dict):
            merged[name] = told | own
    return merged


def _told_apart(event: Event | Refusal | None, landed: Landed, place: int | None) -> Event | Refusal | None:
    return landed.tell_apart(event, place) if isinstance(event, Event) and not event.message_id else event


def _alone(refusal: Refusal, landed: Landed, call: dict[str, Any], place: int) -> Refusal:
    return Refusal(refusal.reason, landed.text(call, place))
