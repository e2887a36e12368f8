"""A warehouse with tables of somebody's own, and what is wanted of them."""

from __future__ import annotations

from typing import Any

import orjson

from heap_integration.segments.audiences.settings import UsersTable
from heap_integration.segments.profiles import profile_wanted
from heap_integration.segments.wanted import Wanted
from heap_integration.sync_settings import ProfileSync
from heap_integration.warehouse import Warehouse

SYNC = "crm/profiles/people"


def run(warehouse: Warehouse, statement: str, parameters: list[Any] | None = None) -> None:
    """Run a statement."""
    with warehouse.write() as con:
        con.execute(statement, parameters or [])


def identities(warehouse: Warehouse, wanted: Wanted) -> list[str]:
    """Return who is wanted, sorted, and make sure that everybody is wanted once and as a member only."""
    with warehouse.read() as con:
        rows = con.execute(wanted.sql, dict(wanted.parameters)).fetchall()
    assert all(properties is None for _, properties in rows)
    found = sorted(identity for identity, _ in rows)
    assert len(set(found)) == len(found)
    return found


def texts(warehouse: Warehouse, settings: ProfileSync, users: UsersTable | None = None) -> dict[str, str]:
    """Return the properties that are wanted, as the warehouse compares them."""
    with warehouse.read() as con:
        wanted = profile_wanted(con, settings, users or UsersTable(), SYNC)
        rows = con.execute(wanted.sql, dict(wanted.parameters)).fetchall()
    assert len({identity for identity, _ in rows}) == len(rows)
    return dict(rows)


def profiles(warehouse: Warehouse, settings: ProfileSync, users: UsersTable | None = None) -> dict[str, Any]:
    """Return the properties that are wanted; a text in place of them is why a row can't go out."""
    return {identity: orjson.loads(text) for identity, text in texts(warehouse, settings, users).items()}
