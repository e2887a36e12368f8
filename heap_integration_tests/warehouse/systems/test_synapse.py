"""The client of Synapse over a session that understands T-SQL by sqlglot and answers by DuckDB: it has no stand-in."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from sqlglot import exp, parse_one

from heap_integration.warehouse.systems.statements import literal
from heap_integration.warehouse.systems.synapse import SynapseConnection
from heap_integration.warehouse.systems.system import NO_LIMITS, LimitExceeded, Limits, QueryError

USERS = pa.table(
    {
        "user_id": pa.array([1, 2, None], pa.int64()),
        "name": ["Ann", "O'Brien \\", None],
        "time": pa.array([datetime.datetime(2026, 1, 2, 3, 4, 5), None, None], pa.timestamp("us")),  # noqa: DTZ001
        "score": [1.5, None, -2.0],
    }
)
TYPES = {"BIGINT": int, "INTEGER": int, "DOUBLE": float, "FLOAT": float, "TIMESTAMP": datetime.datetime}


class Cursor:
    """A cursor as ODBC's drivers have them."""

    fast_executemany = False

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con = con

    def execute(self, sql: str, *params: object) -> None:
        if sql.endswith("transaction"):
            self.con.execute(sql)
            return
        self.con.execute(_in_duckdb(sql), list(params))

    def executemany(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        self.con.executemany(_in_duckdb(sql), [list(row) for row in rows])

    @property
    def description(self) -> list[tuple[Any, ...]]:
        described = [(name, TYPES.get(str(kind), str)) for name, kind, *_ in self.con.description]
        return [(*known, None, None, None, None, None) for known in described]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.con.fetchall()

    def fetchmany(self, rows: int) -> list[tuple[Any, ...]]:
        return self.con.fetchmany(rows)

    def close(self) -> None:
        pass


def _in_duckdb(sql: str) -> str:
    # lengths such as MAX and what a table is kept in mean nothing to DuckDB
    tree = parse_one(sql, dialect="tsql")
    for kind in tree.find_all(exp.DataType):
        kind.set("expressions", None)
    tree.set("properties", None)
    return tree.sql("duckdb")


class Session:
    """A session as ODBC's drivers have them."""

    timeout = 0

    def __init__(self) -> None:
        self.con = duckdb.connect()

    def cursor(self) -> Cursor:
        return Cursor(self.con)

    def close(self) -> None:
        self.con.close()


@pytest.fixture
def synapse() -> Iterator[SynapseConnection]:
    with SynapseConnection(Session(), duckdb.Error) as connection:
        yield connection


def rows(synapse: SynapseConnection, sql: str, *params: object, limits: Limits = NO_LIMITS) -> list[dict[str, Any]]:
    return [row for batch in synapse.batches(sql, params, limits=limits) for row in batch.to_pylist()]


def test_what_is_loaded_comes_back_and_is_replaced_by_the_next_load(synapse: SynapseConnection) -> None:
    for _ in range(2):
        assert synapse.load("shop_heap_connect", "users", USERS.to_batches(), USERS.schema) == 3
    found = rows(synapse, "select * from [shop_heap_connect].[users]")
    assert sorted(found, key=str) == sorted(USERS.to_pylist(), key=str)
    assert synapse.tables("shop_heap_connect") == ["users"]
    assert list(synapse.columns("shop_heap_connect", "users")) == USERS.column_names


def test_a_parameter_is_a_value_and_nothing_else(synapse: SynapseConnection) -> None:
    synapse.load("shop_heap_connect", "users", USERS.to_batches(), USERS.schema)
    (found,) = rows(synapse, "select top 1 user_id from shop_heap_connect.users where name = ?", "O'Brien \\")
    assert found == {"user_id": 2}


def test_changes_of_rows_take_effect_together_or_not_at_all(synapse: SynapseConnection) -> None:
    synapse.load("shop_heap_connect", "users", USERS.to_batches(), USERS.schema)
    with pytest.raises(QueryError, match="nowhere"):
        synapse.run(["delete from shop_heap_connect.users", "insert into nowhere values (1)"])
    assert len(rows(synapse, "select * from shop_heap_connect.users")) == 3
    synapse.run(["delete from shop_heap_connect.users", "create table shop_heap_connect.notes (n int)"])
    assert rows(synapse, "select * from shop_heap_connect.users") == []


def test_only_queries_run_and_too_many_rows_are_an_error(synapse: SynapseConnection) -> None:
    synapse.load("shop_heap_connect", "users", USERS.to_batches(), USERS.schema)
    with pytest.raises(QueryError, match="quer"):
        rows(synapse, "with one as (select 1 as n) insert into shop_heap_connect.users (user_id) select n from one")
    with pytest.raises(LimitExceeded, match="more than 2 rows"):
        rows(synapse, "select * from shop_heap_connect.users", limits=Limits(rows=2))


def test_text_beyond_the_code_page_is_told_as_such() -> None:
    assert [literal(text, "tsql") for text in ("Zoë's", "plain")] == ["(N'Zoë''s')", "('plain')"]
    assert literal("Zoë", "postgres") == "('Zoë')"
