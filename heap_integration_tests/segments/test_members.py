"""Members come from Heap, from an audience or from a table: each identity once, and nobody who is none."""

from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_integration.segments.heap_segments import apply_pages
from heap_integration.segments.members import audience_members, heap_members, table_members
from heap_integration.store import Store
from heap_integration.sync_settings import MembersTable
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.audiences import compute_members, replace_result
from heap_integration.warehouse.tables import TableError
from heap_integration_tests.segments.pages import receive
from heap_integration_tests.segments.tables import identities, run


def members_of(warehouse: Warehouse, table: str, identity: str = "id") -> list[str]:
    with warehouse.read() as con:
        wanted = table_members(con, MembersTable(table=table, identity=identity))
    return identities(warehouse, wanted)


def test_a_heap_segment_has_its_own_members_and_the_time_of_heaps_word(warehouse: Warehouse, tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store.db")
    receive(store, 7, "first", 1_760_000_000, added=["ann", "bob"])
    receive(store, 8, "other", 1_760_000_060, added=["cleo"])
    receive(store, 7, "second", 1_760_000_120.5, removed=["bob"])
    apply_pages(store, warehouse)
    store.close()
    with warehouse.read() as con:
        wanted, unheard = heap_members(con, 7), heap_members(con, 9)
    assert identities(warehouse, wanted) == ["ann"]
    assert wanted.changed_at == datetime.fromtimestamp(1_760_000_120.5, UTC)
    assert (identities(warehouse, unheard), unheard.changed_at) == ([], None)


def test_an_audience_has_the_members_of_its_newest_day(warehouse: Warehouse) -> None:
    noon = datetime(2026, 3, 2, 12, tzinfo=UTC)
    with warehouse.write() as con:
        for audience, day, names in (("carts", 2, "ab"), ("carts", 1, "xyz"), ("others", 3, "q")):
            compute_members(con, f"select unnest({list(names)}) as identity")
            replace_result(con, audience, date(2026, 3, day), noon.replace(day=day), "{}", 35)
        wanted, never = audience_members(con, "carts"), audience_members(con, "never computed")
    assert wanted is not None
    assert identities(warehouse, wanted) == ["a", "b"]
    assert wanted.changed_at == noon
    assert never is None


def test_a_day_that_is_forgotten_before_a_sync_asks_leaves_nobody_out(warehouse: Warehouse) -> None:
    with warehouse.write() as con:
        for day, names in ((1, "ab"), (2, "bc")):
            compute_members(con, f"select unnest({list(names)}) as identity")
            replace_result(con, "carts", date(2026, 3, day), datetime(2026, 3, day, 12, tzinfo=UTC), "{}", keep_days=1)
            if day == 1:
                wanted = audience_members(con, "carts")
    assert wanted is not None
    assert identities(warehouse, wanted) == ["b", "c"]


def test_a_tables_members_are_its_identities_without_blanks_and_repetition(warehouse: Warehouse) -> None:
    run(warehouse, "create table people (id varchar, plan varchar)")
    rows: list[list[str | None]] = [
        ["ann", "a"],
        ["bob", None],
        [" ann\t", "b"],
        ["", "c"],
        [None, "d"],
        ["\u00a0", "e"],
    ]
    for row in rows:
        run(warehouse, "insert into people values (?, ?)", row)
    assert members_of(warehouse, "people") == ["ann", "bob"]


@pytest.mark.parametrize(
    ("values", "members"),
    [
        ("1::tinyint, 2::utinyint", ["1", "2"]),
        ("9007199254740993::bigint", ["9007199254740993"]),
        ("340282366920938463463374607431768211455::uhugeint", ["340282366920938463463374607431768211455"]),
        # what pandas makes of integers when one is missing
        ("5.0::double, 12.0::double, null", ["12", "5"]),
        # a double doesn't know which of two neighbours it was
        ("9007199254740993::double, 'nan'::double, 'inf'::double, 7.5::double", ["7.5"]),
        ("16777216::float, 16777218::float", ["16777216"]),
        ("100::decimal(10, 0), 20::decimal(10, 0)", ["100", "20"]),
        ("5.00::decimal(10, 2), 5.50::decimal(10, 2)", ["5", "5.5"]),
        ("'0191e7a4-0000-7000-8000-000000000001'::uuid", ["0191e7a4-0000-7000-8000-000000000001"]),
        ("'b'::enum('a', 'b')", ["b"]),
    ],
)
def test_numbers_and_other_kinds_of_ids_become_text(warehouse: Warehouse, values: str, members: list[str]) -> None:
    run(warehouse, f"create table people as select unnest([{values}]) as id")
    assert members_of(warehouse, "people") == members


@pytest.mark.parametrize("kind", ["date", "boolean", "blob", "json", "varchar[]", "struct(a integer)"])
def test_what_can_be_no_identity_is_refused(warehouse: Warehouse, kind: str) -> None:
    run(warehouse, f"create table people (id {kind})")
    with pytest.raises(TableError, match=r"table main\.people: id is .*; an identity is text, a number or a UUID"):
        members_of(warehouse, "people")


@pytest.mark.parametrize(
    "name", ["scores", "SCORES", "marts.scores", '"marts"."scores"', 'marts."Scores"', '"scores"', " marts.scores "]
)
def test_a_model_is_found_by_its_name_with_or_without_schema_and_quotes(warehouse: Warehouse, name: str) -> None:
    run(warehouse, "create schema marts; create view marts.scores as select 'ann' as \"User Id\"")
    assert members_of(warehouse, name, "user id") == ["ann"]


def test_a_name_that_has_a_dot_or_a_quote_in_it_is_found(warehouse: Warehouse) -> None:
    run(warehouse, 'create table "a.b ""c" as select 1 as "i""d"')
    assert members_of(warehouse, 'a.b "c', 'i"d') == ["1"]


@pytest.mark.parametrize(
    ("table", "column", "problem"),
    [
        ("user_score", "id", r"table 'user_score' is not there; did you mean marts\.user_scores\?"),
        ("marts.user_score", "id", r"did you mean marts\.user_scores"),
        ("qqq", "id", r"table 'qqq' is not there; the warehouse has .*marts\.user_scores"),
        ("user_scores", "usr_id", r"table marts\.user_scores has no column 'usr_id'; did you mean user_id\?"),
        ("user_scores", "x", r"table marts\.user_scores has no column 'x'; it has user_id, score"),
        ("sync_baseline", "identity", "table 'sync_baseline' is not there"),
        ("twice", "id", r"table 'twice' stands for several tables: a\.twice, marts\.twice"),
        ("broken", "id", r"table marts\.broken can't be read: "),
    ],
)
def test_what_is_not_there_is_told_with_the_nearest_names(
    warehouse: Warehouse, table: str, column: str, problem: str
) -> None:
    run(warehouse, "create schema marts; create table marts.user_scores (user_id varchar, score integer)")
    run(warehouse, "create schema a; create table a.twice (id integer); create table marts.twice (id integer)")
    run(warehouse, "create table gone (id integer); create view marts.broken as from gone; drop table gone")
    with pytest.raises(TableError, match=problem):
        members_of(warehouse, table, column)


NAMES = st.text(st.sampled_from("people id\";'.-()$*/"), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    warehouse = Warehouse(f"duckdb:///{tmp_path_factory.mktemp('people')}/warehouse.duckdb")
    run(warehouse, "create table people as select 'ann' as id")
    return warehouse


@settings(max_examples=25)
@given(table=NAMES, column=NAMES)
def test_no_name_is_taken_for_sql(people: Warehouse, table: str, column: str) -> None:
    for names in ((table, "id"), ("people", column), (f'people"; {table}', f"id from people; {column}")):
        with contextlib.suppress(TableError):
            assert members_of(people, *names) == ["ann"]
    assert members_of(people, "people") == ["ann"]
