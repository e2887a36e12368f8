"""Who is wanted in a segment: what Heap told, what an audience's definition gave, or the rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heap_integration.segments.columns import identity_of
from heap_integration.segments.wanted import Wanted
from heap_integration.sync_settings import MembersTable
from heap_integration.warehouse.audiences import newest_result
from heap_integration.warehouse.memberships import segment_changed_at
from heap_integration.warehouse.tables import find_table

if TYPE_CHECKING:
    import duckdb

HEAP_MEMBERS = """
select identity, null::varchar as properties from segment_members where segment_id = $members_segment
"""
AUDIENCE_MEMBERS = """
select identity, null::varchar as properties from audience_members
where audience = $members_audience
  and as_of = (select max(as_of) from audience_runs where audience = $members_audience)
"""


def heap_members(con: duckdb.DuckDBPyConnection, segment: int) -> Wanted:
    """Return the members of a Heap segment, which ``segment`` numbers; it changed when Heap last told of it."""
    return Wanted(HEAP_MEMBERS, {"members_segment": segment}, segment_changed_at(con, segment))


def audience_members(con: duckdb.DuckDBPyConnection, audience: str) -> Wanted | None:
    """Return the members of an audience on the newest day it has a result for; ``None`` while it has none."""
    newest = newest_result(con, audience)
    if newest is None:
        return None
    # The newest day by the time they are asked for: until then, today's run may have put it in place of this one.
    return Wanted(AUDIENCE_MEMBERS, {"members_audience": audience}, newest.moment)


def table_members(con: duckdb.DuckDBPyConnection, source: MembersTable) -> Wanted:
    """Return the identities of a table, view or dbt model, each once; rows without one are passed over.

    Raises:
        TableError: the table or the column isn't there, or holds what can't be an identity.
    """
    table = find_table(con, source.table)
    identity = identity_of(table, source.identity)
    return Wanted(
        f"select distinct {identity} as identity, null::varchar as properties"
        f" from {table.relation} as hub_row where {identity} is not null"
    )
