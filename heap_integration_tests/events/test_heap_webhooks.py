"""Heap's own events are kept for forwarding and never sent back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from heap_integration.events.event import Event, Refusal
from heap_integration.events.keys import event_key
from heap_integration.events.sources.heap_webhooks import HEAPS_OWN, event_from_heap, read_landed
from heap_integration.events.sources.landed import Landed


def event(found: Event | Refusal | None) -> Event:
    assert isinstance(found, Event), found
    return found


@pytest.mark.parametrize(
    "body",
    [
        {"event": "Signed Up", "identity": "ada", "user_id": 12345, "time": "2026-01-02T03:04:05Z", "plan": "pro"},
        {"event_name": "Signed Up", "user": "ada", "heap_user_id": "12345", "timestamp": 1767323045, "plan": "pro"},
        {
            "event": {"name": "Signed Up", "time": 1767323045000},
            "user": {"identity": "ada", "user_id": 12345},
            "plan": "pro",
        },
    ],
)
def test_an_event_is_found_in_the_likely_forms_of_a_template(body: dict[str, Any]) -> None:
    found = event(event_from_heap(body))
    assert (found.name, found.user_id, found.anonymous_id) == ("Signed Up", "ada", "12345")
    assert found.timestamp == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert found.properties == {"plan": "pro"}
    assert found.suppressed == HEAPS_OWN


def test_what_surrounds_the_found_parts_stays_a_property() -> None:
    found = event(event_from_heap({"event": {"name": "x", "path": "/"}, "user": {"identity": "ada", "plan": "pro"}}))
    assert found.properties == {"event": {"path": "/"}, "user": {"plan": "pro"}}


def test_without_an_event_a_user_or_a_readable_time_it_is_refused_in_words() -> None:
    for body, reason in (
        ({"identity": "ada"}, "no event name: none of event, event_name"),
        ({"event": "x", "identity": " "}, "no user: none of identity, user_identity"),
        ({"event": "x", "identity": "ada", "time": "now"}, "timestamp 'now' can't be read"),
        ({"event": "x", "user_id": 1.5}, "1.5 is not a whole number"),
    ):
        found = event_from_heap(body)
        assert isinstance(found, Refusal)
        assert found.reason.startswith(reason)


def test_a_delivery_that_comes_again_is_known_by_its_time_and_told_apart_without_one() -> None:
    def keys(body: dict[str, Any]) -> set[bytes]:
        lines = [Landed(name, datetime(2026, 1, 2, tzinfo=UTC), "h", "heap_webhooks", "", body) for name in "ab"]
        return {event_key(event(found)) for line in lines for found in read_landed(line)}

    assert len(keys({"event": "x", "identity": "ada", "time": 1767323045})) == 1
    assert len(keys({"event": "x", "identity": "ada"})) == 2
