"""What is PostgreSQL's own: how it is reached, and what becomes of its types."""

from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from heap_integration.settings import MissingSecret
from heap_integration.warehouse import WarehouseError
from heap_integration.warehouse.systems.postgres import PostgresSettings
from heap_integration.warehouse.systems.system import Connection, LimitExceeded, Limits, QueryError
from heap_integration_tests.support.warehouses import postgres_warehouse, rows, surroundings

PASSWORD = r"5ecret' \pass word"
NOWHERE = PostgresSettings.model_validate(
    {
        "type": "postgres",
        "host": "127.0.0.1",
        "port": 9,
        "database": "d",
        "user": "u",
        "password": {"env": "PG_PASSWORD"},
    }
)


@pytest.fixture
def settings(postgres_database: str) -> PostgresSettings:
    return postgres_warehouse(postgres_database)


@pytest.fixture
def connection(settings: PostgresSettings, tmp_path: Path) -> Iterator[Connection]:
    with settings.connect(surroundings(tmp_path)) as connection:
        yield connection


def test_a_server_that_is_not_there_is_told_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match=r"PostgreSQL at 127\.0\.0\.1 can't be reached") as told:
        NOWHERE.connect(surroundings(tmp_path, {"PG_PASSWORD": PASSWORD}))
    assert "5ecret" not in str(told.value)


def test_a_password_that_is_not_set_is_told_by_its_variable(tmp_path: Path) -> None:
    with pytest.raises(MissingSecret, match="PG_PASSWORD"):
        NOWHERE.connect(surroundings(tmp_path))


def test_a_password_goes_to_the_server_as_it_is(settings: PostgresSettings, tmp_path: Path) -> None:
    given = settings.model_copy(update={"password": NOWHERE.password, "database": "no 'such\\ database"})
    # the server trusts everybody who comes by its socket: what is told is that the address could be read
    with pytest.raises(WarehouseError, match=r"database \"no 'such\\ database\" does not exist"):
        given.connect(surroundings(tmp_path, {"PG_PASSWORD": PASSWORD}))


def test_dbt_is_told_where_the_password_is_and_not_what_it_is(tmp_path: Path) -> None:
    output = NOWHERE.dbt_output(surroundings(tmp_path, {"PG_PASSWORD": PASSWORD}))
    assert output["password"] == "{{ env_var('PG_PASSWORD') }}"


def test_decimals_are_exact_where_their_places_are_declared(connection: Connection) -> None:
    ((price, share, nothing),) = rows(
        connection, "select 12.30::numeric(18, 2) as a, 1::numeric / 3 as b, null::numeric(5, 1) as c"
    )
    assert price == Decimal("12.30")
    assert share == pytest.approx(1 / 3)
    assert nothing is None


def test_json_and_uuids_come_as_text(connection: Connection) -> None:
    uuid = "8f14e45f-ceea-467f-a8d5-2b1f3c4d5e6f"
    found = rows(connection, f"""select '{{"a": 1}}'::jsonb, '{uuid}'::uuid, array['x']""")
    assert found == [('{"a": 1}', uuid, ["x"])]


def test_a_type_that_has_no_form_in_arrow_is_told_with_its_column(connection: Connection) -> None:
    with pytest.raises(QueryError, match="column address is of the type inet: cast it to text"):
        rows(connection, "select '10.0.0.1'::inet as address")
    assert rows(connection, "select host('10.0.0.1'::inet) as address") == [("10.0.0.1",)]


def at_work(connection: Connection) -> int:
    ((found,),) = rows(
        connection,
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and state = 'active' and pid <> pg_backend_pid()",
    )
    return int(found)


@pytest.mark.parametrize("limits", [Limits(rows=1_000), Limits(seconds=0.3)], ids=["rows", "seconds"])
def test_the_server_stops_what_went_beyond_a_limit(connection: Connection, limits: Limits) -> None:
    endless = "select a.*, b.* from generate_series(1, 100000) a, generate_series(1, 100000) b where random() < 0.01"
    with pytest.raises(LimitExceeded):
        list(connection.batches(endless, limits=limits))
    begin = time.monotonic()
    while at_work(connection) and time.monotonic() - begin < 10:
        time.sleep(0.05)
    assert at_work(connection) == 0


def test_names_that_are_too_long_for_the_server_still_name_their_table(connection: Connection) -> None:
    name = "clicked_" * 10
    assert connection.load("raw", name, [], pa.schema([("a", pa.int64())])) == 0
    assert connection.columns("raw", name) == {"a": "bigint"}


def test_a_query_among_statements_does_no_harm(connection: Connection) -> None:
    connection.run(["select generate_series(1, 100000)", "create table notes (a int)"])
    assert connection.columns("public", "notes") == {"a": "integer"}


def test_a_query_can_not_make_its_session_writable(connection: Connection) -> None:
    connection.run(["create table notes (a int)", "create sequence numbers"])
    writing = "create function write_it() returns int language sql as 'insert into notes values (1) returning a'"
    connection.run([writing])
    for sql in (
        "select write_it()",
        "select set_config('transaction_read_only', 'off', false), write_it()",
        "select nextval('numbers')",
    ):
        with pytest.raises(QueryError, match=r"read-only|read-write"):
            rows(connection, sql)
    assert rows(connection, "select count(*) from notes") == [(0,)]
