"""Names and values stay names and values, whatever characters they hold; windows end where they are said to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlglot import exp, parse_one

from heap_integration.segments.audiences.compiler import Tables, compiled
from heap_integration.segments.audiences.definition import Group
from heap_integration.segments.audiences.dialects import DIALECTS, Dialect
from heap_integration.segments.audiences.settings import AudienceSettings, EventsTable, UsersTable

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SETTINGS = AudienceSettings(events=EventsTable(table="happened"), users=UsersTable(table="people"))
TABLES = Tables(SETTINGS)
NASTY = (
    "'",
    "''; drop table happened; --",
    "\\",
    "\\' or 1=1 --",
    "a\nb\r\nc",
    "/* x */ -- y",
    "%_[a-z]",
    "{{ x }} ${y} :z ? $1",
    "\u2028é😀\u202e",
    '"; select 1; "',
    "`]}",
)
# Any text but the one character that is refused.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1) | st.sampled_from(NASTY)


def skeleton(statement: exp.Expr) -> list[str]:
    """Return what a statement is made of, without its texts."""
    nodes = (node for node in statement.walk() if not isinstance(node, exp.Literal | exp.National))
    return [type(node).__name__ for node in nodes]


def texts(statement: exp.Expr) -> set[str]:
    national = {str(node.this) for node in statement.find_all(exp.National)}
    return national | {node.this for node in statement.find_all(exp.Literal) if node.is_string}


@pytest.mark.parametrize("dialect", DIALECTS)
@given(event=TEXTS, value=TEXTS)
@example(event=NASTY[3], value=NASTY[1])
@example(event=NASTY[9], value=NASTY[3])
def test_a_text_stays_one_literal_in_every_engine(dialect: Dialect, event: str, value: str) -> None:
    def statement(event: str, value: str) -> exp.Expr:
        asked = {"plan": {"in": ["free", value]}, "note": {"contains": value}}
        group = Group.model_validate({"events": [{"type": event, "properties": asked}]})
        return parse_one(compiled(group, TABLES, dialect, NOON), read=dialect)

    made = statement(event, "x" + value)
    # In T-SQL only a text that needs it says that it isn't one of the code page; that is no difference in structure.
    assert skeleton(made) == skeleton(statement("a", "xb"))
    assert {event, "x" + value} <= texts(made)


@given(
    names=st.lists(TEXTS, min_size=3, max_size=3, unique=True),
    value=TEXTS.filter(lambda text: not text.startswith("20")),
)
@example(names=["/", "~1", "$.x"], value="'")
@example(names=["a\\b", "0", "*"], value="\\")
def test_a_property_is_found_under_any_name(names: list[str], value: str) -> None:
    mine, other, event = names
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute("create table happened (identity text, event text, time timestamp, properties json)")
        con.execute("create table people (identity text, properties json)")
        for who, name in (("ann", mine), ("bob", other)):
            con.execute("insert into people values (?, json_object(?::text, ?::text))", [who, name, value])
            con.execute(
                "insert into happened values (?, ?, timestamp '2026-03-01', json_object(?::text, ?::text))",
                [who, event, name, value],
            )
        for definition in (
            {"user_properties": {mine: {"in": [value, "never"]}}},
            {"events": [{"type": event, "properties": {mine: {"contains": value}}}]},
            {"events": [{"type": event, "properties": {mine: {"exists": True}}}]},
        ):
            assert members(con, definition) == ["ann"]


def members(con: duckdb.DuckDBPyConnection, definition: dict[str, Any], as_of: datetime = NOON) -> list[str]:
    sql = compiled(Group.model_validate(definition), TABLES, "duckdb", as_of)
    return sorted(who for (who,) in con.execute(sql).fetchall())


@pytest.mark.parametrize(
    ("ago", "belongs"),
    [
        (timedelta(), False),
        (MICROSECOND, True),
        (timedelta(days=7) - MICROSECOND, True),
        (timedelta(days=7), True),
        (timedelta(days=7) + MICROSECOND, False),
    ],
)
def test_a_window_begins_days_before_its_moment_and_ends_right_before_it(ago: timedelta, belongs: bool) -> None:
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute("create table happened (identity text, event text, time timestamp, properties json)")
        con.execute("create table people (identity text, properties json)")
        con.execute("insert into happened values ('ann', 'Purchase', ?, '{}')", [(NOON - ago).replace(tzinfo=None)])
        assert members(con, {"events": [{"type": "Purchase", "within_days": 7}]}) == ["ann"] * belongs
        known = ago > timedelta()
        not_lately = {"exclude_events": [{"type": "Purchase", "within_days": 7}]}
        assert members(con, not_lately) == ["ann"] * (known and not belongs)


def test_what_happens_later_changes_no_earlier_result() -> None:
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute("create table happened (identity text, event text, time timestamp, properties json)")
        con.execute("create table people (identity text, properties json)")
        con.execute(
            "insert into happened values ('ann', 'Purchase', '2026-02-28', '{}'), ('ann', 'Left', '2026-03-02', '{}')"
        )
        definition = {"events": [{"type": "Purchase"}], "exclude_events": [{"type": "Left"}]}
        assert members(con, definition) == ["ann"]
        assert members(con, definition, NOON + timedelta(days=2)) == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_sql_asks_for_the_time_of_day(dialect: Dialect) -> None:
    definition = {
        "events": [{"type": "Purchase", "within_days": 7}],
        "sequences": [{"steps": [{"type": "A"}, {"type": "B"}], "within_days_of_first": 1, "within_days": 7}],
        "first": [{"type": "A", "within_days": 30}],
    }
    sql = compiled(Group.model_validate(definition), TABLES, dialect, NOON)
    statement = parse_one(sql, read=dialect)
    assert not list(statement.find_all(exp.CurrentTimestamp, exp.CurrentDate))
    assert sql == compiled(Group.model_validate(definition), TABLES, dialect, NOON)


@pytest.mark.parametrize("dialect", ["bigquery", "tsql"])
def test_a_name_that_an_engine_cant_reach_is_refused(dialect: Dialect) -> None:
    group = Group.model_validate({"user_properties": {'a"b': 1}})
    with pytest.raises(ValueError, match="its name holds a quote, a backslash or a line break"):
        compiled(group, TABLES, dialect, NOON)
