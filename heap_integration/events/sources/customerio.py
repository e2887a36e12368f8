"""Calls of Customer.io Data Pipelines: Segment's, but for some names that are orders to Customer.io."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from heap_integration.events.event import Event, Refusal
from heap_integration.events.sources.landed import Landed
from heap_integration.events.sources.segment import event_from_segment, read_calls

OPT_OUTS = frozenset(["User Suppressed", "User Deleted"])
OPT_INS = frozenset(["User Unsuppressed"])
ORDER = "an order to Customer.io, not what a user did"

# They keep Customer.io's own devices, objects and deliveries; nobody did them in the product.
_UNUSED = frozenset(
    [
        "Device Created or Updated",
        "Device Deleted",
        "Relationship Deleted",
        "Object Deleted",
        "Report Delivery Event",
        "Report Content Event",
    ]
)


def read_landed(landed: Landed) -> Iterator[Event | Refusal | None]:
    """Read a landed call, or each call of a batch."""
    yield from read_calls(landed, event_from_customerio)


def event_from_customerio(payload: dict[str, Any]) -> Event | Refusal | None:
    """Read one call; ``None`` for an order about Customer.io's own devices, objects and deliveries.

    Whom Customer.io is told to suppress, to delete or to take again (``OPT_OUTS``, ``OPT_INS``) is an event
    that is kept and never sent.
    """
    event = event_from_segment(payload)
    if isinstance(event, Refusal):
        return event
    if event.type == "track":
        if event.name in _UNUSED:
            return None
        if event.name in OPT_OUTS or event.name in OPT_INS:
            event.suppressed = ORDER
    event.source = "customerio"
    return event
