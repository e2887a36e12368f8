"""Which of Heap's tables hold an event each, and what those events are called."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

NOT_EVENTS = frozenset({"users", "sessions", "pageviews", "all_events", "user_migrations"})
"""The tables that aren't of one event: people, visits, pages, all events without their properties, merged people."""

_WRITTEN = frozenset({"event_id", "user_id", "time"})


def table_name(event: str) -> str:
    """Return the table that Heap gives an event: small letters, everything else but digits an underscore."""
    return re.sub(r"[^a-z0-9]+", "_", event.lower()).strip("_")


def event_names(known: Iterable[str], given: Mapping[str, str]) -> dict[str, str]:
    """Return which event a table is about, as far as that can be told.

    Heap's tables don't hold the names of their events, and several names make the same table. So a name is the one that
    is ``given`` for the table, else the first of the ``known`` ones (the steps of funnels, say) that make this table.
    """
    return {table_name(event): event for event in reversed([*known])} | dict(given)


def event_tables(tables: Mapping[str, Collection[str]], names: Mapping[str, str]) -> dict[str, str]:
    """Return the tables of single events with their events' names, or their own where nobody has named the event.

    ``tables`` has the columns of each table, ``names`` is as ``event_names`` makes it.
    """
    return {
        table: names.get(table, table)
        for table, columns in tables.items()
        if table not in NOT_EVENTS
        and not table.startswith("_")
        and {*columns} >= _WRITTEN
        # In BigQuery Heap's views stand over tables of the same name with this ending.
        and not (table.endswith("_raw") and table.removesuffix("_raw") in tables)
    }
