"""Parts of a payload whose form nobody has published, looked for where they are likely to stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from heap_integration.events.sources.values import as_text


class Found(NamedTuple):
    """A value and the dotted path where it stood; both empty where none was found."""

    path: str = ""
    value: str | int | float = ""

    @property
    def text(self) -> str | None:
        """The value as an id or name.

        Raises:
            Unreadable: a number that isn't whole, or too large to be exact.
        """
        return as_text(self.value)


def find(payload: dict[str, Any], paths: Iterable[str]) -> Found:
    """Return the first of the dotted ``paths`` that holds text or a number."""
    for path in paths:
        value: Any = payload
        for step in path.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            continue
        if value != "" and not (isinstance(value, str) and value.isspace()):
            return Found(path, value)
    return Found()


def without(payload: dict[str, Any], *found: Found) -> dict[str, Any]:
    """Return ``payload`` without what was found, which is one level deep at most; emptied objects go too."""
    rest = dict(payload)
    for path, _ in found:
        name, _, inner = path.partition(".")
        member = rest.get(name)
        if inner and isinstance(member, dict):
            rest[name] = {key: value for key, value in member.items() if key != inner}
        if not inner or not rest[name]:
            rest.pop(name, None)
    return rest
