"""What is told of a profile makes what was acknowledged into what is wanted, and no more than that."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_integration.delivery.records import AttributeChange, ProfileChange, Unfit
from heap_integration.segments.changes import profile_change
from heap_integration.segments.wanted import Action
from heap_integration.sync_settings import ProfileField
from heap_integration_tests.segments.directory import State, applied

FIELDS = {
    name: ProfileField.model_validate({"to": name, **settings})
    for name, settings in {
        "set": {},
        "cleared": {"when_null": "clear"},
        "sent": {"when_null": "send"},
        "once": {"operation": "set_once"},
        "sum": {"operation": "add", "when_null": "clear"},
        "tags": {"operation": "append", "when_null": "clear"},
    }.items()
}
CHANGE = profile_change(FIELDS)
VALUES = st.sampled_from([True, 1, 0, 0.5, "", "a"])
ENTRIES = st.sets(st.sampled_from(["a", "b", "c"])).map(sorted)
# few values, so that two profiles often have one in common
PROFILES = st.fixed_dictionaries(
    {
        "cleared": st.none() | VALUES,
        "sent": st.none() | VALUES,
        "sum": st.sampled_from([None, 0, 2, -3, 0.1, 0.3]),
        "tags": st.one_of(ENTRIES, ENTRIES, st.none()),
    },
    optional={"set": VALUES, "once": st.sampled_from(["a", "b"])},
)


def text(profile: State | None) -> str | None:
    return None if profile is None else orjson.dumps(profile, option=orjson.OPT_SORT_KEYS).decode()


def told(action: Action, profile: State | None, previous: State | None) -> ProfileChange | None:
    return CHANGE(action, "ann", text(profile), text(previous))


def _named(change: ProfileChange | None) -> dict[str, str]:
    return {each.name: each.operation for each in change.changes} if change else {}


def held(profile: State, before: State) -> State:
    """Return what a destination should hold of a profile, where it held ``before``."""
    state = {**before, **profile}
    state["once"] = before.get("once", profile.get("once"))
    return {name: _plain(value) for name, value in state.items() if value not in (None, [])}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return sorted(map(repr, value))
    # sums of floats differ in their last digits, and to Python true is 1
    return round(value, 6) if type(value) in (int, float) else repr(value)


@given(before=PROFILES, after=PROFILES, action=st.sampled_from([Action.ADD, Action.UPDATE]))
def test_what_is_told_makes_what_was_acknowledged_into_what_is_wanted(
    before: State, after: State, action: Action
) -> None:
    first = told(Action.ADD, before, None)
    state = applied({}, first.changes if first else ())
    assert held(state, {}) == held(before, {})
    change = told(action, after, before)
    assert held(applied(state, change.changes if change else ()), {}) == held(after, before)


@given(profile=PROFILES)
def test_what_was_acknowledged_is_not_told_again(profile: State) -> None:
    assert told(Action.UPDATE, profile, profile) is None


@given(profile=PROFILES, others=PROFILES)
def test_only_what_changed_is_told(profile: State, others: State) -> None:
    change = told(Action.UPDATE, others, profile)
    same = {name for name in others if name in profile and text({"v": others[name]}) == text({"v": profile[name]})}
    assert same.isdisjoint({each.name for each in change.changes} if change else ())


@given(profile=PROFILES)
def test_whoever_leaves_takes_what_is_ours_along(profile: State) -> None:
    first = told(Action.ADD, profile, None)
    others = {"theirs": 1, "sum": 10, "tags": ["x"]}
    mixed = applied(others, [each for each in (first.changes if first else ()) if each.operation != "clear"])
    change = told(Action.REMOVE, None, profile)
    left = applied(mixed, change.changes if change else ())
    assert change is None or change.leaving
    assert math.isclose(left["sum"], 10, abs_tol=1e-6)
    assert left["tags"] == ["x"]
    assert left["theirs"] == 1
    # nobody knows whether it was ours
    assert left.get("once") == profile.get("once")
    assert {"set", "cleared"}.isdisjoint(left)
    assert left.get("sent") is None


def test_a_null_is_cleared_or_written_as_the_field_says_also_where_nothing_was_acknowledged() -> None:
    nothing = {"cleared": None, "sent": None}
    for before in (None, {}, {"cleared": 1, "sent": 1}):
        assert _named(told(Action.UPDATE, nothing, before)) == {"cleared": "clear", "sent": "set"}
    assert _named(told(Action.ADD, nothing, nothing)) == {"cleared": "clear", "sent": "set"}


def test_true_is_not_one() -> None:
    assert _named(told(Action.UPDATE, {"set": True}, {"set": 1})) == {"set": "set"}


def test_a_number_that_grows_is_told_as_people_would_write_it() -> None:
    change = told(Action.UPDATE, {"sum": 0.3}, {"sum": 0.1})
    assert change == ProfileChange("ann", (AttributeChange("sum", "add", 0.2),))
    change = told(Action.UPDATE, {"sum": 3}, {"sum": 10})
    assert change == ProfileChange("ann", (AttributeChange("sum", "add", -7),))


def test_with_a_number_that_grows_goes_its_total_however_it_is_told() -> None:
    for wanted, acknowledged, operation, total in (
        (7, 5, "add", 7),
        (7, None, "add", 7),
        (None, 5, "clear", 0),
        (7, "five", "set", 7),
    ):
        change = told(Action.UPDATE, {"sum": wanted, "set": 1}, {"sum": acknowledged} if acknowledged else {})
        assert change is not None
        assert {each.name: (each.operation, each.total) for each in change.changes} == {
            "set": ("set", None),
            "sum": (operation, total),
        }
    change = told(Action.REMOVE, None, {"sum": 7})
    assert change is not None
    assert [(each.value, each.total) for each in change.changes] == [(-7, 0)]


def test_a_row_that_is_told_again_leaves_nothing_out_but_counts_growth_only() -> None:
    profile = {"set": "a", "sum": 7, "tags": ["a"]}
    change = told(Action.ADD, {**profile, "sum": 9}, profile)
    assert change is not None
    assert {(each.name, each.operation, str(each.value)) for each in change.changes} == {
        ("set", "set", "a"),
        ("sum", "add", "2"),
        ("tags", "append", "['a']"),
    }


def test_a_value_of_another_kind_is_replaced_before_an_operation_goes_on_from_it() -> None:
    change = told(Action.UPDATE, {"sum": 3, "tags": ["a"]}, {"sum": "three", "tags": "a"})
    assert change == ProfileChange("ann", (AttributeChange("sum", "set", 3), AttributeChange("tags", "set", ["a"])))
    change = told(Action.REMOVE, None, {"sum": "three", "tags": "a"})
    assert change == ProfileChange(
        "ann", (AttributeChange("sum", "clear"), AttributeChange("tags", "clear")), leaving=True
    )


def test_a_row_that_cannot_go_out_says_why_and_is_never_taken_for_what_was_there() -> None:
    with pytest.raises(Unfit, match="seats is not a number"):
        CHANGE(Action.UPDATE, "ann", '"seats is not a number"', '{"seats":1}')
    assert CHANGE(Action.REMOVE, "ann", None, '"seats is not a number"') is None
