"""A destination that keeps profiles, and does with each attribute what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from heap_integration.delivery.records import AttributeChange, Limits, Outcome, Record, Status

State = dict[str, Any]


def applied(state: State, changes: Sequence[AttributeChange]) -> State:
    """Return what a destination holds after the changes."""
    after = dict(state)
    for change in changes:
        last = after.get(change.name)
        match change.operation:
            case "set":
                after[change.name] = change.value
            case "set_once":
                after.setdefault(change.name, change.value)
            case "clear":
                after.pop(change.name, None)
            case "add":
                after[change.name] = (last or 0) + change.value
            case "append":
                known = list(map(orjson.dumps, last or []))
                after[change.name] = [
                    *(last or []),
                    *(each for each in change.value if orjson.dumps(each) not in known),
                ]
            case "remove":
                gone = list(map(orjson.dumps, change.value))
                after[change.name] = [each for each in last or [] if orjson.dumps(each) not in gone]
    return after


class Directory:
    """A destination that keeps profiles."""

    limits = Limits(batch_records=10)

    def __init__(self) -> None:
        self.profiles: dict[str, State] = {}
        self.told: dict[str, list[tuple[str, str, Any]]] = {}

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        for record in batch:
            change = record.payload
            self.told[change.identity] = [(each.name, each.operation, each.value) for each in change.changes]
            self.profiles[change.identity] = applied(self.profiles.get(change.identity, {}), change.changes)
        return [Outcome(record.key, Status.ACCEPTED) for record in batch]
