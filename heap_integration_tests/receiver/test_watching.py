"""Health, readiness, metrics and logs tell how the receiver fares, and nothing of what was sent."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import OperationalError

from heap_integration.receiver import log
from heap_integration.store import Store
from heap_integration_tests.receiver.serving import PIPELINES_KEY, WEB_KEY, receiver
from heap_integration_tests.receiver.signing import basic, heap_headers, userflow_headers

PAGE = {
    "action_type": "segment.users.sync",
    "data": {
        "segment": {"id": 7, "name": "Paying"},
        "sync_info": {"page_number": 1, "total_pages": 1, "sync_task_id": "task"},
    },
}


def post_userflow(client: httpx.Client, body: bytes = b"{}", **signing: Any) -> httpx.Response:
    return client.post("/userflow", content=body, headers=userflow_headers(body, **signing))


def post_page(client: httpx.Client, **data: Any) -> httpx.Response:
    body = json.dumps(PAGE | {"data": PAGE["data"] | data}).encode()  # type: ignore[operator]
    return client.post("/heap/segments", content=body, headers=heap_headers(body))


def metrics(client: httpx.Client) -> dict[tuple[str, frozenset[str]], float]:
    """Return the values by the metric's name and its labels' values."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name.removeprefix("heap_receiver_"), frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_health_tells_the_seconds_since_something_became_durable(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok", "seconds_since_last_durable_write": None}
    post_userflow(client, secret="another")
    assert client.get("/health").json()["seconds_since_last_durable_write"] is None
    post_userflow(client)
    assert 0 <= client.get("/health").json()["seconds_since_last_durable_write"] < 5


def test_health_counts_a_segments_page_too(client: httpx.Client) -> None:
    assert post_page(client).status_code == 200
    assert 0 <= client.get("/health").json()["seconds_since_last_durable_write"] < 5


def unreachable(_store: Store) -> None:
    raise OperationalError("select", {}, OSError("password=5ekret"))


def test_readiness_follows_the_landing_and_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heap_integration.receiver.app.READY_SECONDS", 0.0)
    with receiver(tmp_path) as client:
        assert (client.get("/ready").status_code, client.get("/ready").json()) == (200, {"status": "ready"})
        (tmp_path / "landing").write_text("a file where the folder should be")
        assert post_userflow(client).status_code == 503
        unready = client.get("/ready")
        assert (unready.status_code, unready.headers["retry-after"]) == (503, "5")
        assert unready.json()["error"].startswith("nothing can be landed: ")
        assert client.get("/health").status_code == 200
        (tmp_path / "landing").unlink()
        assert post_userflow(client).status_code == 200
        assert client.get("/ready").status_code == 200
        monkeypatch.setattr(Store, "read", unreachable)
        assert client.get("/ready").json() == {"status": "unavailable", "error": "the store can't be reached"}


def test_metrics_count_what_was_answered_landed_and_refused(tmp_path: Path) -> None:
    states: dict[str, Any] = {"pipelines": "drop"}
    with receiver(tmp_path, app={"switch": lambda source: states.get(source, "on")}) as client:
        post_userflow(client)
        post_userflow(client, secret="another")
        batch = {"batch": [{"type": "track", "userId": "u", "event": "e"}] * 3}
        for key in (WEB_KEY, PIPELINES_KEY):
            client.post("/v1/batch", json=batch, headers=basic(key))
        client.post("/v1/track", content=b"{", headers=basic(WEB_KEY))
        client.get("/someone@x.io")
        client.get("/v1/projects/5ekret/settings")
        found = metrics(client)
    for labels, count in [({"userflow", "200"}, 1), ({"userflow", "401"}, 1), ({"web", "200"}, 1), ({"web", "400"}, 1)]:
        assert found["requests_total", frozenset(labels)] == count
    assert found["refused_total", frozenset({"userflow", "signature"})] == 1
    assert found["refused_total", frozenset({"web", "json"})] == 1
    assert found["refused_total", frozenset({"none", "path"})] == 1
    assert found["landed_calls_total", frozenset({"web", "kept"})] == 3
    assert found["landed_calls_total", frozenset({"pipelines", "suppressed"})] == 3
    assert found["landed_lines_total", frozenset({"userflow", "kept"})] == 1
    assert found["landed_bytes_total", frozenset({"userflow", "kept"})] > 100
    assert found["durable_write_seconds_count", frozenset()] == 3
    assert abs(found["last_durable_timestamp_seconds", frozenset()] - time.time()) < 10
    assert not any(private in str(found) for private in ("someone", "5ekret"))


def test_each_application_counts_for_itself(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with receiver(tmp_path / "a") as first, receiver(tmp_path / "b") as second:
        post_userflow(first)
        assert ("landed_lines_total", frozenset({"userflow", "kept"})) in metrics(first)
        assert ("landed_lines_total", frozenset({"userflow", "kept"})) not in metrics(second)


def test_no_log_holds_a_secret_or_a_body(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    for clients_own in ("httpx", "httpcore"):
        caplog.set_level("ERROR", clients_own)
    caplog.set_level("DEBUG")
    calls: list[Callable[[httpx.Client], httpx.Response]] = [
        lambda client: post_userflow(client, b'{"id":"someone@x.io"}'),
        lambda client: post_userflow(client, secret="another"),
        lambda client: post_page(client, add=[{"id": "someone@x.io"}, {}]),
        lambda client: post_page(client, remove=[{"id": "someone@x.io"}]),
        lambda client: post_page(client, segment={}),
        lambda client: client.post("/v1/track", json={"userId": "someone@x.io", "writeKey": WEB_KEY}),
        lambda client: client.get("/v1/projects/someone-5ekret/settings"),
    ]
    with receiver(tmp_path) as client:
        assert [call(client).status_code for call in calls] == [200, 401, 200, 200, 400, 200, 401]
    captured = capfd.readouterr()
    everything = caplog.text + captured.out + captured.err
    counts = "none 401: 1, segment_sync 200: 2, segment_sync 400: 1, userflow 200: 1, userflow 401: 1, web 200: 1"
    assert counts in everything
    assert "came again with other content" in everything
    assert "1 users without an id" in everything
    for private in ("5ekret", "v1=", "hmac:", "someone"):
        assert private not in everything


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = handlers, level


@pytest.mark.usefixtures("root_logger")
def test_logs_are_json_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(json=True)
    logging.getLogger("heap").warning("%d lines", 3, extra={"source": "web"})
    line = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp").startswith("20")
    assert line == {"level": "WARNING", "logger": "heap", "message": "3 lines", "source": "web"}


@pytest.mark.usefixtures("root_logger")
def test_logs_are_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(json=False)
    logging.getLogger("heap").warning("%d lines", 3)
    assert capsys.readouterr().err.endswith(" WARNING 3 lines\n")
