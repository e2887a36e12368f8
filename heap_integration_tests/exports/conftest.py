"""The warehouses between which tests export."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from heap_integration.warehouse.systems.duckdb import DuckDBSettings
from heap_integration.warehouse.systems.postgres import PostgresSettings
from heap_integration_tests.exports.models import Models
from heap_integration_tests.support.postgres import postgres, postgres_database

__all__ = ["postgres", "postgres_database"]


@pytest.fixture
def models(tmp_path: Path) -> Models:
    """Return models in a DuckDB file."""
    return Models(DuckDBSettings(url=f"duckdb:///{tmp_path}/warehouse.duckdb"), tmp_path)


@pytest.fixture
def server(postgres_database: str) -> PostgresSettings:
    """Return a database of a PostgreSQL server."""
    url = make_url(postgres_database)
    return PostgresSettings(
        type="postgres",
        host=str(url.query["host"]),
        database=str(url.database),
        user=str(url.username),
        schema_prefix="test",
    )
