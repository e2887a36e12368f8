"""Tells wrong records from another side that takes nothing at all."""

from __future__ import annotations

from threading import Lock

from heap_integration.delivery.records import BatchRejected, NotAuthorised, Outcome, Record, Status

# So many refusals before anything has passed are not the records' fault.
MOST_REFUSED_AT_FIRST = 10
# So many without one that passes are a mistake in all of them: somebody has to look before the rest is used up.
MOST_REFUSED_IN_A_ROW = 100


class Refusals:
    """The records that were refused alone or by name, and what is believed of each.

    An answer that names its record is about that record. One that names none may be about the whole
    request, as a wrong app id is answered like a wrong event: its record stays in doubt until something
    passes. ``alone`` says that a request never holds more than one record, so that no answer need name it.
    """

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self._something_passed = False
        self._in_a_row = 0
        self._doubted: list[Outcome] = []
        self._certain: list[Outcome] = []
        self._lock = Lock()

    def passed(self) -> None:
        """Note that the other side took something: whom it refused before was wrong."""
        with self._lock:
            self._something_passed = True
            self._in_a_row = 0
            self._certain += self._doubted
            self._doubted.clear()

    def add(self, record: Record, refusal: BatchRejected, *, named: bool) -> None:
        """Note a refused record.

        Raises:
            NotAuthorised: too many in a row were.
        """
        with self._lock:
            outcome = Outcome(record.key, Status.REJECTED, refusal.reason)
            (self._certain if named else self._doubted).append(outcome)
            self._in_a_row += 1
            at_first = not self._something_passed and len(self._doubted) >= MOST_REFUSED_AT_FIRST
            if at_first or self._in_a_row >= MOST_REFUSED_IN_A_ROW:
                which = f"the first {len(self._doubted)} records" if at_first else f"{self._in_a_row} records in a row"
                raise NotAuthorised(f"{which} were all refused, so nothing more is sent: {refusal.reason}")

    def take(self) -> list[Outcome]:
        """Return what is certain by now, each once."""
        with self._lock:
            certain, self._certain = self._certain, []
        return certain

    def close(self) -> list[Outcome]:
        """Return the rest at the end of a delivery.

        Raises:
            NotAuthorised: nothing passed, and no answer named a record.
        """
        if self._doubted and not self._something_passed and not self._alone:
            raise NotAuthorised(
                f"nothing was taken, and no answer says which record is wrong, so none is marked: "
                f"{self._doubted[0].reason}"
            )
        certain, self._doubted = [*self.take(), *self._doubted], []
        return certain
