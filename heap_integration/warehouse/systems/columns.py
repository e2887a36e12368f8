"""Columns of new tables, in the types of each system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from heap_integration.warehouse.names import spelt
from heap_integration.warehouse.systems.system import Dialect, QueryError

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["whole", "exact", "number", "truth", "day", "moment", "bytes", "text"]

TYPES: Mapping[Dialect, Mapping[Kind, str]] = {
    "bigquery": {
        "whole": "int64",
        "exact": "bignumeric",
        "number": "float64",
        "truth": "bool",
        "day": "date",
        "moment": "timestamp",
        "bytes": "bytes",
        "text": "string",
    },
    "snowflake": {
        "whole": "bigint",
        "exact": "number({precision}, {scale})",
        "number": "float",
        "truth": "boolean",
        "day": "date",
        "moment": "timestamp_ntz",
        "bytes": "binary",
        "text": "varchar",
    },
    "redshift": {
        "whole": "bigint",
        "exact": "decimal({precision}, {scale})",
        "number": "double precision",
        "truth": "boolean",
        "day": "date",
        "moment": "timestamp",
        "bytes": "varbyte(65535)",
        "text": "varchar(65535)",
    },
    "tsql": {
        "whole": "bigint",
        "exact": "decimal({precision}, {scale})",
        "number": "float",
        "truth": "bit",
        "day": "date",
        "moment": "datetime2(6)",
        "bytes": "varbinary(max)",
        "text": "nvarchar(max)",
    },
}


def declared(schema: pa.Schema, dialect: Dialect) -> str:
    """Return the columns of a table for ``create table``; moments are UTC without a zone, but in BigQuery.

    Raises:
        QueryError: a column is of a type that these systems don't have.
    """
    return ", ".join(f"{spelt(field.name, dialect)} {_type(field, dialect)}" for field in schema)


def in_utc(schema: pa.Schema, zone: str | None) -> pa.Schema:
    """Return the same columns with moments in microseconds, told in UTC with the zone or without one."""
    import pyarrow as pa

    fields = [
        pa.field(field.name, pa.timestamp("us", zone)) if pa.types.is_timestamp(field.type) else field
        for field in schema
    ]
    return pa.schema(fields)


def _type(field: pa.Field, dialect: Dialect) -> str:
    wanted = TYPES[dialect][_kind(field)]
    if "{precision}" in wanted:
        return wanted.format(precision=field.type.precision, scale=field.type.scale)
    return wanted


def _kind(field: pa.Field) -> Kind:
    import pyarrow as pa

    types, kind = pa.types, field.type
    checks: tuple[tuple[Kind, bool], ...] = (
        ("whole", types.is_integer(kind)),
        ("exact", types.is_decimal(kind)),
        ("number", types.is_floating(kind)),
        ("truth", types.is_boolean(kind)),
        ("day", types.is_date(kind)),
        ("moment", types.is_timestamp(kind)),
        ("bytes", types.is_binary(kind) or types.is_large_binary(kind)),
        ("text", types.is_string(kind) or types.is_large_string(kind)),
    )
    found = next((name for name, is_it in checks if is_it), None)
    if found is None:
        raise QueryError(f"column {field.name} is of the type {kind}, which has no place in a warehouse's table")
    return found
