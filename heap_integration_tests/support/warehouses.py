"""Connections to warehouses that run here: a DuckDB file, a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.systems.duckdb import DuckDBSettings
from heap_integration.warehouse.systems.postgres import PostgresSettings
from heap_integration.warehouse.systems.system import Connection, Surroundings, WarehouseSettings


def postgres_warehouse(url: str, prefix: str = "") -> PostgresSettings:
    """Return the settings of a database of a throw-away server, by its URL."""
    address = make_url(url)
    given = {"host": address.query["host"], "database": address.database, "user": address.username}
    return PostgresSettings.model_validate({"type": "postgres", "schema_prefix": prefix, **given})


def surroundings(folder: Path, variables: dict[str, str] | None = None) -> Surroundings:
    """Return the surroundings of an environment whose own tables lie in a folder."""
    return Surroundings("test", Warehouse(f"duckdb:///{folder}/hub.duckdb"), variables or {})


@pytest.fixture(params=["duckdb", "postgres"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> WarehouseSettings:
    """Return the settings of an empty warehouse: of each system that runs here, one after the other."""
    if request.param == "duckdb":
        return DuckDBSettings(url=f"duckdb:///{tmp_path}/hub.duckdb")
    return postgres_warehouse(request.getfixturevalue("postgres_database"))


@pytest.fixture
def connection(warehouse: WarehouseSettings, tmp_path: Path) -> Iterator[Connection]:
    """Yield an open connection to an empty warehouse."""
    with warehouse.connect(surroundings(tmp_path)) as connection:
        yield connection


def rows(connection: Connection, sql: str, *params: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    return [tuple(row.values()) for batch in connection.batches(sql, params) for row in batch.to_pylist()]
