"""Identify, group and alias calls become what Heap takes of people and accounts, or a reason in words."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_integration.events.encoding import encode
from heap_integration.events.merges import ANOTHER_IDENTITY, TOO_MANY_USER_IDS
from heap_integration.events.outbound_profiles import SUPERSEDED
from heap_integration.events.prepare import PreparedRow, Preparer, PrepareSettings, Refused
from heap_integration.events.profiles import ProfilePreparer, ProfileUpdate
from heap_integration_tests.events.conftest import ROOT

WHEN = "2026-01-02T03:04:05.000Z"


def row(
    kind: str = "identify",
    user_id: str | None = "ada",
    anonymous_id: str | None = None,
    *,
    traits: Any = None,
    timestamp: str = WHEN,
    **context: Any,
) -> PreparedRow:
    told, around = orjson.dumps(traits or {}).decode(), orjson.dumps(context).decode()
    return (bytes(16), "", kind, "", user_id, anonymous_id, timestamp, "{}", told, around, WHEN)


def prepare(given: PreparedRow, account_id_property: str | None = None, **settings: Any) -> ProfileUpdate | Refused:
    return ProfilePreparer(Preparer(PrepareSettings(**settings)), account_id_property).prepare(given)


def update(*args: Any, **settings: Any) -> ProfileUpdate:
    prepared = prepare(*args, **settings)
    assert isinstance(prepared, ProfileUpdate), prepared
    return prepared


def refusal(*args: Any, **settings: Any) -> tuple[str, str]:
    prepared = prepare(*args, **settings)
    assert isinstance(prepared, Refused), prepared
    return prepared.status, prepared.reason


def test_an_identify_call_sets_flat_properties_of_its_person() -> None:
    found = update(row(user_id=" ada ", traits={"email": "a@x.io", "Email": "b", "car": {"make": "Fiat"}, "vip": True}))

    assert (found.identity, found.account_id, found.merge) == ("ada", None, None)
    assert found.properties == {"email": "a@x.io", "Email": "b", "car.make": "Fiat", "vip": "true"}
    assert (found.timestamp, found.notes) == (WHEN, ())


@pytest.mark.parametrize("key", ["id", "Id", "ID", "iD"])
def test_the_key_that_heap_keeps_for_itself_is_left_out_and_noted(key: str) -> None:
    found = update(row(traits={key: 7, "team": {"id": 8}, "user_id": "9"}))

    assert (found.properties, found.notes) == ({"team.id": 8, "user_id": "9"}, ("dropped:reserved id",))
    assert refusal(row(traits={key: 7})) == ("suppressed", "nothing to send: the call holds no properties")


def test_a_group_call_sets_properties_of_an_account_and_the_account_of_the_person() -> None:
    call = row("group", traits={"name": "Acme", "seats": 10, "id": "kept"}, groupId=42)

    assert update(call)._replace(notes=()) == ProfileUpdate(
        WHEN, None, {}, "42", {"name": "Acme", "seats": 10, "id": "kept"}, None, ()
    )
    belongs = update(call, "account")
    assert (belongs.identity, belongs.properties) == ("ada", {"account": "42"})
    assert update(row("group", None, groupId="a", traits={"x": 1}), "account").identity is None


@pytest.mark.parametrize("previous", ["17", 17, str(2**53 - 1), "0"])
def test_an_alias_of_heaps_own_user_id_is_a_merge(previous: str | int) -> None:
    found = update(row("alias", previousId=previous), anonymous_ids="heap_user_id")

    assert (found.identity, found.merge, found.properties) == ("ada", int(previous), {})


@pytest.mark.parametrize("previous", ["anon-1", str(2**53), "-1", "1.5", "٣", "9" * 5000, None, True, {"a": 1}])
def test_an_alias_of_any_other_id_is_rejected_in_words(previous: Any) -> None:
    status, reason = refusal(row("alias", previousId=previous), anonymous_ids="heap_user_id")

    assert (status, reason) == (
        "rejected",
        "alias: Heap merges only its own user ids, and the previous id is none",
    )


def test_an_identify_call_merges_only_where_anonymous_ids_are_heaps() -> None:
    call = row(anonymous_id="17", traits={"plan": "pro"})

    assert update(call).merge is None
    assert update(call, anonymous_ids="heap_user_id").merge == 17
    assert update(row(anonymous_id="17"), anonymous_ids="heap_user_id").merge == 17
    other = update(row(anonymous_id="anon-1", traits={"plan": "pro"}), anonymous_ids="heap_user_id")
    assert (other.merge, other.notes) == (None, ("anonymous id is no Heap user id",))
    status, reason = refusal(row("alias", previousId="17"))
    assert status == "rejected"
    assert "Heap merges only its own user ids" in reason


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (row(user_id=None, anonymous_id="a", traits={"x": 1}), "identify: no user id"),
        (row(user_id="  ", traits={"x": 1}), "identify: no user id"),
        (row("alias", user_id=None, previousId="1"), "alias: no user id"),
        (row(user_id="undefined", traits={"x": 1}), "'undefined' stands for nobody"),
        (row(user_id="x" * 256, traits={"x": 1}), "longer than the 255 characters"),
        (row(traits={"x": "y" * 1024}), "the value of 'x' is longer than the 1023 characters"),
        (row("group", traits={"x": 1}), "group: no group id"),
        (row("group", groupId=" ", traits={"x": 1}), "group: no group id"),
        (row("group", groupId=True, traits={"x": 1}), "group: no group id"),
        (row("group", groupId="null", traits={"x": 1}), "the group id 'null' stands for none"),
        (row("group", groupId="g" * 1024, traits={"x": 1}), "the group id is longer than the 1023 characters"),
        (row("track", traits={"x": 1}), "profiles take identify, group and alias calls; got track"),
        (row(traits={"x": 1}, timestamp="yesterday"), "can't be read"),
    ],
)
def test_what_cannot_be_told_is_rejected_with_the_reason_in_words(call: PreparedRow, reason: str) -> None:
    status, found = refusal(call)

    assert (status, reason in found) == ("rejected", True), found


def test_the_rules_of_privacy_are_those_of_events() -> None:
    call = row(traits={"mail": "ask a@x.io", "password": "secret", "plan": "pro"})
    found = update(call, mask=("email",), deny_properties=("password",))

    assert found.properties == {"mail": "ask [email]", "plan": "pro"}
    assert sorted(found.notes) == ["denied", "masked:email"]
    for where in ({"traits": {"consent": "no", "x": 1}}, {"traits": {"x": 1}, "consent": False}):
        assert refusal(row(**where), consent_property="consent")[0] == "suppressed"  # type: ignore[arg-type]


def test_a_time_in_the_future_is_noted_or_refused() -> None:
    call = row(traits={"x": 1}, timestamp="2036-01-01T00:00:00.000Z")

    assert update(call).notes == ("future timestamp",)
    assert "lies in the future" in refusal(call, future_timestamps="reject")[1]


def test_properties_larger_than_what_is_let_out_are_rejected() -> None:
    call = row(traits={f"key {number}": "x" * 1000 for number in range(20)})

    assert "more than the 10,000 that are let out" in refusal(call, largest_event_bytes=10_000)[1]


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(
    kind=st.sampled_from(["identify", "group", "alias", "track", "?"]),
    user_id=st.none() | st.text(),
    anonymous_id=st.none() | st.text() | st.integers(0, 2**60).map(str),
    traits=anything,
    context=anything | st.fixed_dictionaries({"groupId": anything, "previousId": anything}),
    preset=st.sampled_from(["hub", "segment", "rudder", "airbyte"]),
    anonymous_ids=st.sampled_from(["identity", "heap_user_id"]),
)
def test_whatever_a_client_sends_ends_as_an_update_in_heaps_limits_or_as_a_refusal(
    kind: str,
    user_id: str | None,
    anonymous_id: str | None,
    traits: Any,
    context: Any,
    preset: Any,
    anonymous_ids: Any,
) -> None:
    call = (bytes(16), "", kind, "", user_id, anonymous_id, WHEN, "{}", *_texts(traits, context), WHEN)
    found = prepare(call, "account", preset=preset, anonymous_ids=anonymous_ids)

    if isinstance(found, Refused):
        assert found.reason
        return
    assert not found.is_empty()
    assert found.identity is None or 0 < len(found.identity) <= 255
    assert found.merge is None or 0 <= found.merge < 2**53
    for _, properties in found.targets():
        assert orjson.loads(encode(properties)) == properties
        assert not any(isinstance(value, list | dict) for value in properties.values())
    assert not any(key.casefold() == "id" for key in found.properties)


def _texts(traits: Any, context: Any) -> tuple[str, str]:
    return encode(traits).decode(), encode(context).decode()


def test_the_reasons_in_the_docs_are_given_in_these_words() -> None:
    page = (ROOT / "docs/profiles.md").read_text()
    told = re.findall(r"^\| `([^`]+)` \| (?:suppressed|rejected) \|", page, re.MULTILINE)
    given = {
        SUPERSEDED,
        refusal(row())[1],
        refusal(row("alias", previousId="a"), anonymous_ids="heap_user_id")[1],
        refusal(row(user_id=None))[1],
        refusal(row("group"))[1],
        ANOTHER_IDENTITY,
        TOO_MANY_USER_IDS,
    }

    assert len(told) == 7
    assert set(told) == given
