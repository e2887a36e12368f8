"""Faults on demand, the settings' variable, and secrets that stay where they are."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from heap_integration.sandbox.settings import ENVIRONMENTS_VARIABLE, settings_from
from heap_integration_tests.support.sandbox import RunningSandbox

PAGES = ("", "/userflow/webhook_subscriptions", "/refusals", "/vendors?app_id=1000000001")


def track(sandbox: RunningSandbox, key: str = "k") -> httpx.Response:
    event = {"identity": "ada", "event": "E", "idempotency_key": key}
    return sandbox.client.post("/api/track", json={"app_id": sandbox.app_id, "events": [event]})


def test_answers_can_be_late_or_errors_for_a_number_of_requests(sandbox: RunningSandbox) -> None:
    rule = sandbox.fault(kind="503", path="/api/track", next=2, retry_after=3)
    answers = [track(sandbox) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].headers["retry-after"] == "3"
    assert sandbox.client.get("/_faults").json()["faults"][0]["hits"] == 2
    sandbox.client.delete(f"/_faults/{rule['id']}")
    sandbox.fault(kind="latency", path="/api", seconds=0.3, next=1)
    started = time.monotonic()
    assert track(sandbox).status_code == 200
    assert time.monotonic() - started >= 0.3
    sandbox.fault(kind="429", path="/userflow")
    assert track(sandbox).status_code == 200
    assert sandbox.userflow("GET", "/users").status_code == 429
    sandbox.client.delete("/_faults")
    assert sandbox.userflow("GET", "/users").status_code == 200


@pytest.mark.parametrize(("kind", "applied"), [("drop", 0), ("cut", 0), ("lost_ack", 1), ("truncate", 1)])
def test_connections_can_break_before_or_after_the_request_is_applied(
    sandbox: RunningSandbox, kind: str, applied: int
) -> None:
    sandbox.fault(kind=kind, path="/api/track", next=1)

    with pytest.raises(httpx.RemoteProtocolError):
        track(sandbox)

    assert sandbox.counts()["events"] == applied
    assert track(sandbox).status_code == 200
    assert sandbox.counts()["events"] == 1


def test_a_fault_can_begin_halfway(sandbox: RunningSandbox) -> None:
    sandbox.fault(kind="401", path="/api/track", after=2)

    assert [track(sandbox, f"key {number}").status_code for number in range(4)] == [200, 200, 401, 401]
    assert sandbox.counts()["events"] == 2


def test_an_event_can_be_refused_by_its_name_in_the_words_of_the_schema(sandbox: RunningSandbox) -> None:
    def batch(*names: str) -> httpx.Response:
        events = [{"identity": "ada", "event": name} for name in names]
        return sandbox.client.post("/api/track", json={"app_id": sandbox.app_id, "events": events})

    sandbox.fault(kind="refuse", path="/api/track", event="Bad", next=1)
    sandbox.fault(kind="refuse", path="/api/track", event="Bad", names=False)

    assert batch("Good", "Fair").status_code == 200
    named, unnamed = batch("Good", "Bad", "Bad"), batch("Good", "Bad")
    assert (named.status_code, unnamed.status_code) == (400, 400)
    assert named.text.startswith("postBody.events[1].event ")
    assert "[" not in unnamed.text
    assert sandbox.counts()["events"] == 2
    assert [rule["hits"] for rule in sandbox.client.get("/_faults").json()["faults"]] == [1, 1]
    assert sandbox.client.post("/_faults", json={"kind": "429", "event": "Bad"}).status_code == 400


def test_a_probable_fault_strikes_a_share_of_the_requests(sandbox: RunningSandbox) -> None:
    sandbox.fault(kind="500", path="/userflow", probability=0.5)

    statuses = [sandbox.userflow("GET", "/users").status_code for _ in range(60)]

    assert 10 < statuses.count(500) < 50


def test_no_secret_reaches_the_state_or_any_page_about_it(sandbox: RunningSandbox, tmp_path: Path) -> None:
    secrets = [
        secret.get_secret_value()
        for environment in sandbox.settings.environments
        for _, secret in environment
        if isinstance(secret, SecretStr)
    ]
    url = "http://127.0.0.1:9/hook"
    sandbox.userflow("POST", "/webhook_subscriptions", json={"url": url, "topics": ["*"]})
    sandbox.userflow("POST", "/users", json={"id": "ada"})
    token = sandbox.client.post("/api/public/v0/auth_token", auth=(sandbox.app_id, secrets[0])).json()
    pages = [sandbox.client.get(path).text for path in ("/", *(f"/_state{page}" for page in PAGES), "/_faults")]
    sandbox.stop()

    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for secret in [*secrets, token["access_token"]]:
        assert secret.encode() not in written
        assert not any(secret in page for page in pages)


def test_the_console_page_runs_no_markup_from_outside(sandbox: RunningSandbox) -> None:
    page = sandbox.client.get("/")

    assert "stand-in" in page.text
    assert "innerHTML" not in page.text
    assert "connect-src 'self'" in page.headers["content-security-policy"]


def test_environments_come_from_one_variable() -> None:
    environment = {
        "app_id": "3000000003",
        "heap_api_key": "s1",
        "heap_webhook_secret": "s2",
        "heap_client_id": "c",
        "heap_client_secret": "s3",
        "userflow_api_key": "s4",
        "userflow_signing_secret": "s5-very-secret",
    }

    assert settings_from({}).environments[0].app_id == "1000000001"
    read = settings_from({ENVIRONMENTS_VARIABLE: json.dumps([environment])})
    assert read.environments[0].userflow_signing_secret.get_secret_value() == "s5-very-secret"
    assert "s5-very-secret" not in repr(read)
    attempts: tuple[object, ...] = (
        [environment | {"app_id": "s5-very-secret"}],
        [environment, environment],
        {},
        [],
    )
    for broken in attempts:
        with pytest.raises(ValueError, match=ENVIRONMENTS_VARIABLE) as error:
            settings_from({ENVIRONMENTS_VARIABLE: json.dumps(broken)})
        assert "s5-very-secret" not in str(error.value)
