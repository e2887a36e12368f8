"""What the delivery engine moves, and what it says of each piece."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, Protocol

# How every destination begins the reason why it refused somebody it doesn't know: match reports count it.
UNKNOWN_THERE = "the destination does not know this user"
# The same for somebody whom it knows several times, as by an e-mail address that two users share.
AMBIGUOUS_THERE = "the destination knows several users by this"


class Status(IntEnum):
    """Where a record ended; the values are the ledger's bytes."""

    ACCEPTED = 1
    REJECTED = 2
    SUPPRESSED = 3


@dataclass(slots=True)
class Record:
    """One thing to send.

    ``key`` (16 bytes) names it in the ledger and stays the same for ever; ``pace_key`` is the
    identity whose own rate limit it uses up, if it has one; ``size`` is its share of a request in bytes.
    """

    key: bytes
    payload: Any
    pace_key: str | None = None
    size: int = 0


@dataclass(slots=True)
class Outcome:
    """What became of the record named ``key``; a reason for everything but acceptance."""

    key: bytes
    status: Status
    reason: str = ""


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


@dataclass(frozen=True)
class Window:
    """At most ``records`` in any ``seconds``, over all records or for each pace key."""

    records: int
    seconds: float
    per_key: bool = False


@dataclass(frozen=True)
class Limits:
    """What a destination takes: the size of a batch, the pace, how many requests at once.

    ``seconds`` is how long a batch may need there, where that is more than the patience of a delivery.
    """

    batch_records: int = 1
    batch_bytes: int = 5_000_000
    windows: tuple[Window, ...] = ()
    concurrency: int = 1
    seconds: float = 0.0


class RetryLater(Exception):
    """The other side is busy or out of reach; the same batch may pass later.

    ``busy`` tells an answer that asks for patience (429) from a fault: patience uses up no attempt.
    """

    def __init__(self, reason: str, *, after: float | None = None, busy: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after
        self.busy = busy


class Unfit(ValueError):
    """What can't go out as it is; that record alone is rejected with these words."""


class BatchRejected(Exception):
    """Something in the batch is wrong.

    ``culprit`` is the place of the wrong record in the batch, from 0, where the other side names one:
    the others go out again without it. Else the batch is split until the culprit stands alone.
    """

    def __init__(self, reason: str, culprit: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.culprit = culprit


class NotAuthorised(Exception):
    """The credentials are refused, or everything is: nothing more is sent."""


class Sender(Protocol):
    """One kind of request to one system."""

    @property
    def limits(self) -> Limits:
        """What the other side takes."""

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """Send a batch and return one outcome a record.

        Raises:
            RetryLater: the same batch may pass later.
            BatchRejected: the batch holds something the other side refuses.
            NotAuthorised: the credentials are refused.
        """


@dataclass(frozen=True, slots=True)
class MemberChange:
    """Somebody enters a segment or leaves it."""

    identity: str
    member: bool


@dataclass(frozen=True, slots=True)
class AttributeChange:
    """What becomes of one attribute.

    ``add`` carries the difference to what was acknowledged last (negative where the number fell), and ``total``: what
    has been added in all once it has happened, by which a destination can tell what it has of it already. ``append``
    and ``remove`` carry the list's entries that come and go; ``clear`` no value.
    """

    name: str
    operation: Literal["set", "set_once", "add", "append", "remove", "clear"]
    value: Any = None
    total: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ProfileChange:
    """What is new of a user or an account: only the attributes that changed.

    ``leaving`` says that the source no longer has it; nobody is created in order to leave.
    """

    identity: str
    changes: tuple[AttributeChange, ...]
    leaving: bool = False
