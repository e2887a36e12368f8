"""A mapping makes events of rows; its mistakes are shown with file, line, field and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heap_integration.events.event import Event, Refusal
from heap_integration.events.mapping import Mapping, MappingError, RowReader, load_mapping
from heap_integration_tests.events.conftest import ROOT, events, read

Write = Callable[[str, str | bytes], Path]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("event: e\nuser_id: u\nusers: x\n", "m.yaml:3: users: unknown field; allowed are type, event, event_name,"),
        ("user_id: u\n", "m.yaml:1: mapping: name the column of the event's name as event, or give the name itself"),
        ("event: e\nevent_name: Clicked\nuser_id: u\n", "m.yaml:1: mapping: name the column of the event's name as"),
        ("type: identify\nevent: e\nuser_id: u\n", "mapping: only what is tracked has a name: leave event and event_"),
        ("type: group\nuser_id: u\n", "m.yaml:1: mapping: group_id and type: group belong together"),
        ("type: page\nuser_id: u\n", "m.yaml:1: type: .*'track', 'identify' or 'group'"),
        ("event: e\n", "m.yaml:1: mapping: name a column for user_id or anonymous_id"),
        ("event: e\nuser_id: u\n\nidentical_rows: drop\n", "m.yaml:4: identical_rows: .*'merge' or 'keep'"),
        ("event: e\nuser_id: u\ntimestamp_unit: days\n", "m.yaml:3: timestamp_unit: .*'auto', 's', 'ms' or 'us'"),
        ("event: [e\n", "m.yaml:2: "),
        ("event: e\nevent: f\n", "m.yaml:2: found duplicate key"),
        ("- event\n", "m.yaml:1: a mapping is written as field: column"),
        ("", "m.yaml:1: a mapping is written as field: column"),
    ],
)
def test_a_mistake_is_shown_where_it_stands(write: Write, text: str, problem: str) -> None:
    with pytest.raises(MappingError, match=problem):
        load_mapping(write("m.yaml", text))


def one(mapping: Mapping, row: dict[str, Any]) -> Event | Refusal:
    """Read a row that is a dict, and make sure that a table's row says the same."""
    event = RowReader(mapping, None, "rows").read(row, 1)
    assert RowReader(mapping, list(row), "rows").read(list(row.values()), 1) == event
    return event


def test_rows_may_tell_of_people_and_accounts() -> None:
    row = {"user": "u1", "account": "acme", "plan": "pro"}
    person = one(Mapping(type="identify", user_id="user", properties=("plan",)), row)
    account = one(Mapping(type="group", group_id="account", user_id="user"), row)
    assert isinstance(person, Event)
    assert isinstance(account, Event)
    assert (person.type, person.name, person.user_id, person.traits) == ("identify", "", "u1", {"plan": "pro"})
    assert (account.type, account.user_id, account.context) == ("group", "u1", {"groupId": "acme"})
    assert account.traits == {"plan": "pro"}
    assert person.properties == account.properties == {}

    alone = one(Mapping(type="group", group_id="account"), row)
    assert isinstance(alone, Event)
    assert alone.user_id is None
    assert one(Mapping(type="group", group_id="account"), row | {"account": ""}) == Refusal(
        "no group: account is empty"
    )


def test_rows_that_are_all_the_same_event_need_no_column_for_its_name() -> None:
    event = one(Mapping(event_name="Order Placed", user_id="user"), {"user": "u1", "total": 7})
    assert isinstance(event, Event)
    assert (event.name, event.properties) == ("Order Placed", {"total": 7})


@pytest.mark.parametrize(
    ("listed", "told"),
    [
        ([{"key": "page", "value": {"string_value": "/", "int_value": None}}], {"page": "/"}),
        ([{"key": "size", "value": {"int_value": 0}}, {"key": "empty", "value": {}}, {"key": "none"}], {"size": 0}),
        ([{"key": "level", "value": "gold"}], {"level": "gold"}),
        ([("level", "gold"), ("size", 2)], {"level": "gold", "size": 2}),
        ({"level": "gold", "none": None}, {"level": "gold"}),
        ([{"key": "plan", "value": "other"}], {"params.plan": "other"}),
        ([{"key": "place", "value": {"city": "Oslo"}}], {"place": {"city": "Oslo"}}),
        (["a", 1], {"params": ["a", 1]}),
        ("a", {"params": "a"}),
        (None, {}),
    ],
)
def test_lists_of_keys_and_values_become_properties(listed: Any, told: dict[str, Any]) -> None:
    mapping = Mapping(event="event", user_id="user", key_value_columns=("params",))
    event = one(mapping, {"event": "Clicked", "user": "u1", "plan": "pro", "params": listed})
    assert isinstance(event, Event)
    assert event.properties == {"plan": "pro"} | told


def test_google_analytics_parameters_become_properties(
    shared: Callable[[str], Path], example_mapping: Callable[[str], Mapping]
) -> None:
    mapping = example_mapping("docs/mappings/ga4.yaml")
    (first, *_) = events(read(shared("data/ga4_merch_store_events/ga4_events.jsonl.gz"), mapping, chunk_rows=10)[:1])
    properties = json.loads(first["properties"])
    assert properties["page_title"] == "The Google Merchandise Store - Log In"
    assert properties["engagement_time_msec"] == 12018
    assert "event_params" not in properties


def test_a_missing_mapping_is_named(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match=r"none\.yaml: No such file"):
        load_mapping(tmp_path / "none.yaml")


def test_the_shipped_mappings_load() -> None:
    paths = [*ROOT.glob("docs/mappings/*.yaml"), *ROOT.glob("environments/*/mappings/*.yaml")]
    assert len(paths) >= 4
    assert all(isinstance(load_mapping(path), Mapping) for path in paths)
