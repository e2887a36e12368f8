"""A table's rows become profiles, and only what changed of each is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from heap_integration.segments.audiences.settings import UsersTable
from heap_integration.segments.changes import profile_change
from heap_integration.segments.identity import Match
from heap_integration.segments.profiles import SEVERAL_IDS, SEVERAL_ROWS, SHARED_ID, profile_match, profile_wanted
from heap_integration.segments.sync import Sync, SyncReport
from heap_integration.store import Store
from heap_integration.sync_settings import Guards, MappingTable, ProfileSync
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.memberships import rejections
from heap_integration.warehouse.tables import TableError
from heap_integration_tests.segments.directory import Directory
from heap_integration_tests.segments.tables import SYNC, profiles, run, texts

FREE = Guards(empty_source="allow", largest_removal_percent=100)
NO_MOMENT = "is no moment of the years 1 to 9999"
TOO_LARGE = "is beyond 2^53, where numbers lose digits: send it as text"
NOT_FINITE = "is not a finite number"
NO_NUMBER = "is not a number, or beyond 2^53"
NO_LIST = "is not a JSON array of texts, booleans and numbers up to 2^53"


def of_people(fields: dict[str, Any] | None = None, **settings: Any) -> ProfileSync:
    given = {"name": "People", "table": "people", "identity": "id", "sync_to": ("crm",), "fields": fields or {}}
    return ProfileSync.model_validate({**given, **settings})


def sent_as(warehouse: Warehouse, value: str, field: dict[str, Any] | None = None) -> Any:
    """Return what becomes of a value in SQL: the attribute, or why it can't go out; ``None`` where it is left out."""
    run(warehouse, f"create or replace table people as select 'ann' as id, {value} as v")
    found = profiles(warehouse, of_people({"v": {"to": "v", **field}} if field else None))["ann"]
    return found if isinstance(found, str) else found.get("v")


def match_of(warehouse: Warehouse, settings: ProfileSync) -> Match:
    with warehouse.read() as con:
        return profile_match(con, settings, UsersTable())


def test_without_fields_every_other_column_goes_out_under_its_own_name_in_one_order(warehouse: Warehouse) -> None:
    run(
        warehouse, "create table people as select 'ann' as id, 3 as seats, 'pro' as plan, 'it''s \"x\"' as \"a \"\"b'\""
    )
    assert texts(warehouse, of_people()) == {"ann": '{"a \\"b\'":"it\'s \\"x\\"","plan":"pro","seats":3}'}


def test_fields_choose_columns_and_name_attributes_whatever_their_order(warehouse: Warehouse) -> None:
    run(warehouse, "create table people as select 'ann' as id, 3 as seats, 'pro' as plan, 'secret' as note")
    one = texts(warehouse, of_people({"PLAN": "Plan name", "seats": "Seats", "id": "External id"}))
    other = texts(warehouse, of_people({"id": "External id", "seats": "Seats", "plan": "Plan name"}))
    assert one == other == {"ann": '{"External id":"ann","Plan name":"pro","Seats":3}'}


@pytest.mark.parametrize(
    ("value", "attribute"),
    [
        ("1::tinyint", 1),
        ("9007199254740991::bigint", 2**53 - 1),
        ("9007199254740992::bigint", f"v {TOO_LARGE}"),
        ("(-9223372036854775808)::bigint", f"v {TOO_LARGE}"),
        ("18446744073709551615::ubigint", f"v {TOO_LARGE}"),
        ("340282366920938463463374607431768211455::uhugeint", f"v {TOO_LARGE}"),
        ("99999999999999999999::decimal(38, 0)", f"v {TOO_LARGE}"),
        ("12.50::decimal(10, 2)", 12.5),
        ("5.0::double", 5),
        ("0.1::float", 0.1),
        ("1e300::double", 1e300),
        ("'nan'::double", f"v {NOT_FINITE}"),
        ("'-inf'::float", f"v {NOT_FINITE}"),
        ("true", True),
        ("'a\nb'", "a\nb"),
        ("''", ""),
        ("'x'::enum('x')", "x"),
        ("'00000000-0000-0000-0000-000000000001'::uuid", "00000000-0000-0000-0000-000000000001"),
        ("date '2026-01-02'", "2026-01-02"),
        ("timestamp '2026-01-02 03:04:05.6789'", "2026-01-02T03:04:05.678Z"),
        ("timestamptz '2026-01-02 03:04:05+02'", "2026-01-02T01:04:05.000Z"),
        ("timestamp_ns '2026-01-02 03:04:05.123456789'", "2026-01-02T03:04:05.123Z"),
        ("'infinity'::timestamp", f"v {NO_MOMENT}"),
        ("date '12345-01-01'", f"v {NO_MOMENT}"),
        ("timestamp '0044-03-15 (BC)'", f"v {NO_MOMENT}"),
        ("time '10:00'", "10:00:00"),
        ("interval 1 day", "1 day"),
        ("['b', null, 'a', 'b']", ["b", "a", "b"]),
        ("[1, 2]::integer[2]", [1, 2]),
        ("[timestamp '2026-01-02']", ["2026-01-02T00:00:00.000Z"]),
        ("[1.5, 'nan'::double]", f"v has an entry that {NOT_FINITE}"),
        ("[]::varchar[]", []),
        ("[[1], [2]]", "[[1],[2]]"),
        ("{'a': 1, 'b': [true]}", '{"a":1,"b":[true]}'),
        ("map {'a': 1}", '{"a":1}'),
        ("union_value(n := 2)", "2"),
        ("'{\"a\" : 1}'::json", '{"a":1}'),
        ("'\"text\"'::json", "text"),
        ("'null'::json", None),
        ("null::integer", None),
    ],
)
def test_each_type_of_column_has_its_attribute_or_a_reason(warehouse: Warehouse, value: str, attribute: Any) -> None:
    # a nested value is a text of its own, so a reason and a text are told apart by the profile around them
    run(warehouse, f"create table people as select 'ann' as id, {value} as v")
    found = profiles(warehouse, of_people())["ann"]
    refused = isinstance(attribute, str) and attribute.startswith("v ")
    assert found == (attribute if refused else {} if attribute is None else {"v": attribute})


@pytest.mark.parametrize(
    ("value", "kind", "attribute"),
    [
        ("1.5::double", "text", "1.5"),
        ("5.0::double", "text", "5"),
        ("9007199254740993::bigint", "text", "9007199254740993"),
        ("1.50::decimal(5, 2)", "text", "1.5"),
        ("true", "text", "true"),
        ("'nan'::double", "text", f"v {NOT_FINITE}"),
        ("' 7.50 '", "number", 7.5),
        ("'12e1'", "number", 120),
        ("'seven'", "number", f"v {NO_NUMBER}"),
        ("'nan'", "number", f"v {NO_NUMBER}"),
        ("'9007199254740993'", "number", f"v {NO_NUMBER}"),
        ("''", "number", None),
        ("'4'::json", "number", 4),
        ("true", "number", 1),
        ("'Yes'", "boolean", True),
        ("'0'", "boolean", False),
        ("'perhaps'", "boolean", "v is neither true nor false"),
        ("1", "boolean", True),
        ("2", "boolean", "v is neither true nor false"),
        ("'2026-01-02T03:04:05+02:00'", "datetime", "2026-01-02T01:04:05.000Z"),
        ("'2026-01-02'", "datetime", "2026-01-02T00:00:00.000Z"),
        ("date '2026-01-02'", "datetime", "2026-01-02T00:00:00.000Z"),
        ("'yesterday'", "datetime", f"v {NO_MOMENT}"),
        ("'[1, \"b\", null, true]'", "list", [1, "b", True]),
        ("'[[1]]'::json", "list", f"v {NO_LIST}"),
        ("'[9007199254740993]'", "list", f"v {NO_LIST}"),
        ("'[-170141183460469231731687303715884105728]'", "list", f"v {NO_LIST}"),
        ("'[\"9007199254740993\", 1e300]'", "list", ["9007199254740993", 1e300]),
        ("'a, b'", "list", f"v {NO_LIST}"),
        ("' '", "list", None),
        ("''", "datetime", None),
        ("[3, 4]", "text", "[3,4]"),
    ],
)
def test_a_fields_type_decides_what_a_value_becomes(
    warehouse: Warehouse, value: str, kind: str, attribute: Any
) -> None:
    assert sent_as(warehouse, value, {"type": kind}) == attribute


@pytest.mark.parametrize(
    ("value", "field", "problem"),
    [
        ("''::blob", {}, "v is BLOB, which no attribute can hold; leave it out by `fields`"),
        ("date '2026-01-02'", {"type": "number"}, "v is DATE, of which no number can be made"),
        ("1", {"type": "datetime"}, "v is INTEGER, of which no datetime can be made"),
        ("1", {"operation": "append"}, "v is INTEGER, of which no list can be made"),
        ("[[1]]", {"type": "list"}, r"v is INTEGER\[\]\[\], of which no list can be made"),
        ("'1'", {"operation": "add", "type": "text"}, "v: add needs a number, and its type is text"),
    ],
)
def test_a_column_that_can_never_fit_is_told_before_anything_is_sent(
    warehouse: Warehouse, value: str, field: dict[str, Any], problem: str
) -> None:
    with pytest.raises(TableError, match=problem):
        sent_as(warehouse, value, field)


def test_columns_that_are_not_there_or_meet_in_one_name_are_told(warehouse: Warehouse) -> None:
    run(warehouse, "create table people as select 'ann' as id, 1 as seats, 2 as score")
    with pytest.raises(TableError, match=r"table main\.people has no column 'seat'; did you mean seats\?"):
        profiles(warehouse, of_people({"seat": "Seats"}))
    with pytest.raises(TableError, match="several columns go out as Number"):
        profiles(warehouse, of_people({"seats": "Number", "score": "Number"}))
    with pytest.raises(TableError, match="accounts have no e-mail address"):
        profiles(warehouse, of_people(of="accounts", map_users_by="email"))


def test_a_null_is_left_out_or_stays_null_as_its_field_says(warehouse: Warehouse) -> None:
    run(warehouse, "create table people as select 'ann' as id, null::integer as a, null::integer as b, null as c")
    fields = {"a": "a", "b": {"to": "b", "when_null": "clear"}, "c": {"to": "c", "when_null": "send"}}
    assert texts(warehouse, of_people(fields)) == {"ann": '{"b":null,"c":null}'}


def test_the_entries_that_are_appended_have_one_order_whatever_the_models(warehouse: Warehouse) -> None:
    appended = {"operation": "append"}
    assert sent_as(warehouse, "['b', 'a', 'b', null]", appended) == ["a", "b"]
    assert sent_as(warehouse, '\'["b", "a"]\'', appended) == ["a", "b"]


def test_bad_rows_and_repeated_identities_stand_beside_the_good_ones(warehouse: Warehouse) -> None:
    run(
        warehouse,
        """
        create table people as select * from (values
            ('ann', '1', 'yes'), ('bob', 'x', 'y'), ('cleo', 'x', 'what'), ('dan', '2', 'no'), ('dan ', '2', 'no'),
            ('null', '3', 'no'), ('', '4', 'no'), (null, '5', 'no')
        ) as rows(id, seats, paid)
        """,
    )
    settings = of_people({"seats": {"to": "Seats", "type": "number"}, "paid": {"to": "Paid", "type": "boolean"}})
    assert profiles(warehouse, settings) == {
        "ann": {"Paid": True, "Seats": 1},
        "bob": f"seats {NO_NUMBER}",
        "cleo": f"paid is neither true nor false; seats {NO_NUMBER}",
        "dan": SEVERAL_ROWS,
    }
    expected = Match(members=5, mapped=3, ids=3, unmapped=0, ambiguous=1, placeholders=1)
    assert match_of(warehouse, settings) == expected


def test_a_profile_goes_out_under_the_id_that_is_certainly_its_own(warehouse: Warehouse) -> None:
    names = ["ann", "bob", "cleo", "dan", "eve", "eve", "fred", "0"]
    run(
        warehouse,
        "create table people as select unnest($1)::varchar as id, unnest($2)::integer as seats",
        [names, [*range(8)]],
    )
    pairs = [pair.split() for pair in ("ann 1", "bob 2", "bob 3", "cleo 4", "dan 4", "eve 5", "0 6", "gone 7")]
    run(
        warehouse,
        "create table ids as select p[1] as ours, p[2] as theirs from (select unnest($1) as p)",
        [pairs],
    )
    settings = of_people(map_users_by=MappingTable.model_validate({"table": "ids", "from": "ours", "to": "theirs"}))
    assert profiles(warehouse, settings) == {
        "1": {"seats": 0},
        "2": SEVERAL_IDS,
        "3": SEVERAL_IDS,
        "4": SHARED_ID,
        "5": SEVERAL_ROWS,
    }
    expected = Match(members=7, mapped=1, ids=1, unmapped=1, ambiguous=4, placeholders=1)
    assert match_of(warehouse, settings) == expected

    with warehouse.read() as con:
        wanted = profile_wanted(con, settings, UsersTable(), SYNC, ["dan"])
        ids = con.execute(f"select identity from ({wanted.sql}) order by all", dict(wanted.parameters)).fetchall()
        match = profile_match(con, settings, UsersTable(), ["dan"])
    # what cleo shares with dan, who wants nothing sent, is not sent for cleo
    assert ids == [("1",), ("2",), ("3",), ("5",)]
    assert match == Match(members=6, mapped=1, ids=1, unmapped=2, ambiguous=2, placeholders=1, opted_out=1)


class Syncing:
    """A table on its way to a directory."""

    def __init__(self, folder: Path, warehouse: Warehouse) -> None:
        self.store = Store(f"sqlite:///{folder}/store.db")
        self.warehouse = warehouse
        self.there = Directory()

    def run(self, fields: dict[str, Any] | None = None, mode: Literal["mirror", "add_only"] = "mirror") -> SyncReport:
        settings = of_people(fields)
        with self.warehouse.read() as con:
            wanted = profile_wanted(con, settings, UsersTable(), SYNC)
        self.there.told.clear()
        payload = profile_change(settings.fields)
        sync = Sync(SYNC, wanted, self.warehouse, self.store, self.there, mode=mode, guards=FREE, payload=payload)
        return sync.run()


@pytest.fixture
def syncing(tmp_path: Path, warehouse: Warehouse) -> Iterator[Syncing]:
    syncing = Syncing(tmp_path, warehouse)
    run(warehouse, "create table people (id varchar, plan varchar, seats varchar, visits integer, tags varchar[])")
    run(warehouse, "insert into people values ('ann', 'pro', '1', 10, ['a', 'b']), ('bob', 'free', '2', 20, ['b'])")
    yield syncing
    syncing.store.close()


ALL = {
    "plan": "Plan",
    "seats": {"to": "Seats", "type": "number"},
    "visits": {"to": "Visits", "operation": "add"},
    "tags": {"to": "Tags", "operation": "append"},
}


def test_only_the_attributes_that_changed_are_sent(warehouse: Warehouse, syncing: Syncing) -> None:
    assert syncing.run(ALL).added == 2
    assert syncing.there.profiles["ann"] == {"Plan": "pro", "Seats": 1, "Visits": 10, "Tags": ["a", "b"]}
    assert syncing.run(ALL).unchanged == 2
    assert syncing.there.told == {}
    run(warehouse, "update people set visits = visits + 5, tags = ['c', 'b'] where id = 'ann'")
    report = syncing.run(ALL)
    assert (report.updated, report.unchanged) == (1, 1)
    assert syncing.there.told == {"ann": [("Tags", "remove", ["a"]), ("Tags", "append", ["c"]), ("Visits", "add", 5)]}
    assert syncing.there.profiles["ann"] == {"Plan": "pro", "Seats": 1, "Visits": 15, "Tags": ["b", "c"]}


def test_a_bad_value_rejects_its_row_and_leaves_what_was_there(warehouse: Warehouse, syncing: Syncing) -> None:
    syncing.run(ALL)
    run(warehouse, "update people set seats = 'many', plan = 'free' where id = 'ann'")
    run(warehouse, "update people set plan = 'pro' where id = 'bob'")
    run(
        warehouse,
        "insert into people values ('cleo', 'pro', 'few', 1, []), ('dan', 'x', '1', 1, []), ('dan', 'y', '1', 1, [])",
    )
    for _ in range(2):
        report = syncing.run(ALL)
        assert report.rejected == 3
        assert syncing.there.profiles["ann"]["Plan"] == "pro"
        assert syncing.there.profiles["bob"]["Plan"] == "pro"
        assert set(syncing.there.profiles) == {"ann", "bob"}
    with warehouse.read() as con:
        refused = {each.identity: each.reason for each in rejections(con, SYNC)}
    assert refused == {"ann": f"seats {NO_NUMBER}", "cleo": f"seats {NO_NUMBER}", "dan": SEVERAL_ROWS}
    run(warehouse, "update people set seats = '5' where id = 'ann'")
    syncing.run(ALL)
    assert syncing.there.told["ann"] == [("Plan", "set", "free"), ("Seats", "set", 5)]


def test_a_number_that_is_null_for_a_while_goes_on_from_what_was_acknowledged(
    warehouse: Warehouse, syncing: Syncing
) -> None:
    syncing.run(ALL)
    run(warehouse, "update people set visits = null, tags = null, plan = 'gone' where id = 'ann'")
    syncing.run(ALL)
    assert syncing.there.told == {"ann": [("Plan", "set", "gone")]}
    run(warehouse, "update people set visits = 12, tags = ['b'] where id = 'ann'")
    syncing.run(ALL)
    assert syncing.there.told == {"ann": [("Tags", "remove", ["a"]), ("Visits", "add", 2)]}


def test_a_renamed_field_is_sent_and_the_old_one_left_alone(syncing: Syncing) -> None:
    syncing.run({"plan": "Plan"})
    report = syncing.run({"plan": "Plan name"})
    assert report.updated == 2
    assert syncing.there.told["ann"] == [("Plan name", "set", "pro")]
    assert syncing.there.profiles["ann"] == {"Plan": "pro", "Plan name": "pro"}


def test_another_null_policy_reaches_the_rows_that_have_a_null(warehouse: Warehouse, syncing: Syncing) -> None:
    syncing.run({"plan": "Plan"})
    run(warehouse, "update people set plan = null where id = 'ann'")
    syncing.run({"plan": "Plan"})
    assert syncing.there.told == {}
    syncing.run({"plan": {"to": "Plan", "when_null": "clear"}})
    assert syncing.there.told == {"ann": [("Plan", "clear", None)]}


def test_a_row_that_vanished_loses_our_attributes_unless_nothing_is_removed(
    warehouse: Warehouse, syncing: Syncing
) -> None:
    syncing.run(ALL)
    syncing.there.profiles["ann"]["Theirs"] = 1
    run(warehouse, "delete from people where id = 'ann'")
    syncing.run(ALL, mode="add_only")
    assert syncing.there.told == {}
    assert syncing.run(ALL).removed == 1
    assert syncing.there.profiles["ann"] == {"Theirs": 1, "Visits": 0, "Tags": []}
