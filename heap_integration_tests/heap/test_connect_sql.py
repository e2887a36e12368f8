"""Connect SQL by HTTP: answers in every form in which they may come, and refusals in words."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from heap_integration.heap.connect_sql import Answer, ConnectSql, ConnectSqlError

KEY = "5ecret-key"


def asked(status: int, body: Any) -> tuple[ConnectSql, list[httpx.Request]]:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(status, content=body if isinstance(body, bytes) else orjson.dumps(body))

    return ConnectSql("https://heapanalytics.com/", KEY, httpx.Client(transport=httpx.MockTransport(answer))), requests


def test_a_question_is_sent_with_its_key() -> None:
    client, requests = asked(200, {"columns": ["one"], "rows": [[1]]})
    assert client.ask("select 1 as one", 30) == Answer(("one",), ((1,),))
    (request,) = requests
    assert str(request.url) == "https://heapanalytics.com/api/connect/query"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert orjson.loads(request.content) == {"query": "select 1 as one"}


@pytest.mark.parametrize(
    "body",
    [
        {"columns": ["a", "b"], "rows": [[1, "x"], [2, None]]},
        {"columns": [{"name": "a", "type": "bigint"}, {"name": "b"}], "data": [[1, "x"], [2, None]]},
        {"results": [{"a": 1, "b": "x"}, {"a": 2}]},
        [{"a": 1, "b": "x"}, {"a": 2, "b": None}],
    ],
)
def test_rows_are_read_as_lists_and_as_objects(body: Any) -> None:
    client, _ = asked(200, body)
    assert client.ask("select a, b from x", 30) == Answer(("a", "b"), ((1, "x"), (2, None)))


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, {"error": "Unauthorized"}, "401.*Check the key"),
        (401, {"error": f"what is {KEY}?"}, r"what is \*\*\*"),
        (404, b"<html>", "404.*ask the warehouse itself"),
        (400, {"error": "column x isn't there"}, "column x isn't there"),
        (302, b"", "302"),
        (200, b"<html>", "isn't JSON"),
        (200, {"status": "running"}, "without rows"),
        (200, {"columns": ["a"], "rows": [[1, 2]]}, "doesn't fit"),
        (200, {"rows": [[1, 2]]}, "doesn't fit"),
    ],
)
def test_what_is_no_answer_is_told(status: int, body: Any, words: str) -> None:
    client, _ = asked(status, body)
    with pytest.raises(ConnectSqlError, match=words) as told:
        client.ask("select 1", 30)
    assert KEY not in str(told.value)


def test_an_answer_that_never_ends_is_left() -> None:
    class Endless(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                time.sleep(0.01)
                yield b" "

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Endless()))
    client = ConnectSql("https://heapanalytics.com/", KEY, httpx.Client(transport=transport))
    with pytest.raises(ConnectSqlError, match=r"within 0\.1 seconds"):
        client.ask("select 1", 0.1)


def test_nobody_there_is_told() -> None:
    with ConnectSql("http://127.0.0.1:9", KEY) as client, pytest.raises(ConnectSqlError, match="no answer from"):
        client.ask("select 1", 1)
