"""The receiver takes what is signed, keeps it once, and refuses the rest in words."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ruamel.yaml import YAML
from sqlalchemy import select

from heap_integration.events.sources.received import read_landing
from heap_integration.events.sources.streams import LONGEST_LINE
from heap_integration.landing import waiting
from heap_integration.store import Store
from heap_integration.store.tables import segment_pages
from heap_integration_tests.receiver.serving import landed, receiver
from heap_integration_tests.receiver.signing import (
    HEAP_PASSWORD,
    HEAP_USER,
    basic,
    heap_headers,
    userflow_headers,
    userpilot_headers,
)

CONTRACT = Path(__file__).parents[3] / "shared/contracts/heap/heap-partner-webhook_spec.yaml"


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


def pages(folder: Path) -> list[tuple[int, list[str], list[str]]]:
    store = Store(f"sqlite:///{folder}/hub.db")
    with store.read() as connection:
        rows = connection.execute(select(segment_pages).order_by(segment_pages.c.page_number)).all()
    store.close()
    return [(row.page_number, json.loads(row.added), json.loads(row.removed)) for row in rows]


def test_a_signed_notification_is_landed_as_it_came(tmp_path: Path) -> None:
    number = 12345678901234567890123
    body = f'{{"id": "n-1",\r\n  "topic": "event.tracked", "data": {{"n": {number}, "name": "é"}}}}\n'.encode()
    with receiver(tmp_path, app={"clock": lambda: 1_700_000_000.25}) as client:
        answer = post_userflow(client, body, at=1_700_000_000)
        assert (answer.status_code, answer.json()) == (200, {})
    assert landed(tmp_path) == [
        {
            "id": "n-1",
            "received_at": "2023-11-14T22:13:20.250+00:00",
            "source": "userflow",
            "adapter": "userflow",
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
    with segment.open("rb") as stream:
        assert [chunk.lines for chunk in read_landing(stream, "landing")] == [1]
    assert len(segment.read_bytes()) < LONGEST_LINE
    assert len(landed(tmp_path)[0]["id"]) == 36


def test_what_userflow_did_not_sign_is_refused_with_401(client: httpx.Client) -> None:
    assert post_userflow(client, b"{}", secret="another").status_code == 401
    assert post_userflow(client, b"{}", at=time.time() - 400).status_code == 401
    unsigned = client.post("/userflow", content=b"{}")
    assert unsigned.status_code == 401
    assert "Userflow-Signature" in unsigned.json()["error"]


def test_userpilots_webhooks_are_landed_if_they_are_signed(tmp_path: Path) -> None:
    body = b'{"event": "Flow Completed", "user_id": "u"}'
    with receiver(tmp_path) as client:
        assert client.post("/userpilot", content=body, headers=userpilot_headers(body)).status_code == 200
        for signing in ({"secret": "another"}, {"at": time.time() - 400}):
            forged = client.post("/userpilot", content=body, headers=userpilot_headers(body, **signing))
            assert (forged.status_code, list(forged.json())) == (401, ["error"])
        assert client.post("/userpilot", content=body, headers=userflow_headers(body)).status_code == 401
    (line,) = landed(tmp_path)
    assert (line["source"], line["adapter"], line["body"]) == ("userpilot", "userpilot", json.loads(body))


def test_heaps_event_webhooks_need_their_user_and_password(tmp_path: Path) -> None:
    body = b'{"event": "Signed Up", "identity": "u"}'
    with receiver(tmp_path) as client:
        assert client.post("/heap/events", content=body, headers=basic(HEAP_USER, HEAP_PASSWORD)).status_code == 200
        for headers in ({}, basic(HEAP_USER, "wrong"), basic("", HEAP_PASSWORD), {"Authorization": "Basic !"}):
            unknown = client.post("/heap/events", content=body, headers=headers)
            assert (unknown.status_code, unknown.headers["www-authenticate"][:5]) == (401, "Basic")
    (line,) = landed(tmp_path)
    assert (line["source"], line["adapter"], line["body"]) == ("heap_webhooks", "heap_webhooks", json.loads(body))


def test_without_profiles_userflows_notifications_are_landed_for_their_events_alone(tmp_path: Path) -> None:
    with receiver(tmp_path, userflow_profiles=False) as client:
        assert post_userflow(client, b"{}").status_code == 200
    assert [(line["source"], line["adapter"]) for line in landed(tmp_path)] == [("userflow", "userflow_events")]


@pytest.mark.parametrize(
    ("state", "note"),
    [("on", None), ("keep", None), ("drop", "received while the stream of userflow was off")],
)
def test_what_comes_while_a_stream_is_off_is_kept_or_marked(tmp_path: Path, state: str, note: str | None) -> None:
    states = {"userflow": state}
    with receiver(tmp_path, app={"switch": lambda source: states.get(source, "on")}) as client:
        assert post_userflow(client, b"{}").status_code == 200
        assert client.post("/heap/events", content=b"{}", headers=basic(HEAP_USER, HEAP_PASSWORD)).status_code == 200
    assert [line.get("suppressed") for line in landed(tmp_path)] == [note, None]


@pytest.mark.parametrize("body", [b"", b"not json", b"[1]", b'{"a":', b'"\xff"', b'{"a":' * 5000 + b"1" + b"}" * 5000])
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


def test_the_connected_customers_segments_alone_are_taken_from_the_moment_they_are_connected(tmp_path: Path) -> None:
    now: list[str | None] = [None]

    def status(page: int, token: str) -> int:
        return post_segments(client, segment_call(page, token=token)).status_code

    with receiver(tmp_path, app={"connected": lambda: now[0]}) as client:
        assert status(1, "theirs") == 200
        now[0] = "ours"
        assert (status(2, "theirs"), status(3, "ours")) == (403, 200)
        now[0] = None
        assert status(4, "theirs") == 200
    assert [page for page, *_ in pages(tmp_path)] == [1, 3, 4]
    with receiver(tmp_path, segment_sync_id_token="given", app={"connected": lambda: "ours"}) as client:
        assert (status(5, "ours"), status(5, "given")) == (403, 200)


def test_a_page_that_was_spaced_on_the_way_is_taken(client: httpx.Client) -> None:
    compact = json.dumps(json.loads(segment_call(add=[{"id": "ä"}])), separators=(",", ":"), ensure_ascii=False)
    spaced = segment_call(add=[{"id": "ä"}])
    assert compact.encode() != spaced
    headers = heap_headers(compact.encode())
    assert client.post("/heap/segments", content=spaced, headers=headers).status_code == 200
    assert client.post("/heap/segments", content=segment_call(), headers=headers).status_code == 403


def test_a_source_that_is_not_set_is_not_there(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"userflow_secret": None, "userpilot_secret": None, "heap_webhooks": None}
    with receiver(tmp_path, **nothing, segment_sync_secret=None, clients=()) as client:
        for path in ("/userflow", "/userpilot", "/heap/events", "/heap/segments", "/v1/track", "/v1/batch"):
            assert client.post(path, content=b"{}").status_code == 404
        assert set(client.get("/openapi.json").json()["paths"]) == {"/health", "/ready", "/metrics", "/openapi.json"}


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


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/userflow", 405),
        ("PUT", "/heap/segments", 405),
        ("POST", "/health", 405),
        ("DELETE", "/v1/track", 405),
        ("POST", "/", 404),
        ("POST", "/userflow/", 404),
        ("GET", "/v1/someone@x.io", 404),
    ],
)
def test_other_methods_and_paths_are_refused_in_words(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path, content=b"{}" if method != "GET" else None)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert "someone" not in answer.text
    assert ("allow" in answer.headers) == (status == 405)


def test_a_receiver_that_cannot_keep_anything_asks_for_another_try(tmp_path: Path) -> None:
    with receiver(tmp_path) as client:
        (tmp_path / "landing").write_text("a file where the folder should be")
        refused = post_userflow(client, b"{}")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.json() == {"error": "can't keep it now, send it again"}
        (tmp_path / "landing").unlink()
        assert post_userflow(client, b"{}").status_code == 200


def test_shutting_down_seals_what_was_landed(tmp_path: Path) -> None:
    with receiver(tmp_path) as client:
        assert post_userflow(client, b'{"id":"last"}').status_code == 200
    assert [path.suffix for path in (tmp_path / "landing").iterdir()] == [".ndjson"]
    assert [line["id"] for line in landed(tmp_path)] == ["last"]
