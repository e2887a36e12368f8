"""Questions to Heap's data: what comes back, what is refused, and where it ends."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_integration.heap_connect.query import HeapConnect, by_http, ensure_read_only
from heap_integration.heap_connect.settings import HeapConnectSettings
from heap_integration.warehouse.systems.duckdb import DuckDBSettings
from heap_integration.warehouse.systems.statements import literal
from heap_integration.warehouse.systems.system import (
    Connection,
    Dialect,
    LimitExceeded,
    QueryError,
    WarehouseSettings,
)
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox
from heap_integration_tests.support.warehouses import surroundings

USERS = pa.table(
    {
        "user_id": pa.array([2**53 + 1, 7, None], pa.int64()),
        "email": ["ann@x.io", None, "bob@x.io"],
        "joindate": pa.array([datetime(2026, 1, 2, tzinfo=UTC), None, None], pa.timestamp("us", "UTC")),
    }
)
# each is one that the other systems' sessions couldn't be trusted to refuse
WRITING: list[tuple[Dialect, str]] = [
    ("duckdb", "copy (select 1) to 'x.csv'"),
    ("duckdb", "attach 'x.duckdb'"),
    ("postgres", "with gone as (delete from users returning 1) select * from gone"),
    ("postgres", "select * into copied from users"),
    ("postgres", "select * from users for update"),
    ("postgres", "do $$ begin perform 1; end $$"),
    ("redshift", "unload ('select 1') to 's3://bucket'"),
    ("bigquery", "create temp table x as select 1"),
    ("bigquery", "declare n int64; select n"),
    ("bigquery", "export data options (uri='gs://x/*', format='csv') as select 1"),
    ("snowflake", "select 1; drop table users"),
    ("snowflake", "call delete_all()"),
    ("tsql", "exec delete_all"),
    ("tsql", "with old as (select 1 as a) delete from old"),
    ("tsql", "merge into a using b on a.x = b.x when matched then delete;"),
]


@pytest.fixture
def heap(connection: Connection, warehouse: WarehouseSettings) -> HeapConnect:
    connection.load("main_production", "users", USERS.to_batches(), USERS.schema)
    return HeapConnect(connection, warehouse.dialect, HeapConnectSettings(query_rows=2, query_seconds=0.5))


def test_a_query_is_a_frame_whose_ids_are_exact(heap: HeapConnect) -> None:
    frame = heap.query("select * from main_production.users where user_id > ? order by user_id", [7])
    assert frame.columns.tolist() == ["user_id", "email", "joindate"]
    assert frame["user_id"].tolist() == [2**53 + 1]
    assert frame["user_id"].dtype == pd.Int64Dtype()
    assert frame["joindate"][0] == pd.Timestamp("2026-01-02", tz="UTC")


def test_a_column_is_of_the_same_type_whatever_is_in_it(heap: HeapConnect) -> None:
    some = heap.query("select * from main_production.users where user_id is null")
    none = heap.query("select * from main_production.users where user_id = 0")
    assert len(none) == 0
    assert some.dtypes.tolist() == none.dtypes.tolist()
    assert some["user_id"].isna().all()


def test_rows_come_as_arrow_too(heap: HeapConnect) -> None:
    batches = list(heap.batches("select email from main_production.users where user_id = 7"))
    assert pa.Table.from_batches(batches).to_pylist() == [{"email": None}]


def test_limits_are_the_settings_unless_the_question_names_its_own(heap: HeapConnect) -> None:
    with pytest.raises(LimitExceeded, match="more than 2 rows"):
        heap.query("select * from main_production.users")
    assert len(heap.query("select * from main_production.users", rows=3)) == 3
    endless = "select count(*) from generate_series(1, 1000000) a, generate_series(1, 1000000) b"
    with pytest.raises(LimitExceeded, match=r"longer than 0\.5 seconds"):
        heap.query(endless)
    with pytest.raises(LimitExceeded, match=r"longer than 0\.1 seconds"):
        heap.query(endless, seconds=0.1)


def test_a_mistake_is_told_in_the_words_of_the_warehouse(heap: HeapConnect) -> None:
    with pytest.raises(QueryError, match="nowhere"):
        heap.query("select * from main_production.nowhere")


@pytest.mark.parametrize("source", ["read_text('{}')", "'{}'", "glob('{}')", "read_csv('http://127.0.0.1:9/x.csv')"])
def test_a_question_to_duckdb_reads_no_file(tmp_path: Path, source: str) -> None:
    file = tmp_path / "secrets.csv"
    file.write_text("password\ns3same\n")
    warehouse = DuckDBSettings(url=f"duckdb:///{tmp_path}/hub.duckdb")
    with HeapConnect(warehouse.connect(surroundings(tmp_path)), "duckdb") as heap, pytest.raises(QueryError) as told:
        heap.query(f"select * from {source.format(file)}")
    assert "operations are disabled" in str(told.value) or "does not exist" in str(told.value)


@pytest.mark.parametrize(("dialect", "sql"), WRITING)
def test_what_writes_is_refused_before_it_is_run(dialect: Dialect, sql: str) -> None:
    with pytest.raises(QueryError):
        ensure_read_only(sql, dialect)


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        ("duckdb", "from users select user_id"),
        ("postgres", "values (1), (2)"),
        ("postgres", "(select 1) union all select 2;"),
        ("postgres", "with recursive n as (select 1 as i union all select i + 1 from n where i < 9) select * from n"),
        ("bigquery", "select * except (email) from `project.main_production.users` -- all of them"),
        ("snowflake", "select properties:plan::string from events qualify row_number() over (order by 1) = 1"),
        ("redshift", "select json_extract_path_text(properties, 'plan') from events limit 10"),
        ("tsql", "select top 10 [user_id] from [main_production].[users] order by 1"),
    ],
)
def test_queries_of_every_system_are_let_through(dialect: Dialect, sql: str) -> None:
    ensure_read_only(sql, dialect)


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
@pytest.mark.parametrize("dialect", ["duckdb", "postgres", "bigquery", "snowflake", "redshift", "tsql"])
def test_a_text_in_a_query_stays_one_text(dialect: Dialect, text: str) -> None:
    from sqlglot import exp, parse_one

    found = parse_one(f"select {literal(text, dialect)} as found", dialect=dialect).find(exp.Literal, exp.National)
    assert found is not None
    assert found.this == text


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    with running_sandbox(tmp_path / "sandbox") as running:
        identity = {"app_id": running.app_id, "identity": "ann@x.io"}
        answer = httpx.post(f"{running.url}/api/track", json={**identity, "event": "Signed up", "properties": {"n": 7}})
        assert answer.is_success
        yield running


def by_http_at(url: str, key: str, **more: int) -> HeapConnect:
    settings = HeapConnectSettings.model_validate({"api": {"url": url, "key": {"env": "HEAP_KEY"}}, **more})
    return by_http(settings, "duckdb", {"HEAP_KEY": key})


def test_the_same_question_can_be_asked_by_http(sandbox: RunningSandbox) -> None:
    key = sandbox.environment.heap_api_key.get_secret_value()
    with by_http_at(sandbox.url, key) as heap:
        frame = heap.query(
            "select identity, cast(1.5 as double) as half, true as yes from users where identity = ?", ["ann@x.io"]
        )
        assert frame["identity"].tolist() == ["ann@x.io"]
        assert frame["half"].tolist() == [1.5]
        assert frame["yes"].tolist() == [True]
        assert heap.query("select user_id from users where false").empty
        with pytest.raises(QueryError, match="nowhere"):
            heap.query("select * from nowhere")
        with pytest.raises(LimitExceeded, match="more than 4 rows"):
            heap.query("select * from range(5)", rows=4)


def test_a_wrong_key_is_told_without_showing_it(sandbox: RunningSandbox) -> None:
    with by_http_at(sandbox.url, "wr0ng-key") as heap, pytest.raises(QueryError, match="401") as told:
        heap.query("select 1")
    assert "wr0ng-key" not in str(told.value)


def test_without_its_setting_there_is_no_http() -> None:
    with pytest.raises(ValueError, match=r"no heap_connect\.api"):
        by_http(HeapConnectSettings(), "duckdb", {})
