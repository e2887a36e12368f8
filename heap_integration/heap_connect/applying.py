"""How a staged table gets into the one that is there: new and retyped columns, and each key in one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from heap_integration.heap_connect.columns import Kind, common, kind_in, type_of
from heap_integration.heap_connect.reports import TableReport
from heap_integration.heap_connect.staging import StagedTable
from heap_integration.warehouse.names import relation, spelt
from heap_integration.warehouse.systems.system import Dialect

DUMP_COLUMN = "_hub_dump"
"""The column of each of Heap's tables that says which dump has brought a row."""

LostColumns = Literal["keep", "drop"]

_NEXT = "_hub_next"
# where changes of columns belong to a transaction, as changes of rows do everywhere
_ONE_TRANSACTION = ("duckdb", "postgres", "redshift")


class Tables(Protocol):
    """The tables that are there, to be asked."""

    def columns(self, table: str) -> dict[str, str]:
        """Return the columns of one of Heap's tables with the warehouse's types; empty where there is no table."""

    def row(self, sql: str) -> Sequence[Any]:
        """Return the first row of a query."""


@dataclass(frozen=True)
class Arriving:
    """A staged table within reach of the warehouse: ``source`` is its relation there, ``types`` are its columns'."""

    staged: StagedTable
    source: str
    types: Mapping[str, str]


@dataclass
class Plan:
    """The statements that apply a table, and what they do to it.

    ``together`` take effect in one transaction with all other tables and the notes. What a warehouse can't do in a
    transaction is ``before``, and changes no row, or ``after``, and takes away columns without values.
    """

    report: TableReport
    before: list[str] = field(default_factory=list)
    together: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """Heap's tables in a warehouse."""

    tables: Tables
    schema: str
    dialect: Dialect
    lost_columns: LostColumns

    def plan(self, arriving: Arriving, dump_id: int) -> Plan:
        """Return how to apply a table, as it is now; nothing is changed."""
        staged, there = arriving.staged, self.tables.columns(arriving.staged.table.name)
        known = {name.casefold(): name for name in there}
        rows, updated = self._counted(arriving) if there else (0, 0)
        gained = [name for name in staged.columns if name.casefold() not in known] if staged.typed else []
        sent = {name.casefold() for name in (*staged.table.columns, *staged.columns, DUMP_COLUMN)}
        lost = [name for folded, name in known.items() if folded not in sent]
        changes = _Changes(self, arriving, dump_id, there, known, gained, lost)
        replaces = staged.table.replaces
        if not there:
            plan = changes.create()
        elif (replaces or not rows) and self.dialect == "duckdb" and staged.typed:
            plan = changes.make_anew()
        else:
            plan = changes.exchange(everything=replaces)
        return Plan(
            TableReport(
                name=staged.table.name,
                how="replaced" if replaces else "merged",
                read=staged.read,
                inserted=staged.rows if replaces else staged.rows - updated,
                updated=0 if replaces else updated,
                duplicates=staged.duplicates,
                keyless=staged.keyless,
                removed=rows if replaces else 0,
                rows=staged.rows if replaces else rows - updated + staged.rows,
                unread=staged.unread,
                example=staged.example,
                gained=tuple(gained) if there else (),
                lost=tuple(lost),
                retyped=tuple(plan.retyped),
                bytes=staged.bytes,
            ),
            *self._split(plan),
        )

    def place(self, table: str) -> str:
        """Return one of Heap's tables for SQL."""
        return relation(self.schema, table, self.dialect)

    def name(self, column: str) -> str:
        """Return a column for SQL."""
        return spelt(column, self.dialect)

    def text(self) -> str:
        """Return the type of text."""
        return type_of("text", self.dialect)

    def _split(self, steps: _Steps) -> tuple[list[str], list[str], list[str]]:
        if self.dialect in _ONE_TRANSACTION:
            return [], [*steps.shape, *steps.rows, *steps.leave], []
        return steps.shape, steps.rows, steps.leave

    def _counted(self, arriving: Arriving) -> tuple[int, int]:
        table, place = arriving.staged.table, self.place(arriving.staged.table.name)
        (rows,) = self.tables.row(f"select count(*) from {place}")
        if table.replaces or not rows or not arriving.staged.rows:
            return int(rows), 0
        key = self.name(table.key)
        (updated,) = self.tables.row(
            f"select count(*) from {place} where {key} in (select {key} from {arriving.source})"
        )
        return int(rows), int(updated)


@dataclass
class _Steps:
    """Statements by what they change: the columns there are, rows, and columns that go."""

    shape: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    leave: list[str] = field(default_factory=list)
    retyped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Changes:
    """What differs between a table that arrives and the one that is ``there``, by its columns' types."""

    target: Target
    arriving: Arriving
    dump_id: int
    there: Mapping[str, str]
    known: Mapping[str, str]
    gained: Sequence[str]
    lost: Sequence[str]

    @property
    def staged(self) -> StagedTable:
        return self.arriving.staged

    @property
    def place(self) -> str:
        return self.target.place(self.staged.table.name)

    @property
    def _spread(self) -> str:
        # Synapse makes no table of a query without being told where its rows go
        return " with (distribution = round_robin)" if self.target.dialect == "tsql" else ""

    def create(self) -> _Steps:
        """Make a table that isn't there."""
        rows = self._selected({})
        if self.target.dialect == "duckdb":
            return _Steps(shape=[f"create table {self.place} as {rows}"])
        return _Steps(shape=[f"create table {self.place}{self._spread} as {rows} where 1 = 0"], rows=[self._insert({})])

    def make_anew(self) -> _Steps:
        """Put a new table in the place of the old one, with exactly the types that arrive."""
        kept = self.lost if self.target.lost_columns == "keep" else []
        rows = self._selected({}, {name: self.there[name] for name in kept})
        retyped = [name for name, old, new in self._both() if kind_in(old) != new]
        return _Steps(shape=[f"create or replace table {self.place} as {rows}"], retyped=retyped)

    def exchange(self, *, everything: bool) -> _Steps:
        """Put rows in the place of those with their keys, or of all that are there."""
        steps = _Steps()
        if DUMP_COLUMN not in self.known:
            steps.shape.append(self._added(DUMP_COLUMN, type_of("bigint", self.target.dialect)))
        steps.shape += [self._added(name, self.arriving.types[name]) for name in self.gained]
        wider = self._wider()
        steps.shape += self._retype(wider)
        steps.retyped = list(wider)
        if everything:
            steps.rows.append(f"delete from {self.place} where 1 = 1")
        elif self.staged.rows:
            key = self.target.name(self.staged.table.key)
            steps.rows.append(f"delete from {self.place} where {key} in (select {key} from {self.arriving.source})")
        if self.staged.rows:
            steps.rows.append(self._insert({**self.there, **wider}))
        if self.target.lost_columns == "drop":
            steps.leave = [f"alter table {self.place} drop column {self.target.name(name)}" for name in self.lost]
        return steps

    def _both(self) -> list[tuple[str, str, Kind]]:
        """Return the columns that are on both sides: name, type in the warehouse, kind that arrives."""
        return [
            (self.known[name.casefold()], self.there[self.known[name.casefold()]], kind)
            for name, kind in self.staged.columns.items()
            if name.casefold() in self.known
        ]

    def _wider(self) -> dict[str, str]:
        """Return the columns that can't hold what arrives, with the types that hold both."""
        found: dict[str, str] = {}
        for name, old, new in self._both() if self.staged.typed else ():
            if (needed := common((kind_in(old), new))) != kind_in(old):
                folded = {each.casefold(): kind for each, kind in self.arriving.types.items()}
                found[name] = folded[name.casefold()] if needed == new else self.target.text()
        return found

    def _retype(self, wider: Mapping[str, str]) -> list[str]:
        target, name = self.target, self.target.name
        if not wider:
            return []
        if target.dialect == "duckdb":
            return [f"alter table {self.place} alter column {name(each)} type {kind}" for each, kind in wider.items()]
        if target.dialect in ("postgres", "redshift"):
            return self._new_columns(wider)
        values = [
            f"cast({name(each)} as {wider[each]}) as {name(each)}" if each in wider else name(each)
            for each in self.there
        ]
        gained = [name(each) for each in (*self.gained, *(() if DUMP_COLUMN in self.known else (DUMP_COLUMN,)))]
        rows = f"select {', '.join([*values, *gained])} from {self.place}"
        if target.dialect in ("bigquery", "snowflake"):
            return [f"create or replace table {self.place} as {rows}"]
        following, old = target.place(_NEXT), f"{_NEXT}_old"
        return [
            f"create table {following}{self._spread} as {rows}",
            f"rename object {self.place} to {name(old)}",
            f"rename object {following} to {name(self.staged.table.name)}",
            f"drop table {target.place(old)}",
        ]

    def _new_columns(self, wider: Mapping[str, str]) -> list[str]:
        """Put new columns in the place of old ones: rights stay, and so do the views that don't name these columns.

        The others go with them, and the next run of the models makes them again.
        """
        name = self.target.name
        new = {each: name(f"{_NEXT}_{number}") for number, each in enumerate(wider)}
        values = ", ".join(f"{new[each]} = cast({name(each)} as {kind})" for each, kind in wider.items())
        return [
            *(self._added(f"{_NEXT}_{number}", kind) for number, kind in enumerate(wider.values())),
            f"update {self.place} set {values} where 1 = 1",
            *(f"alter table {self.place} drop column {name(each)} cascade" for each in wider),
            *(f"alter table {self.place} rename column {new[each]} to {name(each)}" for each in wider),
        ]

    def _added(self, column: str, kind: str) -> str:
        word = "add column" if self.target.dialect != "tsql" else "add"
        return f"alter table {self.place} {word} {self.target.name(column)} {kind}"

    def _insert(self, types: Mapping[str, str]) -> str:
        folded = {name.casefold(): name for name in types}
        names = [folded.get(name.casefold(), name) for name in (*self.staged.columns, DUMP_COLUMN)]
        listed = ", ".join(map(self.target.name, names))
        return f"insert into {self.place} ({listed}) {self._selected(types)}"

    def _selected(self, types: Mapping[str, str], empty: Mapping[str, str] | None = None) -> str:
        """Return the rows that arrive, as ``types`` where those differ, with ``empty`` columns beside them."""
        name, folded = self.target.name, {each.casefold(): kind for each, kind in types.items()}
        values = []
        for column, own in self.arriving.types.items():
            kind = folded.get(column.casefold(), own)
            values.append(name(column) if kind == own else f"cast({name(column)} as {kind}) as {name(column)}")
        values += [f"cast(null as {kind}) as {name(column)}" for column, kind in (empty or {}).items()]
        bigint = type_of("bigint", self.target.dialect)
        values.append(f"cast({self.dump_id} as {bigint}) as {name(DUMP_COLUMN)}")
        return f"select {', '.join(values)} from {self.arriving.source}"
