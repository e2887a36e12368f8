"""Userpilot's webhooks and exported rows become events under the names that it documents for Heap."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest

from heap_integration.events.event import Event, Refusal
from heap_integration.events.sources.userpilot import (
    FORM_SUBMISSIONS,
    BadSignature,
    event_from_row,
    event_from_webhook,
    verify,
)

SENT_AT = 1_767_323_045


def row(event_name: str = "experience:448:STARTED", event_type: str = "interaction", **columns: Any) -> dict[str, Any]:
    return {
        "app_token": "NX-1",
        "event_type": event_type,
        "event_name": event_name,
        "user_id": "u1",
        "company_id": "acme",
        "source": "web-client",
        "inserted_at": "2026-01-02T03:04:05.123456Z",
        "internal_event_id": "9876543210987654321",
        "hostname": "app.example.com",
        "pathname": "/home",
        "browser": "Firefox",
        "country_code": "",
        "metadata": {"step": 2},
    } | columns


def event(found: Event | Refusal | None) -> Event:
    assert isinstance(found, Event), found
    return found


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("experience:448:STARTED", "Userpilot Experience (started)"),
        ("experience:448:SEEN", "Userpilot Experience (started)"),
        ("flow:448:step", "Userpilot Experience (step)"),
        ("experience:448:DISMISSED", "Userpilot Experience (dismissed)"),
        ("Experience:448:Completed", "Userpilot Experience (completed)"),
        ("checklist:2:SEEN", "Userpilot Checklist (started)"),
        ("checklist:2:TASK_COMPLETED", "Userpilot Checklist (task completed)"),
        ("checklist:2:taskCompleted", "Userpilot Checklist (task completed)"),
        ("checklist:2:COMPLETED", "Userpilot Checklist (completed)"),
        ("checklist:2:DISMISSED", "Userpilot Checklist (dismissed)"),
        ("nps:1:ASK_LATER", "Userpilot NPS (ask later)"),
        ("nps:1:SCORE", "Userpilot NPS (score)"),
        ("nps:1:FEEDBACK", "Userpilot NPS (feedback)"),
        ("form:7:SUBMITTED", FORM_SUBMISSIONS),
        ("experience:448:HOVERED", "Userpilot Experience (hovered)"),
        ("resource_center:5:SEEN", "Userpilot Resource Center (seen)"),
    ],
)
def test_an_interaction_bears_the_documented_name_or_one_in_its_manner(told: str, name: str) -> None:
    found = event(event_from_row(row(told)))
    entity, identifier, status = told.split(":")
    assert found.name == name
    assert found.properties == {
        "hostname": "app.example.com",
        "pathname": "/home",
        "step": 2,
        "entity_type": entity,
        "entity_id": identifier,
        "interaction_status": status,
    }


def test_a_row_keeps_its_ids_its_time_and_its_surroundings() -> None:
    found = event(event_from_row(row()))
    assert (found.type, found.user_id, found.message_id) == ("track", "u1", "userpilot-9876543210987654321")
    assert found.timestamp is not None
    assert found.timestamp.isoformat() == "2026-01-02T03:04:05.123456+00:00"
    assert found.context == {"groupId": "acme", "source": "web-client", "browser": "Firefox"}


def test_rows_of_csv_are_read_like_those_of_ndjson() -> None:
    text = dict.fromkeys(row(), "") | row(metadata='{"step": 2}', country_code="")
    assert event_from_row(text) == event_from_row(row())
    assert event(event_from_row(row(metadata=""))).properties == event(event_from_row(row(metadata=None))).properties


def test_the_other_types_of_rows_are_what_they_say() -> None:
    tracked = event(event_from_row(row("Invoice Paid", "track", metadata={"total": 3})))
    assert (tracked.type, tracked.name, tracked.properties["total"]) == ("track", "Invoice Paid", 3)
    page = event(event_from_row(row("", "page_view")))
    assert (page.type, page.name, page.properties["pathname"]) == ("page", "", "/home")
    feature = event(event_from_row(row("77", "track_feature")))
    assert (feature.name, feature.properties["feature_id"]) == ("Userpilot Feature Tag", "77")
    user = event(event_from_row(row("", "identify_user", metadata={"email": "ada@example.com"})))
    assert (user.type, user.traits, user.properties) == ("identify", {"email": "ada@example.com"}, {})
    company = event(event_from_row(row("", "identify_company", user_id=None, metadata={"name": "Acme"})))
    assert (company.type, company.user_id, company.traits) == ("group", None, {"name": "Acme"})
    assert company.context["groupId"] == "acme"
    assert event_from_row(row("", "session_start")) is None


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"event_type": None}, "no event_type"),
        ({"event_type": "dance"}, "event_type 'dance' is none of interaction, track"),
        ({"event_name": "experience"}, "event_name 'experience' is not <entity>:<id>:<status>"),
        ({"event_name": ""}, "no event name"),
        ({"user_id": ""}, "no user: user_id is empty"),
        ({"event_type": "identify_company", "company_id": ""}, "no company: company_id is empty"),
        ({"metadata": "{"}, "metadata is not JSON"),
        ({"metadata": [1]}, "metadata is not an object: [1]"),
        ({"inserted_at": "yesterday"}, "timestamp 'yesterday' can't be read"),
    ],
)
def test_a_row_that_is_no_event_is_refused_in_words(columns: dict[str, Any], reason: str) -> None:
    found = event_from_row(row(**columns))
    assert isinstance(found, Refusal)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        ({"event_name": "Flow Completed", "user_id": "u1"}, "Userpilot Experience (completed)"),
        ({"event": "flow_started", "userId": "u1"}, "Userpilot Experience (started)"),
        ({"event": {"type": "checklist.dismissed"}, "user": {"id": "u1"}}, "Userpilot Checklist (dismissed)"),
        ({"event_type": "nps_dismissed", "user": "u1"}, "Userpilot NPS (ask later)"),
        ({"event_type": "interaction", "event_name": "NPS Score", "user_id": "u1"}, "Userpilot NPS (score)"),
        ({"type": "Userpilot NPS (feedback)", "user_id": "u1"}, "Userpilot NPS (feedback)"),
        ({"event": "Form Submitted", "user_id": "u1"}, FORM_SUBMISSIONS),
        ({"event": "feature_tag_click", "user_id": "u1"}, "Userpilot Feature Tag (click)"),
        ({"event": "experience:448:DISMISSED", "user_id": "u1"}, "Userpilot Experience (dismissed)"),
        ({"event": "Flow designer opened", "user_id": "u1"}, "Flow designer opened"),
        ({"event": "Invoice Paid", "data": {"user_id": "u1"}}, "Invoice Paid"),
        (row(), "Userpilot Experience (started)"),
    ],
)
def test_a_webhook_is_understood_in_whatever_form_it_names_its_event_and_user(
    payload: dict[str, Any], name: str
) -> None:
    found = event(event_from_webhook(payload))
    assert (found.name, found.user_id) == (name, "u1")
    assert found.context["webhook"] == payload


def test_what_a_webhook_says_besides_becomes_properties() -> None:
    flat = event(
        event_from_webhook(
            {
                "event": "Flow Completed",
                "timestamp": SENT_AT,
                "user": {"id": "u1", "plan": "pro"},
                "company": {"id": "acme"},
                "flow_id": 448,
            }
        )
    )
    assert flat.properties == {"user": {"plan": "pro"}, "flow_id": 448}
    assert flat.context["groupId"] == "acme"
    assert flat.timestamp is not None
    assert flat.timestamp.timestamp() == SENT_AT
    nested = event(event_from_webhook({"data": {"event": "nps score", "user_id": 7, "score": 9}}))
    assert (nested.user_id, nested.properties) == ("7", {"score": 9})


def test_a_webhook_that_is_not_understood_is_refused_in_words() -> None:
    unnamed, nobody = event_from_webhook({"user_id": "u1"}), event_from_webhook({"event": "Flow Completed"})
    assert isinstance(unnamed, Refusal)
    assert isinstance(nobody, Refusal)
    assert unnamed.reason.startswith("Userpilot's webhook names no event: none of event_name, event")
    assert nobody.reason.startswith("no user: none of user_id, userId")


def test_a_signature_is_over_the_body_first_and_may_be_hex_or_base64() -> None:
    body = b'{"event": "x"}'
    digest = hmac.digest(b"secret", body + b"." + str(SENT_AT).encode(), hashlib.sha256)
    milliseconds = hmac.new(b"secret", body + f".{SENT_AT}250".encode(), hashlib.sha256).hexdigest()
    verify("secret", f"t={SENT_AT},v1={digest.hex()}", body, SENT_AT + 299)
    verify("secret", f"t={SENT_AT}, v1={base64.b64encode(digest).decode()}", body, SENT_AT)
    verify("secret", f"t={SENT_AT}250,v1={milliseconds}", body, SENT_AT)
    as_userflow = hmac.new(b"secret", f"{SENT_AT}.".encode() + body, hashlib.sha256).hexdigest()
    for header, now, reason in (
        (f"t={SENT_AT},v1={as_userflow}", SENT_AT, "does not match"),
        (f"t={SENT_AT},v1={digest.hex()}", SENT_AT + 301, "not from the last 300 seconds"),
        (f"t={'9' * 5000},v1={digest.hex()}", SENT_AT, "is not t="),
        ("", SENT_AT, "the X-Signature header is not t="),
    ):
        with pytest.raises(BadSignature, match=reason):
            verify("secret", header, body, now)
