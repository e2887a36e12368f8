from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from heap_integration.warehouse.systems.duckdb import DuckDBSettings
from heap_integration.warehouse.systems.system import Connection, WarehouseSettings
from heap_integration_tests.heap_connect.importing import Importing
from heap_integration_tests.support.postgres import postgres, postgres_database
from heap_integration_tests.support.s3 import heap_bucket, s3_server
from heap_integration_tests.support.warehouses import connection, surroundings, warehouse

__all__ = ["connection", "heap_bucket", "postgres", "postgres_database", "s3_server", "warehouse"]


@pytest.fixture
def importing(tmp_path: Path, warehouse: WarehouseSettings, connection: Connection) -> Iterator[Importing]:
    """Yield an empty bucket and an empty warehouse, of each system that runs here."""
    importing = Importing(tmp_path, warehouse, connection)
    yield importing
    importing.store.close()


@pytest.fixture
def in_duckdb(tmp_path: Path) -> Iterator[Importing]:
    """Yield an empty bucket and an empty DuckDB file, for what no system has a part in."""
    warehouse = DuckDBSettings(url=f"duckdb:///{tmp_path}/hub.duckdb")
    with warehouse.connect(surroundings(tmp_path)) as connection:
        importing = Importing(tmp_path, warehouse, connection)
        yield importing
        importing.store.close()
