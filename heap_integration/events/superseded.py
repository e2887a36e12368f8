"""Keeps an older value from overwriting a newer one that Heap has already: the last one by its time wins."""

from __future__ import annotations

from collections.abc import Iterable

from heap_integration.events.profiles import ProfileUpdate, Properties, Target
from heap_integration.warehouse.profiles import START, Kind, Position


class Newest:
    """When each property that is about to be sent was last set by a call that Heap has taken."""

    def __init__(self, updates: Iterable[ProfileUpdate]) -> None:
        self._missing: dict[Target, set[str]] = {}
        self._set_at: dict[tuple[Target, str], Position] = {}
        for update in updates:
            for target, properties in update.targets():
                self._missing.setdefault(target, set()).update(properties)

    def open(self, kind: Kind) -> list[str]:
        """Return the people, or the accounts, with properties that no call seen so far has set."""
        return [name for (found, name), missing in self._missing.items() if found == kind and missing]

    def is_open(self, target: Target) -> bool:
        """Say whether the properties of a person or an account are among those."""
        return bool(self._missing.get(target))

    def see(self, target: Target, update: ProfileUpdate, position: Position) -> None:
        """Take what a call that Heap has taken says of ``target``; the newest of its calls comes first."""
        missing = self._missing[target]
        told = dict(update.targets()).get(target, {})
        for key in missing.intersection(told):
            self._set_at[target, key] = position
        missing.difference_update(told)

    def left(self, update: ProfileUpdate, position: Position) -> tuple[ProfileUpdate, int]:
        """Return an update without what newer ones have set, and how many properties that was."""
        count = 0
        kept: dict[str, Properties] = {"user": {}, "account": {}}
        for target, properties in update.targets():
            for key, value in properties.items():
                if self._set_at.get((target, key), START) > position:
                    count += 1
                else:
                    kept[target[0]][key] = value
        return update._replace(properties=kept["user"], account_properties=kept["account"]), count
