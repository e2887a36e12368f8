"""What the delivery engine moves, and what it says of each piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol


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


@dataclass(frozen=True)
class Window:
    """At most ``records`` in any ``seconds``, over all records or for each pace key."""

    records: int
    seconds: float
    per_key: bool = False


@dataclass(frozen=True)
class Limits:
    """What a destination takes: the size of a batch, the pace, how many requests at once."""

    batch_records: int = 1
    batch_bytes: int = 5_000_000
    windows: tuple[Window, ...] = ()
    concurrency: int = 1


class RetryLater(Exception):
    """The other side is busy or out of reach; the same batch may pass later.

    ``busy`` tells an answer that asks for patience (429) from a fault: patience uses up no attempt.
    """

    def __init__(self, reason: str, *, after: float | None = None, busy: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after
        self.busy = busy


class BatchRejected(Exception):
    """Something in the batch is wrong; the batch is split until the culprit stands alone."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotAuthorised(Exception):
    """The credentials are refused: nothing more is sent, nothing is marked as rejected."""


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
