"""A small world of events and users with everything that goes wrong in one, and definitions about it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
from hypothesis import strategies as st

from heap_integration.segments.audiences.settings import AudienceSettings, EventsTable, ModelColumn, UsersTable
from heap_integration_tests.segments.audiences.meaning import World

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# What a statement put together from texts would stumble over.
ODD = 'it\'s "odd" \\ -- ; /* ~1 */ $.x\né'
EVENTS = ("Added", "Bought", ODD)
NAMES = ("amount", "plan", "flag", "at", "page.path", ODD)
PEOPLE = tuple(f"user {number}" for number in range(40))
VALUES: tuple[Any, ...] = (
    *(0, 7, 7.5, -3, 100, 2**40, "7", "7.5", "-3", "+7", "abc", "", " 7", "NaN", "inf", "1e2", "7 apples", "0x10"),
    *(True, False, "true", "false", "True", None, ["free"], {"a": 7}, "free", "Free", "pro", ODD, "[email]"),
    *("2026-02-20", "2026-02-20T10:00:00Z", "2026-02-20T12:00:00+02:00", "2026-02-20 10:00:00.5", "2026-02-30"),
    *("2026-02-20T25:00:00Z", "2026-13-01", "2025-02-29", "2024-02-29", "20 February"),
)
LIKELY: tuple[Any, ...] = (7, "free", True, "2026-02-20", ODD)
DATES = ("2026-02-20", "2026-02-20 10:00:00.5", "2024-02-29")
DAYS = (1, 2, 7, 30)
SETTINGS = AudienceSettings(
    events=EventsTable(table="main.happened"),
    users=UsersTable(table="main.people"),
    models={
        "score": ModelColumn(table="main.scores", identity="person", column="score"),
        "stage": ModelColumn(table="main.scores", identity="person", column="stage"),
    },
)


def make_world(seed: int = 1) -> World:
    """Return a world in which events stand at the edges of the windows, and several at the same moment."""
    chance = random.Random(seed)
    edges = [AS_OF - timedelta(days=days) + shift * MICROSECOND for days in (0, *DAYS) for shift in (-1, 0, 1)]
    moments = [*edges, *(AS_OF - timedelta(hours=hours) for hours in range(1, 1_000, 37))]
    rows = [
        {
            "identity": chance.choice(PEOPLE[:30]),
            "event": chance.choice(EVENTS),
            "time": chance.choice(moments),
            "properties": properties(chance),
        }
        for _ in range(400)
    ]
    users = {who: properties(chance) for who in PEOPLE[10:]}
    stages = ("new", "active", "lost", None)
    return World(
        pd.DataFrame(rows),
        users,
        {
            "score": {who: chance.choice((0, 10.5, 80, None)) for who in PEOPLE[5:35]},
            "stage": {who: chance.choice(stages) for who in PEOPLE[5:35]},
        },
        {"Friends": frozenset(PEOPLE[::3]) | {"a stranger"}, ODD: frozenset(PEOPLE[::4])},
    )


def properties(chance: random.Random) -> dict[str, Any]:
    found = {name: chance.choice(chance.choice((LIKELY, VALUES))) for name in NAMES if chance.random() < 0.8}
    if "page.path" in found and chance.random() < 0.8:
        found["page"] = {"path": found.pop("page.path")}
    return found


def fitting(properties: dict[str, Any]) -> dict[str, Any]:
    """Return those properties that fit into columns of a type."""
    kept = {name: value for name, value in properties.items() if type(value) in TYPES.get(name, ())}
    return {name: value for name, value in kept.items() if name != "at" or value in DATES}


def typed_world(world: World) -> World:
    """Return the same world, without what doesn't fit into columns of a type."""
    events = world.events.assign(properties=world.events.properties.map(fitting))
    return replace(world, events=events, users={who: fitting(found) for who, found in world.users.items()})


NUMBERS = st.sampled_from((0, 7, 7.5, -3, 100, 99.5, 2**40))
TEXTS = st.sampled_from(("free", "Free", "abc", ODD, "[email]", "7 apples", "true"))
TIMES = st.sampled_from(("2026-02-20", "2026-02-20T10:00:00Z", "2026-02-20 10:00:00.500000", "2024-02-29"))


def _operators(values: st.SearchStrategy[Any], *, ordered: bool) -> st.SearchStrategy[dict[str, Any]]:
    single = dict.fromkeys(("eq", "ne"), values)
    lists = {name: st.lists(values, min_size=1, max_size=3) for name in ("in", "not_in")}
    ends: dict[str, st.SearchStrategy[Any]] = {}
    if ordered:
        ends = dict.fromkeys(("gt", "gte", "lt", "lte"), values)
        ends["between"] = st.tuples(values, values).map(_in_order)
    every = {**single, **lists, **ends}
    return st.sets(st.sampled_from(sorted(every)), min_size=1, max_size=2).flatmap(
        lambda names: st.fixed_dictionaries({name: every[name] for name in sorted(names)})
    )


def _in_order(pair: tuple[Any, Any]) -> list[Any]:
    if isinstance(pair[0], str):
        return sorted(pair, key=lambda text: pd.Timestamp(text).tz_localize(None))
    return sorted(pair)


COMPARISONS = st.one_of(
    _operators(NUMBERS, ordered=True),
    _operators(TEXTS, ordered=False),
    _operators(TIMES, ordered=True),
    _operators(st.booleans(), ordered=False),
    st.sampled_from(("fre", "7", ODD[3:9], "e")).map(lambda part: {"contains": part}),
    st.booleans().map(lambda given: {"exists": given}),
    st.one_of(NUMBERS, TEXTS, TIMES, st.booleans()),
)
PROPERTIES = st.dictionaries(st.sampled_from(NAMES), COMPARISONS, min_size=1, max_size=2)
TYPES: dict[str, tuple[type, ...]] = {
    "amount": (int, float),
    "plan": (str,),
    "flag": (bool,),
    "at": (str,),
    "page.path": (str,),
    ODD: (str,),
}
TYPED = {
    "amount": _operators(NUMBERS, ordered=True),
    "plan": st.one_of(_operators(TEXTS, ordered=False), st.just({"contains": "fre"})),
    "flag": st.one_of(_operators(st.booleans(), ordered=False), st.just({"exists": False})),
    "at": _operators(TIMES, ordered=True),
    "page.path": _operators(TEXTS, ordered=False),
    ODD: _operators(TEXTS, ordered=False),
}


def typed(names: Sequence[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from(names).flatmap(lambda name: TYPED[name].map(lambda asked: {name: asked}))


COUNTS = st.one_of(
    st.integers(0, 3),
    st.sampled_from(("eq", "ne", "gt", "gte", "lte")).flatmap(lambda name: st.integers(0, 4).map(lambda n: {name: n})),
    st.integers(1, 4).map(lambda n: {"lt": n}),
    st.tuples(st.integers(0, 2), st.integers(2, 5)).map(lambda pair: {"between": list(pair)}),
)
DAY_COUNTS = st.sampled_from(DAYS)
EVENT: dict[str, st.SearchStrategy[Any]] = {"type": st.sampled_from(EVENTS)}
MOMENTS = st.sampled_from(("2026-02-22", "2026-02-27T00:00:00Z", "2026-02-10T05:00:00+01:00"))
BOUNDS: dict[str, st.SearchStrategy[Any]] = {
    "before": MOMENTS,
    "after": MOMENTS,
    "within_days": DAY_COUNTS,
    "more_than_days_ago": DAY_COUNTS,
}
MODELS = st.one_of(
    _operators(st.sampled_from((0, 10.5, 50, 80)), ordered=True).map(lambda asked: {"score": asked}),
    _operators(st.sampled_from(("new", "active", "lost")), ordered=False).map(lambda asked: {"stage": asked}),
    st.booleans().map(lambda given: {"stage": {"exists": given}}),
)
SEGMENTS = st.lists(st.sampled_from(("Friends", ODD)), min_size=1, max_size=2)


def groups(properties: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate groups of conditions whose properties are asked as given."""
    more = {"properties": properties}
    step = st.fixed_dictionaries(EVENT, optional=more)
    happened = st.fixed_dictionaries(EVENT, optional={**more, "within_days": DAY_COUNTS, "count": COUNTS})
    once = st.one_of(*(st.fixed_dictionaries({**EVENT, name: bound}, optional=more) for name, bound in BOUNDS.items()))
    sequence = st.fixed_dictionaries(
        {"steps": st.lists(step, min_size=2, max_size=4)},
        optional={"within_days_of_first": DAY_COUNTS, "within_days": DAY_COUNTS},
    )
    leaves: dict[str, st.SearchStrategy[Any]] = {
        "events": st.lists(happened, min_size=1, max_size=2),
        "exclude_events": st.lists(happened, min_size=1, max_size=2),
        "sequences": st.lists(sequence, min_size=1, max_size=1),
        "first": st.lists(once, min_size=1, max_size=1),
        "last": st.lists(once, min_size=1, max_size=1),
        "user_properties": properties,
        "models": MODELS,
        "segments": SEGMENTS,
        "exclude_segments": SEGMENTS,
    }

    def around(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
        nested = {name: st.lists(inner, min_size=1, max_size=2) for name in ("any", "all", "none")}
        return _group({**leaves, **nested}, 3)

    return st.recursive(_group(leaves, 2), around, max_leaves=5)


def _group(keys: dict[str, st.SearchStrategy[Any]], most: int) -> st.SearchStrategy[dict[str, Any]]:
    return st.sets(st.sampled_from(sorted(keys)), min_size=1, max_size=most).flatmap(
        lambda names: st.fixed_dictionaries({name: keys[name] for name in sorted(names)})
    )


GROUPS = groups(PROPERTIES)
# Not every engine can reach a property whose name holds a quote.
PLAIN_GROUPS = groups(st.dictionaries(st.sampled_from(NAMES[:-1]), COMPARISONS, min_size=1, max_size=2))
TYPED_GROUPS = groups(typed(NAMES))
PLAIN_TYPED_GROUPS = groups(typed(NAMES[:4]))
