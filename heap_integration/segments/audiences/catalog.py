"""What audience definitions can ask for: the events, properties, models and segments of a warehouse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import TYPE_CHECKING

from sqlglot import exp

from heap_integration.segments.audiences.compiler import HUB_USERS, ColumnKind, Tables
from heap_integration.segments.audiences.definition import AudienceDefinition, Comparison, Event, Group
from heap_integration.segments.audiences.dialects import Engine
from heap_integration.segments.audiences.settings import AudienceSettings, EventsTable, UsersTable
from heap_integration.segments.audiences.values import ValueKind
from heap_integration.sync_settings import MembersTable, SegmentSync
from heap_integration.warehouse.audiences import newest_result
from heap_integration.warehouse.tables import Table, TableError, find_table, nearest

if TYPE_CHECKING:
    import duckdb

Location = tuple[str | int, ...]
Missing = tuple[Location, str]
HUB_TRAITS = "main.hub_traits"
DUCKDB = Engine("duckdb")
NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")
KINDS: tuple[tuple[tuple[str, ...], ColumnKind], ...] = (
    (("TIMESTAMP WITH TIME ZONE",), "zoned time"),
    (("TIMESTAMP", "DATE"), "time"),
    (("VARCHAR", "ENUM"), "text"),
    (("BOOLEAN",), "boolean"),
    ((*NUMBERS, *(f"U{name}" for name in NUMBERS)), "number"),
)
# A property that most rows have is among these; for the message about one that isn't there, that is enough.
LOOKED_THROUGH = 50_000


class NoResultYet(ValueError):
    """Another audience or a segment that is asked for has no members yet."""


class Catalog:
    """The names that stand in a warehouse; looks for one at a time and stops at the first row that has it.

    ``segments`` are the environment's by name; Heap's, which it may not name, are in the warehouse.

    Raises:
        TableError: the table of the events or the users isn't there, or lacks a column.
    """

    def __init__(
        self, con: duckdb.DuckDBPyConnection, settings: AudienceSettings, segments: Mapping[str, SegmentSync]
    ) -> None:
        self._con = con
        self._segments = segments
        self._found: dict[str, bool] = {}
        self.columns: dict[str, Mapping[str, ColumnKind]] = {}
        events, users = self._known(settings.events), self._known(settings.users)
        self._settings = settings.model_copy(update={"events": events, "users": users})

    def missing(self, group: Group) -> Iterator[Missing]:
        """Yield what a definition names and the warehouse doesn't have, with its place in the file."""
        for place, each in group.groups():
            yield from self._missing_events(each, ("definition", *place))
            for name, asked in each.user_properties.items():
                where = ("definition", *place, "user_properties", name)
                yield from self._missing_property(self._settings.users, name, asked, None, where)
            for name, asked in each.models.items():
                yield from self._missing_model(name, asked, ("definition", *place, "models", name))
            for kind in ("segments", "exclude_segments"):
                for index, name in enumerate(getattr(each, kind)):
                    if name not in self._segments and name not in self._heap_segments():
                        known = [*self._segments, *self._heap_segments()]
                        words = f"there is no segment {name!r}; {nearest(name, known, 'the environment')}"
                        yield ("definition", *place, kind, index), words

    def tables(self, definition: AudienceDefinition, day: date) -> Tables:
        """Return what a definition is computed from; members of other audiences are those of ``day`` or before.

        Raises:
            KeyError: a model isn't one of the environment; see ``missing``.
            NoResultYet: another audience or segment has no members of that day or before it.
        """
        for name in {name for _, group in definition.definition.groups() for name in group.models}:
            table = self._settings.models[name].table
            self.columns[table] = _kinds(find_table(self._con, table))
        return Tables(
            self._settings,
            self.columns,
            {name: self._members(name, day) for name in sorted(definition.segment_names())},
        )

    # Events and properties

    def _missing_events(self, group: Group, place: Location) -> Iterator[Missing]:
        for kind in ("events", "exclude_events", "first", "last"):
            for index, event in enumerate(getattr(group, kind)):
                yield from self._missing_event(event, (*place, kind, index))
        for index, sequence in enumerate(group.sequences):
            for number, step in enumerate(sequence.steps):
                yield from self._missing_event(step, (*place, "sequences", index, "steps", number))

    def _missing_event(self, event: Event, place: Location) -> Iterator[Missing]:
        table = self._settings.events
        if not self._has(table.table, self._is_event(event.type)):
            words = f"there is no event {event.type!r}; {nearest(event.type, self._event_names(), 'the warehouse')}"
            yield (*place, "type"), words
            return
        for name, asked in event.properties.items():
            yield from self._missing_property(table, name, asked, event.type, (*place, "properties", name))

    def _missing_property(
        self, table: EventsTable | UsersTable, name: str, asked: Comparison, event: str | None, place: Location
    ) -> Iterator[Missing]:
        kind = Tables(self._settings, self.columns).column_of(table, name)
        if kind is not None:
            yield from _misfit(name, kind, asked, place)
            return
        owner = f"event {event!r}" if event else "user"
        if table.properties is not None:
            has = DUCKDB.property_exists(DUCKDB.column(table.properties), name)
            if self._has(_rows_of_properties(table), exp.and_(self._is_event(event), has) if event else has):
                return
        known = self._property_names(table, event)
        yield place, f"no {owner} has a property {name!r}; {nearest(name, known, 'it' if event else 'a user')}"

    def _is_event(self, name: str) -> exp.Expr:
        return exp.EQ(this=DUCKDB.column(self._settings.events.event), expression=DUCKDB.text(name))

    def _has(self, table: str, condition: exp.Expr) -> bool:
        query = exp.select("1").from_(DUCKDB.table(table)).where(condition).limit(1).sql("duckdb")
        if query not in self._found:
            self._found[query] = self._con.execute(query).fetchone() is not None
        return self._found[query]

    def _event_names(self) -> list[str]:
        table = self._settings.events
        column = DUCKDB.column(table.event)
        query = exp.select(column).distinct().from_(DUCKDB.table(table.table)).order_by(column.copy())
        return [str(name) for (name,) in self._con.execute(query.sql("duckdb")).fetchall() if name is not None]

    def _property_names(self, table: EventsTable | UsersTable, event: str | None) -> list[str]:
        own = self.columns[table.table]
        names = {name for name in own if Tables(self._settings, self.columns).column_of(table, name) is not None}
        if table.properties is None:
            return sorted(names)
        column = DUCKDB.column(table.properties)
        source = DUCKDB.table(_rows_of_properties(table))
        rows = exp.select(exp.alias_(column, "found")).from_(source).limit(LOOKED_THROUGH)
        if event:
            rows = rows.where(self._is_event(event))
        query = f"select distinct unnest(try(json_keys(found))) from ({rows.sql('duckdb')})"
        return sorted(names | {str(name) for (name,) in self._con.execute(query).fetchall()})

    # Models and segments

    def _missing_model(self, name: str, asked: Comparison, place: Location) -> Iterator[Missing]:
        model = self._settings.models.get(name)
        if model is None:
            yield place, f"there is no model {name!r}; {nearest(name, self._settings.models, 'audiences.models')}"
            return
        try:
            table = find_table(self._con, model.table)
            column = table.column(model.column)
            table.column(model.identity)
        except TableError as error:
            yield place, f"audiences.models.{name}: {error}"
            return
        yield from _misfit(name, _kinds(table)[column], asked, place)

    def _heap_segments(self) -> dict[str, int]:
        rows = self._con.execute("select name, segment_id from heap_segments order by name").fetchall()
        return {str(name): int(segment) for name, segment in rows}

    def _members(self, name: str, day: date) -> exp.Select:
        segment = self._segments.get(name)
        if segment is not None and isinstance(segment.source, MembersTable):
            return self._rows_of(segment.source)
        if segment is not None and segment.kind == "audience":
            return self._result_of(segment.slug, name, day)
        number = segment.segment_id if segment is not None and segment.segment_id else self._heap_segments().get(name)
        if number is None:
            raise NoResultYet(f"Heap has told nothing of the segment {name!r} yet")
        column = exp.column("segment_id", quoted=True)
        return _identities("segment_members", exp.EQ(this=column, expression=exp.Literal.number(number)))

    def _result_of(self, slug: str, name: str, day: date) -> exp.Select:
        result = newest_result(self._con, slug, day)
        if result is None:
            raise NoResultYet(f"the audience {name!r} has no result of {day} or before: compute it first")
        audience = exp.EQ(this=exp.column("audience", quoted=True), expression=exp.Literal.string(slug))
        day_literal = exp.cast(exp.Literal.string(result.as_of.isoformat()), "date")
        of_day = exp.EQ(this=exp.column("as_of", quoted=True), expression=day_literal)
        return _identities("audience_members", exp.and_(audience, of_day))

    def _rows_of(self, source: MembersTable) -> exp.Select:
        table = find_table(self._con, source.table)
        column = DUCKDB.column(table.column(source.identity))
        identity = DUCKDB.as_text(column)
        there = exp.not_(exp.Is(this=column.copy(), expression=exp.null()))
        return exp.select(exp.alias_(identity, "identity", quoted=True)).from_(DUCKDB.table(table.name)).where(there)

    def _known(self, settings: EventsTable | UsersTable) -> EventsTable | UsersTable:
        """Look at a table's columns; where it has no JSON, every property is a column."""
        table = find_table(self._con, settings.table)
        self.columns[settings.table] = _kinds(table)
        table.column(settings.identity)
        if isinstance(settings, EventsTable):
            table.column(settings.event)
            table.column(settings.time)
        if settings.properties is None or table.find(settings.properties):
            return settings
        if "properties" in settings.model_fields_set:
            table.column(settings.properties)
        return settings.model_copy(update={"properties": None})


def _rows_of_properties(table: EventsTable | UsersTable) -> str:
    """Return where a property can be seen first: who the users are takes all of what was told of them."""
    return HUB_TRAITS if table.table == HUB_USERS else table.table


def _identities(table: str, where: exp.Expr) -> exp.Select:
    return exp.select(exp.column("identity", quoted=True)).from_(exp.to_identifier(table, quoted=True)).where(where)


def _kinds(table: Table) -> dict[str, ColumnKind]:
    return {name: _kind(type_name) for name, type_name in table.columns.items()}


def _kind(type_name: str) -> ColumnKind:
    if "[" in type_name:
        return "other"
    return next((kind for names, kind in KINDS if type_name.startswith(names)), "other")


def _misfit(name: str, kind: ColumnKind, asked: Comparison, place: Location) -> Iterator[Missing]:
    """Yield why a column can't be compared with what is asked."""
    fits: dict[ColumnKind, set[ValueKind]] = {
        "number": {"number"},
        "boolean": {"boolean"},
        "time": {"time"},
        "zoned time": {"time"},
        "text": {"text", "time", "number", "boolean"},
        "other": set(),
    }
    if asked.kinds() - fits[kind]:
        words = {"other": "a list or an object, which can only be asked whether it exists"}
        wanted = words.get(kind, f"a column of {kind.removeprefix('zoned ')}s: compare it with one")
        yield place, f"{name} is {wanted}"
