"""Members go out under the destination's ids, and the counts say what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_integration.identities import PLACEHOLDERS
from heap_integration.segments.audiences.settings import UsersTable
from heap_integration.segments.identity import Match, mapped, match_counts, without
from heap_integration.segments.wanted import Wanted
from heap_integration.sync_settings import HeapProperty, MappingTable, MapUsersBy
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.tables import TableError
from heap_integration_tests.segments.tables import identities, run

PEOPLE = UsersTable(table="people", identity="id", properties="traits")
IDS = MappingTable.model_validate({"table": "ids", "from": "ours", "to": "theirs"})


def members(*names: str) -> Wanted:
    sql = "select unnest($members_names)::varchar as identity, null::varchar as properties"
    return Wanted(sql, {"members_names": list(names)})


def mapping(
    warehouse: Warehouse, wanted: Wanted, by: MapUsersBy, users: UsersTable = PEOPLE
) -> tuple[list[str], Match]:
    with warehouse.read() as con:
        found, match = mapped(con, wanted, by, users), match_counts(con, wanted, by, users)
    sent = identities(warehouse, found)
    assert match.members == match.mapped + match.unmapped + match.ambiguous + match.placeholders
    assert match.ids == len(sent)
    return sent, match


def know(warehouse: Warehouse, people: dict[str, dict[str, Any]], kind: str = "varchar") -> None:
    run(warehouse, f"create or replace table people (id varchar, traits {kind})")
    for name, traits in people.items():
        run(warehouse, "insert into people values (?, ?)", [name, orjson.dumps(traits).decode()])


def know_ids(warehouse: Warehouse, pairs: Iterable[tuple[str, str | None]]) -> None:
    given = list(pairs)
    run(
        warehouse,
        "create or replace table ids as select unnest($1)::varchar as ours, unnest($2)::varchar as theirs",
        [[ours for ours, _ in given], [theirs for _, theirs in given]],
    )


def test_an_id_of_somebody_who_opted_out_goes_out_for_nobody_else(warehouse: Warehouse) -> None:
    know(
        warehouse, {name: {"email": "us@example.com"} for name in ("ann", "bea")} | {"cleo": {"email": "c@example.com"}}
    )
    opted_out = ["ann"]
    left = without(members("ann", "bea", "cleo"), opted_out)
    with warehouse.read() as con:
        found = mapped(con, left, "email", PEOPLE, opted_out)
        match = match_counts(con, left, "email", PEOPLE, opted_out)
    assert identities(warehouse, found) == ["c@example.com"]
    assert (match.members, match.mapped, match.ids, match.unmapped) == (2, 1, 1, 1)


def test_by_identity_everybody_goes_out_as_they_are_but_for_placeholders(warehouse: Warehouse) -> None:
    sent, match = mapping(warehouse, members("ann", "Undefined", "NULL", "0", "bob", "[object Object]"), "identity")
    assert sent == ["ann", "bob"]
    assert match == Match(members=6, mapped=2, ids=2, unmapped=0, ambiguous=0, placeholders=4)
    assert mapping(warehouse, members(*PLACEHOLDERS), "identity")[0] == []


def test_what_is_known_of_the_source_stays_known(warehouse: Warehouse) -> None:
    with warehouse.read() as con:
        wanted = mapped(con, members("ann"), "identity", PEOPLE)
    assert wanted.parameters == {"members_names": ["ann"]}


@pytest.mark.parametrize("kind", ["varchar", "json"])
def test_email_addresses_are_trimmed_in_small_letters_and_sent_once(warehouse: Warehouse, kind: str) -> None:
    know(
        warehouse,
        {
            "ann": {"email": " Ann@Example.com\n"},
            "ann at work": {"email": "ann@example.com"},
            "bob": {"email": None},
            "cleo": {"email": "none"},
            "dan": {"email": ""},
            "eve": {"Email": "eve@example.com"},
            "fred": {"email": {"home": "fred@example.com"}},
            "guest": {"email": "guest@example.com"},
        },
        kind,
    )
    sent, match = mapping(
        warehouse, members("ann", "ann at work", "bob", "cleo", "dan", "eve", "fred", "guest", "nobody knows"), "email"
    )
    assert sent == ["ann@example.com"]
    assert match == Match(members=9, mapped=2, ids=1, unmapped=6, ambiguous=0, placeholders=1)


def test_a_user_property_is_an_id_also_as_a_number_or_under_an_odd_name(warehouse: Warehouse) -> None:
    name = "crm/id~'\"x"
    know(
        warehouse,
        {
            "ann": {name: "A-1"},
            "bob": {name: 17},
            "cleo": {name: 18.0},
            "dan": {name: True},
            "eve": {name: ["E"]},
            "fred": {"crm": {"id~'\"x": "F"}},
            "gus": {name: "undefined"},
        },
    )
    run(warehouse, "insert into people values ('hal', 'no JSON at all')")
    sent, match = mapping(
        warehouse,
        members("ann", "bob", "cleo", "dan", "eve", "fred", "gus", "hal"),
        HeapProperty(property=name),
    )
    assert sent == ["17", "18", "A-1"]
    assert (match.mapped, match.unmapped) == (3, 5)


def test_a_property_with_a_column_of_its_own_needs_no_json(warehouse: Warehouse) -> None:
    run(warehouse, "create table accounts as select 'ann' as id, 'Ann@Example.com' as email, 5.0::double as crm_id")
    users = UsersTable(table="accounts", identity="id", properties=None)
    assert mapping(warehouse, members("ann"), "email", users)[0] == ["ann@example.com"]
    assert mapping(warehouse, members("ann"), HeapProperty(property="crm_id"), users)[0] == ["5"]
    with pytest.raises(TableError, match=r"table main\.accounts has no property 'crmid'; did you mean crm_id\?"):
        mapping(warehouse, members("ann"), HeapProperty(property="crmid"), users)


def test_by_default_what_identify_calls_told_is_known_of_users(warehouse: Warehouse) -> None:
    told = [
        ("identify", "ann", {"email": "old@example.com", "crm": 7}),
        ("identify", "ann", {"email": "ann@example.com"}),
    ]
    for number, (kind, user, traits) in enumerate(told):
        run(
            warehouse,
            """
            insert into product_events by name
            select $1::bigint as seq, uuid() as event_key, '' as message_id, $2 as type, '' as name, $3 as user_id,
                   timestamp '2026-01-01' + to_hours($1) as timestamp, date '2026-01-01' as event_day,
                   timestamp '2026-01-02' as received_at, '' as source, '{}' as properties, $4 as traits,
                   '{}' as context, '' as origin, 1 as line
            """,
            [number, kind, user, orjson.dumps(traits).decode()],
        )
    assert mapping(warehouse, members("ann"), "email", UsersTable())[0] == ["ann@example.com"]
    assert mapping(warehouse, members("ann"), HeapProperty(property="crm"), UsersTable())[0] == ["7"]


def test_an_id_that_members_share_is_one_member_and_a_member_with_several_ids_is_not_sent(warehouse: Warehouse) -> None:
    know_ids(
        warehouse,
        [
            *(("ann", "1"), ("ann", "1"), ("ann at work", " 1 ")),
            *(("bob", "2"), ("bob", "3")),
            *(("cleo", None), ("dan", "null"), ("eve", "4"), ("eve", ""), ("0", "5"), ("somebody else", "6")),
        ],
    )
    sent, match = mapping(warehouse, members("ann", "ann at work", "bob", "cleo", "dan", "eve", "fred", "0"), IDS)
    assert sent == ["1", "4"]
    assert match == Match(members=8, mapped=3, ids=2, unmapped=3, ambiguous=1, placeholders=1)


def test_a_mapping_that_is_not_there_is_told(warehouse: Warehouse) -> None:
    know_ids(warehouse, [])
    wrong = MappingTable.model_validate({"table": "ids", "from": "ours", "to": "their"})
    with pytest.raises(TableError, match=r"table main\.ids has no column 'their'; did you mean theirs\?"):
        mapping(warehouse, members("ann"), wrong)
    with pytest.raises(TableError, match=r"table 'people' is not there"):
        mapping(warehouse, members("ann"), "email")


def test_the_match_rate_is_the_share_that_the_destination_knows() -> None:
    match = Match(members=10, mapped=8, ids=8, unmapped=1, ambiguous=1, placeholders=0)
    assert match.rate == pytest.approx(0.8)
    unknown = Match(members=10, mapped=8, ids=8, unmapped=1, ambiguous=1, placeholders=0, unknown_there=3)
    assert unknown.rate == pytest.approx(0.5)
    assert Match(members=0, mapped=0, ids=0, unmapped=0, ambiguous=0, placeholders=0).rate == 1


@pytest.fixture(scope="module")
def shared_warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return Warehouse(f"duckdb:///{tmp_path_factory.mktemp('ids')}/warehouse.duckdb")


WHO = st.sampled_from(["ann", "bob", "cleo", "dan", "null", "eve"])
THEIRS = st.sampled_from(["1", "2", "3", "undefined", "", None])


@settings(max_examples=40)
@given(who=st.frozensets(WHO), pairs=st.lists(st.tuples(WHO, THEIRS)))
def test_every_member_is_counted_once_and_only_the_certain_are_sent(
    shared_warehouse: Warehouse, who: frozenset[str], pairs: list[tuple[str, str | None]]
) -> None:
    know_ids(shared_warehouse, pairs)
    known = {name: {theirs for ours, theirs in pairs if ours == name and theirs in {"1", "2", "3"}} for name in who}
    verdicts = Counter(
        "placeholder" if name == "null" else {0: "unmapped", 1: "mapped"}.get(len(ids), "ambiguous")
        for name, ids in known.items()
    )
    expected = {theirs for name, ids in known.items() if name != "null" and len(ids) == 1 for theirs in ids}
    sent, match = mapping(shared_warehouse, members(*who), IDS)
    assert set(sent) == expected
    found = (match.mapped, match.unmapped, match.ambiguous, match.placeholders)
    assert found == tuple(verdicts[verdict] for verdict in ("mapped", "unmapped", "ambiguous", "placeholder"))
