"""Arrow between warehouses: columns that every one of them can hold, rows in known limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heap_integration.warehouse.systems.system import LimitExceeded, Limits

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Columns:
    """A form of columns, and what brings batches into it, column by column."""

    schema: pa.Schema
    change: Callable[[pa.Array, pa.Field], pa.Array]

    def of(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch in this form."""
        import pyarrow as pa

        changed = [self.change(column, field) for column, field in zip(batch.columns, self.schema, strict=True)]
        return pa.RecordBatch.from_arrays(changed, schema=self.schema)


def empty(schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch without rows."""
    import pyarrow as pa

    return pa.RecordBatch.from_pylist([], schema=schema)


def storable(schema: pa.Schema) -> Columns:
    """Return the form in which columns can be stored in a warehouse that isn't DuckDB.

    Lists, structs and maps become JSON as text, as do JSON columns; UUIDs become text, columns of nothing too.
    """
    import pyarrow as pa

    fields = [pa.field(field.name, _storable(field.type)) for field in schema]
    return Columns(pa.schema(fields), lambda column, field: as_type(column, field.type))


def _storable(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return _storable(kind.value_type)
    if types.is_nested(kind) or types.is_null(kind) or types.is_string_view(kind) or is_text_inside(kind):
        return pa.string()
    if types.is_date64(kind):
        return pa.date32()
    return pa.binary() if types.is_binary_view(kind) else kind


def is_text_inside(kind: pa.DataType) -> bool:
    """Say whether it is a type that Arrow names and everybody else writes as text."""
    return getattr(kind, "extension_name", "") in ("arrow.json", "arrow.uuid")


def as_type(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Return a column as one of another type; nested ones and UUIDs as text."""
    import orjson
    import pyarrow as pa

    kind = column.type
    if kind.equals(wanted):
        return column
    if pa.types.is_nested(kind):
        texts = (None if value is None else orjson.dumps(value, default=str).decode() for value in column.to_pylist())
        return pa.array(texts, wanted)
    if getattr(kind, "extension_name", "") == "arrow.uuid":
        return pa.array((None if value is None else str(value) for value in column.to_pylist()), wanted)
    return (column.storage if isinstance(kind, pa.BaseExtensionType) else column).cast(wanted)


def without_code_0(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose texts lack the character of the code 0, which most warehouses can't hold."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for index, field in enumerate(batch.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            column = batch.column(index)
            if pc.any(pc.match_substring(column, "\0")).as_py():
                batch = batch.set_column(index, field, pc.replace_substring(column, "\0", ""))
    return batch


def within(batches: Iterable[pa.RecordBatch], limits: Limits) -> Iterator[pa.RecordBatch]:
    """Yield batches for as long as they don't hold more rows than allowed.

    Raises:
        LimitExceeded: they do.
    """
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        if limits.rows is not None and rows > limits.rows:
            raise LimitExceeded(f"there are more than {limits.rows:,} rows")
        yield batch


@contextmanager
def reader_of(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatchReader]:
    """Yield batches as what drivers read; what goes wrong in making them is raised as it is, not as the driver's."""
    import pyarrow as pa

    with errors_of(batches) as watched:
        yield pa.RecordBatchReader.from_batches(schema, watched)


@contextmanager
def errors_of(batches: Iterable[pa.RecordBatch]) -> Iterator[Iterator[pa.RecordBatch]]:
    """Yield the same batches, and raise what goes wrong in making them in place of what becomes of it."""
    problems: list[BaseException] = []

    def watched() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except BaseException as problem:
            problems.append(problem)
            raise

    try:
        yield watched()
    except Exception:
        if problems:
            raise problems[0] from None
        raise
