"""The endpoint of the sandbox believes what is signed by the rules, once, and says why it doesn't."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook as Signer

from heap_integration.sandbox.settings import DEVELOPMENT
from heap_integration.sandbox.state import State
from heap_integration.sandbox.webhook_sink import WebhookSink
from heap_integration_tests.support.sandbox import RunningSandbox

assert DEVELOPMENT.webhook_secret is not None
SECRET = DEVELOPMENT.webhook_secret.get_secret_value()


@pytest.fixture
def sink(sandbox: RunningSandbox, tmp_path: Path) -> Iterator[WebhookSink]:
    state = State(tmp_path / "sandbox.db")
    yield WebhookSink(sandbox.settings, state)
    state.close()


def members(*identities: str, member: bool = True) -> dict[str, Any]:
    records = [{"id": f"{identity} {member}", "identity": identity, "member": member} for identity in identities]
    audience = {"slug": "buyers", "name": "Loyal buyers"}
    return {"type": "segment.members.changed", "audience": audience, "records": records}


def post(
    sandbox: RunningSandbox, payload: Any, name: str = "msg_1", *, secret: str = SECRET, age: float = 0, **changes: str
) -> httpx.Response:
    body, moment = json.dumps(payload), datetime.now(UTC) - timedelta(seconds=age)
    headers = {
        "webhook-id": name,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": f"v2,other {Signer(secret).sign(name, moment, body)}",
    }
    return sandbox.client.post("/webhook/any/path", content=body, headers=headers | changes)


def test_a_signed_call_is_applied_once(sandbox: RunningSandbox, sink: WebhookSink) -> None:
    first = post(sandbox, members("ann", "bob"))
    assert (first.status_code, first.json()) == (200, {"rejected": []})
    assert post(sandbox, members("ann", member=False), "msg_2").status_code == 200
    assert post(sandbox, members("ann", "bob")).json() == {"rejected": []}
    assert sink.members(sandbox.app_id, "buyers") == ["bob"]
    shown = sink.shown(sandbox.app_id)
    assert shown["audiences"] == [{"name": "Loyal buyers", "members": 1, "sample": ["bob"], "mark": "Heap"}]
    assert shown["counts"] == {"calls": 2, "members": 1, "profiles": 0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"secret": "whsec_" + "b3RoZXI" * 8}, "no signature matches"),
        ({"age": 301}, "too far"),
        ({"age": -301}, "too far"),
        ({"webhook-id": "msg_other"}, "no signature matches"),
        ({"webhook-id": ""}, "is missing"),
        ({"webhook-timestamp": "now"}, "is missing"),
        ({"webhook-signature": "v1,"}, "no signature matches"),
        ({"webhook-signature": "v1a,abc"}, "no signature matches"),
    ],
)
def test_what_is_not_signed_by_the_rules_is_refused(
    sandbox: RunningSandbox, sink: WebhookSink, changes: dict[str, Any], words: str
) -> None:
    answer = post(sandbox, members("ann"), **changes)
    assert answer.status_code == 401
    assert words in answer.json()["error"]
    assert sink.members(sandbox.app_id, "buyers") == []


@pytest.mark.parametrize("payload", [None, [], {}, {"type": "other"}, {**members("ann"), "records": [{}]}])
def test_what_is_not_documented_is_refused_whole(sandbox: RunningSandbox, sink: WebhookSink, payload: Any) -> None:
    assert post(sandbox, payload).status_code == 400
    assert sink.shown(sandbox.app_id)["audiences"] == []


def test_faults_decide_its_answers(sandbox: RunningSandbox, sink: WebhookSink) -> None:
    for kind in ("410", "429"):
        sandbox.fault(kind=kind, path="/webhook", next=1)
        assert post(sandbox, members("ann")).status_code == int(kind)
    assert sink.members(sandbox.app_id, "buyers") == []
