"""People who want nothing of them sent: a list in the store that every delivery asks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, delete, func, insert, select

from heap_integration.delivery.records import Outcome, Record, Status
from heap_integration.events.sources.customerio import OPT_INS, OPT_OUTS, ORDER
from heap_integration.store import Store, insert_new
from heap_integration.store.tables import meta, opt_outs
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.events import newest_event, withheld_calls

REASON = "opted out: the person is on the opt-out list"
# How far the warehouse's events were looked through for orders to suppress somebody.
FOLLOWED = "opt_outs_followed"


def opted_out(store: Store, items: Sequence[Record | Outcome]) -> list[Record | Outcome]:
    """Return ``items`` with the records of people who opted out as suppressed; a record's pace key is its identity."""
    with store.read() as connection:
        if connection.execute(select(opt_outs.c.identity).limit(1)).first() is None:
            return list(items)
        people = {item.pace_key for item in items if isinstance(item, Record) and item.pace_key}
        out = frozenset(
            connection.execute(select(opt_outs.c.identity).where(opt_outs.c.identity.in_(people))).scalars()
        )
    return [
        Outcome(item.key, Status.SUPPRESSED, REASON) if isinstance(item, Record) and item.pace_key in out else item
        for item in items
    ]


def opt_out(store: Store, identities: Iterable[str], origin: str) -> int:
    """Put people on the list and return how many are new on it; ``origin`` says who told."""
    with store.begin() as connection:
        return sum(_put(connection, identity, origin) for identity in identities)


def opt_in(store: Store, identities: Iterable[str]) -> int:
    """Take people off the list and return how many were on it."""
    with store.begin() as connection:
        return sum(_take(connection, identity) for identity in identities)


def follow_orders(warehouse: Warehouse, store: Store) -> int:
    """Bring the list up to date with what Customer.io was told, and return how many orders there were.

    The list and how far it was followed are one transaction: an order that a crash cuts off is followed later.
    """
    with store.read() as connection:
        known = _followed(connection)
    with warehouse.read() as con:
        newest = newest_event(con)
        orders = withheld_calls(con, known, ORDER) if newest > known else []
    with store.begin(serial=FOLLOWED) as connection:
        if newest <= known or _followed(connection) != known:
            # Nothing is new, or somebody else was faster.
            return 0
        for identity, name in orders:
            if name in OPT_OUTS:
                _put(connection, identity, f"Customer.io: {name}")
            elif name in OPT_INS:
                _take(connection, identity)
        connection.execute(delete(meta).where(meta.c.key == FOLLOWED))
        connection.execute(insert(meta).values(key=FOLLOWED, value=str(newest)))
    return len(orders)


def _followed(connection: Connection) -> int:
    return int(connection.execute(select(meta.c.value).where(meta.c.key == FOLLOWED)).scalar() or 0)


def count_opt_outs(store: Store) -> int:
    """Return how many people are on the list."""
    with store.read() as connection:
        return int(connection.execute(select(func.count()).select_from(opt_outs)).scalar_one())


def all_opt_outs(store: Store) -> list[str]:
    """Return everybody who is on the list."""
    with store.read() as connection:
        return list(connection.execute(select(opt_outs.c.identity)).scalars())


def _put(connection: Connection, identity: str, origin: str) -> bool:
    return insert_new(connection, opt_outs, {"identity": identity, "at": time.time(), "origin": origin})


def _take(connection: Connection, identity: str) -> int:
    return connection.execute(delete(opt_outs).where(opt_outs.c.identity == identity)).rowcount
