"""A sync reads the same of a table in PostgreSQL as of one in DuckDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heap_integration.brought import are_here, bring, localized, localized_users
from heap_integration.environment import Environment, ProfileSync, SegmentSync
from heap_integration.segments.audiences.settings import AudienceSettings, UsersTable
from heap_integration.segments.identity import mapped
from heap_integration.segments.members import table_members
from heap_integration.segments.wanted import Wanted
from heap_integration.sync_settings import MembersTable
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.elsewhere import Elsewhere
from heap_integration.warehouse.systems.system import QueryError
from heap_integration.warehouse.tables import TableError, find_table
from heap_integration_tests.segments.tables import identities, run, texts
from heap_integration_tests.support.postgres import empty_database, postgres
from heap_integration_tests.support.warehouses import postgres_warehouse, surroundings

__all__ = ["postgres"]

# What both systems take: the types are called alike, but for JSON.
PEOPLE = """
create table {schema}.people (
    id bigint, email text, plan text, score numeric(9, 2), seats integer, share double precision, paying boolean,
    since timestamptz, day date, told timestamp, tags {json}, notes text[], code uuid
)
"""
ROWS = """
insert into {schema}.people values
    (1, ' Ann@X.example', 'pro', 12.50, 3, 0.1, true, '2026-03-01 12:00:00.123+02', '2026-03-02',
     '2026-03-03 04:05:06', '["a", 1, null]', '{notes}', '0191e7a4-0000-7000-8000-000000000001'),
    (2, 'bob@x.example', null, 100, null, 1e20, false, null, null, null, '{{"a": [1, 2]}}', null, null),
    (9007199254740993, null, 'fr"ee é', null, 0, null, null, '1999-12-31 23:59:59+00', '1999-12-31', null, null, null,
     null),
    (4, 'x', 'a', 1, 1, 1, true, null, null, null, null, null, null),
    (4, 'y', 'b', 1, 1, 1, true, null, null, null, null, null, null)
"""
MAPPING = "create table {schema}.ids as select * from (values (1, 'a-1'), (2, 'b-2'), (2, 'b-3')) as made(ours, theirs)"


def given(name: str, **values: Any) -> dict[str, Any]:
    return {"name": name, "sync_to": ["userflow"], **values}


PROFILES = {
    "all columns": given("All", table="models.people", identity="id"),
    "some columns": given(
        "Some",
        table="models.people",
        identity="id",
        map_users_by={"table": "models.ids", "from": "ours", "to": "theirs"},
        fields={"PLAN": "plan", "score": {"to": "score", "type": "text"}, "tags": {"to": "tags", "type": "list"}},
    ),
    "by e-mail": given(
        "Mailed",
        table="models.people",
        identity="id",
        map_users_by="email",
        fields={"since": {"to": "since", "type": "datetime", "when_null": "send"}},
    ),
}
USERS = UsersTable(table="models.people", identity="id", properties=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("brought")


@pytest.fixture(scope="module")
def native(folder: Path) -> Warehouse:
    """Return a DuckDB warehouse that has the tables itself."""
    warehouse = Warehouse(f"duckdb:///{folder}/native.duckdb")
    run(warehouse, "create schema models")
    run(warehouse, PEOPLE.format(schema="models", json="json"))
    run(warehouse, ROWS.format(schema="models", notes='["x", "y"]'))
    run(warehouse, MAPPING.format(schema="models"))
    return warehouse


@pytest.fixture(scope="module")
def there(postgres: str, folder: Path) -> Iterator[Elsewhere]:
    """Yield a PostgreSQL that has the tables."""
    settings = postgres_warehouse(empty_database(postgres), "test")
    schemas = settings.schemas()
    with settings.connect(surroundings(folder)) as connection:
        connection.run(
            [
                f"create schema {schemas.models}",
                PEOPLE.format(schema=schemas.models, json="jsonb"),
                ROWS.format(schema=schemas.models, notes="{{x,y}}".replace("{{", "{").replace("}}", "}")),
                MAPPING.format(schema=schemas.models),
            ]
        )
        yield Elsewhere(connection, schemas, "postgres")


@pytest.fixture
def own(tmp_path: Path) -> Warehouse:
    return Warehouse(f"duckdb:///{tmp_path}/hub.duckdb")


def environment(*profiles: Any, segments: tuple[Any, ...] = ()) -> Environment:
    return Environment.model_validate(
        {
            "name": "test",
            "heap": {"app_id": "11"},
            "audiences": {"users": USERS.model_dump()},
            "profiles": profiles,
            "segments": segments,
            "destinations": {"userflow": {"api_key": {"env": "KEY"}}},
        }
    )


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_are_the_same(name: str, native: Warehouse, there: Elsewhere, own: Warehouse) -> None:
    whole = environment(*PROFILES.values())
    sync = ProfileSync.model_validate(PROFILES[name])
    assert bring(whole, sync, there, own) >= 5
    local = localized(sync)
    assert isinstance(local, ProfileSync)
    found = texts(own, local, localized_users(USERS))
    assert found == texts(native, sync, USERS)
    assert len(found) >= 2


def test_members_and_their_ids_are_the_same(native: Warehouse, there: Elsewhere, own: Warehouse) -> None:
    segment = SegmentSync.model_validate(
        given("Listed", **{"from": {"table": "People", "identity": "ID"}}, map_users_by={"property": "code"})
    )
    bring(environment(segments=(segment.model_dump(by_alias=True),)), segment, there, own)

    def members(warehouse: Warehouse, sync: Any, users: UsersTable) -> list[list[str]]:
        assert isinstance(sync.source, MembersTable)
        with warehouse.read() as con:
            wanted = table_members(con, sync.source)
            ids = mapped(con, wanted, sync.map_users_by, users)
        return [identities(warehouse, wanted), identities(warehouse, Wanted(ids.sql, ids.parameters))]

    assert members(own, localized(segment), localized_users(USERS)) == members(native, segment, USERS)
    with own.read() as con:
        assert list(find_table(con, '"_brought"."People"').columns) == ["id"]
        assert list(find_table(con, '"_brought"."models.people"').columns) == ["id", "code"]
        with pytest.raises(TableError, match="table 'People' is not there"):
            find_table(con, "People")


def test_what_was_brought_is_known_until_more_is_asked_for(there: Elsewhere, own: Warehouse) -> None:
    few = ProfileSync.model_validate(given("Few", table="models.people", identity="id", fields={"plan": "plan"}))
    more = few.model_copy(update={"fields": {**few.fields, "seats": few.fields["plan"]}})
    listed = given("Listed", **{"from": {"table": "models.ids", "identity": "theirs"}})

    def known(sync: SegmentSync | ProfileSync) -> bool:
        with own.read() as con:
            return are_here(con, sync, USERS)

    assert not known(few)
    whole = environment(few.model_dump(), segments=(listed,))
    bring(whole, few, there, own)
    bring(whole, whole.segments[0], there, own)
    assert (known(few), known(more), known(whole.segments[0])) == (True, False, True)

    bring(environment(more.model_dump()), more, there, own)
    assert (known(few), known(more), known(whole.segments[0])) == (True, True, False)


def test_what_identify_calls_told_is_here_already(there: Elsewhere, own: Warehouse) -> None:
    segment = SegmentSync.model_validate(given("Buyers", **{"from": "audiences/buyers.json"}, map_users_by="email"))
    whole = environment().model_copy(update={"audiences": AudienceSettings()})
    assert bring(whole, segment, there, own) == 0
    assert localized_users(whole.audiences.users) == whole.audiences.users


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (
            {"table": "models.poeple"},
            TableError,
            "table 'models.poeple' is not there; did you mean test_models.people?",
        ),
        (
            {"fields": {"paln": "plan"}},
            TableError,
            "table test_models.people has no column 'paln'; did you mean plan or paying?",
        ),
        ({"table": "odd", "identity": "id"}, QueryError, "column much is of the type inet: cast it to text"),
    ],
)
def test_what_cant_be_brought_is_told(
    values: Any, kind: type[Exception], message: str, there: Elsewhere, own: Warehouse
) -> None:
    there.connection.run(["create table if not exists test_models.odd (id text, much inet)"])
    sync = ProfileSync.model_validate(given("Wrong", **({"table": "models.people", "identity": "id"} | values)))
    with pytest.raises(kind) as caught:
        bring(environment(sync.model_dump()), sync, there, own)
    assert message in str(caught.value)


def test_a_table_that_holds_what_no_field_can_be_is_named_as_it_was_asked_for(there: Elsewhere, own: Warehouse) -> None:
    sync = ProfileSync.model_validate(given("Days", table="models.people", identity="day"))
    bring(environment(json.loads(sync.model_dump_json())), sync, there, own)
    local = localized(sync)
    assert isinstance(local, ProfileSync)
    with pytest.raises(TableError, match=r"table models\.people: day is DATE; an identity is text"):
        texts(own, local)
