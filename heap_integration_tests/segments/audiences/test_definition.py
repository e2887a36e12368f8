"""A definition says what is wrong with it: where, why, what is allowed and what was probably meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heap_integration.environment import EnvironmentProblems
from heap_integration.segments.audiences.definition import load_definition

ONE_EVENT = {"type": "Purchase"}
SAMPLES = Path(__file__).resolve().parents[3] / "environments" / "sandbox" / "audiences"
CART_ABANDONERS = """\
{
\t"name": "High-Value Cart Abandoners",
\t"definition": {
\t\t"events": [{"type": "Add to Cart", "properties": {"cart_value": {"gt": 100}}, "within_days": 7}],
\t\t"exclude_events": [{"type": "Purchase", "within_days": 7}]
\t}
}
"""
POWER_USERS = """\
name: Power Users - Upsell Ready
definition:
  user_properties: {plan_type: free, monthly_active_days: {gte: 20}}
  events: [{type: Feature Used, count: {gte: 50}, within_days: 30}]
"""
UNITS = "eq, ne, gt, gte, lt, lte, in, not_in, contains, exists, between"
COUNTS = "eq, ne, gt, gte, lt, lte, between"
EVENT_KEYS = "type, properties, within_days, count"
ONE_TYPE = "asks for values of two types at once, which nothing can have"
ORDERED = "must be a number or a date: texts have no order here"
BETWEEN = "must be two values, the smaller one first; both belong to it"


def problems(file: Path, text: str) -> list[str]:
    file.write_text(text)
    with pytest.raises(EnvironmentProblems) as caught:
        load_definition(file)
    return [str(problem).removeprefix(f"{file}:") for problem in caught.value.problems]


@pytest.mark.parametrize(("name", "text"), [("carts.json", CART_ABANDONERS), ("power.yaml", POWER_USERS)])
def test_the_playbooks_definitions_are_read_as_they_stand(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    definition, lines = load_definition(tmp_path / name)
    assert definition.name in text
    assert lines["definition", "events", 0, "within_days"] == 4


@pytest.mark.parametrize("file", sorted(SAMPLES.iterdir()), ids=lambda file: file.name)
def test_the_sandboxs_definitions_can_be_read(file: Path) -> None:
    load_definition(file)


def test_a_json_file_may_escape_any_character(tmp_path: Path) -> None:
    name = "Chats 😀 / \u2028"
    file = tmp_path / "chats.json"
    file.write_text(json.dumps({"name": name, "definition": {"events": [{"type": name}]}}).replace("/", "\\/"))
    definition, _ = load_definition(file)
    assert definition.name == definition.definition.events[0].type == name


def test_every_mistake_is_told_with_its_line_and_the_nearest_name(tmp_path: Path) -> None:
    text = """\
name: Wrong
definition:
  events:
    - {typ: Purchase}
    - type: Purchase
      properties:
        amount: {gtt: 5}
      within_days: 0
  exclude_event: []
  any:
    - none:
        - events: [{type: Purchase, counts: 2}]
"""
    assert problems(tmp_path / "wrong.yaml", text) == [
        "4: definition.events[0].typ: unknown key; did you mean type? allowed: " + EVENT_KEYS,
        "4: definition.events[0].type: is missing",
        f"7: definition.events[1].properties.amount.gtt: unknown key; did you mean gt? allowed: {UNITS}",
        "8: definition.events[1].within_days: must be greater than or equal to 1",
        "9: definition.exclude_event: unknown key; did you mean exclude_events? allowed: events, exclude_events, "
        "sequences, first, last, user_properties, models, segments, exclude_segments, any, all, none",
        "12: definition.any[0].none[0].events[0].counts: unknown key; did you mean count? allowed: " + EVENT_KEYS,
    ]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (None, "must not be null; whether there is a value asks {exists: true}"),
        ([1, 2], "must be one value or operators; a list asks {in: [a, b]}"),
        ({}, f"must have an operator: {UNITS}"),
        ({"in": []}, "must not be empty"),
        ({"in": [1, "a"]}, "must hold values of one type"),
        ({"eq": {"a": 1}}, "must be text, a number, true or false, or a date"),
        ({"gt": "free"}, ORDERED),
        ({"lte": True}, ORDERED),
        ({"contains": 5}, "must be text"),
        ({"contains": ""}, "must not be empty"),
        ({"exists": "yes"}, "must be true or false"),
        ({"exists": False, "eq": 5}, "can't hold: nothing that doesn't exist has a value"),
        ({"between": [9, 5]}, BETWEEN),
        ({"between": [5]}, BETWEEN),
        ({"between": 5}, "must be a list, such as [a, b]"),
        ({"between": ["2026-02-01", "2026-01-01"]}, BETWEEN),
        ({"gt": 5, "contains": "a"}, ONE_TYPE),
        ({"gt": 5, "lt": "2026-01-01"}, ONE_TYPE),
        ("a\0b", "must not hold the character NUL"),
        ("\ud83d", "must not hold half a character (a lone surrogate)"),
        (2**53 + 1, "must be a number up to 2^53; write a longer id as text"),
        (float("nan"), "must be a number up to 2^53; write a longer id as text"),
    ],
)
def test_a_comparison_that_makes_no_sense_is_refused(tmp_path: Path, asked: Any, message: str) -> None:
    definition = {"events": [{**ONE_EVENT, "properties": {"amount": asked}}]}
    (told,) = problems(tmp_path / "wrong.json", json.dumps({"name": "Wrong", "definition": definition}))
    assert told.startswith("1: definition.events[0].properties.amount")
    assert told.endswith(f": {message}")


@pytest.mark.parametrize(
    ("definition", "field", "message"),
    [
        ({}, "", "must have a condition: events, exclude_events"),
        ({"events": []}, "", "must have a condition: events, exclude_events"),
        ({"any": [{}]}, ".any[0]", "must have a condition: events, exclude_events"),
        ({"events": ONE_EVENT}, ".events", "must be a list, such as [a, b]"),
        ({"events": [{**ONE_EVENT, "within_days": 36_501}]}, ".events[0].within_days", "must be less than or equal"),
        ({"events": [{**ONE_EVENT, "within_days": True}]}, ".events[0].within_days", "must be a valid integer"),
        ({"events": [{"type": ""}]}, ".events[0].type", "must not be empty"),
        ({"events": [{**ONE_EVENT, "count": {}}]}, ".events[0].count", f"must have an operator: {COUNTS}"),
        ({"events": [{**ONE_EVENT, "count": {"lt": 0}}]}, ".events[0].count.lt", "must be greater than or equal to 1"),
        ({"events": [{**ONE_EVENT, "count": 1.5}]}, ".events[0].count", "must be a valid integer"),
        ({"events": [{**ONE_EVENT, "count": {"between": [3, 2]}}]}, ".events[0].count.between", BETWEEN),
        ({"first": [ONE_EVENT]}, ".first[0]", "must have before, after, within_days or more_than_days_ago"),
        ({"last": [{**ONE_EVENT, "after": "May"}]}, ".last[0].after", "must be a date or a time, such as 2026-01-31"),
        (
            {"last": [{**ONE_EVENT, "after": "2026-02-01", "before": "2026-01-01"}]},
            ".last[0]",
            "can't hold: before must be later than after",
        ),
        ({"sequences": [{"steps": [ONE_EVENT]}]}, ".sequences[0].steps", "must be 2 to 5 events"),
        ({"sequences": [{"steps": [ONE_EVENT] * 6}]}, ".sequences[0].steps", "must be 2 to 5 events"),
    ],
)
def test_a_condition_that_makes_no_sense_is_refused(tmp_path: Path, definition: Any, field: str, message: str) -> None:
    (told,) = problems(tmp_path / "wrong.json", json.dumps({"name": "Wrong", "definition": definition}))
    assert told.startswith(f"1: definition{field}")
    assert message in told


def test_what_is_no_json_is_told_with_its_line(tmp_path: Path) -> None:
    (told,) = problems(tmp_path / "wrong.json", '{\n  "name": "Wrong",\n  "definition": }\n')
    assert told == "3: not valid JSON: Expecting value"


@pytest.mark.parametrize("depth", [21, 150, 3_000])
def test_groups_lie_at_most_20_deep(tmp_path: Path, depth: int) -> None:
    nested = '{"none": [' * depth + '{"events": [{"type": "A"}]}' + "]}" * depth
    (told,) = problems(tmp_path / "deep.json", f'{{"name": "Deep", "definition": {nested}}}')
    assert told.endswith("is nested too deep: at most 20 groups may lie inside of each other")


def test_dates_of_yaml_are_dates(tmp_path: Path) -> None:
    (tmp_path / "dates.yaml").write_text(
        "name: Dates\ndefinition:\n  user_properties: {signed_up: {between: [2026-01-01, 2026-01-31T12:00:00+02:00]}}\n"
        "  first: [{type: Purchase, after: 2026-01-01}]\n"
    )
    definition, _ = load_definition(tmp_path / "dates.yaml")
    asked = definition.definition.user_properties["signed_up"]
    assert asked.kinds() == {"time"}
    assert definition.definition.first[0].after == "2026-01-01"
