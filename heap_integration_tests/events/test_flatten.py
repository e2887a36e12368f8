"""Nothing nested goes out, and nothing is lost silently."""

from __future__ import annotations

import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_integration.events.flatten import FORMS, Flattener, Form, Preset, Unfit, js_number
from heap_integration.events.mask import MASK_KINDS, MaskAction, Masker

TEXT = st.text(max_size=20) | st.sampled_from(["a", "b", "a.b", "a.0", "0", "", "ann@example.com"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
PROPERTIES = st.dictionaries(TEXT, JSON, max_size=6)
PRESETS = st.sampled_from(list(FORMS))


def leaves(value: Any, form: Form) -> int:
    """Count what the form makes a property of: an empty container is one, an array only if it stays whole."""
    if isinstance(value, dict) and value:
        return sum(leaves(item, form) for item in value.values())
    if isinstance(value, list) and value and form.index is not None:
        return sum(leaves(item, form) for item in value)
    return 1


@given(properties=PROPERTIES, preset=PRESETS)
def test_every_leaf_is_in_the_result_or_in_the_notes(properties: dict[str, Any], preset: Preset) -> None:
    form = FORMS[preset]
    nameless = properties.pop("", None)
    flat, notes = Flattener(form).flatten(properties if nameless is None else properties | {"": nameless})
    expected = sum(leaves(value, form) for value in properties.values()) + (nameless is not None)
    assert len(flat) + len(notes) == expected
    assert set(notes) <= {"dropped:null", "dropped:empty", "dropped:nameless", "key collision"}


@given(properties=PROPERTIES, preset=PRESETS)
def test_no_value_is_nested(properties: dict[str, Any], preset: Preset) -> None:
    flat, _ = Flattener(FORMS[preset], masker=Masker(MASK_KINDS)).flatten(properties)
    kinds = {"hub": str | int | float, "segment": str}.get(preset, str | int | float | None)
    assert all(isinstance(value, kinds) for value in flat.values())
    assert preset != "hub" or not any(isinstance(value, bool) for value in flat.values())


@given(properties=PROPERTIES, preset=PRESETS)
def test_flat_properties_stay_as_they_are(properties: dict[str, Any], preset: Preset) -> None:
    flattener = Flattener(FORMS[preset])
    flat, _ = flattener.flatten(properties)
    again, notes = flattener.flatten(flat)
    assert again == flat
    assert notes == []


@given(text=TEXT, depth=st.integers(0, 5), preset=PRESETS)
def test_a_value_survives_any_depth(text: str, depth: int, preset: Preset) -> None:
    nested: Any = text
    for level in range(depth):
        nested = {f"k{level}": nested}
    flat, _ = Flattener(FORMS[preset]).flatten({"top": nested})
    assert flat == {".".join(["top", *(f"k{level}" for level in reversed(range(depth)))]): text}


def test_arrays_become_json_text_as_customer_io_shows() -> None:
    properties: dict[str, Any] = {
        "foo": {"bar": {"cheese": "american", "prop": [1, 2, 3], "products": [{"A": "Jello"}, {"B": "Peanut"}]}}
    }
    assert Flattener(FORMS["hub"]).flatten(properties) == (
        {
            "foo.bar.cheese": "american",
            "foo.bar.prop": "[1,2,3]",
            "foo.bar.products": '[{"A":"Jello"},{"B":"Peanut"}]',
        },
        [],
    )


@pytest.mark.parametrize(
    ("preset", "flat"),
    [
        ("hub", {"n": 1, "yes": "true", "list": '[1,{"a":null}]', "none": "[]"}),
        ("segment", {"n": "1", "yes": "true", "no": "null", "list.0": "1", "list.1.a": "null"}),
        ("rudder", {"n": 1, "yes": True, "no": None, "list[0]": 1, "list[1].a": None}),
        ("airbyte", {"n": 1, "yes": True, "no": None, "list.0": 1, "list.1.a": None}),
    ],
)
def test_each_preset_has_its_form(preset: Preset, flat: dict[str, Any]) -> None:
    properties: dict[str, Any] = {"n": 1, "yes": True, "no": None, "list": [1, {"a": None}], "none": [], "empty": {}}
    assert Flattener(FORMS[preset]).flatten(properties)[0] == flat


@pytest.mark.parametrize(
    ("properties", "result"),
    [
        ({"a.b": 1, "a": {"b": 2}}, {"a.b": 2}),
        ({"a": {"b": 2}, "a.b": 1}, {"a.b": 1}),
    ],
)
def test_of_two_keys_that_become_one_the_later_wins_and_it_is_noted(
    properties: dict[str, Any], result: dict[str, int]
) -> None:
    assert Flattener(FORMS["hub"]).flatten(properties) == (result, ["key collision"])


def test_what_is_too_long_is_refused_or_cut() -> None:
    fits = {"k" * 1023: "v" * 1023}
    assert Flattener(FORMS["hub"]).flatten(fits) == (fits, [])
    for properties, note in (({"k" * 1024: "v"}, "cut:key"), ({"k": "é" * 2000}, "cut:value")):
        with pytest.raises(Unfit, match="longer than the 1023 characters Heap takes"):
            Flattener(FORMS["hub"]).flatten(properties)
        flat, notes = Flattener(FORMS["hub"], too_long="cut").flatten(properties)
        assert notes == [note]
        assert max(len(text) for text in (*flat, *flat.values()) if isinstance(text, str)) == 1023


def test_masking_comes_before_cutting() -> None:
    properties = {"text": "x" * 1010 + " ann.lee@example.com"}
    flat, notes = Flattener(FORMS["hub"], too_long="cut", masker=Masker(MASK_KINDS)).flatten(properties)
    assert flat["text"] == "x" * 1010 + " [email]"
    assert notes == ["masked:email"]


def test_denied_properties_and_personal_data_stay_behind_at_any_depth() -> None:
    properties = {
        "Password": "p",
        "user": {"password": "p", "card": 4111111111111111, "ssn": {"last": 4}},
        "list": [{"password": "p", "mail": "ann@example.com"}, "+1 (555) 234-5678", 4111111111111111],
        "ann@example.com": 1,
    }
    flattener = Flattener(FORMS["hub"], masker=Masker(MASK_KINDS), denied=["password", "user.ssn"])
    flat, notes = flattener.flatten(properties)
    assert flat == {
        "user.card": "[payment_card]",
        "list": '[{"mail":"[email]"},"[phone]","[payment_card]"]',
        "[email]": 1,
    }
    assert sorted(notes) == [
        *["denied"] * 4,
        *["masked:email"] * 2,
        *["masked:payment_card"] * 2,
        "masked:phone",
    ]


@pytest.mark.parametrize("preset", FORMS)
@pytest.mark.parametrize(
    "properties",
    [
        {"User": {"Token": "t"}},
        {"user": {"deep": {"TOKEN": {"a": "t"}}}},
        {"user.token": "t"},
        {"user": {"token.part": "t"}},
        {"user": [{"name": {"token": "t"}}, [{"token": ["t"]}]]},
        {"account": {"Owner": "t"}},
        {"account": [{"owner": "t"}]},
        {"account.owner.name": "t"},
    ],
)
def test_a_rule_reaches_a_key_however_it_is_written(preset: Preset, properties: dict[str, Any]) -> None:
    flat, notes = Flattener(FORMS[preset], denied=["token", "account.owner"]).flatten(properties)
    assert '"t"' not in str(flat)
    assert "t" not in flat.values()
    assert set(notes) == {"denied"}
    shown, _ = Flattener(FORMS[preset], denied=["other", "owner.token", "owner.account"]).flatten(properties)
    assert '"t"' in str(shown) or "t" in shown.values()


@pytest.mark.parametrize("preset", FORMS)
def test_only_what_is_allowed_goes_out(preset: Preset) -> None:
    properties = {
        "plan": {"name": "pro", "price": 12.5},
        "user": {"id": "u", "address": {"city": "Oslo", "street": "Gate 1"}},
        "user.id": "u",
        "items": [{"sku": "A", "cost": 1}, "loose", {"sku": "B"}],
        "planet": "Mars",
    }
    flattener = Flattener(FORMS[preset], allowed=["Plan", "user.address.city", "items.sku"])
    flat, notes = flattener.flatten(properties)
    listed = {key: value for key, value in flat.items() if key.startswith("items")}
    assert {key: value for key, value in flat.items() if key not in listed} == {
        "plan.name": "pro",
        "plan.price": "12.5" if preset == "segment" else 12.5,
        "user.address.city": "Oslo",
    }
    assert all(text in str(listed) for text in "AB")
    assert not any(text in str(listed) for text in ("cost", "loose"))
    # user.id twice, the street, the cost of one item, an item that is no object, the planet
    assert notes == ["denied"] * 6
    assert flattener.flatten({"plan": 1, "items": ["loose"]})[0] == {"plan": "1" if preset == "segment" else 1}
    assert Flattener(FORMS[preset], allowed=[]).flatten({"a": 1}) == ({}, ["denied"])


@pytest.mark.parametrize("value", ["Ann", 7, 1.5, True, {"a": 1}, ["x"], {}])
@pytest.mark.parametrize("preset", FORMS)
def test_what_is_to_be_covered_goes_out_masked_whatever_it_is(preset: Preset, value: Any) -> None:
    def covered(action: MaskAction) -> tuple[dict[str, Any], list[str]]:
        flattener = Flattener(FORMS[preset], masker=Masker((), action, "salt"), covered=["name", "user.born"])
        return flattener.flatten({"user": {"Born": value}, "list": [{"NAME": value}]})

    flat, notes = covered("redact")
    assert flat["user.Born"] == "[masked]"
    assert [text for key, text in flat.items() if key != "user.Born"] in (["[masked]"], ['[{"NAME":"[masked]"}]'])
    assert notes == ["masked:property"] * 2
    hashed, _ = covered("hash")
    assert hashed == covered("hash")[0]
    assert hashed["user.Born"] in str({key: text for key, text in hashed.items() if key != "user.Born"})
    assert len(hashed["user.Born"]) == 32
    dropped, notes = covered("drop")
    assert "user.Born" not in dropped
    assert notes == ["masked:property"] * 2


def test_nothing_is_made_of_a_covered_null() -> None:
    assert Flattener(FORMS["hub"], covered=["name"]).flatten({"name": None}) == ({}, ["dropped:null"])


KNOWN: dict[tuple[Preset, bool], Flattener] = {}


@given(properties=PROPERTIES, preset=PRESETS, listed=st.booleans())
def test_what_was_seen_before_makes_no_difference(properties: dict[str, Any], preset: Preset, listed: bool) -> None:
    rules: dict[str, Any] = {
        "masker": Masker(MASK_KINDS),
        "too_long": "cut",
        "denied": ["a.a", "0"],
        "covered": ["b"],
        "allowed": ["a", "b", "", "ann@example.com"] if listed else None,
    }
    known = KNOWN.setdefault((preset, listed), Flattener(FORMS[preset], **rules))
    assert known.flatten(properties) == Flattener(FORMS[preset], **rules).flatten(properties)


@given(
    parts=st.lists(st.sampled_from(["ann@example.com", "4111 1111 1111 1111", "+1 555 234 5678"]) | TEXT, max_size=4),
    others=PROPERTIES,
)
def test_the_quick_look_misses_nothing(parts: list[str], others: dict[str, Any]) -> None:
    masker = Masker(MASK_KINDS)
    text = " ".join(parts)
    flat, _ = Flattener(FORMS["hub"], masker=masker).flatten({**others, "text": {"deep": text}, "in": [{"list": text}]})
    assert flat["text.deep"] == masker.text(text, [])
    assert orjson.loads(str(flat["in"])) == [{"list": masker.text(text, [])}]


def test_masked_keys_that_become_one_are_noted_in_arrays_too() -> None:
    properties = {"list": [{"ann@example.com": 1, "bob@example.com": 2}]}
    flat, notes = Flattener(FORMS["hub"], masker=Masker(MASK_KINDS)).flatten(properties)
    assert flat == {"list": '[{"[email]":2}]'}
    assert sorted(notes) == ["key collision", "masked:email", "masked:email"]


def test_keys_without_end_take_no_memory() -> None:
    flattener = Flattener(FORMS["hub"])
    tracemalloc.start()
    for number in range(4_000):
        flattener.flatten({f"{number:0900}": {"visits": 1}})
    many = {f"{number:0900}": [{"a": number}] for number in range(4_000)}
    assert len(flattener.flatten(many)[0]) == len(many)
    del many
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 8_000_000


def test_a_bottomless_nesting_is_unfit() -> None:
    objects: Any = {}
    arrays: Any = []
    for _ in range(1000):
        objects, arrays = {"a": objects}, [arrays]
    for nested in (objects, arrays):
        with pytest.raises(Unfit, match="nested too deeply"):
            Flattener(FORMS["hub"]).flatten({"a": nested})


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (0.1, "0.1"),
        (1e16, "10000000000000000"),
        (1e21, "1e+21"),
        (1.25e21, "1.25e+21"),
        (123456789012345680000, "123456789012345680000"),
        (2**53 + 1, "9007199254740992"),
        (0.000001, "0.000001"),
        (0.0000001, "1e-7"),
        (5e-324, "5e-324"),
        (-1.7976931348623157e308, "-1.7976931348623157e+308"),
    ],
)
def test_numbers_are_written_as_javascript_does(number: float, text: str) -> None:
    assert js_number(number) == text
