"""Connect SQL: questions to Heap's data, in the warehouse or by HTTP, which can't change anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from heap_integration.heap.connect_sql import ConnectSql, ConnectSqlError
from heap_integration.heap_connect.settings import HeapConnectSettings, QueryApiSettings
from heap_integration.warehouse.systems.statements import one_query, tokens_of_query
from heap_integration.warehouse.systems.system import Dialect, LimitExceeded, Limits, QueryError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

HTTP_BATCH_ROWS = 10_000


class Asked(Protocol):
    """Where questions go: a connection to a warehouse is one such place."""

    def batches(self, sql: str, params: Sequence[object] = (), *, limits: Limits) -> Iterator[pa.RecordBatch]:
        """Run one query; see ``Connection.batches``."""

    def close(self) -> None:
        """Close the connection."""


class HeapConnect:
    """Questions to Heap's data, by SQL in the warehouse's own dialect.

    Each must be a single query by the reading of sqlglot, before it is run where nothing can be written. Unless a
    question names its own limits, those of the settings hold: ``query_rows`` and ``query_seconds``.
    """

    def __init__(self, asked: Asked, dialect: Dialect, settings: HeapConnectSettings | None = None) -> None:
        self._asked = asked
        self._dialect: Dialect = dialect
        self._settings = settings or HeapConnectSettings()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._asked.close()

    def query(
        self, sql: str, params: Sequence[object] = (), *, rows: int | None = None, seconds: float | None = None
    ) -> pd.DataFrame:
        """Return all rows of a query; each ``?`` in it stands for a parameter.

        Whole numbers and truths are pandas' own types that know what is missing: a column's type doesn't depend on
        its values, and no id is rounded. Times with a zone are in UTC.

        Raises:
            LimitExceeded: there are more than ``rows`` rows, or it took longer than ``seconds``.
            QueryError: it isn't a single query, or the warehouse refuses it.
        """
        import pyarrow as pa

        table = pa.Table.from_batches(self.batches(sql, params, rows=rows, seconds=seconds))
        return table.to_pandas(types_mapper=_pandas_types().get)

    def batches(
        self, sql: str, params: Sequence[object] = (), *, rows: int | None = None, seconds: float | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a query as they come, as Arrow; there is at least one batch. See ``query``."""
        ensure_read_only(sql, self._dialect)
        limits = Limits(
            self._settings.query_rows if rows is None else rows,
            self._settings.query_seconds if seconds is None else seconds,
        )
        return self._asked.batches(sql, params, limits=limits)


def ensure_read_only(sql: str, dialect: Dialect) -> None:
    """Look whether a statement is one query, nothing of which writes.

    Raises:
        QueryError: it isn't, or it can't be read.
    """
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError

    tokens_of_query(sql, dialect)
    writes = (exp.DML, exp.DDL, exp.Into, exp.Command, exp.Lock)
    try:
        found = parse_one(sql, dialect=dialect)
    except SqlglotError as error:
        raise QueryError(f"the statement can't be read: {_first_line(error)}") from error
    if not isinstance(found, exp.Query | exp.Values):
        raise QueryError(f"the statement is {found.key.upper()}: only queries can be run")
    if (wrong := found.find(*writes)) is not None:
        raise QueryError(f"the query holds {wrong.key.upper()}: nothing can be changed by a query")


def _first_line(error: Exception) -> str:
    # what follows has the place marked by control sequences of a terminal
    return str(error).split("\n", maxsplit=1)[0]


def _pandas_types() -> dict[pa.DataType, object]:
    import pandas as pd
    import pyarrow as pa

    return {
        pa.bool_(): pd.BooleanDtype(),
        pa.int8(): pd.Int8Dtype(),
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.uint8(): pd.UInt8Dtype(),
        pa.uint16(): pd.UInt16Dtype(),
        pa.uint32(): pd.UInt32Dtype(),
        pa.uint64(): pd.UInt64Dtype(),
    }


class AskedByHttp:
    """Connect SQL by HTTP, as a place that questions go to.

    What a column holds is known by its values only: numbers, texts and truths; anything else comes as text.
    """

    def __init__(self, client: ConnectSql, dialect: Dialect) -> None:
        self._client = client
        self._dialect: Dialect = dialect

    def batches(self, sql: str, params: Sequence[object] = (), *, limits: Limits) -> Iterator[pa.RecordBatch]:
        """Run one query; parameters are put into its text, and an answer of too many rows is thrown away."""
        import pyarrow as pa

        statement = one_query(sql, params, self._dialect)
        try:
            answer = self._client.ask(statement, limits.seconds or HeapConnectSettings().query_seconds)
        except ConnectSqlError as error:
            raise QueryError(str(error)) from error
        if limits.rows is not None and len(answer.rows) > limits.rows:
            raise LimitExceeded(f"there are more than {limits.rows:,} rows")
        columns = [_column([row[index] for row in answer.rows]) for index in range(len(answer.columns))]
        table = pa.Table.from_arrays(columns, names=list(answer.columns))
        yield from table.to_batches(HTTP_BATCH_ROWS) or [pa.RecordBatch.from_pylist([], schema=table.schema)]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _column(values: Sequence[object]) -> pa.Array:
    import orjson
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or kinds == {bool}:
        return pa.array(values, pa.null() if not kinds else pa.float64() if float in kinds else None)
    texts = (v if v is None or isinstance(v, str) else orjson.dumps(v).decode() for v in values)
    return pa.array(texts, pa.string())


def by_http(settings: HeapConnectSettings, dialect: Dialect, variables: Mapping[str, str]) -> HeapConnect:
    """Return Connect SQL by HTTP; ``dialect`` is that of the warehouse behind it.

    Raises:
        ValueError: the environment has no ``heap_connect.api``.
        MissingSecret: the variable of the key isn't set.
    """
    api: QueryApiSettings | None = settings.api
    if api is None:
        raise ValueError("this environment has no heap_connect.api: Connect SQL by HTTP needs an address and a key")
    client = ConnectSql(api.url, api.key.value(variables))
    return HeapConnect(AskedByHttp(client, dialect), dialect, settings)
