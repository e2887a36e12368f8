"""Heap's tables in a warehouse are found with their columns, their events' names and their age."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from heap_integration.heap_connect.event_tables import event_names, event_tables, table_name
from heap_integration.heap_connect.settings import TablesSettings
from heap_integration.heap_connect.tables_in_place import TableFreshness, TablesInPlace, TablesMissing, tables_in
from heap_integration.warehouse.systems.system import Connection, WarehouseSettings

SCHEMA = "main_production"
NOW = datetime(2026, 1, 3, 12, tzinfo=UTC)
YESTERDAY, LONG_AGO = NOW - timedelta(hours=20), NOW - timedelta(days=9)
EVENT = ("event_id", "user_id", "session_id", "time")


class Heap:
    """Heap, which writes its tables into a warehouse."""

    def __init__(self, connection: Connection, dialect: Any) -> None:
        self.connection = connection
        self.dialect = dialect

    def table(self, name: str, *columns: str, **values: Any) -> None:
        """Write a table of one row, or of none without values."""
        fields = [(column, pa.string()) for column in columns if column not in values]
        fields += [
            (column, pa.timestamp("us", "UTC") if isinstance(value, datetime) else pa.string())
            for column, value in values.items()
        ]
        rows = pa.Table.from_pylist([values] if values else [], schema=pa.schema(fields))
        self.connection.load(SCHEMA, name, rows.to_batches(), rows.schema)

    def synced(self, **tables: datetime) -> None:
        """Write Heap's own table of its syncs: several of each table, the last of which went as far as is told."""
        rows = [
            {"event_table_name": name, "sync_ended": until + timedelta(hours=1), "synced_to_time": until - ago}
            for name, until in tables.items()
            for ago in (timedelta(days=1), timedelta(0))
        ]
        table = pa.Table.from_pylist(rows)
        self.connection.load(SCHEMA, "_sync_info", table.to_batches(), table.schema)

    def found(self, **settings: Any) -> TablesInPlace:
        """Look where the settings say."""
        given = TablesSettings.model_validate({"schema": SCHEMA, **settings})
        return TablesInPlace(given, self.connection, self.dialect)


@pytest.fixture
def heap(connection: Connection, warehouse: WarehouseSettings) -> Heap:
    """Return a Heap that has written what it writes for everybody, and the table of an event."""
    heap = Heap(connection, warehouse.dialect)
    heap.table("users", "user_id", "identity", "email")
    heap.table("sessions", *EVENT, "referrer", time=LONG_AGO)
    heap.table("pageviews", *EVENT, "path")
    heap.table("sign_up_click_link", *EVENT, "plan")
    return heap


def test_the_tables_of_the_schema_are_told_with_their_columns_in_order(heap: Heap) -> None:
    heap.connection.run(["create schema another", "create table another.users (user_id int, wrong int)"])
    assert heap.found().tables() == {
        "pageviews": (*EVENT, "path"),
        "sessions": ("event_id", "user_id", "session_id", "referrer", "time"),
        "sign_up_click_link": (*EVENT, "plan"),
        "users": ("user_id", "identity", "email"),
    }
    assert set(heap.found(schema=SCHEMA.upper()).tables()) == set(heap.found().tables())


def test_the_tables_of_events_have_the_names_that_are_known(heap: Heap) -> None:
    heap.table("order_completed", *EVENT)
    heap.table("signed_in", *EVENT)
    heap.table("a_segment", "user_id")
    names = event_names(["Sign Up - Click Link", "sign up click link"], {"order_completed": "Bought"})
    assert event_tables(heap.found().tables(), names) == {
        "sign_up_click_link": "Sign Up - Click Link",
        "order_completed": "Bought",
        "signed_in": "signed_in",
    }


def test_how_far_each_table_goes_is_what_heaps_own_table_says(heap: Heap) -> None:
    heap.synced(users=YESTERDAY, sessions=LONG_AGO, sign_up_click_link=LONG_AGO)
    found = heap.found()
    assert found.freshness() == [
        TableFreshness("sessions", LONG_AGO, LONG_AGO + timedelta(hours=1)),
        TableFreshness("sign_up_click_link", LONG_AGO, LONG_AGO + timedelta(hours=1)),
        TableFreshness("users", YESTERDAY, YESTERDAY + timedelta(hours=1)),
    ]
    assert [each.table for each in found.stale(NOW)] == ["sessions"]
    assert [each.table for each in heap.found(stale_after_hours=19).stale(NOW)] == ["sessions", "users"]
    assert heap.found(stale_after_hours=240).stale(NOW) == []


@pytest.mark.parametrize("sync_info", [None, "_sync_info"])
def test_without_heaps_own_table_the_newest_session_says_it(heap: Heap, sync_info: str | None) -> None:
    assert heap.found(sync_info=sync_info).freshness() == [TableFreshness("sessions", LONG_AGO, None)]
    heap.table("sessions", *EVENT)
    assert heap.found(sync_info=sync_info).stale(NOW) == []


def test_a_schema_without_heaps_tables_is_told_by_name_and_content(heap: Heap) -> None:
    heap.connection.run([f"drop table {SCHEMA}.users", f"drop table {SCHEMA}.pageviews"])
    with pytest.raises(TablesMissing, match=f"users, pageviews are missing in {SCHEMA}: it has sessions, sign_up"):
        heap.found().freshness()
    with pytest.raises(TablesMissing, match="missing in elsewhere: it has nothing that this user may see"):
        heap.found(schema="elsewhere").tables()


class Recorded:
    """A warehouse that can't run here: it keeps what it is asked and answers as told."""

    def __init__(self, *answers: list[dict[str, Any]]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, tuple[Any, ...]]] = []

    def batches(self, sql: str, params: tuple[Any, ...] = ()) -> list[pa.RecordBatch]:
        """Return the next answer."""
        self.asked.append((sql, params))
        return pa.Table.from_pylist(self.answers.pop(0)).to_batches()

    def tables(self, schema: str) -> list[str]:
        """Return that something is there."""
        return [schema]


@pytest.mark.parametrize(
    ("dialect", "database", "asked", "params"),
    [
        ("bigquery", "my-project", "from `my-project`.main_production.INFORMATION_SCHEMA.COLUMNS", ()),
        ("bigquery", None, "from main_production.INFORMATION_SCHEMA.COLUMNS", ()),
        ("snowflake", "HEAP", "from HEAP.information_schema.columns where lower(table_schema) = lower(?)", (SCHEMA,)),
        ("redshift", "heap", "from svv_all_columns where database_name = ? and schema_name = ?", ("heap", SCHEMA)),
        ("redshift", None, "from information_schema.columns where lower(table_schema) = lower(?)", (SCHEMA,)),
    ],
)
def test_each_warehouse_is_asked_where_it_keeps_the_columns(
    dialect: Any, database: str | None, asked: str, params: tuple[str, ...]
) -> None:
    names = (
        ["USERS", "SESSIONS", "PAGEVIEWS", "Mixed"] if dialect == "snowflake" else ["users", "sessions", "pageviews"]
    )
    warehouse = Recorded([{"table_name": name, "column_name": "USER_ID"} for name in names])
    found = tables_in(warehouse, dialect, SCHEMA, database)  # type: ignore[arg-type]
    assert set(found) == {name.lower() if name.isupper() else name for name in names}
    ((sql, given),) = warehouse.asked
    assert asked in sql
    assert given == params


def test_views_of_bigquery_stand_for_the_tables_under_them() -> None:
    tables = dict.fromkeys(["bought", "bought_raw", "raw", "all_events", "_x"], EVENT)
    assert event_tables(tables, {}) == {"bought": "bought", "raw": "raw"}


def test_an_event_is_called_after_its_table_as_heap_makes_the_name() -> None:
    assert table_name("Sign Up - Click Link") == "sign_up_click_link"
    assert table_name("  Größe (2)!") == "gr_e_2"
