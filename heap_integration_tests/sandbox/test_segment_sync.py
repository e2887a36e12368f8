"""Segment Sync as a receiver sees it: signed pages of changes, repeated until they are received."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from heap_integration.sandbox.settings import SandboxEnvironment
from heap_integration_tests.sandbox.conftest import SECOND
from heap_integration_tests.support.recorder import Received, Recorder, recorder
from heap_integration_tests.support.sandbox import RunningSandbox


@pytest.fixture
def receiver() -> Iterator[Recorder]:
    with recorder() as record:
        yield record


def define(sandbox: RunningSandbox, url: str | None, members: list[str], **more: Any) -> None:
    body = {"id": 1338065, "name": "Free Customers", "members": members, "webhook_url": url, **more}
    assert sandbox.client.post(f"/_heap/{sandbox.app_id}/segments", json=body).status_code == 201


def sync(sandbox: RunningSandbox, **options: Any) -> Any:
    answer = sandbox.client.post(f"/_heap/{sandbox.app_id}/segments/1338065/sync", json=options)
    return answer.raise_for_status().json()


def signed(sandbox: RunningSandbox, request: Received) -> tuple[bool, float]:
    """Return whether the signature holds, and how old it says it is."""
    ts, mac = (part.partition(":")[2] for part in request.headers["heap-hash"].split(","))
    secret = sandbox.environment.heap_webhook_secret.get_secret_value()
    expected = hmac.new(secret.encode(), ts.encode() + request.body, hashlib.sha256).digest()
    return base64.b64encode(expected).decode() == mac, time.time() - int(ts) / 1000


def test_only_changes_since_the_last_received_sync_are_sent(sandbox: RunningSandbox, receiver: Recorder) -> None:
    define(sandbox, receiver.url, ["ada", "bob", "zoë"], page_size=2)
    first = sync(sandbox)
    sandbox.client.post(f"/_heap/{sandbox.app_id}/segments/1338065/members", json={"add": ["cy"], "remove": ["bob"]})
    second, third = sync(sandbox), sync(sandbox)

    assert (first["added"], first["removed"], len(first["pages"])) == (3, 0, 2)
    assert (second["added"], second["removed"]) == (1, 1)
    assert third["pages"] == []
    bodies = [json.loads(request.body) for request in receiver.requests]
    assert [body["data"].get("add") for body in bodies] == [
        [{"id": "ada"}, {"id": "bob"}],
        [{"id": "zoë"}],
        [{"id": "cy"}],
    ]
    assert bodies[1]["data"]["sync_info"] == {
        "page_number": 2,
        "total_pages": 2,
        "sync_task_id": first["sync_task_id"],
    }
    assert bodies[2]["data"]["remove"] == [{"id": "bob"}]
    for request in receiver.requests:
        valid, age = signed(sandbox, request)
        assert valid
        assert 0 <= age < 5
        compact = json.dumps(json.loads(request.body), separators=(",", ":"), ensure_ascii=False)
        assert request.body == compact.encode()


def test_a_page_that_is_not_received_is_sent_again_and_its_members_stay_unacknowledged(
    sandbox: RunningSandbox, receiver: Recorder
) -> None:
    define(sandbox, receiver.url, ["ada", "bob"], page_size=1)
    receiver.statuses = [503, 429, 200, 500, 500]
    failed = sync(sandbox, attempts=2)
    assert [page["status"] for page in failed["pages"]] == [429, 200]
    receiver.statuses = []

    assert failed["acknowledged"] is False
    assert sandbox.state("segments")["segments"][0]["acknowledged"] == ["bob"]
    again = sync(sandbox)
    assert (again["added"], again["acknowledged"]) == (1, True)


@pytest.mark.parametrize("signature", ["wrong", "stale", "ahead", "seconds", "malformed"])
def test_signatures_can_be_spoiled(sandbox: RunningSandbox, receiver: Recorder, signature: str) -> None:
    define(sandbox, receiver.url, ["ada"])
    receiver.statuses = [403]
    result = sync(sandbox, signature=signature, attempts=1)

    assert result["acknowledged"] is False
    [request] = receiver.requests
    if signature == "malformed":
        assert "hmac:" not in request.headers["heap-hash"]
    else:
        valid, age = signed(sandbox, request)
        assert not (valid and 0 <= age < 5)


def test_samples_drains_repeats_and_other_orders_can_be_sent(sandbox: RunningSandbox, receiver: Recorder) -> None:
    define(sandbox, receiver.url, [f"u{number}" for number in range(6)], page_size=1)
    sync(sandbox, sample=True, page_size=10)
    sync(sandbox, drain=True)
    repeated = sync(sandbox, duplicate=True, shuffle=True)
    full = sync(sandbox, full=True, page_size=100)

    actions = [json.loads(request.body)["action_type"] for request in receiver.requests[:2]]
    assert actions == ["segment.users.sync", "segment.users.drain"]
    assert sorted(page["page_number"] for page in repeated["pages"]) == sorted([1, 2, 3, 4, 5, 6] * 2)
    assert full["added"] == 6


def test_a_rule_finds_the_members_among_the_events_that_arrived(sandbox: RunningSandbox, receiver: Recorder) -> None:
    events = [{"identity": who, "event": "Purchase"} for who in ("ada", "ada", "bob")]
    old = {"identity": "cy", "event": "Purchase", "timestamp": "2020-01-01T00:00:00Z"}
    sandbox.client.post("/api/track", json={"app_id": sandbox.app_id, "events": [*events, old, old]})
    define(sandbox, receiver.url, [], rule={"event": "Purchase", "at_least": 2, "within_days": 7})
    sync(sandbox)

    assert json.loads(receiver.requests[0].body)["data"]["add"] == [{"id": "ada"}]


def test_the_connection_is_made_by_oauth(sandbox: RunningSandbox) -> None:
    client, redirect = sandbox.environment.heap_client_id, "https://hub.example.com/callback"
    query = {"client_id": client, "state": "s1", "response_type": "code", "redirect_uri": redirect}
    denied = sandbox.client.get("/api/partner/oauth/authorize", params={**query, "scope": "all"})
    granted = sandbox.client.get("/api/partner/oauth/authorize", params={**query, "scope": "segment"})
    answer = parse_qs(urlsplit(granted.headers["location"]).query)
    form = {
        "grant_type": "authorization_code",
        "code": answer["code"][0],
        "redirect_uri": redirect,
        "client_id": client,
        "client_secret": sandbox.environment.heap_client_secret.get_secret_value(),
    }
    token = sandbox.client.post("/api/partner/oauth/token", data=form).json()
    used_twice = sandbox.client.post("/api/partner/oauth/token", json=form)
    metadata = sandbox.client.get(
        f"/api/partner/v1/metadata/{token['id_token']}",
        headers={"Authorization": f"Bearer {token['access_token']}"},
    ).json()

    assert "error=invalid_scope" in denied.headers["location"]
    assert (granted.status_code, answer["state"]) == (302, ["s1"])
    assert token["token_type"] == "bearer"
    assert used_twice.json() == {"error": "invalid_grant"}
    assert (metadata["env_id"], metadata["authorized_scope"]) == (sandbox.app_id, "segment")


def test_a_code_is_good_for_its_client_and_its_address_alone(sandbox: RunningSandbox) -> None:
    def code(redirect: str) -> str:
        client = sandbox.environment.heap_client_id
        query = {"client_id": client, "response_type": "code", "redirect_uri": redirect, "scope": "segment"}
        back = sandbox.client.get("/api/partner/oauth/authorize", params=query)
        found = parse_qs(urlsplit(back.headers["location"]).query)
        assert "state" not in found
        return found["code"][0]

    def token(environment: SandboxEnvironment, **changes: str) -> Any:
        here = "https://hub.example.com/callback"
        form = {
            "grant_type": "authorization_code",
            "code": changes.get("code") or code(here),
            "redirect_uri": here,
            "client_id": environment.heap_client_id,
            "client_secret": environment.heap_client_secret.get_secret_value(),
        }
        return sandbox.client.post("/api/partner/oauth/token", json=form | changes)

    assert token(sandbox.environment, code=code("https://hub.example.com/other")).json() == {"error": "invalid_grant"}
    assert token(sandbox.environment, grant_type="password").json() == {"error": "unsupported_grant_type"}
    wrong = token(sandbox.environment, client_secret="wrong")
    assert (wrong.status_code, wrong.json()) == (401, {"error": "invalid_client"})
    assert token(SECOND).json() == {"error": "invalid_grant"}
    good = token(sandbox.environment).json()
    for id_token, bearer in (("7a36ae58", good["access_token"]), (good["id_token"], "wrong")):
        answer = sandbox.client.get(
            f"/api/partner/v1/metadata/{id_token}", headers={"Authorization": f"Bearer {bearer}"}
        )
        assert answer.status_code == 401
