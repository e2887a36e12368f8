"""Whose id at the destination a member's identity is, and how many have one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heap_integration.segments.audiences.settings import UsersTable
from heap_integration.segments.columns import as_json, identity_of, is_placeholder, json_identity
from heap_integration.segments.wanted import Wanted
from heap_integration.sync_settings import HeapProperty, MappingTable, MapUsersBy
from heap_integration.warehouse.tables import Table, TableError, find_table, nearest, quoted

if TYPE_CHECKING:
    import duckdb

EMAIL = "email"
# People of whom nothing may go out, as the parameter that every question bears which leaves them out.
OPTED_OUT = "select unnest($opted_out::varchar[])"


@dataclass(frozen=True)
class Match:
    """How many members have an id at the destination: ``members = mapped + unmapped + ambiguous + placeholders``.

    ``ids`` are the ids that go out, fewer than ``mapped`` where members share one. ``unmapped`` have no value,
    ``ambiguous`` can't be told from each other; ``placeholders`` are identities that stand for nobody.
    ``unknown_there`` is known after a run: ids of whom the destination knows no user. ``opted_out`` are not among
    the members: nothing of them goes out.
    """

    members: int
    mapped: int
    ids: int
    unmapped: int
    ambiguous: int
    placeholders: int
    unknown_there: int = 0
    opted_out: int = 0

    @property
    def rate(self) -> float:
        """The share of members that the destination knows, from 0 to 1; 1 where there are none."""
        return max(self.mapped - self.unknown_there, 0) / self.members if self.members else 1.0


def without(members: Wanted, opted_out: Sequence[str]) -> Wanted:
    """Return memberships without those of people who opted out."""
    if not opted_out:
        return members
    sql = f"select * from ({members.sql}) as members where identity not in ({OPTED_OUT})"
    return Wanted(sql, {**members.parameters, "opted_out": list(opted_out)}, members.changed_at)


def count_opted_out(con: duckdb.DuckDBPyConnection, members: Wanted, opted_out: Sequence[str]) -> int:
    """Return how many members have opted out."""
    if not opted_out:
        return 0
    sql = f"select count(*) from ({members.sql}) as members where identity in ({OPTED_OUT})"
    row = con.execute(sql, {**members.parameters, "opted_out": list(opted_out)}).fetchone()
    return int(row[0]) if row else 0


def mapped(
    con: duckdb.DuckDBPyConnection,
    members: Wanted,
    by: MapUsersBy,
    users: UsersTable,
    opted_out: Sequence[str] = (),
) -> Wanted:
    """Return memberships under the destination's ids, each once and no placeholder.

    An id that several members share is one member; a member with several ids isn't sent, nor one who shares an id with
    somebody who opted out. ``opted_out`` are those whom ``without`` has left out.

    Raises:
        TableError: the table of users or of the mapping, or a column of it, isn't there.
    """
    nobody = is_placeholder("members.identity")
    if by == "identity":
        sql = f"select identity, properties from ({members.sql}) as members where not ({nobody})"
    else:
        # An aggregate that keeps a text for each group can't be spilled to disk; a distinct and a join can.
        sql = f"""
with members as ({members.sql}),
found as ({apart_from(ids_of(con, by, users), opted_out)}),
known as (select identity from found group by identity having count(*) = 1)
select distinct found.target as identity, null::varchar as properties
from members join known using (identity) join found using (identity)
where not ({nobody})
"""
    return Wanted(sql, members.parameters, members.changed_at)


def match_counts(
    con: duckdb.DuckDBPyConnection,
    members: Wanted,
    by: MapUsersBy,
    users: UsersTable,
    opted_out: Sequence[str] = (),
) -> Match:
    """Count the members, as they are before mapping, by what becomes of them; see ``mapped``.

    Who shares an id with somebody who opted out counts as unmapped.

    Raises:
        TableError: see ``mapped``.
    """
    nobody = is_placeholder("members.identity")
    if by == "identity":
        sql = f"""
select count(*), count(*) filter (not ({nobody})), count(*) filter (not ({nobody})), 0, 0
from ({members.sql}) as members
"""
    else:
        sql = f"""
with members as ({members.sql}),
found as ({apart_from(ids_of(con, by, users), opted_out)}),
known as (select identity, count(*) as ids, min(target) as target from found group by identity)
select count(*),
       count(*) filter (ids = 1 and not ({nobody})),
       count(distinct target) filter (ids = 1 and not ({nobody})),
       count(*) filter (ids is null and not ({nobody})),
       count(*) filter (ids > 1 and not ({nobody}))
from members left join known using (identity)
"""
    row = con.execute(sql, dict(members.parameters)).fetchone()
    everybody, with_id, ids, unmapped, ambiguous = (int(value) for value in row or (0,) * 5)
    return Match(everybody, with_id, ids, unmapped, ambiguous, everybody - with_id - unmapped - ambiguous)


def ids_of(con: duckdb.DuckDBPyConnection, by: MapUsersBy, users: UsersTable) -> str:
    """Return a select of ``identity`` and ``target``, the destination's id: each pair once, no placeholder.

    E-mail addresses are trimmed and in small letters.

    Raises:
        TableError: see ``mapped``; also for ``identity``, which needs no mapping.
    """
    if isinstance(by, MappingTable):
        table = find_table(con, by.table)
        identity, target = identity_of(table, by.source), identity_of(table, by.target)
        return _pairs(table, identity, target)
    table = find_table(con, users.table)
    identity = identity_of(table, users.identity)
    if isinstance(by, HeapProperty):
        return _pairs(table, identity, _property(table, users, by.property))
    address = _property(table, users, EMAIL)
    return _pairs(table, identity, f"case when {address} like '%_@_%' then lower({address}) end")


def apart_from(ids: str, opted_out: Sequence[str]) -> str:
    """Return what ``ids_of`` gave, without those who share an id with somebody who opted out."""
    if not opted_out:
        return ids
    return f"""
with pairs as ({ids}),
theirs as (select target from pairs where identity in ({OPTED_OUT}))
select identity, target from pairs
where identity not in (select identity from pairs where target in (select target from theirs))
"""


def _property(table: Table, users: UsersTable, name: str) -> str:
    """Return a user property as an id: a column of its name where there is one, else a member of the JSON."""
    if table.find(name) is not None:
        return identity_of(table, name)
    if users.properties is None or table.find(users.properties) is None:
        raise TableError(f"table {table.name} has no property {name!r}; {nearest(name, table.columns)}")
    column = table.column(users.properties)
    return json_identity(as_json(f"hub_row.{quoted(column)}", table.columns[column]), name)


def _pairs(table: Table, identity: str, target: str) -> str:
    return (
        f"select identity, target from (select {identity} as identity, {target} as target"
        f" from {table.relation} as hub_row)"
        f" where identity is not null and target is not null and not ({is_placeholder('target')}) group by all"
    )
