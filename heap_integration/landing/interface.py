"""What a home of arriving lines offers to those who bring them and to those who take them in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, Protocol


class Landing(Protocol):
    """Where the receiver puts lines; for one event loop."""

    @property
    def last_durable(self) -> float | None:
        """When a line was last made durable, on the monotonic clock."""

    async def append(self, line: bytes) -> None:
        """Keep one line, without its newline, and return when it is durable.

        Raises:
            LandingClosed: after ``close``.
            LandingUnavailable: it can't be made durable now.
        """

    def ready(self) -> str:
        """Return why no lines can be taken now, empty if they can. It may wait for a server: call it in a thread."""

    async def close(self) -> None:
        """Make durable what waits and take no more. Closing again does nothing."""


class Segment(Protocol):
    """Some landed lines under a name that no others will ever have; they never change."""

    @property
    def name(self) -> str:
        """The name; names sort by age."""

    def open(self) -> BinaryIO:
        """Return the lines, each with its newline."""

    def remove(self) -> None:
        """Forget the lines: they are safe elsewhere. Removing again does nothing."""


class Arrivals(Protocol):
    """Where landed lines are taken in from, by one loader at a time, while others bring lines and look."""

    def has_waiting(self) -> bool:
        """Return whether it is worth asking for what waits; cheap enough for ten times a second."""

    def gather(self) -> None:
        """Make few segments out of many small ones; only who loads may do it, before asking what waits."""

    def waiting(self) -> Sequence[Segment]:
        """Return what waits to be taken in, oldest first."""
