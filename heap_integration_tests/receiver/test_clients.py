"""Clients made for Segment or Customer.io find here what they expect there."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from heap_integration.events.event import Refusal
from heap_integration.events.sources.segment import event_from_segment
from heap_integration.receiver import Client
from heap_integration.receiver.calls import TYPES, call_problem
from heap_integration_tests.receiver.serving import PIPELINES_KEY, WEB_KEY, landed, landed_text, receiver
from heap_integration_tests.receiver.signing import JSON, basic

TRACK = {"userId": "u", "event": "Signed Up", "messageId": "m-1"}
STRICT = {"X-Strict-Mode": "1"}


def post(client: httpx.Client, path: str, call: Any, key: str = WEB_KEY, **headers: str) -> httpx.Response:
    body = call if isinstance(call, bytes) else json.dumps(call).encode()
    return client.post(f"/v1/{path}", content=body, headers=basic(key) | headers)


def strictly(client: httpx.Client, path: str, call: Any, key: str = WEB_KEY) -> httpx.Response:
    return post(client, path, call, key, **STRICT)


def test_a_call_gets_the_type_of_its_path_and_stays_as_it_came(tmp_path: Path) -> None:
    number = "12345678901234567890123.10"
    body = f'{{ "userId": "u", "event": "Paid",\n "messageId": "m-1", "properties": {{"n": {number}}} }}\n'.encode()
    with receiver(tmp_path) as client:
        answer = post(client, "track", body)
        assert (answer.status_code, answer.json()) == (200, {"success": True})
    (line,), (text,) = landed(tmp_path), landed_text(tmp_path)
    assert (line["id"], line["source"], line["adapter"]) == ("m-1", "web", "segment")
    assert line["body"] == json.loads(body) | {"type": "track"}
    assert number.encode() in text


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("track", "track"),
        ("identify", "identify"),
        ("page", "page"),
        ("screen", "screen"),
        ("group", "group"),
        ("alias", "alias"),
        ("batch", "batch"),
        ("t", "track"),
        ("i", "identify"),
        ("p", "page"),
        ("s", "screen"),
        ("g", "group"),
        ("a", "alias"),
        ("b", "batch"),
        ("import", "batch"),
    ],
)
def test_all_kinds_of_calls_are_taken_under_their_long_and_short_names(tmp_path: Path, path: str, kind: str) -> None:
    with receiver(tmp_path) as client:
        assert post(client, path, {}).status_code == 200
        assert post(client, path, {"type": kind, "userId": "u"}).status_code == 200
        assert post(client, path, {"type": "other", "userId": "u"}).status_code == 200
    assert [line["body"]["type"] for line in landed(tmp_path)] == [kind] * 3


def test_customer_ios_clients_are_answered_with_an_empty_object(tmp_path: Path) -> None:
    with receiver(tmp_path) as client:
        answer = post(client, "batch", {"batch": [{"type": "track", **TRACK}]}, PIPELINES_KEY)
        assert (answer.status_code, answer.json()) == (200, {})
    (line,) = landed(tmp_path)
    assert (line["source"], line["adapter"], len(line["id"])) == ("pipelines", "customerio", 36)


def test_a_write_key_counts_in_the_header_or_in_the_body_and_is_never_landed(tmp_path: Path) -> None:
    calls = [
        json.dumps(TRACK | {"writeKey": WEB_KEY, "n": 12345678901234567890123}).encode(),
        json.dumps({"batch": [TRACK | {"writeKey": WEB_KEY}], "writeKey": WEB_KEY}).encode(),
        b'{"write\\u004bey": "web-5ekret", "n": 1}',
        b'{"writeKey" : "w\\u0065b-5ekret", "event": "\\"writeKey\\": it is not"}',
    ]
    with receiver(tmp_path) as client:
        for call in calls:
            path = "/v1/batch" if b"batch" in call else "/v1/track"
            assert client.post(path, content=call, headers=JSON).status_code == 200
            assert post(client, path.removeprefix("/v1/"), call).status_code == 200
    lines = landed_text(tmp_path)
    assert len(lines) == 2 * len(calls)
    assert not any(b"5ekret" in line for line in lines)
    assert sum(b"12345678901234567890123" in line for line in lines) == 2
    assert landed(tmp_path)[-1]["body"]["event"] == '"writeKey": it is not'


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (basic("unknown"), b"{}"),
        (basic(""), b"{}"),
        (basic("unknown"), json.dumps({"writeKey": WEB_KEY}).encode()),
        ({"Authorization": f"Bearer {WEB_KEY}"}, b"{}"),
        ({"Authorization": "Basic !"}, b"{}"),
        ({}, b"{}"),
        ({}, b'{"writeKey": "unknown"}'),
        ({}, b'{"writeKey": 7}'),
    ],
)
def test_a_call_without_a_known_write_key_is_refused(
    client: httpx.Client, headers: dict[str, str], body: bytes
) -> None:
    answer = client.post("/v1/track", content=body, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["code"] == "credentials"
    assert answer.json()["message"] == answer.json()["error"]
    assert "unknown" not in answer.text
    assert "5ekret" not in answer.text


def test_what_can_not_be_loaded_is_taken_to_be_counted_unless_the_client_is_strict(tmp_path: Path) -> None:
    bad: list[tuple[str, Any]] = [("track", {"event": "no user"}), ("group", {"userId": "u"}), ("batch", {"batch": 1})]
    with receiver(tmp_path) as client:
        for path, call in bad:
            assert post(client, path, call).status_code == 200
            refused = strictly(client, path, call)
            assert (refused.status_code, refused.json()["code"]) == (400, "invalid")
    assert len(landed(tmp_path)) == len(bad)


@pytest.mark.parametrize(
    ("path", "call", "words"),
    [
        ("track", {"event": "x"}, "userId or anonymousId is missing"),
        ("track", {"userId": "u"}, "a track call needs event"),
        ("identify", {"userId": {"a": "secret"}}, "userId is neither text nor a whole number"),
        ("page", {"userId": "u", "properties": ["secret"]}, "properties is not an object"),
        ("screen", {"userId": "u", "timestamp": "secret"}, "timestamp is not a moment in ISO 8601"),
        ("alias", {"userId": "u"}, "an alias needs userId and previousId"),
        ("batch", {"batch": [TRACK | {"type": "track"}, {"type": "secret"}]}, "batch[1]: type is not one of"),
        ("batch", {"batch": ["secret"]}, "batch[0]: the call is not an object"),
    ],
)
def test_strict_mode_says_what_is_wrong_without_repeating_it(
    client: httpx.Client, path: str, call: Any, words: str
) -> None:
    answer = strictly(client, path, call)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(words)
    assert "secret" not in answer.text


ids = st.none() | st.just("u") | st.text(max_size=3) | st.integers() | st.floats(allow_nan=False)
objects: st.SearchStrategy[Any] = st.none() | st.just({}) | st.just({"a": 1}) | st.just([])


@given(
    st.sampled_from(TYPES),
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("userId", "anonymousId", "groupId", "previousId", "event", "name", "messageId"), ids)
        | dict.fromkeys(("properties", "traits", "context"), objects)
        | {"timestamp": st.none() | st.just("2024-02-03T04:05:06Z") | st.text(max_size=4) | st.integers()},
    ),
)
@example("track", {"userId": "u", "event": "x"})
def test_what_strict_mode_takes_can_be_loaded_and_nothing_else(kind: str, call: dict[str, Any]) -> None:
    loaded = event_from_segment(call | {"type": kind})
    assert (call_problem(call, kind) == "") == (not isinstance(loaded, Refusal))


def test_too_much_at_once_is_refused_as_segment_does(tmp_path: Path) -> None:
    large = TRACK | {"properties": {"text": "x" * 32 * 1024}}
    many = {"batch": [TRACK | {"type": "track", "properties": {"text": "x" * 1000}}] * 500}
    with receiver(tmp_path) as client:
        for path, call in (("track", large), ("batch", many)):
            answer = post(client, path, call)
            assert (answer.status_code, answer.json()["code"]) == (400, "too_large")
        assert post(client, "track", b"{").json()["code"] == "json"
    assert landed(tmp_path) == []


def test_too_much_at_once_is_counted_where_customer_io_says_that_all_is_well(tmp_path: Path) -> None:
    large = TRACK | {"properties": {"text": "x" * 32 * 1024}}
    with receiver(tmp_path) as client:
        for call in (large, b"{", b"[]"):
            assert post(client, "track", call, PIPELINES_KEY).json() == {}
            assert strictly(client, "track", call, PIPELINES_KEY).status_code == 400
        metrics = client.get("/metrics").text
    refused = [(line["refused"][:24], line["body"]) for line in landed(tmp_path)]
    assert refused == [
        ("the body is larger than ", {"type": "track"}),
        ("the body is not JSON: un", {"type": "track"}),
        ("the body is not a JSON o", {"type": "track"}),
    ]
    # The strict ones count as well.
    assert 'refused_total{reason="too_large",source="pipelines"} 2.0' in metrics.replace(
        'source="pipelines",reason="too_large"', 'reason="too_large",source="pipelines"'
    )


def test_a_large_call_in_a_batch_is_named_and_does_not_cost_the_others(tmp_path: Path) -> None:
    call = TRACK | {"type": "track"}
    batch = {"batch": [call, call | {"properties": {"text": "x" * 32 * 1024}}, call]}
    with receiver(tmp_path) as client:
        assert post(client, "batch", batch).status_code == 200
        assert strictly(client, "batch", batch).json()["message"] == "batch[1] is larger than a call may be"
    (line,) = landed(tmp_path)
    assert line["over_limit"] == [1]
    assert len(line["body"]["batch"]) == 3


def test_each_client_has_its_own_limits(tmp_path: Path) -> None:
    clients = (Client("small", "small-key", largest_call_bytes=100), Client("large", "large-key"))
    call = TRACK | {"properties": {"text": "x" * 200}}
    with receiver(tmp_path, clients=clients) as client:
        assert post(client, "track", call, "small-key").status_code == 400
        assert client.post("/v1/track", json=call | {"writeKey": "small-key"}).status_code == 400
        assert post(client, "track", call, "large-key").status_code == 200
    assert [line["source"] for line in landed(tmp_path)] == ["large"]


def test_compressed_calls_are_taken_and_bombs_are_not_inflated(tmp_path: Path) -> None:
    def compressed(body: bytes) -> tuple[int, str]:
        answer = post(client, "batch", body, **{"Content-Encoding": "gzip"})
        return answer.status_code, answer.json().get("code", "")

    whole = gzip.compress(json.dumps({"batch": [TRACK | {"type": "track"}]}).encode())
    with receiver(tmp_path) as client:
        assert compressed(whole) == (200, "")
        assert compressed(gzip.compress(b" " * 300_000_000, compresslevel=1)[:500_000]) == (400, "too_large")
        assert compressed(gzip.compress(b"x" * 600_000)) == (400, "too_large")
        assert compressed(whole[:-10]) == (400, "encoding")
        assert compressed(whole + b"more") == (400, "encoding")
        assert compressed(b"{}") == (400, "encoding")
        assert post(client, "track", TRACK, **{"Content-Encoding": "br"}).status_code == 415
    assert len(landed(tmp_path)) == 1


def test_a_website_may_call_from_anywhere(client: httpx.Client) -> None:
    asked = client.options(
        "/v1/t",
        headers={
            "Origin": "https://shop.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        },
    )
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == "*"
    assert "content-type" in asked.headers["access-control-allow-headers"].lower()
    beacon = client.post(
        "/v1/t",
        content=json.dumps(TRACK | {"writeKey": WEB_KEY}),
        headers={"Origin": "https://shop.example", "Content-Type": "text/plain;charset=UTF-8"},
    )
    refused = client.post("/v1/t", content=b"{}")
    missing = client.post("/v1/nothing", content=b"{}")
    assert [beacon.status_code, refused.status_code, missing.status_code] == [200, 401, 404]
    for answer in (beacon, refused, missing):
        assert answer.headers["access-control-allow-origin"] == "*"
    form = client.post("/v1/t", data={"writeKey": WEB_KEY})
    assert form.status_code == 415


def test_browsers_and_phones_find_their_settings(client: httpx.Client) -> None:
    host = f"{client.base_url.host}:{client.base_url.port}"
    found = client.get(f"/v1/projects/{WEB_KEY}/settings")
    assert found.json()["integrations"] == {"Segment.io": {"apiKey": WEB_KEY, "apiHost": f"{host}/v1"}}
    assert found.headers["access-control-allow-origin"] == "*"
    odd = client.get(f"/v1/projects/{WEB_KEY}/settings", headers={"Host": 'x"><script>'})
    assert odd.json()["integrations"] == {"Segment.io": {"apiKey": WEB_KEY}}
    assert client.get("/v1/projects/unknown/settings").status_code == 401
