"""What syncs need of a warehouse that isn't DuckDB: brought to the hub's own tables, and compared there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heap_integration.environment import Environment, ProfileSync, SegmentSync
from heap_integration.segments.audiences.settings import UsersTable
from heap_integration.segments.identity import EMAIL
from heap_integration.sync_settings import HeapProperty, MappingTable, MembersTable
from heap_integration.warehouse.tables import BROUGHT, Table, TableError, find_table, is_own_view, quoted

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from heap_integration.warehouse import Warehouse
    from heap_integration.warehouse.elsewhere import Elsewhere

Sync = SegmentSync | ProfileSync


@dataclass(frozen=True)
class Need:
    """A table that syncs read, and its columns; all of them where ``everything``. Those ``wished`` may be missing."""

    table: str
    columns: frozenset[str]
    wished: frozenset[str] = frozenset()
    everything: bool = False

    def __or__(self, other: Need) -> Need:
        return Need(
            self.table,
            self.columns | other.columns,
            self.wished | other.wished,
            self.everything or other.everything,
        )

    def of(self, table: Table) -> list[str]:
        """Return the columns of a table that are needed, as it spells them.

        Raises:
            TableError: it lacks one.
        """
        wanted = {table.column(name) for name in sorted(self.columns)} | {table.find(name) for name in self.wished}
        return [name for name in table.columns if self.everything or name in wanted]


def localized(sync: Sync) -> Sync:
    """Return a sync with the tables that it reads called as they are once they are brought."""
    changes: dict[str, object] = {}
    if isinstance(sync.map_users_by, MappingTable):
        changes["map_users_by"] = sync.map_users_by.model_copy(update={"table": _local(sync.map_users_by.table)})
    if isinstance(sync, ProfileSync):
        changes["table"] = _local(sync.table)
    elif isinstance(sync.source, MembersTable):
        changes["source"] = sync.source.model_copy(update={"table": _local(sync.source.table)})
    return sync.model_copy(update=changes)


def localized_users(users: UsersTable) -> UsersTable:
    """Return the table of users, called as it is once it is brought."""
    return users.model_copy(update={"table": _local(users.table)})


def are_here(con: duckdb.DuckDBPyConnection, sync: Sync, users: UsersTable) -> bool:
    """Say whether all that a sync reads has been brought, at any time."""
    try:
        for need in _needs(sync, users):
            need.of(find_table(con, _local(need.table)))
    except TableError:
        return False
    return True


def bring(environment: Environment, sync: Sync, there: Elsewhere, warehouse: Warehouse) -> int:
    """Bring what a sync reads, in place of what was brought before, and return how many rows that were.

    A table comes with the columns that any sync of the environment reads. What none of them reads any more is removed.

    Raises:
        QueryError: the warehouse refuses a query.
        TableError: a table or a column isn't there.
    """
    users = environment.audiences.users
    needed: dict[str, Need] = {}
    for each in environment.syncs():
        for need in _needs(each, users):
            needed[need.table] = needed[need.table] | need if need.table in needed else need
    rows = sum(_bring(needed.get(need.table, need), there, warehouse) for need in _needs(sync, users))
    _forget_others(warehouse, needed)
    return rows


def _needs(sync: Sync, users: UsersTable) -> Iterator[Need]:
    found: list[Need] = []
    if isinstance(sync, ProfileSync):
        found.append(Need(sync.table, frozenset({sync.identity, *sync.fields}), everything=not sync.fields))
    elif isinstance(sync.source, MembersTable):
        found.append(Need(sync.source.table, frozenset({sync.source.identity})))
    by = sync.map_users_by
    if isinstance(by, MappingTable):
        found.append(Need(by.table, frozenset({by.source, by.target})))
    elif by != "identity":
        value = by.property if isinstance(by, HeapProperty) else EMAIL
        wished = frozenset({value, *([users.properties] if users.properties else [])})
        found.append(Need(users.table, frozenset({users.identity}), wished))
    yield from (need for need in found if not is_own_view(need.table))


def _bring(need: Need, there: Elsewhere, warehouse: Warehouse) -> int:
    from heap_integration.warehouse.elsewhere import is_json
    from heap_integration.warehouse.names import spelt
    from heap_integration.warehouse.spool import spooled

    table = there.find(need.table)
    names = need.of(table)
    listed = ", ".join(spelt(name, there.dialect) for name in names)
    json = {name for name in names if is_json(table.columns[name], there.dialect)}
    values = ", ".join(f"{quoted(name)}::json as {quoted(name)}" if name in json else quoted(name) for name in names)
    found = there.connection.batches(f"select {listed} from {table.relation}")
    with (
        spooled(_renamed(found, names)) as spool,
        warehouse.write(ample=True) as con,
        spool.read() as arriving,
    ):
        con.register("arriving", arriving)
        con.execute(f"create schema if not exists {quoted(BROUGHT)}")
        con.execute(f"create or replace table {_local(need.table)} as select {values} from arriving")
        con.unregister("arriving")
    return spool.rows


def _renamed(batches: Iterable[pa.RecordBatch], names: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield batches with their columns called as the table spells them, whatever the driver calls them."""
    for batch in batches:
        yield batch.rename_columns(names)


def _forget_others(warehouse: Warehouse, needed: Iterable[str]) -> None:
    with warehouse.read() as con:
        found = con.execute("select table_name from duckdb_tables() where schema_name = ?", [BROUGHT]).fetchall()
    others = {str(name) for (name,) in found} - set(needed)
    if others:
        with warehouse.write() as con:
            for name in others:
                con.execute(f"drop table if exists {quoted(BROUGHT)}.{quoted(name)}")


def _local(table: str) -> str:
    """Return under which name a table is known once it is brought; the hub's own views are here already."""
    return table if is_own_view(table) else f"{quoted(BROUGHT)}.{quoted(table)}"
