"""Which warehouse the YAML names, and that the documentation tells every setting of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from heap_integration.warehouse.systems.bigquery import BigQuerySettings
from heap_integration.warehouse.systems.choice import SYSTEMS, WarehouseChoice
from heap_integration.warehouse.systems.duckdb import DuckDBSettings
from heap_integration.warehouse.systems.postgres import PostgresSettings
from heap_integration.warehouse.systems.redshift import RedshiftSettings
from heap_integration.warehouse.systems.snowflake import SnowflakeSettings
from heap_integration.warehouse.systems.synapse import SynapseSettings
from heap_integration.warehouse.systems.system import ServerSettings

CHOICE: TypeAdapter[Any] = TypeAdapter(WarehouseChoice)
SERVERS: dict[str, type[ServerSettings]] = {
    "postgres": PostgresSettings,
    "bigquery": BigQuerySettings,
    "snowflake": SnowflakeSettings,
    "redshift": RedshiftSettings,
    "synapse": SynapseSettings,
}
PAGE = Path(__file__).parents[3] / "docs" / "warehouses.md"


def test_an_address_is_a_duckdb_file() -> None:
    url = "duckdb:///data/test.duckdb"
    assert (
        CHOICE.validate_python(url) == CHOICE.validate_python({"type": "duckdb", "url": url}) == DuckDBSettings(url=url)
    )


@pytest.mark.parametrize("given", ["data/test.duckdb", "duckdb:///", "postgresql://db/x", {"type": "oracle"}, {}, 7])
def test_anything_else_is_refused_with_what_is_allowed(given: object) -> None:
    with pytest.raises(ValidationError) as told:
        CHOICE.validate_python(given)
    assert told.value.error_count() == 1


def test_the_name_of_the_environment_begins_the_schemas() -> None:
    given = {"type": "postgres", "host": "db", "database": "d", "user": "u"}
    named = CHOICE.validate_python(given).named("production")
    assert named.schemas().heap_connect == "production_heap_connect"
    assert CHOICE.validate_python({**given, "schema_prefix": ""}).named("production").schemas().models == "models"


def test_the_documentation_has_every_setting_with_its_default() -> None:
    told = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 4 and cells[0].startswith("`"):
            systems = SYSTEMS if cells[1] == "all" else [name.strip(" `") for name in cells[1].split(",")]
            told |= {(system, cells[0].strip("`")): cells[2] for system in systems}
    known = {
        (system, name): "required" if field.is_required() else "–" if field.default is None else f"`{field.default}`"
        for system, settings in SERVERS.items()
        for name, field in settings.model_fields.items()
    }
    assert told == known
