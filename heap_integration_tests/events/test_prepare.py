"""Whatever was stored ends as what Heap takes or as a refusal with its reason."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_integration.events.flatten import FORMS
from heap_integration.events.mask import MASK_KINDS
from heap_integration.events.prepare import (
    Identity,
    Prepared,
    PreparedRow,
    Preparer,
    PrepareSettings,
    PropertyLists,
    Refused,
    Unsent,
)

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
        "received_at": "2026-01-02T03:04:06.000Z",
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
        given["received_at"],
    )


def refused(preparer: Preparer, stored: PreparedRow) -> tuple[str, str]:
    outcome = preparer.prepare(stored)
    assert isinstance(outcome, Refused), outcome
    return outcome


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


@pytest.mark.parametrize("message_id", ["", "1234567", "m" * 256])
def test_without_a_usable_message_id_the_key_makes_the_event_unique(message_id: str) -> None:
    assert sent(HUB, row(message_id=message_id))["idempotency_key"] == KEY.hex()


@pytest.mark.parametrize(
    ("user_id", "anonymous_id", "identity"),
    [("u1", "a1", "u1"), (" u1 ", None, "u1"), (None, "a1", "a1"), ("  ", "a1", "a1"), ("undefined", "a1", "a1")],
)
def test_the_identity_is_the_user_or_else_the_device(
    user_id: str | None, anonymous_id: str | None, identity: str
) -> None:
    assert sent(HUB, row(user_id=user_id, anonymous_id=anonymous_id))["identity"] == identity


HEAP_USERS = Preparer(PrepareSettings(anonymous_ids="heap_user_id"))


@pytest.mark.parametrize(
    ("user_id", "anonymous_id", "sent_as", "notes"),
    [
        (None, "1234567890123456", {"user_id": "1234567890123456"}, ()),
        (" ", str(2**53 - 1), {"user_id": str(2**53 - 1)}, ()),
        ("null", "7", {"user_id": "7"}, ("placeholder user id",)),
        ("u1", "7", {"identity": "u1"}, ()),
        ("7", "8", {"identity": "7"}, ()),
        (None, str(2**53), {"identity": str(2**53)}, ("anonymous id is no Heap user id",)),
        (None, "007", {"identity": "007"}, ("anonymous id is no Heap user id",)),
        (None, "7.0", {"identity": "7.0"}, ("anonymous id is no Heap user id",)),
        (None, "٧", {"identity": "٧"}, ("anonymous id is no Heap user id",)),
    ],
)
def test_an_anonymous_id_can_be_that_of_heaps_own_sdk(
    user_id: str | None, anonymous_id: str, sent_as: dict[str, str], notes: tuple[str, ...]
) -> None:
    prepared = HEAP_USERS.prepare(row(user_id=user_id, anonymous_id=anonymous_id))
    assert isinstance(prepared, Prepared)
    payload = orjson.loads(prepared.payload)
    assert {key: payload[key] for key in ("identity", "user_id") if key in payload} == sent_as
    assert prepared.notes == notes


def test_a_user_of_heaps_sdk_and_an_identity_never_share_a_limit() -> None:
    identities = {HEAP_USERS.who(*ids).key for ids in (("7", None), (None, "7"), ("user_id:7", None))}
    assert len(identities) == 3


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"user_id": None}, "no user: neither a user id nor an anonymous id"),
        ({"user_id": "NULL"}, "the identity 'NULL' stands for nobody"),
        ({"user_id": "0", "anonymous_id": "[object Object]"}, "the identity '[object Object]' stands for nobody"),
        ({"user_id": " \t ", "anonymous_id": ""}, "no user: neither a user id nor an anonymous id"),
        ({"user_id": "u" * 256}, "the identity is longer than the 255 characters Heap takes"),
        ({"name": ""}, "no event name"),
        ({"name": "  "}, "no event name"),
        ({"name": "n" * 1025}, "the event name is longer than the 1024 characters Heap takes"),
        ({"timestamp": "soon"}, "timestamp 'soon' can't be read"),
        ({"type": "identify"}, "Heap events take track, page and screen calls; got identify"),
        ({"properties": "[]"}, "properties is not a JSON object"),
        ({"properties": "{"}, "properties is not JSON: unexpected end of data"),
        ({"properties": '{"v": NaN}'}, "properties is not JSON: unexpected character"),
        ({"properties": '{"v": -Infinity}'}, "properties is not JSON: "),
        ({"properties": '{"v": 1e999}'}, "properties is not JSON: number is infinity"),
        ({"properties": r'{"v": "\ud800"}'}, "properties is not JSON: no low surrogate"),
        ({"name": "\ud800"}, "the event holds text that is not UTF-8"),
        ({"properties": {"v": "x" * 1024}}, "the value of 'v' is longer than the 1023 characters Heap takes"),
        ({"properties": {"k" * 1024: 1}}, "the key of 'kkkk"),
    ],
)
def test_what_heap_would_not_take_is_rejected_in_words(fields: dict[str, Any], reason: str) -> None:
    status, said = refused(HUB, row(fields.pop("properties", None), **fields))
    assert status == "rejected"
    assert said.startswith(reason)


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


@pytest.mark.parametrize(
    ("ahead", "received_at", "notes"),
    [
        ("2026-01-02T03:14:06.000Z", "2026-01-02T03:04:06Z", ()),
        ("2026-01-02T03:14:06.001Z", "2026-01-02T03:04:06Z", ("future timestamp",)),
        ("2026-01-02T05:04:05+02:00", "2026-01-02T03:04:06+00:00", ()),
        ("2027-01-01T00:00:00.000Z", "2026-01-02T03:04:06.000Z", ("future timestamp",)),
    ],
)
def test_an_event_from_the_future_is_flagged_or_rejected(ahead: str, received_at: str, notes: tuple[str, ...]) -> None:
    stored = row(timestamp=ahead, received_at=received_at)
    flagged = HUB.prepare(stored)
    assert isinstance(flagged, Prepared)
    assert flagged.notes == notes
    strict = Preparer(PrepareSettings(future_timestamps="reject")).prepare(stored)
    if notes:
        assert strict == Refused("rejected", f"timestamp {ahead} lies in the future: it was received at {received_at}")
    else:
        assert isinstance(strict, Prepared)


def test_an_oversized_event_is_rejected_with_its_size() -> None:
    stored = row({f"p{number}": "é" * 1000 for number in range(10)})
    size = len(HUB.prepare(stored)[1])
    assert refused(Preparer(PrepareSettings(largest_event_bytes=size - 1)), stored) == (
        "rejected",
        f"the event has {size:,} bytes, more than the {size - 1:,} that are let out",
    )
    sent(Preparer(PrepareSettings(largest_event_bytes=size)), stored)


@pytest.mark.parametrize("answer", [False, 0, "false", "No", " denied ", "Opt-Out"])
@pytest.mark.parametrize("place", ["properties", "traits", "context"])
def test_without_consent_an_event_is_suppressed(answer: Any, place: str) -> None:
    preparer = Preparer(PrepareSettings(consent_property="consent.analytics"))
    fields = {"traits": {}, "context": {}, "properties": {}, place: {"consent": {"analytics": answer}}}
    reason = f"no consent: consent.analytics is {answer}"
    assert refused(preparer, row(fields.pop("properties"), **fields)) == ("suppressed", reason)


@pytest.mark.parametrize("answer", [True, 1, "true", "Yes", " opted out "])
@pytest.mark.parametrize("place", ["properties", "traits", "context"])
def test_who_has_opted_out_is_left_alone(answer: Any, place: str) -> None:
    preparer = Preparer(PrepareSettings(opt_out_property="do_not_track"))
    fields = {"traits": {}, "context": {}, "properties": {}, place: {"do_not_track": answer}}
    reason = f"opted out: do_not_track is {answer}"
    assert refused(preparer, row(fields.pop("properties"), **fields)) == ("suppressed", reason)


@pytest.mark.parametrize(
    "wrong", [{"user_id": None}, {"name": "Secret Page"}, {"timestamp": "soon"}, {"type": "identify"}, {"name": ""}]
)
def test_an_objection_comes_before_any_other_reason(wrong: dict[str, Any]) -> None:
    preparer = Preparer(PrepareSettings(consent_property="consent", deny_events=("Secret Page",)))
    assert refused(preparer, row({"consent": False}, **wrong)) == ("suppressed", "no consent: consent is False")


@pytest.mark.parametrize("answer", [True, 1, "yes", None, {"no": "no"}])
def test_consent_or_no_word_of_it_lets_an_event_pass(answer: Any) -> None:
    preparer = Preparer(PrepareSettings(consent_property="consent", opt_out_property="opt_out"))
    sent(preparer, row({"consent": answer, "opt_out": False}))
    sent(preparer, row({"opt_out": "no"}))
    sent(preparer, row())


def test_consent_is_asked_for_however_json_spells_it() -> None:
    preparer = Preparer(PrepareSettings(consent_property="consent"))
    assert refused(preparer, row(r'{"\u0063onsent": "no"}'))[0] == "suppressed"


def test_events_on_the_deny_list_are_suppressed_by_the_name_they_bear_in_heap() -> None:
    preparer = Preparer(PrepareSettings(deny_events=("Page viewed", "heartbeat")))
    reason = ("suppressed", "the event 'Page viewed' is on the deny list")
    assert refused(preparer, row(type="page", name="Home")) == reason
    assert refused(preparer, row(name="Heartbeat"))[0] == "suppressed"
    assert sent(preparer, row(type="screen", name="heartbeat"))["event"] == "Screen viewed"


def test_each_event_has_lists_of_its_own() -> None:
    lists = {"Signed Up": PropertyLists(allow=("plan", "user.team")), "Searched": PropertyLists(deny=("query",))}
    preparer = Preparer(PrepareSettings(event_properties=lists, deny_properties=("password",)))
    properties = {"plan": {"name": "pro", "password": "p"}, "user": {"team": "a", "id": "u"}, "query": "q"}
    signed_up, searched, other = (
        preparer.prepare(row(properties, name=name)) for name in ("signed up", "Searched", "Other")
    )
    assert isinstance(signed_up, Prepared)
    assert orjson.loads(signed_up.payload)["properties"] == {"plan.name": "pro", "user.team": "a"}
    assert signed_up.notes == ("denied",) * 3
    assert isinstance(searched, Prepared)
    assert list(orjson.loads(searched.payload)["properties"]) == ["plan.name", "user.team", "user.id"]
    assert isinstance(other, Prepared)
    assert list(orjson.loads(other.payload)["properties"]) == ["plan.name", "user.team", "user.id", "query"]


def test_properties_are_masked_by_name_and_the_identity_is_not() -> None:
    preparer = Preparer(PrepareSettings(mask=MASK_KINDS, mask_properties=("customer.name",)))
    prepared = preparer.prepare(row({"customer": {"name": ["Ann", "Lee"]}}, user_id="ann@example.com"))
    assert isinstance(prepared, Prepared)
    payload = orjson.loads(prepared.payload)
    assert payload["properties"] == {"customer.name": "[masked]"}
    assert payload["identity"] == prepared.identity == "ann@example.com"
    assert prepared.notes == ("masked:property",)


def test_hashes_without_a_salt_are_refused() -> None:
    for settings in (
        PrepareSettings(mask=("email",), action="hash"),
        PrepareSettings(mask_properties=("a",), action="hash"),
    ):
        with pytest.raises(ValueError, match="needs a salt"):
            Preparer(settings)


def test_what_profiles_need_is_told_in_the_same_words() -> None:
    preparer = Preparer(PrepareSettings(mask=("email",), deny_properties=("password",), opt_out_property="opt_out"))
    assert preparer.flat({"a": {"b": [1]}, "mail": "ann@example.com", "password": "p"}) == (
        {"a.b": "[1]", "mail": "[email]"},
        ["masked:email", "denied"],
    )
    assert preparer.who(None, " d1 ") == Identity("identity", "d1")
    with pytest.raises(Unsent, match="no user") as nobody:
        preparer.who(None, None)
    assert nobody.value.refused == Refused("rejected", "no user: neither a user id nor an anonymous id")
    with pytest.raises(Unsent, match="longer than the 1023"):
        preparer.flat({"a": "x" * 2000})
    with pytest.raises(Unsent, match="opted out: opt_out is yes"):
        preparer.check_consent({}, {"opt_out": "yes"})


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


KEYS = st.text() | st.sampled_from(["a", "a.b", "name", "password", "consent"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)
FINITE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False) | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)
PREPARERS = [
    Preparer(
        PrepareSettings(
            preset=preset,
            too_long="cut",
            mask=MASK_KINDS,
            mask_properties=("name", "0"),
            action="hash",
            salt="s",
            deny_properties=("password",),
            deny_events=("0",),
            event_properties={"Clicked": PropertyLists(allow=("a",), deny=("b",))},
            consent_property="consent",
            opt_out_property="opt_out",
            anonymous_ids="heap_user_id",
            future_timestamps="reject",
            largest_event_bytes=500,
        )
    )
    for preset in FORMS
]


@given(
    preparer=st.sampled_from(PREPARERS),
    properties=st.dictionaries(KEYS, JSON) | st.text(),
    fields=st.fixed_dictionaries(
        {
            "name": st.text(),
            "timestamp": st.text(max_size=30) | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
            "user_id": st.none() | st.text(),
            "anonymous_id": st.none() | st.text(),
            "message_id": st.text(),
            "type": st.sampled_from(["track", "page", "screen", "identify", "group", "alias", ""]),
            "traits": JSON,
            "context": JSON,
        }
    ),
)
def test_no_content_makes_preparing_fail(preparer: Preparer, properties: Any, fields: dict[str, Any]) -> None:
    prepared = preparer.prepare(row(properties, **fields))
    assert isinstance(prepared, Prepared) or prepared.reason


@given(
    preparer=st.sampled_from(PREPARERS),
    properties=st.dictionaries(KEYS, FINITE),
    fields=st.fixed_dictionaries(
        {
            "name": st.text(min_size=1, max_size=2000) | st.just("Clicked"),
            "user_id": st.none() | st.text(max_size=300),
            "anonymous_id": st.just("d1") | st.integers(0, 2**54).map(str),
            "message_id": st.text(),
        }
    ),
)
def test_what_goes_out_keeps_heaps_rules(preparer: Preparer, properties: Any, fields: dict[str, Any]) -> None:
    prepared = preparer.prepare(row(properties, **fields))
    if isinstance(prepared, Refused):
        known = ("no consent", "no event name", "the event has", "the identity", "the event '0' is on")
        assert prepared.reason.startswith(known)
        return
    payload = orjson.loads(prepared.payload)
    assert len(prepared.payload) <= preparer.settings.largest_event_bytes
    assert len({"identity", "user_id"} & payload.keys()) == 1
    assert payload.keys() - {"identity", "user_id"} == {"event", "timestamp", "properties", "idempotency_key"}
    assert 0 < len(payload["event"]) <= 1024
    assert 0 < len(payload.get("identity", payload.get("user_id"))) <= 255
    assert 8 <= len(payload["idempotency_key"]) <= 255
    assert all(0 < len(key) < 1024 for key in payload["properties"])
    assert all(len(value) < 1024 for value in payload["properties"].values() if isinstance(value, str))
    assert not any(isinstance(value, dict | list) for value in payload["properties"].values())
    assert "password" not in payload["properties"]
    if payload["event"] == "Clicked":
        assert {re.split(r"[.[]", key)[0].casefold() for key in payload["properties"]} <= {"a", "segment_library"}
