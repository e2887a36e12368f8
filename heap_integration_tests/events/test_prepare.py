"""Whatever was stored ends as what Heap takes or as a refusal with its reason."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_integration.events.flatten import FORMS
from heap_integration.events.mask import MASK_KINDS
from heap_integration.events.prepare import Prepared, PreparedRow, Preparer, PrepareSettings, Refused

KEY = bytes(range(16))
HUB = Preparer(PrepareSettings())


def row(properties: Any = None, **fields: Any) -> PreparedRow:
    given = {
        "type": "track",
        "name": "Clicked",
        "user_id": "u1",
        "anonymous_id": None,
        "message_id": "",
        "timestamp": "2026-01-02T03:04:05.678900Z",
        "traits": {},
        "context": {},
    } | fields
    return (
        KEY,
        given["message_id"],
        given["type"],
        given["name"],
        given["user_id"],
        given["anonymous_id"],
        given["timestamp"],
        properties if isinstance(properties, str) else json.dumps(properties or {}),
        json.dumps(given["traits"]),
        json.dumps(given["context"]),
    )


def sent(preparer: Preparer, stored: PreparedRow) -> dict[str, Any]:
    prepared = preparer.prepare(stored)
    assert isinstance(prepared, Prepared), prepared
    payload: dict[str, Any] = orjson.loads(prepared.payload)
    return payload


def test_the_payload_is_one_of_heaps_bulk_events() -> None:
    prepared = HUB.prepare(row({"plan": {"name": "pro", "price": 12.5}}, message_id="message-1"))
    assert prepared == Prepared(
        "u1",
        b'{"event":"Clicked","identity":"u1","timestamp":"2026-01-02T03:04:05.678Z",'
        b'"properties":{"plan.name":"pro","plan.price":12.5},"idempotency_key":"message-1"}',
        (),
    )
    assert HUB.prepare(row({"plan": {"name": "pro", "price": 12.5}}, message_id="message-1")) == prepared


def test_without_a_message_id_the_key_makes_the_event_unique() -> None:
    assert sent(HUB, row())["idempotency_key"] == KEY.hex()


@pytest.mark.parametrize(
    ("user_id", "anonymous_id", "identity"),
    [("u1", "a1", "u1"), (" u1 ", None, "u1"), (None, "a1", "a1"), ("  ", "a1", "a1"), ("undefined", "a1", "a1")],
)
def test_the_identity_is_the_user_or_else_the_device(
    user_id: str | None, anonymous_id: str | None, identity: str
) -> None:
    assert sent(HUB, row(user_id=user_id, anonymous_id=anonymous_id))["identity"] == identity


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"user_id": None}, "no user: neither a user id nor an anonymous id"),
        ({"user_id": "NULL"}, "the identity 'NULL' stands for nobody"),
        ({"user_id": "0", "anonymous_id": "[object Object]"}, "the identity '[object Object]' stands for nobody"),
        ({"user_id": "u" * 256}, "the identity is longer than the 255 characters Heap takes"),
        ({"name": ""}, "no event name"),
        ({"name": "n" * 1025}, "the event name is longer than the 1024 characters Heap takes"),
        ({"timestamp": "soon"}, "timestamp 'soon' can't be read"),
        ({"type": "identify"}, "Heap events take track, page and screen calls; got identify"),
        ({"properties": "[]"}, "properties is not a JSON object"),
        ({"properties": "{"}, "properties is not JSON: unexpected end of data"),
        ({"properties": {"v": "x" * 1024}}, "the value of 'v' is longer than the 1023 characters Heap takes"),
    ],
)
def test_what_heap_would_not_take_is_rejected_in_words(fields: dict[str, Any], reason: str) -> None:
    refused = HUB.prepare(row(fields.pop("properties", None), **fields))
    assert isinstance(refused, Refused)
    assert refused.status == "rejected"
    assert refused.reason.startswith(reason[:30])
    assert refused.reason == reason or "JSON" in reason


def test_settings_cut_instead_and_let_placeholders_through() -> None:
    lenient = Preparer(PrepareSettings(too_long="cut", refuse_placeholder_identities=False))
    prepared = lenient.prepare(row({"v": "x" * 2000}, user_id="0", name="n" * 2000))
    assert isinstance(prepared, Prepared)
    assert prepared.identity == "0"
    assert prepared.notes == ("cut:name", "cut:value")


@pytest.mark.parametrize(("kind", "name"), [("page", "Page viewed"), ("screen", "Screen viewed")])
def test_page_and_screen_calls_become_views_that_bear_their_name(kind: str, name: str) -> None:
    payload = sent(HUB, row({"url": "/"}, type=kind, name="Home"))
    assert payload["event"] == name
    assert payload["properties"] == {"url": "/", "name": "Home"}
    assert isinstance(Preparer(PrepareSettings(preset="rudder")).prepare(row(type=kind)), Refused)


@pytest.mark.parametrize(
    "timestamp", ["2026-01-02T03:04:05.678900Z", "2026-01-02T05:04:05.678+02:00", "2026-01-02 03:04:05.678"]
)
def test_times_go_out_in_utc_with_milliseconds(timestamp: str) -> None:
    assert sent(HUB, row(timestamp=timestamp))["timestamp"] == "2026-01-02T03:04:05.678Z"


@pytest.mark.parametrize("answer", [False, 0, "false", "No", " denied "])
@pytest.mark.parametrize("place", ["properties", "traits", "context"])
def test_without_consent_an_event_is_suppressed(answer: Any, place: str) -> None:
    preparer = Preparer(PrepareSettings(consent_property="consent.analytics"))
    fields = {"traits": {}, "context": {}, "properties": {}, place: {"consent": {"analytics": answer}}}
    refused = preparer.prepare(row(fields.pop("properties"), **fields))
    assert refused == Refused("suppressed", f"no consent: consent.analytics is {answer}")


@pytest.mark.parametrize("answer", [True, 1, "yes", None])
def test_consent_or_no_word_of_it_lets_an_event_pass(answer: Any) -> None:
    preparer = Preparer(PrepareSettings(consent_property="consent"))
    sent(preparer, row({"consent": answer}))
    sent(preparer, row())


def test_remembered_properties_are_masked_like_the_first() -> None:
    preparer = Preparer(PrepareSettings(mask=("email",)))
    twice = [preparer.prepare(row({"mail": "ann@example.com"})) for _ in range(2)]
    assert twice[0] == twice[1]
    assert isinstance(twice[0], Prepared)
    assert twice[0].notes == ("masked:email",)
    assert b"ann" not in twice[0].payload
    escaped = preparer.prepare(row(r'{"mail": "ann\u0040example.com"}'))
    assert isinstance(escaped, Prepared)
    assert b"ann" not in escaped.payload


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
PREPARERS = [
    Preparer(
        PrepareSettings(
            preset=preset,
            too_long="cut",
            mask=MASK_KINDS,
            action="hash",
            salt="s",
            deny_properties=("password",),
            consent_property="consent",
        )
    )
    for preset in FORMS
]


@given(
    preparer=st.sampled_from(PREPARERS),
    properties=st.dictionaries(st.text(), JSON) | st.text(),
    fields=st.fixed_dictionaries(
        {
            "name": st.text(),
            "user_id": st.none() | st.text(),
            "anonymous_id": st.none() | st.text(),
            "message_id": st.text(),
            "type": st.sampled_from(["track", "page", "screen", "alias"]),
            "traits": JSON,
            "context": JSON,
        }
    ),
)
def test_no_content_makes_preparing_fail(preparer: Preparer, properties: Any, fields: dict[str, Any]) -> None:
    prepared = preparer.prepare(row(properties, **fields))
    if isinstance(prepared, Refused):
        assert prepared.reason
        return
    payload = orjson.loads(prepared.payload)
    assert list(payload) == ["event", "identity", "timestamp", "properties", "idempotency_key"]
    assert not any(isinstance(value, dict | list) for value in payload["properties"].values())
