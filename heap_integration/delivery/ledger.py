"""What was sent and what became of it: one packed row a batch, ordinary rows only for exceptions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from heap_integration.delivery.records import DeliveryStopped, Outcome, Status, Tally
from heap_integration.store.tables import ledger_batches, ledger_reasons

if TYPE_CHECKING:
    import duckdb
    from sqlalchemy import Connection

    from heap_integration.store import Store
    from heap_integration.warehouse import Warehouse

KEY_BYTES = 16
SETTLE_BATCHES = 100
KEPT = "What was sent is in the ledger and goes on from there"

# Made once: to put a statement together takes longer than to run it.
_INSERT_BATCH = insert(ledger_batches).returning(ledger_batches.c.id)
_INSERT_REASON = insert(ledger_reasons)


@dataclass(frozen=True)
class LedgerBatch:
    """A batch as the ledger holds it: ``keys`` is 16 bytes a record, ``statuses`` one byte."""

    number: int
    keys: bytes
    statuses: bytes
    reasons: dict[int, str]


class Ledger:
    """The ledger of one flow.

    A batch is written in one transaction, after the other side has answered for it and before the
    next one goes out: what isn't here is pending and is sent again under the same keys.
    """

    def __init__(self, store: Store, flow: str) -> None:
        self.store = store
        self.flow = flow

    def write(self, outcomes: Sequence[Outcome], connection: Connection, attempts: int = 1) -> None:
        """Keep the outcomes of one batch, in the caller's transaction."""
        if not outcomes:
            return
        row = {
            "flow": self.flow,
            "created_at": time.time(),
            "records": len(outcomes),
            "keys": b"".join([outcome.key for outcome in outcomes]),
            "statuses": bytes([outcome.status for outcome in outcomes]),
            "attempts": attempts,
            "settled": 0,
        }
        number = connection.execute(_INSERT_BATCH, row).scalar_one()
        exceptions = [
            {"batch_id": number, "position": position, "status": int(outcome.status), "reason": outcome.reason}
            for position, outcome in enumerate(outcomes)
            if outcome.status is not Status.ACCEPTED
        ]
        if exceptions:
            connection.execute(_INSERT_REASON, exceptions)

    def unsettled(self, limit: int = SETTLE_BATCHES) -> list[LedgerBatch]:
        """Return the oldest batches that the warehouse doesn't know yet."""
        query = (
            select(ledger_batches.c.id, ledger_batches.c["keys"].label("packed"), ledger_batches.c.statuses)
            .where(ledger_batches.c.flow == self.flow, ledger_batches.c.settled == 0)
            .order_by(ledger_batches.c.id)
            .limit(limit)
        )
        with self.store.read() as connection:
            rows = connection.execute(query).all()
            if not rows:
                return []
            reasons: dict[int, dict[int, str]] = {}
            found = select(ledger_reasons).where(ledger_reasons.c.batch_id.in_([row.id for row in rows]))
            for reason in connection.execute(found):
                reasons.setdefault(reason.batch_id, {})[reason.position] = reason.reason
        return [LedgerBatch(row.id, row.packed, row.statuses, reasons.get(row.id, {})) for row in rows]

    def mark_settled(self, numbers: Sequence[int]) -> None:
        """Note that the warehouse has these batches."""
        with self.store.begin() as connection:
            connection.execute(update(ledger_batches).where(ledger_batches.c.id.in_(numbers)).values(settled=1))

    def sent_since(self, moment: float) -> int:
        """Return how many records of this flow were accepted since ``moment`` (seconds since the epoch)."""
        batches, reasons = ledger_batches.c, ledger_reasons.c
        since = (batches.flow == self.flow, batches.created_at >= moment)
        decided = select(func.coalesce(func.sum(batches.records), 0)).where(*since)
        others = select(func.count()).select_from(ledger_reasons.join(ledger_batches, reasons.batch_id == batches.id))
        with self.store.read() as connection:
            return int(connection.execute(decided).scalar_one()) - int(
                connection.execute(others.where(*since)).scalar_one()
            )


def settle(
    ledger: Ledger,
    warehouse: Warehouse,
    apply: Callable[[duckdb.DuckDBPyConnection], None],
    *,
    least: int = 1,
    most: int = SETTLE_BATCHES,
    ample: bool = False,
) -> int:
    """Carry a ledger's news into the warehouse in bulk and return how many batches moved.

    ``apply`` gets a connection with a temporary table ``settling`` (key uuid, status, reason, and
    position: the order in which they came to be) and moves it to where it belongs. The note of the
    batches stands in the same transaction, so that dying between the warehouse and the ledger settles
    nothing twice. Nothing happens while fewer than ``least`` batches wait; ``most`` go at once. ``ample`` is as in
    ``Warehouse.write``.

    Raises:
        DeliveryStopped: the store or the warehouse can't be used, as where the disk is full; the rest
            stays in the ledger.
    """
    moved = 0
    try:
        while len(batches := ledger.unsettled(most)) >= max(least, 1):
            _carry(batches, ledger.flow, warehouse, apply, ample=ample)
            ledger.mark_settled([batch.number for batch in batches])
            moved += len(batches)
    except SQLAlchemyError as error:
        raise DeliveryStopped(f"the store can't be used: {in_words(error)}. {KEPT}", Tally()) from error
    return moved


def _carry(
    batches: Sequence[LedgerBatch],
    flow: str,
    warehouse: Warehouse,
    apply: Callable[[duckdb.DuckDBPyConnection], None],
    *,
    ample: bool,
) -> None:
    from heap_integration.warehouse import WarehouseError

    try:
        with warehouse.write(ample=ample) as con:
            known = con.execute(
                "select batch from settled_batches where flow = ? and batch >= ?", [flow, batches[0].number]
            )
            settled = {number for (number,) in known.fetchall()}
            fresh = [batch for batch in batches if batch.number not in settled]
            con.register("news", _as_table(fresh))
            con.execute(
                "create or replace temp table settling as "
                "select key::blob::uuid as key, status, reason, row_number() over () as position from news"
            )
            con.unregister("news")
            apply(con)
            con.execute(
                "insert into settled_batches select $flow, unnest($batches)",
                {"flow": flow, "batches": [batch.number for batch in fresh]},
            )
    except WarehouseError as error:
        raise DeliveryStopped(f"the warehouse can't be written: {in_words(error)}. {KEPT}", Tally()) from error


def in_words(error: Exception) -> str:
    """Return what a database says, on one line and without its statement."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(str(cause).split())


def _as_table(batches: Sequence[LedgerBatch]) -> object:
    import pyarrow as pa

    keys = b"".join(batch.keys for batch in batches)
    statuses = b"".join(batch.statuses for batch in batches)
    reasons = [batch.reasons.get(position, "") for batch in batches for position in range(len(batch.statuses))]
    return pa.table(
        {
            "key": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(KEY_BYTES), len(statuses), [None, pa.py_buffer(keys)]
            ),
            "status": pa.UInt8Array.from_buffers(pa.uint8(), len(statuses), [None, pa.py_buffer(statuses)]),
            "reason": pa.array(reasons, pa.string()),
        }
    )
