"""Userflow's signed notifications become events under the names that its users know."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any

import pytest

from heap_integration.events.event import Event, Refusal
from heap_integration.events.sources.landed import Landed
from heap_integration.events.sources.userflow import (
    DISPLAY_NAMES,
    BadSignature,
    event_from_notification,
    read_landed_events,
    verify,
)

SENT_AT = 1_767_323_045


def notification(name: str = "flow_started", topic: str = "event.tracked", **tracked: Any) -> dict[str, Any]:
    event = {
        "id": "4738382",
        "object": "event",
        "name": name,
        "attributes": {"flow_name": "Welcome", "flow_version_number": 3},
        "created_at": "2026-01-02T03:04:05.500+00:00",
        "time": "2026-01-02T03:04:05.000+00:00",
        "group": None,
        "group_id": "acme",
        "user": None,
        "user_id": "u1",
    }
    return {
        "id": "ec3a21f3-88fe-43e8-8711-cfc803aaad54",
        "object": "webhook_notification",
        "api_version": "2020-01-03",
        "created_at": "2026-01-02T03:04:06.000+00:00",
        "topic": topic,
        "data": {"object": event | tracked},
    }


def test_an_event_bears_the_name_that_userflow_shows_in_heap() -> None:
    event = event_from_notification(notification(topic="event.tracked.flow_started"))
    assert isinstance(event, Event)
    assert (event.name, event.user_id, event.source) == ("Flow Started", "u1", "userflow")
    assert event.message_id == "userflow-ec3a21f3-88fe-43e8-8711-cfc803aaad54"
    assert event.properties == {"flow_name": "Welcome", "flow_version_number": 3}
    assert event.context == {"groupId": "acme"}
    assert event.timestamp is not None
    assert event.timestamp.isoformat() == "2026-01-02T03:04:05+00:00"


def test_all_of_userflows_own_events_have_a_display_name_and_others_keep_theirs() -> None:
    assert len(DISPLAY_NAMES) == 28
    assert DISPLAY_NAMES["checklist_task_completed"] == "Checklist Task Completed"
    assert DISPLAY_NAMES["random_ab_assigned"] == "Random AB Assigned"
    custom = event_from_notification(notification("subscription_activated"))
    assert isinstance(custom, Event)
    assert custom.name == "subscription_activated"


def profile(topic: str, **told: Any) -> dict[str, Any]:
    family = topic.partition(".")[0]
    told = {"id": "u1", "object": family, "attributes": {"plan": "pro", "seats": 3}, "created_at": "2020-01-01"} | told
    return notification() | {"topic": topic, "data": {"object": told}, "updated_attributes": {"plan": "pro"}}


def test_a_user_and_a_group_become_profiles_with_their_attributes_as_traits() -> None:
    user = event_from_notification(profile("user.updated"))
    assert isinstance(user, Event)
    assert (user.type, user.user_id, user.traits) == ("identify", "u1", {"plan": "pro", "seats": 3})
    assert user.message_id == "userflow-ec3a21f3-88fe-43e8-8711-cfc803aaad54"
    assert user.timestamp is not None
    assert user.timestamp.isoformat() == "2026-01-02T03:04:06+00:00"
    group = event_from_notification(profile("group.created", id="acme"))
    assert isinstance(group, Event)
    assert (group.type, group.user_id, group.context) == ("group", None, {"groupId": "acme"})
    assert group.traits == {"plan": "pro", "seats": 3}


def test_a_profile_that_says_nothing_or_is_gone_is_of_no_use() -> None:
    assert event_from_notification(profile("user.created", attributes={})) is None
    assert event_from_notification(profile("group.created", attributes=None)) is None
    assert event_from_notification(profile("user.deleted")) is None
    assert event_from_notification(profile("user.updated", id=None)) == Refusal("the user has no id")


def test_profiles_can_be_left_out() -> None:
    def landed(body: dict[str, Any]) -> Landed:
        return Landed("1", datetime(2026, 1, 2, tzinfo=UTC), "userflow", "userflow_events", "", body)

    assert list(read_landed_events(landed(profile("user.updated")))) == [None]
    assert list(read_landed_events(landed(profile("group.updated")))) == [None]
    (event,) = read_landed_events(landed(notification()))
    assert isinstance(event, Event)
    assert event.name == "Flow Started"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (notification(user_id=None), "no user: the event belongs to a group alone"),
        (notification(name=""), "no event name"),
        (notification(time="never"), "timestamp 'never' can't be read"),
        (notification(attributes=[1]), "attributes is not an object: [1]"),
        (notification(topic="survey.answered"), "unknown Userflow topic 'survey.answered'"),
        (notification() | {"data": None}, "the notification holds no event"),
        ({"hello": "world"}, "not a Userflow notification: no topic"),
    ],
)
def test_what_is_no_event_is_refused_in_words(payload: dict[str, Any], reason: str) -> None:
    assert event_from_notification(payload) == Refusal(reason)


def signature(secret: str, stamp: int, body: bytes) -> str:
    digest = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={stamp},v1={digest}"


def test_a_signature_counts_for_its_body_its_secret_and_five_minutes() -> None:
    body = b'{"id": 1}'
    good = signature("secret", SENT_AT, body)
    verify("secret", good, body, SENT_AT + 299)
    for secret, header, content, now, reason in (
        ("other", good, body, SENT_AT, "does not match"),
        ("secret", good, b'{"id":1}', SENT_AT, "does not match"),
        ("secret", good, body, SENT_AT + 301, "not from the last 300 seconds"),
        ("secret", good.replace(f"t={SENT_AT}", f"t={SENT_AT + 1}"), body, SENT_AT, "does not match"),
        ("secret", "", body, SENT_AT, "is not t=<seconds>,v1=<hex>"),
        ("secret", "t=١,v1=é", body, SENT_AT, "is not t=<seconds>,v1=<hex>"),
        ("secret", f"t={SENT_AT},v1=é\ud800", body, SENT_AT, "does not match"),
    ):
        with pytest.raises(BadSignature, match=reason):
            verify(secret, header, content, now)


@pytest.mark.parametrize("place", ["top", "data"])
def test_what_the_hub_wrote_into_userflow_does_not_come_back(place: str) -> None:
    told = {"id": "ada", "object": "user", "attributes": {"plan": "pro", "heap_segment_loyal": True}}
    ours, others = {"heap_segment_loyal": True}, {"heap_segments": ["Loyal"], "plan": "pro"}

    def updated(changed: dict[str, object]) -> dict[str, object]:
        body = notification() | {"topic": "user.updated", "data": {"object": told}}
        where = body if place == "top" else body["data"]
        where["updated_attributes"] = changed
        return body

    assert event_from_notification(updated(ours)) is None
    event = event_from_notification(updated(others))
    assert isinstance(event, Event)
    assert event.traits == {"plan": "pro"}
