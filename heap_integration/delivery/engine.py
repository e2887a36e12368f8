"""Sends records in batches: packs, paces, retries, bisects, and keeps each outcome before it goes on."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from heap_integration.delivery.ledger import Ledger
from heap_integration.delivery.pace import Grant, Pace
from heap_integration.delivery.records import (
    BatchRejected,
    Limits,
    NotAuthorised,
    Outcome,
    Record,
    RetryLater,
    Sender,
    Status,
)

# How many records may wait for their own key's window before the reading of further ones waits too.
MOST_HELD = 5_000
# A wrong app id is answered like a wrong record: this many refusals before anything has passed tell them apart.
MOST_REFUSED_AT_FIRST = 10
LONGEST_NAP = 1.0

_log = logging.getLogger(__name__)


def _tell(details: RetryDetails) -> None:
    _log.warning("%s; trying again in %.1f s", details.caused_by, details.wait_for)


# stamina's own way is structlog where that is installed, and structlog prints among a command's answer.
set_on_retry_hooks([_tell])


@dataclass(frozen=True)
class Patience:
    """How long a batch is tried: faults use up attempts, an answer that asks to wait doesn't."""

    attempts: int = 6
    seconds: float = 600.0
    first_wait: float = 0.5
    longest_wait: float = 30.0


@dataclass
class Tally:
    """What a delivery did; what it read and didn't settle is pending."""

    read: int = 0
    batches: int = 0
    statuses: Counter[Status] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    stopped: str = ""

    @property
    def accepted(self) -> int:
        """Records the other side has acknowledged."""
        return self.statuses[Status.ACCEPTED]

    @property
    def rejected(self) -> int:
        """Records that won't be sent again as they are; each has a reason."""
        return self.statuses[Status.REJECTED]

    @property
    def suppressed(self) -> int:
        """Records that a rule kept back; each has a reason."""
        return self.statuses[Status.SUPPRESSED]

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Add the outcomes of a batch."""
        self.batches += 1
        others = [outcome for outcome in outcomes if outcome.status is not Status.ACCEPTED]
        self.statuses[Status.ACCEPTED] += len(outcomes) - len(others)
        for outcome in others:
            self.statuses[outcome.status] += 1
            self.reasons[outcome.reason] += 1


class DeliveryStopped(Exception):
    """The delivery ended before its input did; what has no outcome stays pending."""

    def __init__(self, reason: str, tally: Tally) -> None:
        super().__init__(reason)
        self.tally = tally


def deliver(
    items: Iterable[Record | Outcome],
    sender: Sender,
    ledger: Ledger,
    *,
    pace: Pace,
    go_on: Callable[[], bool] = lambda: True,
    patience: Patience | None = None,
    progress: Callable[[Tally], None] = lambda _: None,
) -> Tally:
    """Send ``items`` and return what became of them.

    An outcome among the items (a record that was refused before sending) is kept with its batch.
    ``go_on`` is asked before each batch; ``progress`` is told after each.

    Raises:
        DeliveryStopped: the other side stayed out of reach, or refuses the credentials.
    """
    delivery = _Delivery(sender, ledger, pace, patience or Patience())
    try:
        for _ in delivery.run(items, go_on):
            progress(delivery.tally)
    except (RetryLater, NotAuthorised) as error:
        raise DeliveryStopped(str(error), delivery.tally) from error
    return delivery.tally


class _Delivery:
    def __init__(self, sender: Sender, ledger: Ledger, pace: Pace, patience: Patience) -> None:
        self.sender = sender
        self.ledger = ledger
        self.pace = pace
        self.patience = patience
        self.tally = Tally()
        self.something_passed = False
        self.refused_in_a_row = 0

    def run(self, items: Iterable[Record | Outcome], go_on: Callable[[], bool]) -> Iterator[None]:
        workers = self.sender.limits.concurrency
        running: set[Future[Sequence[Outcome]]] = set()
        with ThreadPoolExecutor(max_workers=workers) as pool:
            for grant, decided in self._batches(items):
                if not go_on():
                    self.tally.stopped = "switched off"
                    break
                # The next batch is packed while this one is under way.
                while len(running) >= workers:
                    running = self._counted(running)
                    yield
                running.add(pool.submit(self._send_and_keep, grant, decided))
            while running:
                running = self._counted(running)
                yield

    def _counted(self, running: set[Future[Sequence[Outcome]]]) -> set[Future[Sequence[Outcome]]]:
        done, rest = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            self.tally.count(future.result())
        return rest

    def _batches(self, items: Iterable[Record | Outcome]) -> Iterator[tuple[Grant, list[Outcome]]]:
        queue = _Queue(items, self.sender.limits, self.tally)
        while True:
            records, decided = queue.next_batch()
            grant = self.pace.ask(records) if records else Grant([], [])
            queue.hold(grant)
            if grant.records or decided:
                yield grant, decided
            elif not queue.is_empty():
                time.sleep(queue.wait(grant))
            else:
                return

    def _send_and_keep(self, grant: Grant, decided: Sequence[Outcome]) -> Sequence[Outcome]:
        outcomes = [*decided, *self._send(grant.records)] if grant.records else list(decided)
        with self.ledger.store.begin() as connection:
            self.ledger.write(outcomes, connection)
            self.pace.done(grant, connection)
        return outcomes

    def _send(self, records: Sequence[Record]) -> Sequence[Outcome]:
        try:
            return self._try(records)
        except BatchRejected as error:
            if len(records) == 1:
                self._suspect(error.reason)
                return [Outcome(records[0].key, Status.REJECTED, error.reason)]
        middle = len(records) // 2
        return [*self._send(records[:middle]), *self._send(records[middle:])]

    def _suspect(self, reason: str) -> None:
        """Stop where the other side takes nothing at all: then it isn't the records that are wrong."""
        self.refused_in_a_row += 1
        if not self.something_passed and self.refused_in_a_row >= MOST_REFUSED_AT_FIRST:
            raise NotAuthorised(
                f"the first {self.refused_in_a_row} records were all refused, so nothing more is sent: {reason}"
            )

    def _try(self, records: Sequence[Record]) -> Sequence[Outcome]:
        faults = 0

        def waits(error: Exception) -> bool | float:
            nonlocal faults
            if not isinstance(error, RetryLater):
                return False
            faults += not error.busy
            if faults >= self.patience.attempts:
                return False
            return True if error.after is None else error.after

        for attempt in stamina.retry_context(
            on=waits,
            attempts=None,
            timeout=self.patience.seconds,
            wait_initial=self.patience.first_wait,
            wait_max=self.patience.longest_wait,
        ):
            with attempt:
                outcomes = self.sender.send(records)
                self.something_passed = True
                return outcomes
        raise AssertionError("a retry ends with an answer or an error")


class _Queue:
    """The records still to send, cut into batches that the other side takes.

    A record whose key has used up its window steps aside until the key may go on, so that one busy
    identity doesn't stop the others; the records of one key stay in order.
    """

    def __init__(self, items: Iterable[Record | Outcome], limits: Limits, tally: Tally) -> None:
        self.items = iter(items)
        self.limits = limits
        windows = (window.records for window in limits.windows if not window.per_key)
        self.room = min(limits.batch_records, *windows, sys.maxsize)
        self.tally = tally
        self.waiting: deque[Record] = deque()
        self.held: deque[Record] = deque()
        self.closed: set[str | None] = set()
        self.reopens = 0.0
        self.ended = False

    def next_batch(self) -> tuple[list[Record], list[Outcome]]:
        if self.held and time.monotonic() >= self.reopens:
            self._reopen()
        records: list[Record] = []
        decided: list[Outcome] = []
        size = 0
        while len(records) < self.room and len(decided) < self.room:
            item = self.waiting.popleft() if self.waiting else self._next()
            if item is None:
                break
            if isinstance(item, Outcome):
                decided.append(item)
            elif self.closed and item.pace_key in self.closed:
                self.held.append(item)
            elif records and size + item.size > self.limits.batch_bytes:
                self.waiting.appendleft(item)
                break
            else:
                records.append(item)
                size += item.size
        return records, decided

    def hold(self, grant: Grant) -> None:
        """Take back what wasn't granted."""
        if not grant.held:
            return
        if not grant.closed:
            self.waiting.extendleft(reversed(grant.held))
            return
        self.held.extend(grant.held)
        self.closed |= grant.closed
        self.reopens = time.monotonic() + grant.wait

    def is_empty(self) -> bool:
        return self.ended and not self.waiting and not self.held

    def wait(self, grant: Grant) -> float:
        wait = grant.wait or self.reopens - time.monotonic()
        return min(max(wait, 0.01), LONGEST_NAP)

    def _reopen(self) -> None:
        self.waiting.extendleft(reversed(self.held))
        self.held.clear()
        self.closed.clear()

    def _next(self) -> Record | Outcome | None:
        if self.ended or len(self.held) >= MOST_HELD:
            return None
        for item in self.items:
            self.tally.read += 1
            return item
        self.ended = True
        return None
