"""The command that asks Heap's data and the models by SQL."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from heap_integration.cli.terminal import app, open_environment, out, plain

if TYPE_CHECKING:
    import pyarrow as pa

    from heap_integration.hub import Hub

SHOWN_ROWS = 50


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


@app.command()
def query(
    environment: Annotated[str, typer.Argument(help="The name of a folder under environments/.")],
    sql: Annotated[
        str | None,
        typer.Argument(help="One query in the warehouse's SQL, or - for standard input. Without it: the tables."),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="What a ? in the query stands for, as text; repeatable.")
    ] = None,
    format: Annotated[Format | None, typer.Option(help="table shows the first rows; the others write all.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file, .csv, .json or .parquet.")] = None,
    rows: Annotated[int | None, typer.Option(help="How many rows are allowed.", min=1)] = None,
    seconds: Annotated[float | None, typer.Option(help="How many seconds are allowed.", min=0.001)] = None,
    api: Annotated[bool, typer.Option("--api", help="Ask by HTTP, at heap_connect.api, not in the warehouse.")] = False,
) -> None:
    """Ask Heap's data and the models by SQL. Nothing can be changed by it."""
    with open_environment(environment) as hub:
        if sql is None:
            _print_tables(hub)
            return
        form = _format(format, output)
        with hub.heap_connect(over_http=api) as heap:
            text = sys.stdin.read() if sql == "-" else sql
            _write(heap.batches(text, param or (), rows=rows, seconds=seconds), form, output)


def _print_tables(hub: Hub) -> None:
    warehouse = hub.environment.warehouse
    schemas = warehouse.schemas()
    with hub.connect_warehouse() as connection:
        names = dict.fromkeys((schemas.heap_connect, schemas.models, schemas.hub, schemas.exports))
        found = [f"{schema}.{table}" for schema in names for table in connection.tables(schema)]
    out.print(f"{warehouse.title}, {len(found)} tables and views", highlight=False)
    for name in found:
        out.print(f"  {plain(name)}", highlight=False)


def _format(given: Format | None, output: Path | None) -> Format:
    if output is None:
        if given == Format.PARQUET:
            raise ValueError("--format parquet needs a file: --output rows.parquet")
        return given or Format.TABLE
    ending = output.suffix.removeprefix(".")
    if given is None and ending not in (Format.CSV, Format.JSON, Format.PARQUET):
        raise ValueError(f"--output is {output}: it can end in .csv, .json or .parquet, or --format says what it is")
    return given or Format(ending)


def _write(batches: Iterator[pa.RecordBatch], form: Format, output: Path | None) -> None:
    if form == Format.TABLE:
        _print(batches)
        return
    write = {Format.CSV: _write_csv, Format.JSON: _write_json, Format.PARQUET: _write_parquet}[form]
    with nullcontext(sys.stdout.buffer) if output is None else _whole(output) as target:
        write(batches, target)


@contextmanager
def _whole(output: Path) -> Iterator[IO[bytes]]:
    """Yield a file that takes its name when all of it is there."""
    part = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with part.open("wb") as target:
            yield target
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)


def _print(batches: Iterator[pa.RecordBatch]) -> None:
    schema, batches = _begun(batches)
    rows = (row for batch in batches for row in zip(*(column.to_pylist() for column in batch.columns), strict=True))
    found = list(islice(rows, SHOWN_ROWS + 1))
    table = Table()
    for name in schema.names:
        table.add_column(_shown(name))
    for row in found[:SHOWN_ROWS]:
        table.add_row(*map(_shown, row))
    out.print(table)
    if len(found) > SHOWN_ROWS:
        out.print(f"There are more rows than these {SHOWN_ROWS}: --output rows.csv writes all of them.")


def _begun(batches: Iterator[pa.RecordBatch]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    first = next(batches)
    return first.schema, chain([first], batches)


def _shown(value: object) -> str:
    if value is None:
        return "[dim]-[/]"
    return plain("".join(letter if letter.isprintable() else " " for letter in str(value)))


def _write_csv(batches: Iterator[pa.RecordBatch], target: IO[bytes]) -> None:
    import pyarrow as pa
    from pyarrow import csv

    from heap_integration.warehouse.systems.arrow import Columns, as_type, storable

    schema, batches = _begun(batches)
    form = storable(schema)
    texts = Columns(
        pa.schema([pa.field(field.name, _csv_type(field.type)) for field in form.schema]),
        lambda column, field: as_type(column, field.type),
    )
    with csv.CSVWriter(target, texts.schema) as writer:
        for batch in batches:
            writer.write_batch(texts.of(form.of(batch)))


def _csv_type(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    types = pa.types
    written = (types.is_integer, types.is_floating, types.is_boolean, types.is_date, types.is_timestamp, types.is_time)
    return kind if any(is_one(kind) for is_one in written) else pa.string()


def _write_json(batches: Iterator[pa.RecordBatch], target: IO[bytes]) -> None:
    import orjson

    between = b"[\n"
    for batch in batches:
        for row in batch.to_pylist():
            target.write(between + orjson.dumps(row, default=str))
            between = b",\n"
    target.write(b"[]\n" if between == b"[\n" else b"\n]\n")


def _write_parquet(batches: Iterator[pa.RecordBatch], target: IO[bytes]) -> None:
    from pyarrow import parquet

    schema, batches = _begun(batches)
    with parquet.ParquetWriter(target, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
