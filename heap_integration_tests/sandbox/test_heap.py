"""Heap's write endpoints: what they store, what they refuse and in which words."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox


def post(sandbox: RunningSandbox, path: str, **body: Any) -> httpx.Response:
    return sandbox.client.post(path, json={"app_id": sandbox.app_id, **body})


def test_a_tracked_event_is_stored_as_heap_would_store_it(sandbox: RunningSandbox) -> None:
    answer = post(
        sandbox,
        "/api/track",
        identity="ada@example.com",
        event="Invoice Paid",
        timestamp="2026-01-02T05:04:05+02:00",
        properties={"amount": 12.5, "tags": ["vanilla", "chocolate", 3], "long": ["x" * 1000, "y" * 1000]},
    )

    assert (answer.status_code, answer.json()) == (200, {})
    [event] = sandbox.events()
    assert event["timestamp"] == "2026-01-02T03:04:05.000Z"
    assert event["properties"]["tags"] == "vanilla||chocolate||3"
    assert len(event["properties"]["long"]) == 1024


def test_the_first_write_of_an_idempotency_key_wins_within_its_environment(sandbox: RunningSandbox) -> None:
    events = [
        {"identity": "ada", "event": "First", "idempotency_key": "k1"},
        {"identity": "ada", "event": "Second", "idempotency_key": "k1"},
        {"identity": "ada", "event": "No key"},
    ]
    post(sandbox, "/api/track", events=events)
    again = post(sandbox, "/api/track", events=events)
    other = post(sandbox, "/api/track", app_id="2000000002", events=events[:1])

    assert again.status_code == other.status_code == 200
    assert [event["event"] for event in sandbox.events()] == ["First", "No key", "No key"]
    assert sandbox.counts()["duplicates"] == 3
    assert sandbox.counts("2000000002")["events"] == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"properties": []}, "postBody.events[0].properties should be object"),
        ({"properties": {"a b": True}}, "postBody.events[0].properties['a b'] should be string,number"),
        ({"properties": {"a": {"b": 1}}}, "postBody.events[0].properties.a should be string,number"),
        ({"properties": {"a": "x" * 1025}}, "properties.a should NOT be longer than 1024 characters"),
        ({"event": "x" * 1025}, "postBody.events[0].event should NOT be longer than 1024 characters"),
        ({"identity": "x" * 256}, "postBody.events[0].identity should NOT be longer than 255 characters"),
        ({"user_id": "7"}, "should match exactly one schema in oneOf"),
        ({"timestamp": 1_700_000_000_000}, "postBody.events[0].timestamp should be string"),
        ({"timestamp": "yesterday"}, 'postBody.events[0].timestamp should match format "date-time"'),
        ({"app_id": "12"}, "app_id is not an environment of this sandbox"),
    ],
)
def test_a_broken_rule_is_answered_400_with_its_place(
    sandbox: RunningSandbox, change: dict[str, Any], text: str
) -> None:
    answer = post(sandbox, "/api/track", **({"identity": "ada", "event": "E"} | change))

    assert answer.status_code == 400
    assert text in answer.text
    assert sandbox.events() == []


def test_values_of_exactly_the_limit_pass(sandbox: RunningSandbox) -> None:
    answer = post(sandbox, "/api/track", identity="i" * 255, event="e" * 1024, properties={"k" * 1024: "v" * 1024})

    assert answer.status_code == 200


def test_what_the_documentation_leaves_open_is_a_setting(tmp_path: Path) -> None:
    with running_sandbox(tmp_path, booleans="accept", long_values="cut") as sandbox:
        post(sandbox, "/api/track", identity="ada", event="E", properties={"vip": True, "note": "x" * 2000})

        assert sandbox.events()[0]["properties"] == {"vip": True, "note": "x" * 1024}


def test_one_bad_event_refuses_its_whole_batch(sandbox: RunningSandbox) -> None:
    events: list[dict[str, Any]] = [{"identity": f"u{number}", "event": "E"} for number in range(1000)]
    events[700]["event"] = 5

    answer = post(sandbox, "/api/track", events=events)
    too_many = post(sandbox, "/api/track", events=[{"identity": "u", "event": "E"}] * 1001)

    assert (answer.status_code, answer.text) == (400, "postBody.events[700].event should be string")
    assert (too_many.status_code, too_many.text) == (
        400,
        "postBody.events should NOT have more than 1000 items",
    )
    assert sandbox.state("events/count")["count"] == 0
    assert sandbox.counts()["rejected_requests"] == 2


def test_the_documented_rate_limits_hold_and_can_be_lifted(sandbox: RunningSandbox) -> None:
    def bulk(start: int, count: int, people: int) -> int:
        events = [{"identity": f"u{(start + n) % people}", "event": "E"} for n in range(count)]
        return post(sandbox, "/api/track", events=events).status_code

    assert [bulk(0, 600, 1), bulk(0, 500, 1)] == [200, 429]
    assert [bulk(n * 1000, 1000, 5000) for n in range(16)] == [200] * 14 + [429] * 2
    assert sandbox.counts()["events"] == 14_600
    single = [post(sandbox, "/api/track", identity="solo", event="E").status_code for _ in range(32)]
    assert single.count(200) in (30, 31)
    properties = {"identity": "solo", "properties": {"plan": "pro"}}
    assert 429 in [post(sandbox, "/api/add_user_properties", **properties).status_code for _ in range(33)]
    people = {"users": [{"identity": "many"}, {"identity": "many"}]}
    bulk_properties = [post(sandbox, "/api/add_user_properties", **people).status_code for _ in range(33)]
    assert bulk_properties.count(200) in (30, 31)
    sandbox.client.post("/_limits", json={"enabled": False})
    assert bulk(0, 1000, 1) == 200
    assert sandbox.counts()["rate_limited"] >= 5


def test_the_limits_leak_at_their_own_pace(tmp_path: Path) -> None:
    with running_sandbox(tmp_path, events_per_minute=12_000) as sandbox:
        events = [{"identity": f"u{n}", "event": "E"} for n in range(1000)]
        for _ in range(12):
            assert post(sandbox, "/api/track", events=events).status_code == 200
        assert post(sandbox, "/api/track", events=events).status_code == 429
        time.sleep(0.55)
        assert post(sandbox, "/api/track", events=events[:100]).status_code == 200


def test_identify_moves_an_anonymous_users_events_and_drops_what_heap_drops(sandbox: RunningSandbox) -> None:
    post(sandbox, "/api/track", user_id="77", event="Before")
    for identity in ("ada", "bob"):
        assert post(sandbox, "/api/v1/identify", user_id="77", identity=identity).json() == {}
    post(sandbox, "/api/track", user_id="77", event="After")

    assert [event["identity"] for event in sandbox.events()] == ["ada", "ada"]
    assert [user["identity"] for user in sandbox.state("users")["users"]] == ["ada"]
    for number in range(100, 111):
        post(sandbox, "/api/v1/identify", user_id=str(number), identity="ada")
    assert sandbox.counts()["identifies_dropped"] == 1 + 2


def test_user_properties_merge_and_lowercase_email_is_the_built_in(sandbox: RunningSandbox) -> None:
    post(sandbox, "/api/add_user_properties", identity="ada", properties={"plan": "free", "email": "a@x.io"})
    post(
        sandbox,
        "/api/add_user_properties",
        users=[{"identity": "ada", "properties": {"plan": "pro", "Email": "other"}}, {"identity": "bob"}],
    )
    refused = post(sandbox, "/api/add_user_properties", identity="ada", properties={"Id": "1"})

    [ada] = sandbox.state("users", identity="ada")["users"]
    assert (ada["email"], ada["properties"]) == ("a@x.io", {"plan": "pro", "Email": "other"})
    assert sandbox.counts()["users"] == 2
    assert refused.status_code == 400


def test_account_properties_are_answered_in_text(sandbox: RunningSandbox) -> None:
    single = post(sandbox, "/api/add_account_properties", account_id="Acme", properties={"size": 10})
    bulk = post(
        sandbox,
        "/api/add_account_properties",
        app_id=int(sandbox.app_id),
        accounts=[{"account_id": "Acme", "properties": {"plan": "pro"}}],
    )

    assert (single.text, bulk.text) == ("OK", "OK")
    [account] = sandbox.state("accounts")["accounts"]
    assert account["properties"] == {"size": 10, "plan": "pro"}


def test_a_deletion_is_pending_then_complete_and_really_deletes(sandbox: RunningSandbox) -> None:
    post(sandbox, "/api/track", identity="ada", event="E")
    post(sandbox, "/api/track", user_id="5", event="E")
    post(sandbox, "/api/track", identity="bob", event="E")
    key = sandbox.environment.heap_api_key.get_secret_value()
    refused = sandbox.client.post("/api/public/v0/auth_token", auth=(sandbox.app_id, "wrong"))
    token = sandbox.client.post("/api/public/v0/auth_token", auth=(sandbox.app_id, key)).json()["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    users = {"users": [{"identity": "ada"}, {"user_id": 5}]}
    request = sandbox.client.post("/api/public/v0/user_deletion", json=users, headers=bearer)
    location = request.json()["deletion_request_location"]

    assert (refused.status_code, "err" in refused.json()) == (401, True)
    assert sandbox.client.post("/api/public/v0/user_deletion", json=users).status_code == 401
    assert (request.status_code, request.json()["status"]) == (201, "pending")
    assert sandbox.client.get(location, headers=bearer).json()["status"] == "pending"
    assert sandbox.client.get(f"{location}0", headers=bearer).status_code == 404
    time.sleep(0.25)
    assert sandbox.client.get(location, headers=bearer).json()["status"] == "complete"
    assert [event["identity"] for event in sandbox.events()] == ["bob"]
    assert (sandbox.counts()["events"], sandbox.counts()["users"]) == (1, 1)


def test_a_restart_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    event = {"identity": "ada", "event": "E", "idempotency_key": "k"}
    with running_sandbox(tmp_path) as first:
        post(first, "/api/track", events=[event])
    with running_sandbox(tmp_path) as second:
        post(second, "/api/track", events=[event])
        assert (second.counts()["events"], second.counts()["duplicates"]) == (1, 1)
        second.client.post("/_reset")
        assert second.counts()["events"] == 0
