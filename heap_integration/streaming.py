"""Sends what arrives as soon as it arrives: the same code, store and ledger as the scheduled runs have."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from threading import Event

from heap_integration.delivery.engine import DeliveryStopped, Patience, Tally
from heap_integration.delivery.records import NotAuthorised
from heap_integration.events.days import day_ranges
from heap_integration.hub import Deliveries, Hub
from heap_integration.store import Busy
from heap_integration.warehouse.events import days_after, newest_event, pending_days

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
# What is pending for another reason than that it has just arrived: a switch was turned on, Heap is back.
SWEEP_SECONDS = 5.0
LONGEST_WAIT = 1.0
REFUSED_SECONDS = 30.0
PATIENCE = Patience(attempts=2, seconds=120.0)


@dataclass
class Streaming:
    """Watches one environment's landing until it is told to stop.

    ``progress`` is told of each delivery. Nothing is held in memory between two of them: killed at any
    time, another process goes on. Where Heap refuses, as it does wrong credentials, what arrives is loaded
    and kept, and sending is tried again after a while.
    """

    hub: Hub
    deliveries: Deliveries
    progress: Callable[[Tally], None] = lambda _: None
    sweep_at: float = field(default=float("-inf"), init=False)
    send_at: float = field(default=float("-inf"), init=False)

    def run(self, stop: Event) -> None:
        """Load and send until ``stop`` is set; a delivery under way ends first."""
        while not stop.is_set():
            if not self.step():
                stop.wait(POLL_SECONDS)

    def step(self) -> bool:
        """Load and send what there is, and return whether there was anything."""
        days: set[date] = set()
        if self.hub.arrivals.has_waiting():
            days = self._load()
        now = time.monotonic()
        if now >= max(self.sweep_at, self.send_at):
            days |= self._left_behind()
            self.sweep_at = now + SWEEP_SECONDS
        if now >= self.send_at:
            for first, last in day_ranges(days, "all"):
                self._send(first, last)
        return bool(days)

    def _load(self) -> set[date]:
        with self.hub.warehouse.read() as con:
            before = newest_event(con)
        self.hub.load_landed()
        with self.hub.warehouse.read() as con:
            return days_after(con, before)

    def _left_behind(self) -> set[date]:
        """Return the days, none of them to come, on which something that was pushed is pending."""
        withheld = sorted(self.deliveries.events.withheld_sources())
        pushed = list(self.hub.environment.sources.streams())
        with self.hub.warehouse.read() as con:
            days = pending_days(con, withheld, pushed)
        return {day for day in days if day <= datetime.now(UTC).date()}

    def _send(self, first: date, last: date) -> None:
        try:
            self.progress(self.deliveries.send(first, last, patience=PATIENCE, wait=LONGEST_WAIT))
        except Busy:
            # A run of Dagster's has these days: what it leaves is found by the next sweep.
            log.info("another process sends %s to %s", first, last)
        except DeliveryStopped as stopped:
            if isinstance(stopped.__cause__, NotAuthorised):
                self.send_at = time.monotonic() + REFUSED_SECONDS
            log.warning("%s; what is pending is tried again", stopped)
