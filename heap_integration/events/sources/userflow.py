"""Userflow's signed webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from heap_integration.events.event import Event, Refusal
from heap_integration.events.sources.landed import Landed
from heap_integration.events.sources.signatures import BadSignature, verify_stamped
from heap_integration.events.sources.values import Unreadable, as_text, parse_time, shown

__all__ = [
    "DISPLAY_NAMES",
    "BadSignature",
    "event_from_notification",
    "read_landed",
    "read_landed_events",
    "verify",
]

TOLERANCE_SECONDS = 300
# What the hub itself has told Userflow of Heap's segments does not go back to Heap.
_MEMBERSHIPS = "heap_segment"
_PROFILES = ("user", "group")

# Userflow's own events under the names that its Heap integration shows
DISPLAY_NAMES = {
    code: code.replace("_", " ").title().replace("Ab", "AB")
    for code in (
        "announcement_seen",
        "assistant_feedback_submitted",
        "assistant_message_sent",
        "assistant_rating_submitted",
        "banner_dismissed",
        "banner_seen",
        "checklist_completed",
        "checklist_ended",
        "checklist_hidden",
        "checklist_shown",
        "checklist_started",
        "checklist_task_clicked",
        "checklist_task_completed",
        "flow_completed",
        "flow_ended",
        "flow_started",
        "flow_step_seen",
        "launcher_activated",
        "launcher_dismissed",
        "launcher_seen",
        "page_viewed",
        "question_answered",
        "random_ab_assigned",
        "random_number_assigned",
        "resource_center_clicked",
        "resource_center_closed",
        "resource_center_opened",
        "tooltip_target_missing",
    )
}


def verify(secret: str, header: str, body: bytes, now: float) -> None:
    """Check ``Userflow-Signature: t=<seconds>,v1=<hex>``: HMAC-SHA256 of the moment, a dot and the raw body.

    Raises:
        BadSignature: malformed, older or newer than 300 s, or signed with another secret.
    """
    verify_stamped(
        "Userflow-Signature", header, secret, lambda stamp: stamp + b"." + body, now, tolerance=TOLERANCE_SECONDS
    )


def read_landed(landed: Landed) -> Iterator[Event | Refusal | None]:
    """Read a landed notification: an event, or what is told of a user or group."""
    yield event_from_notification(landed.body)


def read_landed_events(landed: Landed) -> Iterator[Event | Refusal | None]:
    """Read a landed notification where nothing is wanted of users and groups."""
    topic = landed.body.get("topic")
    of_profile = isinstance(topic, str) and topic.split(".")[0] in _PROFILES
    yield None if of_profile else event_from_notification(landed.body)


def event_from_notification(payload: dict[str, Any]) -> Event | Refusal | None:
    """Read one notification; ``None`` for a user or group without attributes, or that is gone."""
    topic = payload.get("topic")
    if payload.get("object") != "webhook_notification" or not isinstance(topic, str):
        return Refusal("not a Userflow notification: no topic")
    family, action = topic.split(".")[0], topic.split(".")[1:2]
    if family in _PROFILES:
        if action not in (["created"], ["updated"]):
            return None
    elif (family, action) != ("event", ["tracked"]):
        return Refusal(f"unknown Userflow topic {shown(topic)}")
    data = payload.get("data")
    told = data.get("object") if isinstance(data, dict) else None
    if not isinstance(told, dict):
        return Refusal(f"the notification holds no {family}")
    try:
        return _profile(family, payload, told) if family in _PROFILES else _event(payload, told)
    except Unreadable as error:
        return Refusal(str(error))


def _profile(family: str, notification: dict[str, Any], told: dict[str, Any]) -> Event | Refusal | None:
    identifier = as_text(told.get("id"))
    attributes = {name: value for name, value in _attributes(told).items() if not name.startswith(_MEMBERSHIPS)}
    if not attributes or _is_echo(notification):
        return None
    if identifier is None:
        return Refusal(f"the {family} has no id")
    of_user = family == "user"
    return Event(
        type="identify" if of_user else "group",
        name="",
        user_id=identifier if of_user else None,
        anonymous_id=None,
        timestamp=parse_time(notification.get("created_at")),
        message_id=_message_id(notification),
        traits=attributes,
        context={} if of_user else {"groupId": identifier},
        source="userflow",
    )


def _is_echo(notification: dict[str, Any]) -> bool:
    """Say whether nothing has changed but what the hub itself has written; where that stands is not documented."""
    data = notification.get("data")
    places = (notification, data) if isinstance(data, dict) else (notification,)
    changed = [place.get("updated_attributes") for place in places]
    names = [name for names in changed if isinstance(names, dict | list) for name in names]
    return bool(names) and all(str(name).startswith(_MEMBERSHIPS) for name in names)


def _event(notification: dict[str, Any], tracked: dict[str, Any]) -> Event | Refusal:
    code = as_text(tracked.get("name"))
    user_id = as_text(tracked.get("user_id"))
    attributes = _attributes(tracked)
    if code is None:
        return Refusal("no event name")
    if user_id is None:
        return Refusal("no user: the event belongs to a group alone")
    group_id = as_text(tracked.get("group_id"))
    return Event(
        type="track",
        name=DISPLAY_NAMES.get(code, code),
        user_id=user_id,
        anonymous_id=None,
        timestamp=parse_time(tracked.get("time") or tracked.get("created_at") or notification.get("created_at")),
        message_id=_message_id(notification),
        properties=attributes,
        context={"groupId": group_id} if group_id else {},
        source="userflow",
    )


def _attributes(told: dict[str, Any]) -> dict[str, Any]:
    attributes = told.get("attributes")
    if not isinstance(attributes, dict | None):
        raise Unreadable(f"attributes is not an object: {shown(attributes)}")
    return attributes or {}


def _message_id(notification: dict[str, Any]) -> str:
    identifier = as_text(notification.get("id"))
    return f"userflow-{identifier}" if identifier else ""
