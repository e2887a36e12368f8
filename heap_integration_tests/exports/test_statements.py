"""The statements of exports are good SQL everywhere, and choose properties without touching their values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from typing import Any, get_args

import duckdb
import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection as Session

from heap_integration.exports.settings import Export
from heap_integration.exports.statements import Position, Words
from heap_integration.exports.waiting import Source
from heap_integration.warehouse.systems.system import Dialect
from heap_integration_tests.exports.models import Models

DAYS = {date(2026, 5, 9): None, date(2026, 5, 10): Position(7, "it's", 'A "B"'), date(2026, 5, 11): Position(9)}
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8) | st.sampled_from(
    ["a.b", "it's", 'a "b"', "a/b", "a~b", "$", "0", "\\", "{}", "'"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
PROPERTIES = st.dictionaries(NAMES, VALUES, max_size=5)


@pytest.fixture(scope="module")
def postgres_session(postgres: str) -> Iterator[Session]:
    engine = create_engine(postgres)
    with engine.connect() as session:
        yield session
    engine.dispose()


@pytest.mark.parametrize("dialect", get_args(Dialect))
def test_every_statement_can_be_read_in_its_dialect(dialect: Dialect, models: Models) -> None:
    export = Export(name="x", events=("it's", "B"), properties=("plan", 'a "b"', "it's"), user_properties=())
    with models.connect() as connection:
        source = Source(connection, Words(dialect), "models", export)
        query = source.rows(DAYS, Position(12, "e", "B"))
        words = source.words
    statements = [
        query,
        words.create("exports.heap_events"),
        words.create_as("exports.staging", query),
        words.insert("exports.heap_events", "exports.staging", only_new=True),
    ]
    for statement in statements:
        (tree,) = sqlglot.parse(statement, read=dialect)
        assert tree is not None
        # what sqlglot can't read, it takes for a command
        assert not tree.find(sqlglot.exp.Command)


@given(properties=PROPERTIES, chosen=st.lists(NAMES, unique=True, max_size=4), data=st.data())
def test_chosen_properties_are_as_they_were_in_duckdb(
    properties: dict[str, Any], chosen: list[str], data: st.DataObject
) -> None:
    chosen += (
        [name for name in data.draw(st.lists(st.sampled_from(sorted(properties)))) if name not in chosen]
        if properties
        else []
    )
    words = Words("duckdb")
    column = words.chosen("properties", chosen)
    with duckdb.connect() as con:
        con.execute("create table t (properties varchar)")
        con.execute("insert into t values (?)", [json.dumps(properties)])
        (kept,) = con.execute(f"select {column} from t").fetchone() or ("",)
    assert json.loads(kept) == {name: value for name, value in properties.items() if name in chosen}


@given(properties=PROPERTIES, chosen=st.lists(NAMES, unique=True, max_size=4), data=st.data())
def test_chosen_properties_are_as_they_were_in_postgresql(
    postgres_session: Session, properties: dict[str, Any], chosen: list[str], data: st.DataObject
) -> None:
    chosen += (
        [name for name in data.draw(st.lists(st.sampled_from(sorted(properties)))) if name not in chosen]
        if properties
        else []
    )
    column = Words("postgres").chosen("properties", list(dict.fromkeys(chosen)))
    query = text(f"select {column.replace(':', chr(92) + ':')} from (select cast(:given as text) as properties) as t")
    kept = postgres_session.execute(query, {"given": json.dumps(properties)}).scalar_one()
    assert json.loads(kept) == {name: value for name, value in properties.items() if name in chosen}
