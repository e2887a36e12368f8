"""One landing line: what the receiver took in with one request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from heap_integration.events.encoding import encode
from heap_integration.events.event import Event
from heap_integration.events.sources.values import Unreadable, parse_time, shown

WRITE_KEY = "writeKey"


@dataclass(slots=True, frozen=True)
class Landed:
    """A request's JSON object (``body``), with what the receiver knew of it.

    ``source`` is the name that its events bear, ``adapter`` who can read it. ``suppressed`` says why nothing
    of it may be sent, ``refused`` why nothing of it can be used; empty where it may and can. ``over_limit``
    are the places of calls that are larger than their client's limit. ``received_at`` is in UTC.
    """

    id: str
    received_at: datetime
    source: str
    adapter: str
    suppressed: str
    body: dict[str, Any]
    refused: str = ""
    over_limit: frozenset[int] = frozenset()

    @classmethod
    def read(cls, line: Any) -> Landed:
        """Read a landing line's JSON.

        Raises:
            Unreadable: a member is missing or of another form.
        """
        if not isinstance(line, dict):
            raise Unreadable("it is not a JSON object")
        identifier, source, adapter = (_text(line, name) for name in ("id", "source", "adapter"))
        received_at, body = parse_time(line.get("received_at")), line.get("body")
        if received_at is None or not isinstance(body, dict):
            raise Unreadable("received_at or the body's JSON object is missing")
        over_limit: Any = line.get("over_limit")
        return cls(
            identifier,
            received_at,
            source,
            adapter,
            _reason(line, "suppressed"),
            body,
            _reason(line, "refused"),
            frozenset(over_limit) if _places(over_limit) else frozenset(),
        )

    def text(self, body: dict[str, Any], part: int | None = None) -> str:
        """Return a landing line of its own for ``body``, the ``part``-th of this line's batch.

        It bears no write key. It is empty where ``body`` is nested more deeply than can be written.
        """
        line = {
            "id": self.part_id(part),
            "received_at": self.received_at.isoformat(),
            "source": self.source,
            "adapter": self.adapter,
            "body": {name: value for name, value in body.items() if name != WRITE_KEY},
        }
        if self.suppressed:
            line["suppressed"] = self.suppressed
        try:
            return encode(line).decode()
        except TypeError:
            return ""

    def part_id(self, part: int | None) -> str:
        """Return the id of the ``part``-th call of a batch, or of the line as a whole."""
        return self.id if part is None else f"{self.id}:{part}"

    def tell_apart(self, event: Event, part: int | None = None) -> Event:
        """Make ``event``, which bears no id, another one than its like in other lines.

        The line's id alone won't do: it may be a payload's own, which need not be unique.
        """
        event.occurrence = f"{self.part_id(part)}@{self.received_at.isoformat()}"
        return event


def _text(line: dict[str, Any], name: str) -> str:
    value = line.get(name)
    if not isinstance(value, str) or not value:
        raise Unreadable(f"{name} is {shown(value)}")
    return value


def _reason(line: dict[str, Any], name: str) -> str:
    value = line.get(name)
    return value if isinstance(value, str) else ""


def _places(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(place, int) for place in value)
