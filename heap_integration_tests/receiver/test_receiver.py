"""The receiver takes what is signed, keeps it once, and refuses the rest in words."""

from __future__ import annotations

import json
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from ruamel.yaml import YAML
from sqlalchemy import select

from heap_integration.events.sources.received import read_landing
from heap_integration.events.sources.streams import LONGEST_LINE
from heap_integration.landing import LandingWriter, waiting
from heap_integration.receiver import create_app
from heap_integration.receiver.server import build_server
from heap_integration.store import Store
from heap_integration.store.tables import segment_pages
from heap_integration_tests.receiver.signing import (
    SEGMENT_SECRET,
    USERFLOW_SECRET,
    heap_headers,
    userflow_headers,
)

CONTRACT = Path(__file__).parents[3] / "shared/contracts/heap/heap-partner-webhook_spec.yaml"
SECRETS: dict[str, Any] = {"userflow_secret": USERFLOW_SECRET, "segment_sync_secret": SEGMENT_SECRET}


@contextmanager
def receiver(folder: Path, **settings: Any) -> Iterator[httpx.Client]:
    """Serve a receiver on a real socket and yield a client of it."""
    store, landing = Store(f"sqlite:///{folder}/hub.db"), LandingWriter(folder / "landing")
    server = build_server(create_app(store=store, landing=landing, **(SECRETS | settings)))
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as ending:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        ending.callback(thread.join)
        ending.callback(setattr, server, "should_exit", True)
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=20) as client:
            yield client
    store.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    with receiver(tmp_path) as found:
        yield found


def post_userflow(client: httpx.Client, body: bytes, **signing: Any) -> httpx.Response:
    return client.post("/userflow", content=body, headers=userflow_headers(body, **signing))


def post_segments(client: httpx.Client, body: bytes, **signing: Any) -> httpx.Response:
    return client.post("/heap/segments", content=body, headers=heap_headers(body, **signing))


def segment_call(page_number: int = 1, *, token: str = "customer", **data: Any) -> bytes:
    info = {"page_number": page_number, "total_pages": 2, "sync_task_id": "task"}
    call = {
        "id_token": token,
        "action_type": "segment.users.sync",
        "data": {"segment": {"id": 7, "name": "Größe"}, "sync_info": info, **data},
    }
    return json.dumps(call, ensure_ascii=False).encode()


def landed(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in waiting(folder / "landing") for line in path.read_bytes().splitlines()]


def pages(folder: Path) -> list[tuple[int, list[str], list[str]]]:
    store = Store(f"sqlite:///{folder}/hub.db")
    with store.read() as connection:
        rows = connection.execute(select(segment_pages).order_by(segment_pages.c.page_number)).all()
    store.close()
    return [(row.page_number, json.loads(row.added), json.loads(row.removed)) for row in rows]


def test_a_signed_notification_is_landed_as_it_came(tmp_path: Path) -> None:
    number = 12345678901234567890123
    body = f'{{"id": "n-1",\r\n  "topic": "event.tracked", "data": {{"n": {number}, "name": "é"}}}}\n'.encode()
    with receiver(tmp_path, clock=lambda: 1_700_000_000.25) as client:
        answer = post_userflow(client, body, at=1_700_000_000)
        assert (answer.status_code, answer.json()) == (200, {})
    assert landed(tmp_path) == [
        {
            "id": "n-1",
            "received_at": "2023-11-14T22:13:20.250+00:00",
            "source": "userflow",
            "body": {"id": "n-1", "topic": "event.tracked", "data": {"n": number, "name": "é"}},
        }
    ]
    (segment,) = waiting(tmp_path / "landing")
    assert stat.S_IMODE(segment.stat().st_mode) == 0o600


def test_the_largest_notification_is_landed_in_a_line_that_can_be_read_back(tmp_path: Path) -> None:
    with receiver(tmp_path) as client:
        start, end = b'{"id":"', b'"}'
        body = start + b"n" * (4_900_000 - len(start) - len(end)) + end
        assert post_userflow(client, body).status_code == 200
    (segment,) = waiting(tmp_path / "landing")
    assert [chunk.lines for chunk in read_landing(segment)] == [1]
    assert len(segment.read_bytes()) < LONGEST_LINE
    assert len(landed(tmp_path)[0]["id"]) == 36


def test_what_userflow_did_not_sign_is_refused_with_401(client: httpx.Client) -> None:
    assert post_userflow(client, b"{}", secret="another").status_code == 401
    assert post_userflow(client, b"{}", at=time.time() - 400).status_code == 401
    unsigned = client.post("/userflow", content=b"{}")
    assert unsigned.status_code == 401
    assert "Userflow-Signature" in unsigned.json()["error"]


@pytest.mark.parametrize("body", [b"", b"not json", b"[1]", b'{"a":', b'"\xff"', b'{"a":' * 5000])
def test_a_signed_body_that_is_no_json_object_is_refused_with_400(client: httpx.Client, body: bytes) -> None:
    answer = post_userflow(client, body)
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]


def test_a_page_is_kept_once_however_often_it_comes(client: httpx.Client, tmp_path: Path) -> None:
    first = segment_call(1, add=[{"id": "ä@x.io"}], remove=[{"id": "b"}])
    for body in (first, segment_call(2, add=[{"id": "c"}]), first, segment_call(1, add=[{"id": "other"}])):
        answer = post_segments(client, body)
        assert (answer.status_code, answer.text) == (200, "OK")
    assert pages(tmp_path) == [(1, ["ä@x.io"], ["b"]), (2, ["c"], [])]


def test_segment_calls_are_refused_as_heap_documents_it(client: httpx.Client, tmp_path: Path) -> None:
    body = segment_call()
    forged = post_segments(client, body, secret="another")
    assert (forged.status_code, forged.json()) == (403, {"error": "Invalid signature"})
    late = post_segments(client, body, at=time.time() - 120)
    assert (late.status_code, late.text[:50]) == (
        400,
        "the Heap-Hash header's timestamp is 120 s old, 60 s are"[:50],
    )
    unsigned = client.post("/heap/segments", content=body)
    assert (unsigned.status_code, unsigned.headers["content-type"]) == (400, "text/plain; charset=utf-8")
    malformed = post_segments(client, segment_call(add="everybody"))
    assert (malformed.status_code, malformed.text) == (400, "add: Input should be a valid tuple")
    assert pages(tmp_path) == []


def test_the_examples_of_heaps_own_contract_are_taken(client: httpx.Client, tmp_path: Path) -> None:
    if not CONTRACT.exists():
        pytest.skip("Heap's webhook contract is not on this machine")
    contract = YAML(typ="safe").load(CONTRACT.read_text())
    content = contract["paths"]["/{partner_webhook_sync_url}"]["post"]["requestBody"]
    examples = content["content"]["application/json"]["examples"]
    for number, example in enumerate(examples.values(), start=1):
        example["value"]["data"]["sync_info"]["page_number"] = number
        body = json.dumps(example["value"], separators=(",", ":")).encode()
        assert post_segments(client, body).status_code == 200
    assert pages(tmp_path) == [
        (1, ["user1@email.com", "user2@email.com"], []),
        (2, [], ["user3@email.com", "user4@email.com"]),
    ]


def test_another_customers_segments_are_refused(tmp_path: Path) -> None:
    with receiver(tmp_path, segment_sync_id_token="ours") as client:
        assert post_segments(client, segment_call(token="theirs")).status_code == 403
        assert post_segments(client, segment_call(token="ours")).status_code == 200


def test_a_source_without_a_secret_is_not_there(tmp_path: Path) -> None:
    with receiver(tmp_path, userflow_secret=None, segment_sync_secret=None) as client:
        assert post_userflow(client, b"{}").status_code == 404
        assert post_segments(client, b"{}").status_code == 404


@pytest.mark.parametrize("path", ["/userflow", "/heap/segments"])
def test_a_large_body_is_refused_whether_or_not_it_is_announced(client: httpx.Client, path: str) -> None:
    def unannounced() -> Iterator[bytes]:
        yield from [b"x" * 1_000_000] * 6

    def status(content: Any) -> int | None:
        try:
            return client.post(path, content=content).status_code
        except httpx.TransportError:
            # The connection was closed on us before we had sent it all.
            return None

    assert status(unannounced()) in {413, None}
    assert status(b"x" * 4_900_001) in {413, None}
    assert client.post(path, content=b"x" * 4_900_000).status_code in {400, 401}


def test_other_methods_and_paths_are_refused(client: httpx.Client) -> None:
    assert client.get("/userflow").status_code == 405
    assert client.put("/heap/segments", content=b"{}").status_code == 405
    assert client.post("/health").status_code == 405
    assert client.post("/").status_code == 404


def test_health_tells_the_seconds_since_something_became_durable(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok", "seconds_since_last_durable_write": None}
    post_userflow(client, b"{}", secret="another")
    assert client.get("/health").json()["seconds_since_last_durable_write"] is None
    post_userflow(client, b"{}")
    assert 0 <= client.get("/health").json()["seconds_since_last_durable_write"] < 5


def test_health_counts_a_segments_page_too(client: httpx.Client) -> None:
    post_segments(client, segment_call())
    assert 0 <= client.get("/health").json()["seconds_since_last_durable_write"] < 5


def test_a_receiver_that_cannot_keep_anything_asks_for_another_try(tmp_path: Path) -> None:
    with receiver(tmp_path) as client:
        (tmp_path / "landing").write_text("a file where the folder should be")
        assert post_userflow(client, b"{}").status_code == 503
        (tmp_path / "landing").unlink()
        assert post_userflow(client, b"{}").status_code == 200


def test_shutting_down_seals_what_was_landed(tmp_path: Path) -> None:
    with receiver(tmp_path) as client:
        assert post_userflow(client, b'{"id":"last"}').status_code == 200
    assert [path.suffix for path in (tmp_path / "landing").iterdir()] == [".ndjson"]
    assert [line["id"] for line in landed(tmp_path)] == ["last"]


def test_no_log_holds_a_secret_or_a_body(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    calls: list[Callable[[httpx.Client], httpx.Response]] = [
        lambda client: post_userflow(client, b'{"id":"someone@x.io"}'),
        lambda client: post_userflow(client, b"{}", secret="another"),
        lambda client: post_segments(client, segment_call(add=[{"id": "someone@x.io"}, {}])),
        lambda client: post_segments(client, segment_call(remove=[{"id": "someone@x.io"}])),
        lambda client: post_segments(client, b"{}"),
    ]
    with receiver(tmp_path) as client:
        assert [call(client).status_code for call in calls] == [200, 401, 200, 200, 400]
    captured = capfd.readouterr()
    everything = caplog.text + captured.out + captured.err
    assert "heap/segments 200: 2, heap/segments 400: 1, userflow 200: 1, userflow 401: 1" in everything
    assert "came again with other content" in everything
    assert "1 users without an id" in everything
    for private in ("5ekret", "v1=", "hmac:", "someone"):
        assert private not in everything
