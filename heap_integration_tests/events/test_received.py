"""Userflow's signed notifications become events under the names that its users know."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heap_integration.events.event import Event, Refusal
from heap_integration.events.sources.received import read_landing
from heap_integration.events.sources.userflow import (
    DISPLAY_NAMES,
    BadSignature,
    event_from_notification,
    verify,
)
from heap_integration_tests.events.conftest import events, refused

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


def test_landed_lines_are_events_refusals_or_of_no_use(write: Callable[[str, str], Path]) -> None:
    landed: list[dict[str, Any]] = [
        {"source": "userflow", "body": notification()},
        {"source": "userflow", "body": notification(topic="user.updated")},
        {"source": "carrier pigeon", "body": {}},
        {"source": "userflow", "body": notification(user_id=None)},
        {"source": "userflow", "body": "text"},
    ]
    lines = [json.dumps({"id": "1", "received_at": "2026-01-02T03:04:07Z"} | line) for line in landed]
    (chunk,) = read_landing(write("segment.ndjson", "\n".join([*lines, "half a li"])))

    assert (chunk.lines, chunk.events.num_rows, chunk.refused.num_rows, chunk.unused) == (6, 1, 4, 1)
    assert refused([chunk])[3] == "unknown source 'carrier pigeon'"
    assert refused([chunk])[4] == "no user: the event belongs to a group alone"
    assert '"user_id": null' in chunk.refused.to_pylist()[1]["raw"]
    (event,) = events([chunk])
    assert event["received_at"].isoformat() == "2026-01-02T03:04:07"


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
