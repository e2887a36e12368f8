"""An event keeps its key however it arrives again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_integration.events.event import Event
from heap_integration.events.keys import event_key, idempotency_key
from heap_integration.events.mapping import Mapping
from heap_integration_tests.events.conftest import NOW, events, read

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def event(**fields: Any) -> Event:
    given = {"type": "track", "name": "Clicked", "user_id": "u1", "anonymous_id": None, "timestamp": NOW}
    return Event(**(given | fields))


def turned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(item) for item in value] if isinstance(value, list) else value


@given(properties=st.dictionaries(st.text(), JSON, max_size=5))
def test_the_order_of_keys_does_not_matter(properties: dict[str, Any]) -> None:
    assert event_key(event(properties=properties)) == event_key(event(properties=turned(properties)))


def test_the_message_id_decides_alone_and_is_never_mistaken_for_content() -> None:
    assert event_key(event(message_id="m1")) == event_key(event(message_id="m1", name="Other", user_id="u2"))
    assert event_key(event(message_id="m1")) != event_key(event())


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Other"},
        {"type": "page"},
        {"user_id": "u2"},
        {"user_id": None, "anonymous_id": "u1"},
        {"timestamp": None},
        {"properties": {"a": 1}},
        {"traits": {"a": 1}},
        {"source": "files"},
        {"occurrence": "file:2"},
    ],
)
def test_any_difference_in_content_makes_another_event(change: dict[str, Any]) -> None:
    assert event_key(event()) != event_key(event(**change))


def test_identical_rows_are_one_event_or_several_as_the_mapping_says(
    write: Callable[[str, str], Path],
) -> None:
    path = write("clicks.csv", "user,event\nu1,Clicked\nu1,Clicked\n")
    merged = Mapping(event="event", user_id="user", identical_rows="merge")
    kept = Mapping(event="event", user_id="user", identical_rows="keep")
    for mapping, count in ((merged, 1), (kept, 2)):
        assert len({row["event_key"] for row in events(read(path, mapping))}) == count


def test_heap_gets_the_message_id_where_its_length_serves() -> None:
    key = bytes(range(16))
    assert idempotency_key("message-1", key) == "message-1"
    assert idempotency_key("short", key) == idempotency_key("x" * 256, key) == idempotency_key("", key) == key.hex()
