"""Lets what happens now go before what happened long ago: each has a lane of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta

from heap_integration.store import Store

LIVE_DAYS = 2


@dataclass(frozen=True)
class Lane:
    """Days that one process at a time sends: the last two, or all before them."""

    first: date
    last: date
    live: bool

    @contextmanager
    def mine(self, store: Store, flow: str, wait: float | None) -> Iterator[None]:
        """Hold the lane.

        Raises:
            Busy: another process held it for ``wait`` seconds.
        """
        with store.exclusive(f"{flow} {'live' if self.live else 'backfill'}", wait):
            if not self.live:
                # Whoever took the live lane before midnight may still send days that belong to this one now.
                with store.exclusive(f"{flow} live", wait):
                    pass
            yield


def lanes(first: date, last: date, today: date) -> list[Lane]:
    """Cut a range of days into the lanes that it needs, the live one first."""
    boundary = today - timedelta(days=LIVE_DAYS - 1)
    parts = [Lane(max(first, boundary), last, live=True), Lane(first, min(last, boundary - timedelta(days=1)), False)]
    return [lane for lane in parts if lane.first <= lane.last]
