"""Which warehouse: a DuckDB file by its address, or another system by its type."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Tag
from pydantic_core import PydanticCustomError

from heap_integration.warehouse.systems.bigquery import BigQuerySettings
from heap_integration.warehouse.systems.duckdb import DuckDBSettings
from heap_integration.warehouse.systems.postgres import PostgresSettings
from heap_integration.warehouse.systems.redshift import RedshiftSettings
from heap_integration.warehouse.systems.snowflake import SnowflakeSettings
from heap_integration.warehouse.systems.synapse import SynapseSettings

SYSTEMS = ("postgres", "bigquery", "snowflake", "redshift", "synapse")
WANTED = f"must be duckdb:///path/to/file.duckdb, or {{type: ...}} with a type of {', '.join(SYSTEMS)}"


def _known(given: Any) -> Any:
    if isinstance(given, str):
        if not re.fullmatch(r"duckdb:///.+", given):
            raise PydanticCustomError("warehouse", WANTED)
        return {"type": "duckdb", "url": given}
    if isinstance(given, dict) and given.get("type") not in (*SYSTEMS, "duckdb"):
        raise PydanticCustomError("warehouse", WANTED)
    return given


def _type(given: Any) -> str:
    return str(given.get("type") if isinstance(given, dict) else getattr(given, "type", ""))


WarehouseChoice = Annotated[
    Annotated[
        Annotated[DuckDBSettings, Tag("duckdb")]
        | Annotated[PostgresSettings, Tag("postgres")]
        | Annotated[BigQuerySettings, Tag("bigquery")]
        | Annotated[SnowflakeSettings, Tag("snowflake")]
        | Annotated[RedshiftSettings, Tag("redshift")]
        | Annotated[SynapseSettings, Tag("synapse")],
        Discriminator(_type),
    ],
    BeforeValidator(_known),
]
