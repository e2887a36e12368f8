"""Heap's tables are found where Heap writes them: in the warehouses of clouds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from heap_integration.heap_connect.settings import TablesSettings
from heap_integration.heap_connect.tables_in_place import TableFreshness, TablesInPlace, TablesMissing, tables_in
from heap_integration.warehouse.systems.system import Connection, ServerSettings, Surroundings

SCHEMA = "main_production"
SYNCED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EVENT = ("event_id", "user_id", "time")


def load(warehouse: Connection, name: str, rows: list[dict[str, object]]) -> None:
    """Write a table as Heap would."""
    table = pa.Table.from_pylist(rows)
    warehouse.load(SCHEMA, name, table.to_batches(), table.schema)


@pytest.mark.parametrize("system", ["bigquery", "snowflake", "redshift"])
def test_the_tables_that_heap_writes_are_found_with_their_age(
    system: str, surroundings: Surroundings, request: pytest.FixtureRequest
) -> None:
    settings: ServerSettings = request.getfixturevalue(system)
    given = TablesSettings.model_validate({"schema": SCHEMA})
    with settings.connect(surroundings) as warehouse:
        place = TablesInPlace(given, warehouse, settings.dialect)
        assert tables_in(warehouse, settings.dialect, SCHEMA) == {}
        with pytest.raises(TablesMissing, match="users, sessions, pageviews are missing"):
            place.tables()

        load(warehouse, "users", [{"user_id": 1, "email": "ann@example.com"}])
        for name in ("sessions", "pageviews", "sign_up"):
            load(warehouse, name, [dict.fromkeys(EVENT[:-1], 1) | {"time": SYNCED}])
        assert place.tables() == {
            "users": ("user_id", "email"),
            "sessions": EVENT,
            "pageviews": EVENT,
            "sign_up": EVENT,
        }
        assert place.freshness() == [TableFreshness("sessions", SYNCED, None)]

        until = SYNCED + timedelta(hours=3)
        load(warehouse, "_sync_info", [{"event_table_name": "users", "synced_to_time": at} for at in (SYNCED, until)])
        assert place.freshness() == [TableFreshness("users", until, None)]
