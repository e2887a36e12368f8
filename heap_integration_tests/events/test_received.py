"""Landed lines become events, each call of them exactly once, and what is refused can be read again."""

from __future__ import annotations

import io
import json
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_integration.events.sources.customerio import ORDER
from heap_integration.events.sources.received import ADAPTERS, read_landed_lines, read_landing
from heap_integration.events.sources.rows import Chunk
from heap_integration_tests.events.conftest import events, refused


def track(name: str = "Opened", **members: Any) -> dict[str, Any]:
    return {"type": "track", "event": name, "userId": "u1"} | members


def line(body: object, adapter: str = "segment", **members: Any) -> dict[str, Any]:
    landed = {"id": "line-1", "received_at": "2026-01-02T03:04:07.500Z", "source": "shop", "adapter": adapter}
    return landed | {"body": body} | members


def read(*lines: object, **options: Any) -> list[Chunk]:
    texts = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in lines]
    return list(read_landing(io.BytesIO(b"\n".join(texts)), "landing", **options))


def test_lines_are_events_refusals_or_of_no_use() -> None:
    (chunk,) = read(
        line(track(messageId="m-1")),
        line({"topic": "user.deleted", "object": "webhook_notification"}, "userflow"),
        line({}, "carrier pigeon"),
        line("text"),
        line(track(), received_at=None),
        line(track(), source=""),
        b"half a li",
    )
    assert (chunk.lines, chunk.events.num_rows, chunk.refused.num_rows, chunk.unused) == (7, 1, 5, 1)
    assert refused([chunk]) == {
        3: "unknown adapter 'carrier pigeon'",
        4: "not a landing line: received_at or the body's JSON object is missing",
        5: "not a landing line: received_at or the body's JSON object is missing",
        6: "not a landing line: source is ''",
        7: "not a landing line: unexpected character, expected a JSON value: line 1 column 1 (char 0)",
    }
    (event,) = events([chunk])
    assert (event["source"], event["message_id"], event["origin"], event["line"]) == ("shop", "m-1", "landing", 1)
    assert event["received_at"].isoformat() == "2026-01-02T03:04:07.500000"
    assert event["suppressed"] is None


def test_a_source_that_is_off_and_a_call_that_leaves_out_heap_suppress_their_events() -> None:
    calls = [track(messageId="m-1"), track(messageId="m-2", integrations={"Heap": False})]
    batch = {"type": "batch", "batch": calls}
    assert [event["suppressed"] for event in events(read(line(batch)))] == [
        None,
        "the call's integrations leave out Heap",
    ]
    off = read(line(batch, suppressed="stream_events is off"))
    assert [event["suppressed"] for event in events(off)] == [
        "stream_events is off",
        "the call's integrations leave out Heap",
    ]


def test_an_order_to_suppress_somebody_is_told_from_others_also_while_its_source_is_off() -> None:
    order = line(track("User Suppressed"), "customerio", suppressed="stream_events is off")
    (event,) = events(read(order))
    assert (event["user_id"], event["suppressed"]) == ("u1", ORDER)


def test_a_chunk_ends_with_a_line_and_reading_resumes_after_it() -> None:
    batch = line({"type": "batch", "batch": [track(messageId=f"m-{number}") for number in range(5)]})
    lines = [batch | {"id": f"line-{number}"} for number in range(4)]
    chunks = read(*lines, chunk_rows=7)
    assert [(chunk.last_line, chunk.lines) for chunk in chunks] == [(2, 10), (4, 10)]
    rest = read(*lines, chunk_rows=7, after_line=chunks[0].last_line)
    assert [(chunk.last_line, chunk.lines) for chunk in rest] == [(4, 10)]


def test_a_refused_call_of_a_batch_is_kept_alone_and_can_be_read_again() -> None:
    nobody = track("Nobody's", userId=None, properties={"n": "x" * 3_000})
    batch = {"type": "batch", "batch": [track(), nobody, "text", track()], "context": {"ip": "::1"}, "writeKey": "key"}
    (chunk,) = read(line(batch, suppressed="off"))
    assert (chunk.events.num_rows, chunk.lines) == (2, 4)
    first, second = (json.loads(row["raw"]) for row in chunk.refused.to_pylist())
    assert first == line(
        nobody | {"context": {"ip": "::1"}},
        id="line-1:1",
        received_at="2026-01-02T03:04:07.500000+00:00",
        suppressed="off",
    )
    assert second["body"] == {"type": "batch", "batch": ["text"]}

    known = orjson.dumps(first | {"body": first["body"] | {"userId": "u1"}})
    (again,) = read_landed_lines([(1, known)], "retry")
    (event,) = events([again])
    assert (event["name"], event["suppressed"], event["context"]) == ("Nobody's", "off", '{"ip":"::1"}')


def test_what_the_receiver_has_refused_is_counted_and_a_call_over_the_limit_can_be_taken_later() -> None:
    unusable = line({"type": "track"}, refused="the body is not JSON")
    large = line({"type": "batch", "batch": [track(), track("Large")]}, over_limit=[1])
    (chunk,) = read(unusable, large)
    assert refused([chunk]) == {1: "the body is not JSON", 2: "the call is larger than its client's limit"}
    assert [event["name"] for event in events([chunk])] == ["Opened"]
    (again,) = read_landed_lines([(1, chunk.refused.to_pylist()[1]["raw"].encode())], "retry")
    assert [event["name"] for event in events([again])] == ["Large"]


def test_a_refused_line_is_kept_to_the_digit_but_without_its_write_key() -> None:
    exact = (
        b'{"id":"1","received_at":"2026-01-02","source":"s","adapter":"segment","body":{"n":12345678901234567890123}}'
    )
    (chunk,) = read(exact, line({"writeKey": "5ekret", "n": 1}))
    first, second = (row["raw"] for row in chunk.refused.to_pylist())
    assert first == exact.decode()
    assert json.loads(second)["body"] == {"n": 1}


def test_what_is_nested_too_deeply_is_refused_and_the_calls_beside_it_count() -> None:
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"deeper": deep}
    nobody = track(userId=None, properties=deep)
    batch = line({"type": "batch", "batch": [track(properties=deep), nobody, track()]})
    (chunk,) = read(batch, line({"type": "batch", "batch": [track()], "context": deep}), b" ")
    assert (chunk.events.num_rows, chunk.lines) == (1, 4)
    too_deep, nobodys, shared = (row["reason"] for row in chunk.refused.to_pylist())
    assert too_deep.startswith("no JSON form: ")
    assert nobodys == "no user: neither userId nor anonymousId"
    assert shared.startswith("the batch's context has no JSON form: ")
    # what can't be written alone is kept with its batch
    assert json.loads(chunk.refused.to_pylist()[1]["raw"]) == batch


def test_a_repeated_line_has_the_same_events_and_two_like_calls_are_two() -> None:
    batch = line({"type": "batch", "batch": [track(), track()]})
    keys = [event["event_key"] for event in events(read(batch, batch))]
    assert len(set(keys)) == 2
    assert keys[:2] == keys[2:]


NAMES = [
    *("type", "event", "name", "userId", "anonymousId", "messageId", "timestamp", "properties", "traits", "context"),
    *("integrations", "groupId", "previousId", "writeKey", "batch", "event_type", "event_name", "user_id", "metadata"),
    *("company_id", "inserted_at", "identity", "user", "time", "object", "topic", "data", "attributes", "id", "Heap"),
]
WORDS = ["track", "page", "batch", "group", "alias", "u1", "experience:1:SEEN", "interaction", "identify_company"]
WORDS += ["webhook_notification", "event.tracked", "user.updated", "event", "2026-01-02T03:04:05Z", "9" * 400]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(WORDS),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=4)), inner, max_size=8),
    ),
    max_leaves=24,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), JSON, max_size=12)
# good ones, of which a part is replaced by anything
GOOD = [
    track(messageId="m-1", timestamp="2026-01-02T03:04:05Z", context={"ip": "::1"}),
    {"type": "group", "groupId": "acme", "traits": {"seats": 3}},
    {"type": "alias", "userId": "u1", "previousId": "a1"},
    {"event_type": "interaction", "event_name": "experience:1:SEEN", "user_id": "u1", "metadata": {"step": 2}},
    {"event": {"name": "Signed Up"}, "user": {"identity": "ada", "user_id": 7}, "time": 1767323045},
    {
        "object": "webhook_notification",
        "topic": "event.tracked",
        "data": {"object": {"name": "flow_started", "user_id": "u1", "attributes": {"step": 2}}},
    },
    {
        "object": "webhook_notification",
        "topic": "user.updated",
        "data": {"object": {"id": "u1", "attributes": {"plan": "pro"}}},
    },
]
CALLS = st.builds(
    lambda good, changes: good | changes,
    st.sampled_from(GOOD),
    st.dictionaries(st.sampled_from(NAMES), JSON, max_size=2),
)
BATCHES = st.builds(
    lambda calls, rest: rest | {"type": "batch", "batch": calls},
    st.lists(st.one_of(CALLS, JSON), max_size=5),
    st.dictionaries(st.sampled_from(NAMES), JSON, max_size=2),
)


@settings(max_examples=400)
@given(body=st.one_of(CALLS, BATCHES, OBJECTS, JSON), adapter=st.sampled_from(sorted(ADAPTERS)))
def test_whatever_json_a_client_sends_ends_as_events_refusals_or_of_no_use(body: object, adapter: str) -> None:
    try:
        text = json.dumps(line(body, adapter)).encode()
        orjson.loads(text)
    except (ValueError, UnicodeError):
        return  # the receiver has refused it
    (chunk,) = read_landed_lines([(1, text)], "landing")
    calls = body["batch"] if isinstance(body, dict) and isinstance(body.get("batch"), list) else []
    assert chunk.lines == chunk.events.num_rows + chunk.refused.num_rows + chunk.unused
    assert chunk.lines in (1, len(calls))
    assert chunk.last_line == 1
    kept = chunk.refused.to_pylist()
    assert all(row["reason"] and row["raw"] for row in kept)
    again = list(read_landed_lines(((1, row["raw"].encode()) for row in kept), "retry"))
    assert [row["reason"] for piece in again for row in piece.refused.to_pylist()] == [row["reason"] for row in kept]


@given(st.binary(max_size=200))
def test_whatever_bytes_lie_in_the_landing_are_read(content: bytes) -> None:
    chunks = list(read_landing(io.BytesIO(content), "landing"))
    assert sum(chunk.lines for chunk in chunks) == sum(chunk.refused.num_rows for chunk in chunks)
