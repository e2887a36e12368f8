"""Whatever arrives, the receiver answers, holds little of it, and keeps serving others."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from heap_integration.events.sources.landed import Landed
from heap_integration.landing import LandingUnavailable
from heap_integration.receiver import bodies, server
from heap_integration.receiver.bodies import parsed
from heap_integration_tests.receiver.serving import PIPELINES_KEY, WEB_KEY, landed, receiver
from heap_integration_tests.receiver.signing import (
    HEAP_PASSWORD,
    HEAP_USER,
    basic,
    heap_headers,
    userflow_headers,
    userpilot_headers,
)

ENDPOINTS = ("/userflow", "/userpilot", "/heap/events", "/heap/segments", "/v1/track", "/v1/batch")
MANY = settings(max_examples=150)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "data", "batch", "type", "userId", "writeKey", "messageId", "context"]) | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)
bodies_of_all_kinds = (
    st.binary(max_size=300)
    | json_values.map(lambda value: json.dumps(value).encode())
    | json_values.map(lambda value: json.dumps(value, ensure_ascii=False, indent=1).encode(errors="surrogatepass"))
)


class NoDisk:
    """A landing that keeps nothing."""

    last_durable = None

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def append(self, line: bytes) -> None:
        raise self.error

    def ready(self) -> str:
        return "the disk is full"

    async def close(self) -> None:
        """Nothing is there to close."""


class ClosedGate(NoDisk):
    """A landing that takes nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__(OSError())
        self.opened = threading.Event()

    async def append(self, line: bytes) -> None:
        while not self.opened.is_set():
            await asyncio.sleep(0.01)


def proofs(body: bytes) -> list[dict[str, str]]:
    webhooks = [userflow_headers(body), userpilot_headers(body), heap_headers(body), basic(HEAP_USER, HEAP_PASSWORD)]
    return [*webhooks, basic(WEB_KEY), basic(PIPELINES_KEY), basic(WEB_KEY) | {"X-Strict-Mode": "1"}, {}]


@MANY
@given(path=st.sampled_from(ENDPOINTS), body=bodies_of_all_kinds, compressed=st.booleans())
@example(path="/v1/track", body=b'{"type":1}', compressed=False)
@example(path="/v1/batch", body=b'{"batch":[[]],"batch":1}', compressed=False)
@example(path="/userflow", body=b'{"id":"\\ud800"}', compressed=False)
@example(path="/userflow", body=b"\xef\xbb\xbf{}", compressed=False)
def test_any_bytes_get_an_answer(client: httpx.Client, path: str, body: bytes, compressed: bool) -> None:
    for headers in proofs(body):
        answer = client.post(path, content=body, headers=headers | ({"Content-Encoding": "gzip"} if compressed else {}))
        assert answer.status_code in {200, 400, 401, 403, 415}
        if answer.status_code != 200 and answer.headers["content-type"] == "application/json":
            assert answer.json()["error"]


def test_whatever_is_answered_with_200_stands_in_a_line_that_can_be_read(tmp_path: Path) -> None:
    taken = 0
    with receiver(tmp_path) as client:

        @MANY
        @given(path=st.sampled_from(ENDPOINTS), body=bodies_of_all_kinds, key=st.sampled_from([WEB_KEY, PIPELINES_KEY]))
        @example(path="/v1/track", body=b" { } ", key=WEB_KEY)
        @example(path="/v1/batch", body=b'{\r\n"writeKey"\t:\n"\\"",\n"batch":[{}]\n}\n', key=WEB_KEY)
        @example(path="/v1/batch", body=b"\xff", key=PIPELINES_KEY)
        def send(path: str, body: bytes, key: str) -> None:
            nonlocal taken
            proof = userflow_headers(body) | userpilot_headers(body)
            proof |= basic(HEAP_USER, HEAP_PASSWORD) if path == "/heap/events" else basic(key)
            answer = client.post(path, content=body, headers=proof)
            taken += answer.status_code == 200

        send()
    lines = landed(tmp_path)
    assert len(lines) == taken > 20
    assert all(Landed.read(line).body is line["body"] for line in lines)


@pytest.mark.parametrize(("levels", "status"), [(100, 200), (101, 400), (1000, 400), (100_000, 400)])
@pytest.mark.parametrize("around", [(b"[", b"]"), (b'{"a":', b"}")])
def test_json_may_be_nested_a_hundred_levels_deep(
    client: httpx.Client, levels: int, status: int, around: tuple[bytes, bytes]
) -> None:
    opening, closing = around
    body = b'{"a":' + opening * (levels - 1) + b"0" + closing * (levels - 1) + b"}"
    assert client.post("/userflow", content=body, headers=userflow_headers(body)).status_code == status


def test_brackets_in_text_are_not_levels() -> None:
    assert parsed(json.dumps("[" * 5000).encode()) == "[" * 5000
    flat = {"text": "{[" * 5000, "list": [[]] * 5000}
    assert parsed(json.dumps(flat).encode()) == flat


def test_nothing_is_acknowledged_that_the_landing_refuses(tmp_path: Path) -> None:
    for error in (LandingUnavailable("no space left"), RuntimeError("someone@x.io")):
        with receiver(tmp_path, landing=NoDisk(error)) as client:
            for path in ("/userflow", "/userpilot", "/heap/events", "/v1/track", "/v1/batch"):
                statuses = [client.post(path, content=b"{}", headers=headers).status_code for headers in proofs(b"{}")]
                assert 503 in statuses
                assert 200 not in statuses
            refused = client.post("/v1/track", content=b"{}", headers=basic(WEB_KEY))
            assert refused.headers["retry-after"] == "5"
            assert refused.json()["code"] == "unavailable"
            assert "someone" not in refused.text


async def one_after_the_other(url: httpx.URL, sent: list[bytes], gate: ClosedGate) -> list[int]:
    """Send each body once the one before is held or refused, then open the gate, and return their statuses."""
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        posts: list[asyncio.Task[httpx.Response]] = []
        for body in sent:
            before = await held(client)
            posts.append(asyncio.create_task(client.post("/userflow", content=body, headers=userflow_headers(body))))
            while not posts[-1].done() and await held(client) < before + len(body):
                await asyncio.sleep(0.01)
        gate.opened.set()
        return [answer.status_code for answer in await asyncio.gather(*posts)]


async def held(client: httpx.AsyncClient) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("heap_receiver_held_bytes "))


def test_bodies_that_wait_for_the_disk_have_a_limit_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies.BodyReader.__init__, "__defaults__", (300_000, 30.0))
    large, small = (json.dumps({"id": "x" * size}).encode() for size in (100_000, 60_000))
    gate = ClosedGate()
    with receiver(tmp_path, landing=gate) as client:
        # The larger ones leave half to the smaller ones.
        sent = [large, large, small, small, small, small]
        statuses = asyncio.run(one_after_the_other(client.base_url, sent, gate))
        assert statuses == [200, 503, 200, 200, 200, 503]
        assert asyncio.run(one_after_the_other(client.base_url, [large], gate)) == [200]
        assert "heap_receiver_held_bytes 0.0" in client.get("/metrics").text


@contextmanager
def connection(client: httpx.Client) -> Iterator[socket.socket]:
    address = (client.base_url.host, client.base_url.port or 0)
    with socket.create_connection(address, timeout=10) as connected:
        yield connected


def answered(connected: socket.socket) -> bytes:
    pieces = []
    while piece := connected.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def test_a_body_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies.BodyReader.__init__, "__defaults__", (10_000, 0.3))
    with receiver(tmp_path) as client, connection(client) as connected:
        connected.sendall(b"POST /userflow HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        answer = answered(connected)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer


def test_headers_that_never_end_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    with receiver(tmp_path) as client:
        for start in (b"", b"POST /userflow HTTP/1.1\r\nHost: x\r\n", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /h"):
            with connection(client) as connected:
                connected.sendall(start)
                answer = answered(connected)
            assert b"HTTP/1.1 408 " in answer


@pytest.mark.parametrize("piece", [b"X-A: " + b"a" * 1000 + b"\r\n", b"a" * 1000])
def test_large_headers_are_refused(client: httpx.Client, piece: bytes) -> None:
    with connection(client) as connected:
        connected.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n" + piece * 40)
        assert answered(connected).startswith(b"HTTP/1.1 431 ")
    with connection(client) as connected:
        connected.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-B: " + piece.strip() * 40 + b"\r\n\r\n")
        assert answered(connected).startswith(b"HTTP/1.1 431 ")
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    "start", [b"\x16\x03\x01\x02\x00", b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 100]
)
def test_what_is_not_http_is_refused_in_words(client: httpx.Client, start: bytes) -> None:
    with connection(client) as connected:
        connected.sendall(start)
        answer = answered(connected)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": "this is not HTTP/1.1"}


def test_one_connection_too_many_is_told_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONCURRENT_CONNECTIONS", 3)
    with receiver(tmp_path) as client:
        assert client.get("/health").status_code == 200
        with connection(client), connection(client) as second:
            second.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = answered(second)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 5\r\n" in answer
        assert client.get("/health").status_code == 200


def test_requests_that_follow_without_waiting_are_all_answered(client: httpx.Client, tmp_path: Path) -> None:
    body = b'{"id":"a"}'
    headers = "".join(f"{name}: {value}\r\n" for name, value in userflow_headers(body).items())
    request = f"POST /userflow HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body
    with connection(client) as connected:
        connected.sendall(request * 20 + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answered(connected).count(b"HTTP/1.1 200 OK") == 21
    assert len(landed(tmp_path)) <= 20


def test_a_failure_is_answered_and_logged_without_what_was_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = "someone@x.io"

    def broken(source: str) -> Any:
        raise RuntimeError(said)

    with receiver(tmp_path, app={"switch": broken}) as client:
        answer = client.post("/userflow", content=b"{}", headers=userflow_headers(b"{}"))
        assert (answer.status_code, answer.json()) == (500, {"error": "the receiver failed, send it again"})
        assert client.get("/health").status_code == 200
    assert "RuntimeError" in caplog.text
    assert "in keep" in caplog.text
    assert "someone" not in caplog.text
