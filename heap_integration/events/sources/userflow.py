"""Userflow's signed webhooks."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from heap_integration.events.event import Event, Refusal
from heap_integration.events.sources.values import Unreadable, as_text, parse_time, shown

TOLERANCE_SECONDS = 300

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


class BadSignature(Exception):
    """A notification that Userflow did not sign, or not just now."""


def verify(secret: str, header: str, body: bytes, now: float) -> None:
    """Check ``Userflow-Signature: t=<seconds>,v1=<hex>`` over the raw body.

    Raises:
        BadSignature: malformed, older or newer than 300 s, or signed with another secret.
    """
    parts = dict(part.strip().partition("=")[::2] for part in header.split(","))
    stamp, signature = parts.get("t", ""), parts.get("v1", "")
    if not (stamp.isascii() and stamp.isdigit() and signature):
        raise BadSignature("the Userflow-Signature header is not t=<seconds>,v1=<hex>")
    signed = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(signed.encode(), signature.lower().encode(errors="replace")):
        raise BadSignature("the signature does not match the signing secret")
    if abs(now - int(stamp)) > TOLERANCE_SECONDS:
        raise BadSignature(f"the signature is not from the last {TOLERANCE_SECONDS} seconds")


def event_from_notification(payload: dict[str, Any]) -> Event | Refusal | None:
    """Read one notification; ``None`` for a topic that is not an event."""
    topic = payload.get("topic")
    if payload.get("object") != "webhook_notification" or not isinstance(topic, str):
        return Refusal("not a Userflow notification: no topic")
    if topic.split(".")[0] in ("user", "group"):
        return None
    if topic.split(".")[:2] != ["event", "tracked"]:
        return Refusal(f"unknown Userflow topic {shown(topic)}")
    data = payload.get("data")
    tracked = data.get("object") if isinstance(data, dict) else None
    if not isinstance(tracked, dict):
        return Refusal("the notification holds no event")
    try:
        return _event(payload, tracked)
    except Unreadable as error:
        return Refusal(str(error))


def _event(notification: dict[str, Any], tracked: dict[str, Any]) -> Event | Refusal:
    code = as_text(tracked.get("name"))
    user_id = as_text(tracked.get("user_id"))
    attributes = tracked.get("attributes")
    if code is None:
        return Refusal("no event name")
    if user_id is None:
        return Refusal("no user: the event belongs to a group alone")
    if not isinstance(attributes, dict | None):
        return Refusal(f"attributes is not an object: {shown(attributes)}")
    identifier = as_text(notification.get("id"))
    group_id = as_text(tracked.get("group_id"))
    return Event(
        type="track",
        name=DISPLAY_NAMES.get(code, code),
        user_id=user_id,
        anonymous_id=None,
        timestamp=parse_time(tracked.get("time") or tracked.get("created_at") or notification.get("created_at")),
        message_id=f"userflow-{identifier}" if identifier else "",
        properties=attributes or {},
        context={"groupId": group_id} if group_id else {},
        source="userflow",
    )
