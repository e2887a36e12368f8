"""Sends records in batches: packs, paces, retries, finds who is refused, keeps each outcome before it goes on."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice

import stamina
from sqlalchemy.exc import SQLAlchemyError
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from heap_integration.delivery.ledger import Ledger, in_words
from heap_integration.delivery.pace import Grant, Pace, share
from heap_integration.delivery.records import (
    BatchRejected,
    DeliveryStopped,
    Limits,
    NotAuthorised,
    Outcome,
    Record,
    RetryLater,
    Sender,
    Tally,
)
from heap_integration.delivery.refusals import Refusals
from heap_integration.delivery.turns import Turns

__all__ = ["DeliveryStopped", "Patience", "Tally", "deliver"]

# How much memory those may take that wait for their own key's window, before the reading of further ones waits too.
MOST_HELD_BYTES = 64_000_000
# What a record costs beside its payload.
RECORD_BYTES = 300
# So many culprits of one batch are taken at the other side's word before the batch is halved all the same.
MOST_NAMED = 10
LONGEST_NAP = 1.0
SWITCHED_OFF = "switched off"

_log = logging.getLogger(__name__)


def _tell(details: RetryDetails) -> None:
    _log.warning("%s; trying again in %.1f s", details.caused_by, details.wait_for)


# stamina's own way is structlog where that is installed, and structlog prints among a command's answer.
set_on_retry_hooks([_tell])


@dataclass(frozen=True)
class Patience:
    """How long a batch is tried: faults use up attempts, an answer that asks to wait doesn't.

    ``seconds`` is the end for both. Pauses double from ``first_wait`` to ``longest_wait`` seconds, with some
    chance, unless the other side says how long it wants to be left alone. Where it is busy all workers wait together.
    """

    attempts: int = 6
    seconds: float = 600.0
    first_wait: float = 0.5
    longest_wait: float = 30.0


def deliver(
    items: Iterable[Record | Outcome],
    sender: Sender,
    ledger: Ledger,
    *,
    pace: Pace,
    go_on: Callable[[], bool] = lambda: True,
    patience: Patience | None = None,
    progress: Callable[[Tally], None] = lambda _: None,
    reserve: float = 0.0,
) -> Tally:
    """Send ``items`` and return what became of them.

    An outcome among the items (a record that was refused before sending) is kept with its batch.
    ``go_on`` is asked before each request; ``progress`` is told after each batch. ``reserve`` is the share
    of every window over all records that is left free for others.

    Raises:
        DeliveryStopped: the other side stayed out of reach, or refuses the credentials or everything, or
            the store can't be used.
    """
    delivery = _Delivery(sender, ledger, pace, patience or Patience(), go_on)
    try:
        for _ in delivery.run(items, reserve):
            progress(delivery.tally)
    except (RetryLater, NotAuthorised) as error:
        raise DeliveryStopped(str(error), delivery.tally) from error
    except SQLAlchemyError as error:
        raise DeliveryStopped(
            f"the store can't be used: {in_words(error)}. What was taken and couldn't be noted goes out again "
            "under the same keys",
            delivery.tally,
        ) from error
    return delivery.tally


class _SwitchedOff(Exception):
    pass


@dataclass(frozen=True)
class _Sent:
    """What became of a batch, and why it ended early, if it did."""

    outcomes: Sequence[Outcome]
    error: RetryLater | NotAuthorised | _SwitchedOff | None = None


class _Delivery:
    def __init__(
        self, sender: Sender, ledger: Ledger, pace: Pace, patience: Patience, go_on: Callable[[], bool]
    ) -> None:
        self.sender = sender
        self.ledger = ledger
        self.pace = pace
        self.patience = patience
        self.go_on = go_on
        self.tally = Tally()
        self.counted: set[Future[_Sent]] = set()
        self.refusals = Refusals(alone=sender.limits.batch_records == 1)
        self.turns = Turns(
            sender.limits.concurrency, first_wait=self.patience.first_wait, longest_wait=self.patience.longest_wait
        )

    def run(self, items: Iterable[Record | Outcome], reserve: float) -> Iterator[None]:
        workers = self.sender.limits.concurrency
        running: set[Future[_Sent]] = set()
        with ThreadPoolExecutor(max_workers=workers) as pool:
            try:
                for grant, decided in self._batches(items, reserve):
                    # The next batch is packed while this one is under way.
                    while len(running) >= workers:
                        running = self._counted(running)
                        yield
                    if self.tally.stopped or not self.go_on():
                        self.tally.stopped = SWITCHED_OFF
                        break
                    if grant.records or decided:
                        running.add(pool.submit(self._send_and_keep, grant, decided))
                while running:
                    running = self._counted(running)
                    yield
            finally:
                # Whoever waits for another attempt gives up. What the others brought is in the ledger and counts.
                self.turns.close()
                for future in wait(running).done - self.counted:
                    if not future.exception():
                        self.tally.count(future.result().outcomes)
        if not self.tally.stopped and (left := self.refusals.close()):
            self._keep(left, Grant([], []))
            self.tally.count(left)
            yield

    def _counted(self, running: set[Future[_Sent]]) -> set[Future[_Sent]]:
        done, rest = wait(running, return_when=FIRST_COMPLETED)
        results = [future.result() for future in done]
        self.counted = done
        for result in results:
            self.tally.count(result.outcomes)
        for result in results:
            if isinstance(result.error, _SwitchedOff):
                self.tally.stopped = SWITCHED_OFF
            elif result.error is not None:
                raise result.error
        return rest

    def _batches(self, items: Iterable[Record | Outcome], reserve: float) -> Iterator[tuple[Grant, Sequence[Outcome]]]:
        queue = _Queue(items, self.sender.limits, self.tally, reserve)
        while True:
            records, decided = queue.next_batch()
            grant = self.pace.ask(records, reserve) if records else Grant([], [])
            queue.hold(grant)
            if not grant.records and not decided and queue.is_empty():
                return
            yield grant, decided
            if not grant.records and not decided:
                time.sleep(queue.wait(grant))

    def _send_and_keep(self, grant: Grant, decided: Sequence[Outcome]) -> _Sent:
        outcomes, error = list(decided), None
        try:
            self._send(grant.records, outcomes)
        except (RetryLater, NotAuthorised, _SwitchedOff) as raised:
            error = raised
        outcomes += self.refusals.take()
        self._keep(outcomes, grant)
        return _Sent(outcomes, error)

    def _keep(self, outcomes: Sequence[Outcome], grant: Grant) -> None:
        with self.ledger.store.begin() as connection:
            self.ledger.write(outcomes, connection)
            self.pace.done(grant, connection)

    def _send(self, records: Sequence[Record], outcomes: list[Outcome], *, believe: bool = True) -> None:
        """Send records until each is taken or refused; who is refused is found by name, else by halving.

        A name is believed where the others pass without that record. Where several were named, each has to be
        refused alone.
        """
        rest, named, passed = list(records), list[tuple[Record, BatchRejected]](), False
        while rest:
            refusal = self._refusal(rest, outcomes)
            if refusal is None:
                rest, passed = [], True
                break
            place = refusal.culprit if believe and len(named) < MOST_NAMED else None
            if len(rest) == 1:
                self.refusals.add(rest.pop(), refusal, named=refusal.culprit == 0)
            elif place is not None and 0 <= place < len(rest):
                named.append((rest.pop(place), refusal))
            else:
                break
        for record, refusal in named:
            proof = refusal if passed and len(named) == 1 else self._refusal([record], outcomes)
            if proof is None:
                believe = False
            else:
                self.refusals.add(record, proof, named=proof is refusal or proof.culprit == 0)
        if rest:
            middle = len(rest) // 2
            self._send(rest[:middle], outcomes, believe=believe)
            self._send(rest[middle:], outcomes, believe=believe)

    def _refusal(self, records: Sequence[Record], outcomes: list[Outcome]) -> BatchRejected | None:
        """Send records; add what became of them to ``outcomes``, or return why they were refused."""
        try:
            outcomes += self._try(records)
        except BatchRejected as error:
            return error
        self.refusals.passed()
        return None

    def _try(self, records: Sequence[Record]) -> Sequence[Outcome]:
        # To wait for the first turn uses up no patience.
        turn = self._turn(again=False)
        seconds = max(self.patience.seconds, self.sender.limits.seconds)
        until = time.monotonic() + seconds

        def waits(error: Exception) -> bool | float:
            if not isinstance(error, RetryLater) or error.busy:
                return False
            if not error.after:
                return True
            return error.after if time.monotonic() + error.after <= until else False

        for attempt in stamina.retry_context(
            on=waits,
            attempts=self.patience.attempts,
            timeout=seconds,
            wait_initial=self.patience.first_wait,
            wait_max=self.patience.longest_wait,
        ):
            if attempt.num > 1:
                turn = self._turn(again=True)
            with attempt:
                return self._attempt(records, turn, until)
        raise AssertionError("a retry ends with an answer or an error")

    def _attempt(self, records: Sequence[Record], turn: int, until: float) -> Sequence[Outcome]:
        """Send records until the answer isn't that the other side is busy."""
        while True:
            try:
                outcomes = self.sender.send(records)
            except RetryLater as error:
                if not error.busy:
                    self.turns.end(turn)
                    raise
                wait = self.turns.busy(turn, error.after)
                if time.monotonic() + (wait if error.after else 0.0) > until:
                    raise
                _log.warning("%s; trying again in %.1f s, %d at once", error, wait, self.turns.allowed)
            except BaseException:
                self.turns.end(turn)
                raise
            else:
                self.turns.end(turn, passed=True)
                return outcomes
            turn = self._turn(again=True)

    def _turn(self, *, again: bool) -> int:
        asked = time.monotonic()
        turn = self.turns.take()
        if turn is None:
            raise _SwitchedOff
        if (again or time.monotonic() - asked > LONGEST_NAP) and not self.go_on():
            self.turns.end(turn)
            raise _SwitchedOff
        return turn


class _Queue:
    """The records still to send, cut into batches that the other side takes.

    A record whose key has used up its window steps aside until the key may go on, so that one busy
    identity doesn't stop the others; the records of one key stay in order.
    """

    def __init__(self, items: Iterable[Record | Outcome], limits: Limits, tally: Tally, reserve: float) -> None:
        self.items = iter(items)
        self.limits = limits
        windows = (share(window, reserve) for window in limits.windows if not window.per_key)
        self.room = min(limits.batch_records, *windows, sys.maxsize)
        self.tally = tally
        self.waiting: deque[Record | Outcome] = deque()
        self.held: deque[Record] = deque()
        self.held_bytes = 0
        self.closed: set[str | None] = set()
        self.reopens = 0.0
        self.ended = False

    def next_batch(self) -> tuple[list[Record], list[Outcome]]:
        if self.held and time.monotonic() >= self.reopens:
            self._reopen()
        records: list[Record] = []
        decided: list[Outcome] = []
        size, room, waiting, closed = 0, self.room, self.waiting, self.closed
        while len(records) < room and len(decided) < room and (waiting or self._read()):
            item = waiting.popleft()
            if isinstance(item, Outcome):
                decided.append(item)
            elif closed and item.pace_key in closed:
                self._hold(item)
            elif records and size + item.size > self.limits.batch_bytes:
                waiting.appendleft(item)
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
        for record in grant.held:
            self._hold(record)
        reopens = time.monotonic() + grant.wait
        self.reopens = min(self.reopens, reopens) if self.closed else reopens
        self.closed |= grant.closed

    def is_empty(self) -> bool:
        return self.ended and not self.waiting and not self.held

    def wait(self, grant: Grant) -> float:
        wait = grant.wait or self.reopens - time.monotonic()
        return min(max(wait, 0.01), LONGEST_NAP)

    def _hold(self, record: Record) -> None:
        self.held.append(record)
        self.held_bytes += record.size + RECORD_BYTES

    def _reopen(self) -> None:
        self.waiting.extendleft(reversed(self.held))
        self.held.clear()
        self.held_bytes = 0
        self.closed.clear()

    def _read(self) -> bool:
        """Read about a batch, and say whether there was anything."""
        if self.ended or self.held_bytes >= MOST_HELD_BYTES:
            return False
        fresh = list(islice(self.items, self.room))
        self.tally.read += len(fresh)
        self.waiting.extend(fresh)
        self.ended = not fresh
        return not self.ended
