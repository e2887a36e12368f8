"""Customer.io's orders to itself are told from what users did."""

from __future__ import annotations

from typing import Any

import pytest

from heap_integration.events.event import Event, Refusal
from heap_integration.events.sources.customerio import ORDER, event_from_customerio


def track(event: str, **members: Any) -> dict[str, Any]:
    return {"type": "track", "event": event, "userId": "u1"} | members


def test_an_event_is_segments_event() -> None:
    found = event_from_customerio(track("Order Completed", userId=None, anonymousId="a1", properties={"a": {"b": 1}}))
    assert isinstance(found, Event)
    assert (found.name, found.user_id, found.anonymous_id) == ("Order Completed", None, "a1")
    assert (found.source, found.suppressed, found.properties) == ("customerio", "", {"a": {"b": 1}})


@pytest.mark.parametrize(
    "name",
    [
        "Device Created or Updated",
        "Device Deleted",
        "Relationship Deleted",
        "Object Deleted",
        "Report Delivery Event",
        "Report Content Event",
    ],
)
def test_orders_about_devices_objects_and_deliveries_are_of_no_use(name: str) -> None:
    assert event_from_customerio(track(name)) is None
    assert isinstance(event_from_customerio({"type": "page", "name": name, "userId": "u1"}), Event)


@pytest.mark.parametrize("name", ["User Suppressed", "User Unsuppressed", "User Deleted"])
def test_orders_about_a_user_are_kept_and_never_sent(name: str) -> None:
    found = event_from_customerio(track(name))
    assert isinstance(found, Event)
    assert (found.name, found.user_id, found.suppressed) == (name, "u1", ORDER)


def test_nobodys_event_is_refused() -> None:
    call = track("Order Completed", userId="", anonymousId=None, groupId="acme")
    assert event_from_customerio(call) == Refusal("no user: neither userId nor anonymousId")
