from __future__ import annotations

import datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from heap_integration.warehouse.duck import WarehouseError
from heap_integration.warehouse.systems.system import LimitExceeded, Limits, QueryError, ServerSettings, Surroundings
from heap_integration_tests.warehouse.clouds.conftest import Open, rows

NOON = datetime.datetime(2026, 1, 2, 12, 30, 0, 123456)  # noqa: DTZ001
USERS = pa.table(
    {
        "user_id": pa.array([1, 2, 2**53], pa.int64()),
        "name": ["it's \\ ünïcode\n", "b", None],
        "time": pa.array([NOON, NOON, NOON], pa.timestamp("us")),
        "score": [1.5, None, -2.0],
        "paid": [True, False, None],
        "day": pa.array([NOON.date(), None, NOON.date()], pa.date32()),
        "price": pa.array([Decimal("1.25"), None, Decimal("-3.00")], pa.decimal128(10, 2)),
        "tags": pa.array([["a", "b"], [], None], pa.list_(pa.string())),
    }
)
SCHEMA = "shop_heap_connect"


@pytest.fixture
def users(open_warehouse: Open) -> Open:
    """Put a table of users into the warehouse."""
    with open_warehouse() as warehouse:
        assert warehouse.load(SCHEMA, "users", USERS.to_batches(), USERS.schema) == 3
    return open_warehouse


def test_what_is_loaded_comes_back(users: Open) -> None:
    with users() as warehouse:
        found = rows(warehouse.batches(f"select * from {SCHEMA}.users order by user_id"))
    expected = USERS.to_pylist()
    for row in (*found, *expected):
        row["price"] = None if row["price"] is None else float(row["price"])
        row["time"] = row["time"].replace(tzinfo=None)
    for row, tags in zip(expected, ('["a","b"]', "[]", None), strict=True):
        row["tags"] = tags
    assert found == expected


def test_a_load_replaces_the_table(users: Open) -> None:
    fewer = USERS.slice(0, 1).select(["user_id", "name"])
    with users() as warehouse:
        warehouse.load(SCHEMA, "users", fewer.to_batches(), fewer.schema)
        assert list(warehouse.columns(SCHEMA, "users")) == ["user_id", "name"]
        assert len(rows(warehouse.batches(f"select * from {SCHEMA}.users"))) == 1


def test_the_catalog_is_told_in_small_letters_and_in_order(users: Open) -> None:
    with users() as warehouse:
        assert "users" in warehouse.tables(SCHEMA)
        assert list(warehouse.columns(SCHEMA, "users")) == USERS.column_names
        assert warehouse.tables("no_such_schema") == []
        assert warehouse.columns(SCHEMA, "no_such_table") == {}


def test_a_result_without_rows_has_its_columns(users: Open) -> None:
    with users() as warehouse:
        empty = pa.Table.from_batches(warehouse.batches(f"select user_id, name from {SCHEMA}.users where 1 = 0"))
    assert empty.num_rows == 0
    assert empty.schema.field("user_id").type == pa.int64()
    assert empty.schema.field("name").type == pa.string()


def test_parameters_are_values_and_nothing_else(users: Open) -> None:
    nasty = "x' or '1'='1 \\"
    with users() as warehouse:
        assert rows(warehouse.batches(f"select user_id from {SCHEMA}.users where name = ?", [nasty])) == []
        (row,) = rows(warehouse.batches("select ? as text_given, ? as day_given", [nasty, NOON.date()]))
    assert row == {"text_given": nasty, "day_given": NOON.date()}


@pytest.mark.parametrize(
    "statement",
    [
        f"delete from {SCHEMA}.users",
        f"with one as (select 1 as n) insert into {SCHEMA}.users (user_id) select n from one",
        f"create table {SCHEMA}.mine as select 1 as n",
        f"select 1; delete from {SCHEMA}.users",
    ],
)
def test_only_queries_run_as_queries(users: Open, statement: str) -> None:
    with users() as warehouse:
        with pytest.raises(QueryError):
            rows(warehouse.batches(statement))
        assert len(rows(warehouse.batches(f"select * from {SCHEMA}.users"))) == 3


def test_a_query_that_returns_too_many_rows_is_stopped(users: Open) -> None:
    with users() as warehouse:
        with pytest.raises(LimitExceeded, match="more than 2 rows"):
            rows(warehouse.batches(f"select * from {SCHEMA}.users", limits=Limits(rows=2)))
        assert len(rows(warehouse.batches(f"select * from {SCHEMA}.users", limits=Limits(rows=3)))) == 3


def test_a_mistake_is_told_in_the_warehouses_words(users: Open) -> None:
    with users() as warehouse, pytest.raises(QueryError, match=r"(?i)no_such_column"):
        rows(warehouse.batches(f"select no_such_column from {SCHEMA}.users"))


def test_changes_of_rows_take_effect_together_or_not_at_all(users: Open) -> None:
    with users() as warehouse:
        warehouse.run([f"create table if not exists {SCHEMA}.notes (dump_id int)"])
        with pytest.raises(QueryError):
            warehouse.run(
                [
                    f"insert into {SCHEMA}.notes (dump_id) values (1)",
                    f"delete from {SCHEMA}.users",
                    f"insert into {SCHEMA}.no_such_table (dump_id) values (1)",
                ]
            )
        count = f"select (select count(*) from {SCHEMA}.users) as users, (select count(*) from {SCHEMA}.notes) as notes"
        assert rows(warehouse.batches(count)) == [{"users": 3, "notes": 0}]

        warehouse.run(
            [
                f"insert into {SCHEMA}.notes (dump_id) values (1)",
                f"create table {SCHEMA}.staged as select 4 as user_id",
                f"delete from {SCHEMA}.users",
                f"insert into {SCHEMA}.users (user_id) select user_id from {SCHEMA}.staged",
                f"drop table {SCHEMA}.staged",
            ]
        )
        assert rows(warehouse.batches(count)) == [{"users": 1, "notes": 1}]
        assert "staged" not in warehouse.tables(SCHEMA)
        warehouse.run([f"drop table {SCHEMA}.notes"])


@pytest.mark.parametrize("system", ["snowflake", "redshift"])
def test_a_warehouse_out_of_reach_is_told(
    system: str, request: pytest.FixtureRequest, surroundings: Surroundings
) -> None:
    settings: ServerSettings = request.getfixturevalue(system)
    with pytest.raises(WarehouseError, match="can't be reached"):
        settings.model_copy(update={"port": 1}).connect(surroundings)
