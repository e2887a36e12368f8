"""Who the SQL finds is who belongs to an audience by what its definition means, on every engine that runs here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import duckdb
import pytest
from hypothesis import example, given, settings
from sqlalchemy import create_engine, text
from sqlglot import exp, parse_one

from heap_integration.segments.audiences.compiler import ColumnKind, Tables, compiled
from heap_integration.segments.audiences.definition import Group
from heap_integration.segments.audiences.dialects import DIALECTS, Dialect
from heap_integration.segments.audiences.settings import EventsTable, UsersTable
from heap_integration_tests.segments.audiences.meaning import World
from heap_integration_tests.segments.audiences.worlds import (
    AS_OF,
    GROUPS,
    NAMES,
    ODD,
    PLAIN_GROUPS,
    PLAIN_TYPED_GROUPS,
    SETTINGS,
    TYPED_GROUPS,
    make_world,
    typed_world,
)

WORLD = make_world()
CART_ABANDONERS = {
    "events": [{"type": "Added", "properties": {"amount": {"gt": 5}}, "within_days": 7}],
    "exclude_events": [{"type": "Bought", "within_days": 7}],
}
POWER_USERS = {
    "user_properties": {"plan": {"in": ["free", "pro", "abc"]}},
    "events": [{"type": "Added", "count": {"gte": 3}, "within_days": 30}],
}
LATELY_AND_EVER = {"events": [{"type": "Added", "within_days": 7}, {"type": "Bought", "count": {"gte": 2}}]}
TYPED_WORLD = typed_world(WORLD)
TYPED_SETTINGS = SETTINGS.model_copy(
    update={
        "events": EventsTable(table="main.typed_happened"),
        "users": UsersTable(table="main.typed_people"),
    }
)
OWN: dict[str, ColumnKind] = {
    "amount": "number",
    "plan": "text",
    "flag": "boolean",
    "at": "time",
    "page.path": "text",
    ODD: "text",
}
SEGMENTS = {
    name: exp.select("identity").from_("main.segment").where(exp.column("name").eq(exp.Literal.string(name)))
    for name in WORLD.segments
}
TABLES = Tables(SETTINGS, segments=SEGMENTS)


def typed_tables() -> Tables:
    events: dict[str, ColumnKind] = {**OWN, "time": "zoned time"}
    scores: dict[str, ColumnKind] = {"person": "text", "score": "number", "stage": "text"}
    columns = {"main.typed_happened": events, "main.typed_people": OWN, "main.scores": scores}
    return Tables(TYPED_SETTINGS, columns, SEGMENTS)


CREATE = """
create schema if not exists main;
create table main.happened (identity text, event text, time timestamp, properties {json});
create table main.people (identity text, properties {json});
create table main.typed_happened (
    identity text, event text, time {moment},
    amount double precision, plan text, flag boolean, "at" timestamp, "page.path" text, {odd} text
);
create table main.typed_people (
    identity text, amount double precision, plan text, flag boolean, "at" timestamp, "page.path" text, {odd} text
);
create table main.scores (person text, score double precision, stage text);
create table main.segment (name text, identity text);
"""


def rows() -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each table."""

    def events(world: World) -> list[tuple[Any, ...]]:
        columns = (world.events[name] for name in ("identity", "event", "time", "properties"))
        return [(who, name, at.to_pydatetime(), found) for who, name, at, found in zip(*columns, strict=True)]

    def naive(at: datetime) -> datetime:
        return at.replace(tzinfo=None)

    return {
        "main.happened": [(who, name, naive(at), json.dumps(found)) for who, name, at, found in events(WORLD)],
        "main.people": [(who, json.dumps(found)) for who, found in WORLD.users.items()],
        "main.typed_happened": [
            (who, name, at, *map(found.get, NAMES)) for who, name, at, found in events(TYPED_WORLD)
        ],
        "main.typed_people": [(who, *map(found.get, NAMES)) for who, found in TYPED_WORLD.users.items()],
        "main.scores": [(who, score, WORLD.models["stage"][who]) for who, score in WORLD.models["score"].items()],
        "main.segment": [(name, who) for name, members in WORLD.segments.items() for who in sorted(members)],
    }


def create(json_type: str, moment: str) -> str:
    return CREATE.format(json=json_type, moment=moment, odd='"' + ODD.replace('"', '""') + '"')


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as con:
        # What has no time zone is in UTC, wherever the machine stands.
        con.execute("set timezone = 'Pacific/Auckland'")
        con.execute(create("text", "timestamptz"))
        for table, items in rows().items():
            con.executemany(f"insert into {table} values ({', '.join('?' * len(items[0]))})", items)
        yield con


@pytest.fixture(scope="module")
def connection(postgres: str) -> Iterator[Any]:
    engine = create_engine(postgres)
    with engine.connect() as connection:
        connection.exec_driver_sql(create("jsonb", "timestamptz"))
        for table, items in rows().items():
            marks = ", ".join(["%s"] * len(items[0]))
            connection.exec_driver_sql(f"insert into {table} values ({marks})", items)
        connection.execute(text("set timezone = 'Pacific/Auckland'"))
        yield connection
    engine.dispose()


def duckdb_members(con: duckdb.DuckDBPyConnection, definition: dict[str, Any], tables: Tables = TABLES) -> list[str]:
    sql = compiled(Group.model_validate(definition), tables, "duckdb", AS_OF)
    return sorted(who for (who,) in con.execute(sql).fetchall())


def postgres_members(connection: Any, definition: dict[str, Any], tables: Tables = TABLES) -> list[str]:
    sql = compiled(Group.model_validate(definition), tables, "postgres", AS_OF)
    return sorted(who for (who,) in connection.exec_driver_sql(sql.replace("%", "%%")))


@settings(max_examples=120)
@given(definition=GROUPS)
@example(definition=CART_ABANDONERS)
@example(definition=POWER_USERS)
@example(definition=LATELY_AND_EVER)
def test_duckdb_finds_who_belongs(con: duckdb.DuckDBPyConnection, definition: dict[str, Any]) -> None:
    assert duckdb_members(con, definition) == sorted(WORLD.members(definition, AS_OF))


@settings(max_examples=80)
@given(definition=GROUPS)
@example(definition=CART_ABANDONERS)
@example(definition=POWER_USERS)
def test_postgres_finds_who_belongs(connection: Any, definition: dict[str, Any]) -> None:
    assert postgres_members(connection, definition) == sorted(WORLD.members(definition, AS_OF))


@settings(max_examples=80)
@given(definition=TYPED_GROUPS)
def test_columns_of_their_own_say_the_same_as_json(
    con: duckdb.DuckDBPyConnection, connection: Any, definition: dict[str, Any]
) -> None:
    members = sorted(TYPED_WORLD.members(definition, AS_OF))
    assert duckdb_members(con, definition, typed_tables()) == members
    assert postgres_members(connection, definition, typed_tables()) == members


@pytest.mark.parametrize("dialect", [name for name in DIALECTS if name not in ("duckdb", "postgres")])
@settings(max_examples=30)
@given(definition=PLAIN_TYPED_GROUPS)
def test_what_other_engines_would_run_finds_the_same(
    con: duckdb.DuckDBPyConnection, dialect: Dialect, definition: dict[str, Any]
) -> None:
    sql = compiled(Group.model_validate(definition), typed_tables(), dialect, AS_OF)
    statement = parse_one(sql, read=dialect)
    for kind in statement.find_all(exp.DataType):
        if kind.is_type(*exp.DataType.TEXT_TYPES):
            kind.replace(exp.DataType.build("text"))
    with con.cursor() as there:
        # BigQuery's own type of a moment is in UTC; what it becomes here is in the time zone of the session.
        there.execute("set timezone = 'UTC'")
        members = sorted(who for (who,) in there.execute(statement.sql("duckdb")).fetchall())
    assert members == sorted(TYPED_WORLD.members(definition, AS_OF))


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=30)
@given(definition=PLAIN_GROUPS)
def test_every_engine_can_read_its_sql(dialect: Dialect, definition: dict[str, Any]) -> None:
    sql = compiled(Group.model_validate(definition), TABLES, dialect, AS_OF)
    assert isinstance(parse_one(sql, read=dialect), exp.Select)
