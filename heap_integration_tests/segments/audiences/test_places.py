"""An audience has the same members wherever its tables are: in the hub's own file, or in another warehouse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from heap_integration.environment import EnvironmentProblems
from heap_integration.segments.audiences.audience import Audience
from heap_integration.segments.audiences.places import elsewhere
from heap_integration.segments.audiences.settings import AudienceSettings, EventsTable, ModelColumn, UsersTable
from heap_integration.sync_settings import SegmentSync
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.elsewhere import Elsewhere
from heap_integration.warehouse.publishing import publish
from heap_integration.warehouse.tables import TableError
from heap_integration_tests.segments.audiences.test_audience import DAY, NOW, audience, call, kept, load
from heap_integration_tests.support.postgres import empty_database
from heap_integration_tests.support.warehouses import postgres_warehouse, surroundings

MODELS = """
create schema {schema};
create table {schema}.lifecycle as
select * from (values ('ann', 'loyal', 80.5, true, timestamp '2026-03-01 12:00:00'),
                      ('bob', 'new', 12, false, timestamp '2026-03-09 12:00:00'))
as made(person, stage, score, paying, since)
"""
SETTINGS: dict[str, Any] = {
    "models": {
        name: ModelColumn(table="models.lifecycle", identity="person", column=name)
        for name in ("stage", "score", "paying", "since")
    }
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("places")


@pytest.fixture(scope="module")
def warehouse(folder: Path) -> Warehouse:
    warehouse = Warehouse(f"duckdb:///{folder}/hub.duckdb")
    load(
        warehouse,
        [
            call("ann", "Purchase", NOW - timedelta(days=1), amount=50, page={"path": "/a"}),
            call("bob", "Purchase", NOW - timedelta(days=6), amount="5", coupon="SPRING's"),
            call("cyd", "Add to Cart", NOW - timedelta(hours=1), cart_value=120.5, gift=True),
            call("dan", "Purchase", NOW + timedelta(days=1), amount=1),
        ],
    )
    traits = [
        call("ann", "", NOW - timedelta(days=3), "identify", plan="free", team="a"),
        call("ann", "", NOW - timedelta(days=1), "identify", plan="pro", note=None),
        call("eve", "", NOW - timedelta(days=2), "identify"),
    ]
    load(warehouse, traits, NOW - timedelta(hours=2))
    with warehouse.write() as con:
        con.execute(MODELS.format(schema="models"))
        con.execute("insert into heap_segments values (7, 'Loyal', 0, -1)")
        con.execute("insert into segment_members values (7, 'ann'), (7, 'cyd')")
    return warehouse


@pytest.fixture(scope="module")
def there(warehouse: Warehouse, postgres: str, folder: Path) -> Iterator[Elsewhere]:
    """Yield a PostgreSQL with the same events and models as the hub's own file."""
    settings = postgres_warehouse(empty_database(postgres), "test")
    with settings.connect(surroundings(folder)) as connection:
        schemas = settings.schemas()
        publish(warehouse, connection, schemas.hub, "postgres")
        connection.run(MODELS.format(schema=schemas.models).split(";"))
        yield Elsewhere(connection, schemas, "postgres")


def computed(made: Audience, warehouse: Warehouse, day: date, now: datetime, there: Elsewhere | None) -> list[str]:
    made.compute(warehouse, day, now, there)
    return kept(warehouse, day, made.slug)


@pytest.mark.parametrize(
    ("definition", "members"),
    [
        ({"events": [{"type": "Purchase", "within_days": 7}]}, ["ann", "bob"]),
        ({"events": [{"type": "Purchase", "properties": {"amount": {"gt": 4}, "page.path": "/a"}}]}, ["ann"]),
        ({"events": [{"type": "Purchase", "properties": {"coupon": "SPRING's"}}]}, ["bob"]),
        ({"events": [{"type": "Add to Cart", "properties": {"gift": True, "cart_value": 120.5}}]}, ["cyd"]),
        ({"exclude_events": [{"type": "Purchase"}]}, ["cyd", "eve"]),
        ({"user_properties": {"plan": "pro", "team": {"exists": True}}}, ["ann"]),
        ({"user_properties": {"team": {"exists": False}}}, ["bob", "cyd", "eve"]),
        ({"models": {"stage": "loyal", "score": {"gt": 80}, "paying": True, "since": {"lt": "2026-03-02"}}}, ["ann"]),
        ({"segments": ["Loyal"], "exclude_events": [{"type": "Purchase"}]}, ["cyd"]),
        ({"segments": ["Buyers"], "exclude_segments": ["Loyal"]}, ["bob"]),
        ({"segments": ["In the model"], "none": [{"models": {"stage": "new"}}]}, ["ann"]),
    ],
)
def test_the_members_are_the_same(
    tmp_path: Path, warehouse: Warehouse, there: Elsewhere, definition: Any, members: list[str]
) -> None:
    buyers = audience(tmp_path, {"events": [{"type": "Purchase", "within_days": 7}]})
    segments = [
        SegmentSync.model_validate({"name": "Buyers", "from": str(buyers.file), "sync_to": ["x"]}),
        SegmentSync.model_validate(
            {"name": "In the model", "from": {"table": "models.lifecycle", "identity": "person"}, "sync_to": ["x"]}
        ),
    ]
    buyers.compute(warehouse, DAY, NOW, there)
    made = audience(tmp_path, definition, *segments, name="Made", **SETTINGS)
    assert computed(made, warehouse, DAY, NOW, there) == members
    assert computed(made, warehouse, DAY, NOW, None) == members
    assert [name for name in there.connection.tables(there.schemas.hub) if "asked" in name] == []


def test_a_backfilled_day_knows_the_users_as_they_were(tmp_path: Path, warehouse: Warehouse, there: Elsewhere) -> None:
    free = audience(tmp_path, {"user_properties": {"plan": "free"}}, name="Free")
    late = NOW + timedelta(days=3)
    for day, members in ((DAY - timedelta(days=3), ["ann"]), (DAY - timedelta(days=1), []), (DAY, [])):
        assert computed(free, warehouse, day, late, there) == members


def test_a_preview_counts_against_the_last_result_and_writes_nothing(
    tmp_path: Path, warehouse: Warehouse, there: Elsewhere
) -> None:
    shoppers = audience(tmp_path, {"events": [{"type": "Purchase"}]}, name="Shoppers")
    shoppers.compute(warehouse, DAY - timedelta(days=2), NOW, there)
    shown = shoppers.preview(warehouse, DAY, NOW, there)
    assert (shown.run.members, shown.run.entered, shown.run.left, shown.sample) == (2, 1, 0, ["ann", "bob"])
    assert kept(warehouse, DAY, "shoppers") == []


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"events": [{"type": "Purchases"}]}, "there is no event 'Purchases'; did you mean Purchase?"),
        (
            {"events": [{"type": "Purchase", "properties": {"cupon": "x"}}]},
            "no event 'Purchase' has a property 'cupon'; did you mean coupon?",
        ),
        ({"user_properties": {"plam": "free"}}, "no user has a property 'plam'; did you mean plan?"),
        ({"models": {"score": "high"}}, "score is a column of numbers: compare it with one"),
        ({"models": {"lost": 1}}, "table test_models.lifecycle has no column 'last'; it has person, stage"),
        ({"models": {"gone": 1}}, "table 'models.lifecycles' is not there; did you mean test_models.lifecycle?"),
    ],
)
def test_what_isnt_there_is_refused_with_the_nearest_names(
    tmp_path: Path, warehouse: Warehouse, there: Elsewhere, definition: Any, message: str
) -> None:
    models = {
        **SETTINGS["models"],
        "lost": ModelColumn(table="models.lifecycle", identity="person", column="last"),
        "gone": ModelColumn(table="models.lifecycles", identity="person", column="score"),
    }
    with pytest.raises(EnvironmentProblems) as caught:
        audience(tmp_path, definition, models=models).compute(warehouse, DAY, NOW, there)
    assert message in str(caught.value)


def test_tables_of_somebodys_own_are_asked_by_their_columns(
    tmp_path: Path, warehouse: Warehouse, there: Elsewhere
) -> None:
    there.connection.run(
        [
            'create schema "Shop"',
            'create table "Shop".orders (buyer bigint, what text, placed timestamptz, total numeric(9, 2), more jsonb)',
            """insert into "Shop".orders values (1, 'Order', '2026-03-09 12:00:00+01', 99.5, '{"gift": true}'),
               (2, 'Order', '2026-03-09 12:00:00+01', 12, '{"gift": true}')""",
            "create view \"Shop\".buyers as select 1::bigint as id, date '2026-01-05' as since",
        ]
    )
    settings: dict[str, Any] = {
        "events": EventsTable(table="Shop.Orders", identity="buyer", event="what", time="placed", properties="more"),
        "users": UsersTable(table='"Shop"."buyers"', identity="id"),
    }
    definition = {
        "events": [{"type": "Order", "properties": {"total": {"gt": 50}, "gift": True}, "within_days": 7}],
        "user_properties": {"since": {"gte": "2026-01-05"}},
    }
    made = audience(tmp_path, definition, **settings)
    assert computed(made, warehouse, DAY, NOW, there) == ["1"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("lifecycle", "test_models.lifecycle"),
        ("MODELS.Lifecycle", "test_models.lifecycle"),
        ('"test_models"."lifecycle"', "test_models.lifecycle"),
        ("hub_events", "test_hub.hub_events"),
        ("public.dup", "public.dup"),
    ],
)
def test_a_table_is_found_by_its_name_in_duckdb_and_by_its_own(there: Elsewhere, name: str, found: str) -> None:
    there.connection.run(["create table if not exists public.dup (id text)"])
    assert there.find(name).name == found


def test_names_that_stand_for_several_tables_or_none_are_refused(there: Elsewhere) -> None:
    there.connection.run(["create schema test_exports", "create table test_exports.lifecycle (id text)"])
    with pytest.raises(TableError, match=r"several tables: test_models\.lifecycle, test_exports\.lifecycle"):
        there.find("lifecycle")
    there.connection.run(["drop schema test_exports cascade"])
    with pytest.raises(TableError, match="table '_hub_parts' is not there"):
        there.find("_hub_parts")
    with pytest.raises(TableError, match="is no name of a table"):
        there.find("a.b.c")


def test_what_an_audience_is_computed_from_is_said_in_the_warehouses_own_sql(
    tmp_path: Path, warehouse: Warehouse, there: Elsewhere
) -> None:
    file = tmp_path / "plans.json"
    file.write_text(json.dumps({"name": "Plans", "definition": {"user_properties": {"plan": "pro"}}}))
    made = Audience.load(file, "plans", AudienceSettings())
    moment = datetime(2026, 3, 11, tzinfo=UTC)
    with elsewhere(there, warehouse) as place:
        sql = made.sql("postgres", moment, place)
    assert '"test_hub"."user_traits"' in sql
    assert "2026-03-11 00:00:00" in sql
