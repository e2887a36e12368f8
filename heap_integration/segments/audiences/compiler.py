"""Audience definitions become SQL: expressions put together by sqlglot, never text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlglot import exp, parse_one

from heap_integration.segments.audiences.definition import Comparison, Event, Group, Happened, Once
from heap_integration.segments.audiences.definition import Sequence as EventSequence
from heap_integration.segments.audiences.dialects import Dialect, Engine
from heap_integration.segments.audiences.settings import AudienceSettings, EventsTable, UsersTable
from heap_integration.segments.audiences.values import Value, kind_of, moment
from heap_integration.warehouse.publishing import USERS_OF_TRAITS

ColumnKind = Literal["text", "number", "boolean", "time", "zoned time", "other"]
IDENTITY = "identity"
# Within the statement it has another name: where a column and its alias are called alike, engines group by either.
WHO = "who"
HUB_USERS = "main.hub_users"
# The users as they were known at a moment.
HUB_USERS_AT = "hub_users_at"
EVENTS = "asked_events"
USERS = "asked_users"
CANDIDATES = "candidates"
# Everybody who is known: needed where somebody may belong who has done nothing that is asked for.
EVERYBODY = "everybody"

BINARY: dict[str, Callable[[exp.Expr, exp.Expr], exp.Expr]] = {
    "eq": lambda left, right: exp.EQ(this=left, expression=right),
    "ne": lambda left, right: exp.NEQ(this=left, expression=right),
    "gt": lambda left, right: exp.GT(this=left, expression=right),
    "gte": lambda left, right: exp.GTE(this=left, expression=right),
    "lt": lambda left, right: exp.LT(this=left, expression=right),
    "lte": lambda left, right: exp.LTE(this=left, expression=right),
}


@dataclass(frozen=True)
class Tables:
    """What a definition is computed from.

    ``columns`` has the columns of tables that are known, by the table's name; of a table that isn't there, properties
    are taken from the JSON. ``segments`` are selects of one column, the identities of each other segment. ``traits`` is
    where the traits of the hub's users stand as they were told, where the users are the hub's.
    """

    settings: AudienceSettings
    columns: Mapping[str, Mapping[str, ColumnKind]] = field(default_factory=dict)
    segments: Mapping[str, exp.Select] = field(default_factory=dict)
    traits: str | None = None

    def column_of(self, table: EventsTable | UsersTable, name: str) -> ColumnKind | None:
        """Return the type of the column that a property is, ``None`` where it is none."""
        taken = {table.identity, table.properties}
        if isinstance(table, EventsTable):
            taken |= {table.event, table.time}
        return None if name in taken else self.columns.get(table.table, {}).get(name)


def compiled(group: Group, tables: Tables, dialect: Dialect, as_of: datetime, *, pretty: bool = False) -> str:
    """Return the select of the identities that belong to a group at ``as_of`` (UTC), each once.

    Somebody belongs to it who is known from the users, from any event before ``as_of``, or from a model or segment
    that the group names, and for whom its conditions hold.

    Raises:
        ValueError: it can't be said in that SQL, or the tables lack something.
    """
    return _Compiler(tables, Engine(dialect), as_of).select(group).sql(dialect, pretty=pretty, identify=True)


@dataclass(frozen=True)
class _Part:
    """A condition over the joined sources, and sources that together hold everybody for whom it can be true.

    The condition may be null, which is as good as false.
    """

    condition: exp.Expr
    cover: frozenset[str]


class _Compiler:
    def __init__(self, tables: Tables, engine: Engine, as_of: datetime) -> None:
        self.tables = tables
        self.engine = engine
        self.as_of = as_of
        self.events: dict[str, tuple[str, exp.Expr]] = {}
        self.types: set[str] = set()
        self.since: list[datetime | None] = []
        self.users: dict[str, tuple[str, exp.Expr]] = {}
        self.sources: dict[str, exp.Select] = {}
        self.named: dict[str, str] = {}
        self.steps: list[tuple[str, exp.Select]] = []

    def select(self, group: Group) -> exp.Select:
        whole = self._group(group)
        parts: list[tuple[str, exp.Query]] = []
        everybody = EVERYBODY in whole.cover
        if self.events or everybody:
            parts.append((EVENTS, self._events(everybody)))
        if self.users or everybody:
            parts.append((USERS, self._users()))
        ctes: list[tuple[str, exp.Query]] = [*parts, *self.steps, *self.sources.items()]
        joined = [name for name, _ in (*parts, *self.sources.items())]
        base = joined if everybody else [name for name in joined if name in whole.cover]
        if len(base) == 1:
            first, others = base[0], [name for name in joined if name != base[0]]
        else:
            ctes.append((CANDIDATES, self._union(base)))
            first, others = CANDIDATES, joined
        result = exp.alias_(self._identity(first), self.engine.name(IDENTITY))
        query = exp.select(result).distinct().from_(exp.to_identifier(first)).where(whole.condition)
        asked = {column.table for column in whole.condition.find_all(exp.Column)}
        for name in (name for name in others if name in asked):
            on = exp.EQ(this=self._identity(name), expression=self._identity(first))
            query = query.join(exp.to_identifier(name), on=on, join_type="left")
        for name, cte in ctes:
            query = query.with_(name, as_=cte)
        return query

    # The tree

    def _group(self, group: Group) -> _Part:
        parts = [self._happened(event) for event in group.events]
        parts += [_negated(self._happened(event)) for event in group.exclude_events]
        parts += [self._sequence(sequence) for sequence in group.sequences]
        parts += [self._once(once, exp.Min) for once in group.first]
        parts += [self._once(once, exp.Max) for once in group.last]
        parts += [self._user_property(name, asked) for name, asked in group.user_properties.items()]
        parts += [self._model(name, asked) for name, asked in group.models.items()]
        parts += [self._segment(name) for name in group.segments]
        parts += [_negated(self._segment(name)) for name in group.exclude_segments]
        parts += [self._group(inner) for inner in group.all]
        if group.any:
            parts.append(_any([self._group(inner) for inner in group.any]))
        parts += [_negated(self._group(inner)) for inner in group.none]
        return _all(parts)

    # Events

    def _happened(self, event: Happened) -> _Part:
        condition = self._event(event, event.within_days)
        counted = exp.Count(this=exp.case().when(condition, exp.Literal.number(1)))
        column: exp.Expr = self._aggregate(counted)
        if event.count.admits_none:
            column = exp.func("COALESCE", column, _number(0))
        tests = [self._times(column, operator, given) for operator, given in event.count.asked()]
        cover = EVERYBODY if event.count.admits_none else EVENTS
        return _Part(exp.and_(*tests), frozenset({cover}))

    def _times(self, column: exp.Expr, operator: str, given: Any) -> exp.Expr:
        if operator == "between":
            return exp.Between(this=column.copy(), low=_number(given[0]), high=_number(given[1]))
        return BINARY[operator](column.copy(), _number(given))

    def _once(self, once: Once, end: type[exp.Min | exp.Max]) -> _Part:
        time = self.engine.column(self.tables.settings.events.time)
        seen = end(this=exp.case().when(self._event(once, None), time))
        column = self._aggregate(seen)
        bounds = [
            ("gte", moment(once.after) if once.after is not None else None),
            ("lt", moment(once.before) if once.before is not None else None),
            ("gte", self._days_ago(once.within_days)),
            ("lt", self._days_ago(once.more_than_days_ago)),
        ]
        tests = [BINARY[operator](column.copy(), self._moment(at)) for operator, at in bounds if at is not None]
        return _Part(exp.and_(*tests), frozenset({EVENTS}))

    def _aggregate(self, value: exp.Expr) -> exp.Expr:
        """Return the column under which the events' one pass has a value."""
        name, _ = self.events.setdefault(value.sql(), (f"e{len(self.events)}", value))
        return exp.column(name, table=EVENTS)

    def _event(self, event: Event, within_days: int | None) -> exp.Expr:
        since = self._days_ago(within_days)
        self.types.add(event.type)
        self.since.append(since)
        return self._matches(event, since)

    def _matches(self, event: Event, since: datetime | None = None) -> exp.Expr:
        table = self.tables.settings.events
        tests = [BINARY["eq"](self.engine.column(table.event), self.engine.text(event.type))]
        if since is not None:
            tests.append(BINARY["gte"](self.engine.column(table.time), self._moment(since)))
        for name, asked in event.properties.items():
            tests.append(self._compared(asked, self._property(table, name)))
        return exp.and_(*tests)

    def _events(self, everybody: bool) -> exp.Select:
        """Return the one pass over the events; for everybody it must see all of them."""
        where = self._seen() if everybody else self._seen(self.types, self._earliest())
        identity = self._own_identity(self.tables.settings.events)
        values = [exp.alias_(value, name) for name, value in self.events.values()]
        return (
            exp.select(exp.alias_(identity, WHO), *values)
            .from_(self.engine.table(self.tables.settings.events.table))
            .where(where)
            .group_by(identity.copy())
        )

    def _earliest(self) -> datetime | None:
        known = [since for since in self.since if since is not None]
        return min(known) if len(known) == len(self.since) else None

    def _seen(self, types: Iterable[str] | None = None, since: datetime | None = None) -> exp.Expr:
        table = self.tables.settings.events
        tests: list[exp.Expr] = []
        if types is not None:
            tests.append(self.engine.column(table.event).isin(*map(self.engine.text, sorted(types))))
        if since is not None:
            tests.append(BINARY["gte"](self.engine.column(table.time), self._moment(since)))
        tests.append(BINARY["lt"](self.engine.column(table.time), self._moment(self.as_of)))
        tests.append(_exists(self.engine.column(table.identity)))
        return exp.and_(*tests)

    def _sequence(self, sequence: EventSequence) -> _Part:
        """Carry the latest possible beginning from step to step, over the moments of each identity in their order."""
        table, number = self.tables.settings.events, len(self.steps)
        since = self._days_ago(sequence.within_days)
        identity, time = self._own_identity(table), self.engine.column(table.time)
        flags = [
            exp.alias_(exp.Max(this=_flag(self._matches(step))), f"s{index}")
            for index, step in enumerate(sequence.steps)
        ]
        moments = (
            exp.select(exp.alias_(identity, WHO), exp.alias_(time, "at"), *flags)
            .from_(self.engine.table(table.table))
            .where(self._seen({step.type for step in sequence.steps}, since))
            .group_by(identity.copy(), time.copy())
        )
        name = f"sequence_{number}"
        self.steps.append((name, moments))
        begun: exp.Expr = exp.column("at")
        for index in range(len(sequence.steps)):
            began = _where(_is_one(exp.column(f"s{index}")), begun)
            query = exp.select(exp.Star(), exp.alias_(began, f"b{index}")).from_(exp.to_identifier(name))
            name = f"sequence_{number}_{index}"
            self.steps.append((name, query))
            begun = _latest_before(f"b{index}", self.engine.dialect)
        last = exp.column(f"b{len(sequence.steps) - 1}")
        ended = _exists(last)
        if sequence.within_days_of_first is not None:
            limit = self.engine.days_after(last.copy(), sequence.within_days_of_first)
            ended = BINARY["lte"](exp.column("at"), limit)
        alias = f"sequence_{number}_members"
        self.sources[alias] = exp.select(exp.column(WHO)).distinct().from_(exp.to_identifier(name)).where(ended)
        return self._member(alias)

    # Users, models, segments

    def _user_property(self, name: str, asked: Comparison) -> _Part:
        condition = self._compared(asked, self._property(self.tables.settings.users, name))
        flag = _flag(condition)
        column, _ = self.users.setdefault(flag.sql(), (f"u{len(self.users)}", flag))
        return _flagged(exp.column(column, table=USERS), asked, USERS)

    def _users(self) -> exp.Select:
        table = self.tables.settings.users
        identity = self._own_identity(table)
        flags = [exp.alias_(flag, name) for name, flag in self.users.values()]
        return (
            exp.select(exp.alias_(identity, WHO), *flags)
            .from_(self._users_table())
            .where(_exists(self.engine.column(table.identity)))
        )

    def _users_table(self) -> exp.Expr:
        """Return the users; the hub's own as they were known at the moment."""
        table = self.engine.table(self.tables.settings.users.table)
        at = self.engine.moment(self.as_of, zoned=False)
        if self.engine.dialect == "duckdb" and self.tables.settings.users.table == HUB_USERS:
            table.set("this", exp.Anonymous(this=HUB_USERS_AT, expressions=[at]))
        elif self.tables.traits:
            return self._put_together(self.tables.traits, at)
        return table

    def _put_together(self, traits: str, at: exp.Expr) -> exp.Expr:
        """Return the users put together from what was told of them before a moment."""
        schema, _, name = traits.partition(".")
        sql = USERS_OF_TRAITS.format(user_traits=f'"{schema}"."{name}"', before="where told_at < hub_moment()")

        def fitted(node: exp.Expr) -> exp.Expr:
            if isinstance(node, exp.Anonymous) and node.name.casefold() == "hub_moment":
                return at
            return self.engine.name(node.name) if isinstance(node, exp.Identifier) else node

        users: exp.Expr = parse_one(sql, dialect="duckdb").transform(fitted)
        return exp.alias_(exp.Subquery(this=users), "hub_users", table=True)

    def _model(self, name: str, asked: Comparison) -> _Part:
        model = self.tables.settings.models.get(name)
        if model is None:
            raise ValueError(f"there is no model {name} under audiences.models")
        kind = self.tables.columns.get(model.table, {}).get(model.column)
        value = _Property(self.engine, self.engine.column(model.column), kind)
        alias = self.named.setdefault(f"model {name} {asked!r}", f"model_{len(self.named)}")
        identity = self.engine.as_text(self.engine.column(model.identity))
        self.sources[alias] = (
            exp.select(exp.alias_(identity, WHO), exp.alias_(_flag(self._compared(asked, value)), "held"))
            .from_(self.engine.table(model.table))
            .where(_exists(self.engine.column(model.identity)))
        )
        return _flagged(exp.column("held", table=alias), asked, alias)

    def _segment(self, name: str) -> _Part:
        members = self.tables.segments.get(name)
        if members is None:
            raise ValueError(f"there is no segment {name}; segments are known to an environment only")
        alias = self.named.setdefault(f"segment {name}", f"segment_{len(self.named)}")
        self.sources[alias] = exp.select(exp.alias_(exp.column(IDENTITY), WHO)).from_(members.subquery("members"))
        return self._member(alias)

    def _member(self, alias: str) -> _Part:
        return _Part(_exists(exp.column(WHO, table=alias)), frozenset({alias}))

    def _union(self, names: Sequence[str]) -> exp.Query:
        first, *others = (exp.select(exp.column(WHO)).from_(exp.to_identifier(name)) for name in names)
        return exp.union(first, *others)

    # Values

    def _identity(self, source: str) -> exp.Column:
        return exp.column(WHO, table=source)

    def _own_identity(self, table: EventsTable | UsersTable) -> exp.Expr:
        column = self.engine.column(table.identity)
        is_text = self.tables.columns.get(table.table, {}).get(table.identity) == "text"
        return column if is_text else self.engine.as_text(column)

    def _property(self, table: EventsTable | UsersTable, name: str) -> _Property:
        kind = self.tables.column_of(table, name)
        if kind is not None:
            return _Property(self.engine, self.engine.column(name), kind)
        if table.properties is None:
            raise ValueError(f"{table.table} has no column {name}")
        return _Property(self.engine, self.engine.column(table.properties), None, inside=name)

    def _compared(self, asked: Comparison, found: _Property) -> exp.Expr:
        return exp.and_(*(found.test(operator, given) for operator, given in asked.asked()))

    def _days_ago(self, days: int | None) -> datetime | None:
        return None if days is None else self.as_of - timedelta(days=days)

    def _moment(self, at: datetime) -> exp.Expr:
        table = self.tables.settings.events
        zoned = self.tables.columns.get(table.table, {}).get(table.time) == "zoned time"
        return self.engine.moment(at, zoned=zoned)


@dataclass(frozen=True)
class _Property:
    """A value to compare: a column, or a member ``inside`` a column of JSON.

    ``kind`` is the column's type, ``None`` where it isn't known.
    """

    engine: Engine
    column: exp.Column
    kind: ColumnKind | None
    inside: str | None = None

    def test(self, operator: str, given: Any) -> exp.Expr:
        """Return whether the operator holds; null where there is no value, or one of another type."""
        if operator == "exists":
            return self._exists() if given else _is_none(_flag(self._exists()))
        values: tuple[Value, ...] = given if isinstance(given, tuple) else (given,)
        kind = "text" if operator == "contains" else kind_of(values[0])
        if kind == "boolean":
            return self._is_true(operator, values)
        found = {"number": self._number, "time": self._time, "text": self._text}[kind]()
        return exp.false() if found is None else self._compared(operator, found, values)

    def _compared(self, operator: str, found: exp.Expr, values: Sequence[Value]) -> exp.Expr:
        if operator == "contains":
            return self.engine.contains(found, str(values[0]))
        literals = [self._literal(each) for each in values]
        if operator == "between":
            return exp.Between(this=found, low=literals[0], high=literals[1])
        if operator in ("in", "not_in"):
            within = exp.In(this=found, expressions=literals)
            return within if operator == "in" else exp.not_(within)
        return BINARY[operator](found, literals[0])

    def _literal(self, given: Value) -> exp.Expr:
        if not isinstance(given, str):
            return _number(given)
        if kind_of(given) == "text":
            return self.engine.text(given)
        return self.engine.moment(moment(given), zoned=self.kind != "time")

    def _exists(self) -> exp.Expr:
        if self.inside is not None:
            return self.engine.property_exists(self.column.copy(), self.inside)
        return _exists(self.column.copy())

    def _text(self) -> exp.Expr | None:
        if self.inside is not None:
            return self.engine.property_text(self.column.copy(), self.inside)
        if self.kind == "text":
            return self.column.copy()
        return self.engine.as_text(self.column.copy()) if self.kind is None else None

    def _number(self) -> exp.Expr | None:
        if self.kind == "number":
            return self.column.copy()
        text = self._text()
        return None if text is None else self.engine.number(text)

    def _time(self) -> exp.Expr | None:
        if self.kind in ("time", "zoned time"):
            return self.column.copy()
        text = self._text()
        return None if text is None else self.engine.time(text)

    def _is_true(self, operator: str, values: Sequence[Value]) -> exp.Expr:
        wanted = {bool(value) for value in values}
        if operator in ("ne", "not_in"):
            wanted = {True, False} - wanted
        if self.kind == "boolean":
            tests = [exp.EQ(this=self.column.copy(), expression=exp.Boolean(this=each)) for each in sorted(wanted)]
            return exp.or_(*tests) if tests else exp.false()
        text = self._text()
        if text is None or not wanted:
            return exp.false()
        return exp.In(this=text, expressions=[exp.Literal.string(str(each).lower()) for each in sorted(wanted)])


def _all(parts: Sequence[_Part]) -> _Part:
    covers = sorted((part.cover for part in parts), key=lambda cover: (EVERYBODY in cover, len(cover), sorted(cover)))
    return _Part(exp.and_(*(part.condition for part in parts)), covers[0])


def _any(parts: Sequence[_Part]) -> _Part:
    return _Part(exp.or_(*(part.condition for part in parts)), frozenset().union(*(part.cover for part in parts)))


def _negated(part: _Part) -> _Part:
    return _Part(_is_none(_flag(part.condition)), frozenset({EVERYBODY}))


def _flagged(column: exp.Expr, asked: Comparison, source: str) -> _Part:
    """Return whether a flag is set; who has no row has no value, which is what ``exists: false`` asks for."""
    if asked.exists is False:
        return _Part(_is_one(exp.func("COALESCE", column, _number(1))), frozenset({EVERYBODY}))
    return _Part(_is_one(column), frozenset({source}))


def _latest_before(column: str, dialect: Dialect) -> exp.Expr:
    # There are no nulls to order: said as each engine has it by itself, nothing is said.
    nulls_first = dialect in ("bigquery", "tsql")
    return exp.Window(
        this=exp.Max(this=exp.column(column)),
        partition_by=[exp.column(WHO)],
        order=exp.Order(expressions=[exp.Ordered(this=exp.column("at"), nulls_first=nulls_first)]),
        spec=exp.WindowSpec(kind="ROWS", start="UNBOUNDED", start_side="PRECEDING", end="1", end_side="PRECEDING"),
    )


def _flag(condition: exp.Expr) -> exp.Expr:
    return exp.case().when(condition, _number(1)).else_(_number(0))


def _is_one(flag: exp.Expr) -> exp.Expr:
    return exp.EQ(this=flag, expression=_number(1))


def _is_none(flag: exp.Expr) -> exp.Expr:
    return exp.EQ(this=flag, expression=_number(0))


def _where(condition: exp.Expr, value: exp.Expr) -> exp.Expr:
    return exp.case().when(condition, value)


def _exists(value: exp.Expr) -> exp.Expr:
    return exp.not_(exp.Is(this=value, expression=exp.null()))


def _number(given: Value) -> exp.Expr:
    number = exp.Literal.number(repr(abs(given)) if isinstance(given, int | float) else given)
    return exp.Neg(this=number) if isinstance(given, int | float) and given < 0 else number
