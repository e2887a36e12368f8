"""What is shown is what would be sent, and nothing is sent."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from heap_integration.events.mapping import Mapping, MappingError
from heap_integration.events.prepare import Preparer, PrepareSettings
from heap_integration.events.preview import preview
from heap_integration_tests.events.conftest import NOW

LINES = "".join(
    json.dumps({"type": "track", "event": "Clicked", "userId": user, "messageId": f"message-{number}"}) + "\n"
    for number, user in enumerate(["u1", "u2", "null", "u4", "u5"], start=1)
)


def shown(
    source: Path | io.BytesIO, mapping: Mapping | None = None, batch_records: int = 1000
) -> list[dict[str, object]]:
    preparer = Preparer(PrepareSettings())
    return list(
        preview(
            source,
            mapping,
            preparer,
            url="https://heapanalytics.com/",
            app_id="11",
            received_at=NOW,
            batch_records=batch_records,
        )
    )


def test_requests_are_whole_and_lines_not_sent_have_a_reason(write: Callable[[str, str], Path]) -> None:
    path = write("calls.ndjson", LINES + "oops\n" + LINES.splitlines()[0] + "\n")
    requests = [entry for entry in shown(path, batch_records=3) if "json" in entry]
    assert [(request["method"], request["url"]) for request in requests] == [
        ("POST", "https://heapanalytics.com/api/track")
    ] * 2
    bodies = [request["json"] for request in requests]
    assert [len(body["events"]) for body in bodies] == [3, 1]  # type: ignore[index]
    assert bodies[1] == {
        "app_id": "11",
        "events": [
            {
                "event": "Clicked",
                "identity": "u5",
                "timestamp": "2026-01-02T03:04:05.000Z",
                "properties": {},
                "idempotency_key": "message-5",
            }
        ],
    }
    reasons = {entry["line"]: entry["rejected"] for entry in shown(path) if "line" in entry}
    assert reasons.keys() == {3, 6, 7}
    assert reasons[3] == "the identity 'null' stands for nobody"
    assert reasons[7] == "the same event as an earlier line"


def test_standard_input_may_be_calls_or_rows() -> None:
    (request,) = shown(io.BytesIO(LINES.splitlines()[0].encode()))
    mapping = Mapping(event="event", user_id="userId", message_id="messageId", properties=())
    (mapped,) = shown(io.BytesIO(b"userId,event,messageId\nu1,Clicked,message-1\n"), mapping)
    (nested,) = shown(io.BytesIO(LINES.splitlines()[0].encode()), mapping)
    assert request == mapped == nested


def test_a_table_without_a_mapping_is_explained(write: Callable[[str, str], Path]) -> None:
    with pytest.raises(MappingError, match="needs a mapping"):
        shown(write("clicks.csv", "user,event\n"))


def test_what_is_told_of_people_and_accounts_is_shown_in_the_requests_it_becomes(tmp_path: Path) -> None:
    calls = [
        {"type": "identify", "userId": "ada", "timestamp": "2026-01-02T00:00:01Z", "traits": {"plan": "pro"}},
        {
            "type": "identify",
            "userId": "ada",
            "timestamp": "2026-01-02T00:00:00Z",
            "traits": {"plan": "free", "age": 36},
        },
        {"type": "group", "groupId": "acme", "traits": {"size": 7}},
        {"type": "identify", "userId": "null", "traits": {"plan": "pro"}},
        {"type": "identify", "userId": "bob", "traits": {"consent": "no"}},
    ]
    file = tmp_path / "calls.ndjson"
    file.write_text("".join(f"{json.dumps(call)}\n" for call in calls))
    preparer = Preparer(PrepareSettings(consent_property="consent"))

    shown = list(preview(file, None, preparer, url="https://heap.example", app_id="11", received_at=NOW))

    assert {item["line"]: item.keys() - {"line"} for item in shown if "line" in item} == {
        4: {"rejected"},
        5: {"suppressed"},
    }
    assert {item["url"]: item["json"] for item in shown if "url" in item} == {
        "https://heap.example/api/add_user_properties": {
            "app_id": "11",
            "users": [{"identity": "ada", "properties": {"plan": "pro", "age": 36}}],
        },
        "https://heap.example/api/add_account_properties": {
            "app_id": "11",
            "accounts": [{"account_id": "acme", "properties": {"size": 7}}],
        },
    }
