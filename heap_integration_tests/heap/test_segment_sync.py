"""Heap's Segment Sync calls are believed only when signed, and read whole."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from heap_integration.heap.segment_sync import (
    BadPage,
    BadSignature,
    BadTimestamp,
    SegmentPage,
    read_page,
    verify,
)

NOW = 1_700_000_000.5
STAMP = "1700000000500"
CONTRACT = Path(__file__).parents[3] / "shared/contracts/heap/heap-partner-webhook_spec.yaml"


def signature(stamp: str, body: bytes, secret: str = "webhook secret") -> str:
    digest = hmac.new(secret.encode(), stamp.encode() + body, hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def header(body: bytes, stamp: str = STAMP) -> str:
    return f"ts:{stamp},hmac:{signature(stamp, body)}"


def call(**data: Any) -> dict[str, Any]:
    return {
        "id_token": "7a36ae58-c4b9-11eb-8529-0242ac130003",
        "action_type": "segment.users.sync",
        "customer_config": {"fields": []},
        "data": {
            "segment": {"id": 1338065, "name": "Free Customers"},
            "sync_info": {"page_number": 1, "total_pages": 5, "sync_task_id": "afe74af0"},
            **data,
        },
    }


def page(payload: Any) -> SegmentPage:
    return read_page(json.dumps(payload).encode(), signed_at=1)


@pytest.mark.parametrize(
    "body",
    [
        '{"name":"Größe ☕ 👩‍🚀"}'.encode(),
        b'{"name":"Gr\\u00f6\\u00dfe"}',
        b'{ "name" :\n "spaced" }\r\n',
        b"\xff\x00 not even text",
    ],
)
def test_the_signature_is_over_the_bytes_as_they_came(body: bytes) -> None:
    assert verify("webhook secret", header(body), body, NOW) == int(STAMP)
    with pytest.raises(BadSignature):
        verify("webhook secret", header(body), body + b"x", NOW)
    with pytest.raises(BadSignature):
        verify("client secret", header(body), body, NOW)


def as_javascript_writes(payload: Any) -> bytes:
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()


def ways_to_write(payload: Any) -> list[bytes]:
    spaced = (json.dumps(payload), json.dumps(payload, indent=2), json.dumps(payload, ensure_ascii=False) + "\r\n")
    return [as_javascript_writes(payload), *map(str.encode, spaced)]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


VALUES = st.none() | st.booleans() | st.integers(0, 2**53) | TEXTS


@given(st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)))
def test_what_the_reference_receiver_takes_is_taken_however_it_was_spaced_on_the_way(payload: Any) -> None:
    signed = header(as_javascript_writes(payload))
    for body in ways_to_write(payload):
        assert verify("webhook secret", signed, body, NOW) == int(STAMP)
        with pytest.raises(BadSignature):
            verify("webhook secret", signed, b"[" + body + b"]", NOW)


def test_heaps_own_examples_are_taken_and_none_that_says_something_else() -> None:
    if not CONTRACT.exists():
        pytest.skip("Heap's description of its webhooks doesn't lie beside the project")
    description = YAML(typ="safe").load(CONTRACT)
    (operation,) = description["paths"].values()
    examples = operation["post"]["requestBody"]["content"]["application/json"]["examples"]
    for example in (each["value"] for each in examples.values()):
        for body in ways_to_write(example):
            for signed in (header(as_javascript_writes(example)), header(body)):
                found = read_page(body, verify("webhook secret", signed, body, NOW))
                assert (found.segment_id, len(found.added) + len(found.removed)) == (1338065, 2)
                with pytest.raises(BadSignature):
                    verify("webhook secret", signed, body.replace(b"user", b"usex"), NOW)


def test_what_is_nested_too_deeply_to_be_written_is_not_taken() -> None:
    for depth in (500, 5_000):
        body = b"[" * depth + b"]" * depth
        assert verify("webhook secret", header(body), body, NOW)
        with pytest.raises(BadSignature):
            verify("webhook secret", header(b"[]"), body, NOW)


def test_a_call_is_good_for_a_minute_and_a_second_ahead() -> None:
    def at(now: float) -> int:
        return verify("webhook secret", header(b"{}"), b"{}", now)

    assert at(NOW + 60)
    assert at(NOW - 1)
    with pytest.raises(BadTimestamp, match="61 s old, 60 s are allowed"):
        at(NOW + 61)
    with pytest.raises(BadTimestamp, match="2 s in the future"):
        at(NOW - 2)


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        "ts:,hmac:",
        f"ts:{STAMP}",
        f"hmac:{signature(STAMP, b'{}')}",
        f"t={STAMP},hmac={signature(STAMP, b'{}')}",
        f"ts:{STAMP}.0,hmac:{signature(STAMP, b'{}')}",
        f"ts:-{STAMP},hmac:{signature(STAMP, b'{}')}",
        f"ts:¹²³,hmac:{signature(STAMP, b'{}')}",
        f"ts:{'9' * 5000},hmac:{signature(STAMP, b'{}')}",
        f"ts:{STAMP},ts:{STAMP},hmac:{signature(STAMP, b'{}')}",
        f"ts:{STAMP},hmac:{signature(STAMP, b'{}')},more",
    ],
)
def test_a_malformed_header_is_refused(malformed: str) -> None:
    with pytest.raises(BadTimestamp, match="is not ts:<milliseconds>,hmac:<base64>"):
        verify("webhook secret", malformed, b"{}", NOW)


def test_a_signature_of_other_characters_is_no_signature() -> None:
    with pytest.raises(BadSignature, match="does not match"):
        verify("webhook secret", f"ts:{STAMP},hmac:ñ\udcff", b"{}", NOW)


def test_space_and_order_in_the_header_do_not_matter() -> None:
    assert verify("webhook secret", f"hmac:{signature(STAMP, b'{}')}, ts:{STAMP}", b"{}", NOW)


def test_a_page_says_who_entered_and_who_left() -> None:
    found = page(call(add=[{"id": "u@x.io"}, {"id": 42}, {"id": " padded "}], remove=[{"id": "v@x.io"}]))
    assert (found.segment_id, found.segment_name) == (1338065, "Free Customers")
    assert (found.sync_task_id, found.page_number, found.total_pages) == ("afe74af0", 1, 5)
    assert found.added == ("u@x.io", "42", "padded")
    assert found.removed == ("v@x.io",)


def test_either_list_may_be_missing_and_unknown_fields_pass() -> None:
    assert page(call(add=[{"id": "a", "new": 1}], more={})).removed == ()
    assert page(call(remove=None) | {"version": 2}).removed == ()


def test_users_without_an_id_are_counted_and_left_out() -> None:
    found = page(call(add=[{"id": "a"}, {"id": ""}, {"id": None}], remove=[{}]))
    assert (found.added, found.removed, found.without_id) == (("a",), (), 3)


def test_a_drain_is_named_after_its_signature() -> None:
    drain = {"action_type": "segment.users.drain", "data": {"segment": {"id": 7, "name": "Old"}}}
    found = read_page(json.dumps(drain).encode(), signed_at=1234)
    assert (found.action, found.segment_id, found.sync_task_id) == ("segment.users.drain", 7, "drain-7-1234")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "not JSON"),
        (b"[]", "the body: "),
        (json.dumps(call() | {"action_type": "segment.users.merge"}), "action_type: .*segment.users.sync"),
        (json.dumps(call(segment={"id": 2**63, "name": "x"})), r"segment\.id"),
        (json.dumps(call(segment={"id": 1, "name": "nul \0"})), r"segment\.name"),
        (
            json.dumps(call(sync_info={"page_number": 1})),
            r"sync_info\.total_pages: Field required; .*task_id",
        ),
        (json.dumps(call(add=["u@x.io"])), r"add\.0"),
    ],
)
def test_a_malformed_page_is_explained_by_field(body: bytes | str, problem: str) -> None:
    with pytest.raises(BadPage, match=problem) as error:
        read_page(body if isinstance(body, bytes) else body.encode(), signed_at=1)
    assert "u@x.io" not in str(error.value)
