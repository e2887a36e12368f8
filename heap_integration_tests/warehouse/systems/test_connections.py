"""What a connection promises, on every warehouse that runs here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from heap_integration.warehouse.systems.duckdb import DuckDBSettings
from heap_integration.warehouse.systems.system import Connection, LimitExceeded, Limits, QueryError, WarehouseSettings
from heap_integration_tests.support.warehouses import rows, surroundings

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901)  # noqa: DTZ001
USERS = pa.table(
    {
        "user id": pa.array([1, 2, None], pa.int64()),
        "name": ["Ann", "O'Brien \\", None],
        "joined": pa.array([MOMENT, None, None], pa.timestamp("us")),
        "day": pa.array([date(2026, 1, 2), None, None]),
        "score": pa.array([1.5, None, None]),
        "paying": pa.array([True, False, None]),
        "tags": pa.array([["a", "b"], [], None], pa.list_(pa.string())),
        "nothing": pa.nulls(3),
    }
)
VALUES = ("O'Brien \\", "?", "; drop table x --", "", 7, -7, 1.5, Decimal("1.50"), True, None, date(2026, 1, 2), MOMENT)
NO_QUERIES = (
    "create table raw.more (a int)",
    "create temporary table more (a int)",
    'insert into raw."Users" ("name") values (\'x\')',
    'delete from raw."Users" returning 1',
    'with gone as (delete from raw."Users" returning 1) select * from gone',
    'drop table raw."Users"',
    "select 1; select 2",
    'select 1; drop table raw."Users"',
    'select 1) to stdout; drop table raw."Users" --',
    "copy (select 1) to '/tmp/stolen.csv'",
    "set search_path = 'raw'",
    "do $$ begin perform 1; end $$",
    "explain analyze select 1",
    "",
    "-- nothing",
    "select 'unfinished",
)
NUMBERS = "select * from generate_series(1, {}) as numbers(n)"


def load(connection: Connection, table: pa.Table = USERS) -> int:
    return connection.load("raw", "Users", table.to_batches(), table.schema)


def test_what_is_loaded_can_be_asked_for(connection: Connection) -> None:
    assert load(connection) == 3
    found = pa.Table.from_batches(list(connection.batches('select * from raw."Users" order by "user id"')))
    kept = [name for name in USERS.column_names if name not in ("tags", "nothing")]
    assert found.select(kept).to_pylist() == USERS.select(kept).to_pylist()
    assert found["nothing"].to_pylist() == [None] * 3


def test_a_table_takes_the_place_of_the_one_of_its_name(connection: Connection) -> None:
    load(connection)
    assert load(connection, pa.table({"other": ["x"]})) == 1
    assert connection.columns("raw", "Users").keys() == {"other"}


def test_a_table_without_rows_still_has_its_columns(connection: Connection) -> None:
    assert connection.load("raw", "Users", [], USERS.schema) == 0
    (batch, *_) = connection.batches('select * from raw."Users"')
    assert batch.num_rows == 0
    assert batch.schema.names == USERS.column_names


def test_what_goes_wrong_in_the_rows_to_come_is_raised_as_it_is(connection: Connection) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield USERS.to_batches()[0]
        raise FileNotFoundError("part-00001.avro")

    with pytest.raises(FileNotFoundError, match=r"part-00001\.avro"):
        connection.load("raw", "Users", broken(), USERS.schema)
    load(connection)
    assert rows(connection, 'select count(*) from raw."Users"') == [(3,)]


def test_tables_and_views_are_listed_with_their_columns(connection: Connection) -> None:
    load(connection)
    connection.run(['create view raw.names as select "name", "user id" from raw."Users"'])
    assert connection.tables("raw") == ["Users", "names"]
    assert connection.tables("elsewhere") == []
    assert [*connection.columns("raw", "names")] == ["name", "user id"]
    assert connection.columns("raw", "Users")["user id"].lower() == "bigint"
    assert connection.columns("raw", "users") == {}


def test_statements_take_effect_together_or_not_at_all(connection: Connection) -> None:
    connection.run(["create table notes (dump bigint)", "insert into notes values (1)"])
    with pytest.raises(QueryError, match="nowhere"):
        connection.run(["insert into notes values (2)", "drop table nowhere"])
    assert rows(connection, "select dump from notes") == [(1,)]


def test_parameters_arrive_as_they_are(connection: Connection) -> None:
    for value in VALUES:
        ((found, question),) = rows(connection, "select ? as found, '?' as question -- really?", value)
        assert question == "?"
        assert found == value or str(found) == str(value), value


def test_the_number_of_parameters_must_be_right(connection: Connection) -> None:
    with pytest.raises(QueryError, match=r"\?|parameter"):
        rows(connection, "select ?, ?", 1)


def test_nothing_but_one_query_is_run(connection: Connection) -> None:
    load(connection)
    for sql in NO_QUERIES:
        with pytest.raises(QueryError):
            list(connection.batches(sql))
        assert connection.tables("raw") == ["Users"], sql
    assert rows(connection, 'select count(*) from raw."Users"') == [(3,)]


def test_a_query_may_end_as_people_end_it(connection: Connection) -> None:
    for ending in (";", " ; ", " -- all of them", "; -- all of them\n"):
        assert rows(connection, f"select 1{ending}") == [(1,)]


def test_as_many_rows_as_allowed_come_and_one_more_is_too_many(connection: Connection) -> None:
    limits = Limits(rows=20_000)
    batches = connection.batches(NUMBERS.format(20_000), limits=limits)
    assert sum(batch.num_rows for batch in batches) == 20_000
    with pytest.raises(LimitExceeded, match="more than 20,000 rows"):
        list(connection.batches(NUMBERS.format(20_001), limits=limits))


def test_a_query_that_takes_too_long_is_stopped(connection: Connection) -> None:
    endless = "select count(*) from generate_series(1, 1000000) a, generate_series(1, 1000000) b"
    begin = time.monotonic()
    with pytest.raises(LimitExceeded, match=r"longer than 0\.3 seconds"):
        list(connection.batches(endless, limits=Limits(seconds=0.3)))
    assert time.monotonic() - begin < 5
    connection.run(["create table afterwards (a int)"])


def test_whoever_stops_reading_leaves_nothing_at_work(connection: Connection) -> None:
    begin = time.monotonic()
    batches = connection.batches("select a.*, b.* from generate_series(1, 20000) a, generate_series(1, 20000) b")
    next(batches), next(batches)
    batches.close()  # type: ignore[attr-defined]
    connection.run(["create table afterwards (a int)"])
    assert time.monotonic() - begin < 5


def test_rows_to_come_may_be_read_from_elsewhere_meanwhile(connection: Connection, tmp_path: Path) -> None:
    load(connection)
    other = DuckDBSettings(url=f"duckdb:///{tmp_path}/other.duckdb")
    with other.connect(surroundings(tmp_path)) as target:
        batches = connection.batches('select "name" from raw."Users"')
        assert target.load("copies", "users", batches, pa.schema([("name", pa.string())])) == 3


def test_a_duckdb_file_is_not_waited_for_by_itself(tmp_path: Path) -> None:
    with DuckDBSettings(url=f"duckdb:///{tmp_path}/hub.duckdb").connect(surroundings(tmp_path)) as connection:
        load(connection)
        batches = connection.batches('select * from raw."Users"')
        with pytest.raises(RuntimeError, match="write first"):
            connection.load("raw", "copy", batches, USERS.schema)
        batches = connection.batches('select * from raw."Users"')
        next(batches)
        with pytest.raises(RuntimeError, match="take all rows first"):
            connection.run(["create table x (a int)"])


def test_times_are_in_utc(connection: Connection) -> None:
    sql = "select cast('2026-01-02 03:04:05+00' as timestamptz) as moment"
    ((moment,),) = rows(connection, sql)
    assert moment == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    ((text,),) = rows(connection, f"select cast(moment as varchar) from ({sql}) as one")
    assert text == "2026-01-02 03:04:05+00"


def test_dbt_finds_the_models_where_the_settings_say(warehouse: WarehouseSettings, tmp_path: Path) -> None:
    output = warehouse.dbt_output(surroundings(tmp_path))
    assert output["type"] == warehouse.dialect
    assert output["schema"] == warehouse.schemas().models
