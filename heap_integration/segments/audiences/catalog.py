"""What audience definitions can ask for: the events, properties, models and segments of a warehouse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date

from sqlglot import exp

from heap_integration.segments.audiences.compiler import ColumnKind, Tables
from heap_integration.segments.audiences.definition import AudienceDefinition, Comparison, Event, Group
from heap_integration.segments.audiences.dialects import Engine
from heap_integration.segments.audiences.places import Place
from heap_integration.segments.audiences.settings import AudienceSettings, EventsTable, ModelColumn, UsersTable
from heap_integration.segments.audiences.values import ValueKind
from heap_integration.sync_settings import MembersTable, SegmentSync
from heap_integration.warehouse.audiences import newest_result
from heap_integration.warehouse.tables import TableError, nearest

Location = tuple[str | int, ...]
Missing = tuple[Location, str]


class NoResultYet(ValueError):
    """Another audience or a segment that is asked for has no members yet."""


class Catalog:
    """The names that stand in a warehouse; looks for one at a time and stops at the first row that has it.

    ``segments`` are the environment's by name; Heap's, which it may not name, are in the warehouse.

    Raises:
        TableError: the table of the events or the users isn't there, or lacks a column.
    """

    def __init__(self, place: Place, settings: AudienceSettings, segments: Mapping[str, SegmentSync]) -> None:
        self._place = place
        self._engine = Engine(place.dialect)
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
        models = {
            name: self._model(self._settings.models[name])
            for name in {name for _, group in definition.definition.groups() for name in group.models}
        }
        return Tables(
            self._settings.model_copy(update={"models": models}),
            self.columns,
            {name: self._members(name, day) for name in sorted(definition.segment_names())},
            self._place.told(self._settings.users.table),
        )

    def _model(self, model: ModelColumn) -> ModelColumn:
        table = self._place.find(model.table)
        self.columns[table.name] = self._place.kinds(table)
        return model.model_copy(update={"table": table.name})

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
            has = self._engine.property_exists(self._engine.column(table.properties), name)
            if self._has(self._rows_of_properties(table), exp.and_(self._is_event(event), has) if event else has):
                return
        known = self._property_names(table, event)
        yield place, f"no {owner} has a property {name!r}; {nearest(name, known, 'it' if event else 'a user')}"

    def _is_event(self, name: str) -> exp.Expr:
        return exp.EQ(this=self._engine.column(self._settings.events.event), expression=self._engine.text(name))

    def _has(self, table: str, condition: exp.Expr) -> bool:
        query = exp.select(exp.Literal.number(1).as_("one")).from_(self._engine.table(table)).where(condition).limit(1)
        key = query.sql()
        if key not in self._found:
            self._found[key] = bool(self._place.rows(query))
        return self._found[key]

    def _event_names(self) -> list[str]:
        table = self._settings.events
        column = self._engine.column(table.event)
        query = exp.select(column).distinct().from_(self._engine.table(table.table)).order_by(column.copy())
        return [str(name) for (name,) in self._place.rows(query) if name is not None]

    def _property_names(self, table: EventsTable | UsersTable, event: str | None) -> list[str]:
        own = self.columns[table.table]
        names = {name for name in own if Tables(self._settings, self.columns).column_of(table, name) is not None}
        if table.properties is None:
            return sorted(names)
        column = self._engine.column(table.properties)
        rows = exp.select(column).from_(self._engine.table(self._rows_of_properties(table)))
        if event:
            rows = rows.where(self._is_event(event))
        return sorted(names | self._place.keys(rows))

    # Models and segments

    def _missing_model(self, name: str, asked: Comparison, place: Location) -> Iterator[Missing]:
        model = self._settings.models.get(name)
        if model is None:
            yield place, f"there is no model {name!r}; {nearest(name, self._settings.models, 'audiences.models')}"
            return
        try:
            table = self._place.find(model.table)
            column = table.column(model.column)
            table.column(model.identity)
        except TableError as error:
            yield place, f"audiences.models.{name}: {error}"
            return
        yield from _misfit(name, self._place.kinds(table)[column], asked, place)

    def _heap_segments(self) -> dict[str, int]:
        with self._place.own() as con:
            rows = con.execute("select name, segment_id from heap_segments order by name").fetchall()
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
        return self._identities("segment_members", exp.EQ(this=column, expression=exp.Literal.number(number)))

    def _result_of(self, slug: str, name: str, day: date) -> exp.Select:
        with self._place.own() as con:
            result = newest_result(con, slug, day)
        if result is None:
            raise NoResultYet(f"the audience {name!r} has no result of {day} or before: compute it first")
        audience = exp.EQ(this=exp.column("audience", quoted=True), expression=exp.Literal.string(slug))
        day_literal = exp.cast(exp.Literal.string(result.as_of.isoformat()), "date")
        of_day = exp.EQ(this=exp.column("as_of", quoted=True), expression=day_literal)
        return self._identities("audience_members", exp.and_(audience, of_day))

    def _rows_of(self, source: MembersTable) -> exp.Select:
        table = self._place.find(source.table)
        column = self._engine.column(table.column(source.identity))
        identity = self._engine.as_text(column)
        there = exp.not_(exp.Is(this=column.copy(), expression=exp.null()))
        return (
            exp.select(exp.alias_(identity, "identity", quoted=True)).from_(self._engine.table(table.name)).where(there)
        )

    def _identities(self, table: str, where: exp.Expr) -> exp.Select:
        column, source = exp.column("identity", quoted=True), exp.to_identifier(table, quoted=True)
        return self._place.identities(exp.select(column).from_(source).where(where))

    def _rows_of_properties(self, table: EventsTable | UsersTable) -> str:
        """Return where a property can be seen first: who the users are takes all of what was told of them."""
        if isinstance(table, UsersTable) and self._place.told(table.table):
            return table.table.replace("hub_users", "hub_traits")
        return table.table

    def _known(self, settings: EventsTable | UsersTable) -> EventsTable | UsersTable:
        """Look at a table's columns; where it has no JSON, every property is a column."""
        table = self._place.find(settings.table)
        settings = settings.model_copy(update={"table": table.name})
        self.columns[table.name] = self._place.kinds(table)
        table.column(settings.identity)
        if isinstance(settings, EventsTable):
            table.column(settings.event)
            table.column(settings.time)
        if settings.properties is None or table.find(settings.properties):
            return settings
        if "properties" in settings.model_fields_set:
            table.column(settings.properties)
        return settings.model_copy(update={"properties": None})


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
