"""`heap-integration query`: Heap's data on the terminal and in files."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from heap_integration.warehouse.systems.system import Connection, WarehouseSettings
from heap_integration_tests.support.commands import Answer, run
from heap_integration_tests.support.postgres import postgres, postgres_database
from heap_integration_tests.support.project import write_project
from heap_integration_tests.support.warehouses import connection, warehouse

__all__ = ["connection", "postgres", "postgres_database", "warehouse"]

USERS = pa.table(
    {"user_id": [2**53 + 1, *range(2, 101)], "email": ['a,"b"\n[red]@x.io', None] * 50, "score": [1.5] * 100}
)


@pytest.fixture
def project(tmp_path: Path, warehouse: WarehouseSettings, connection: Connection) -> Path:
    """Return a project whose warehouse, of each system that runs here, has 100 users."""
    settings = warehouse.model_dump(mode="json", exclude_none=True)
    if settings["type"] == "duckdb":
        settings = settings["url"]
    more = f"warehouse: {json.dumps(settings)}\nheap_connect:\n  query_rows: 100\n"
    connection.load(warehouse.schemas().heap_connect, "users", USERS.to_batches(), USERS.schema)
    return write_project(tmp_path, "http://127.0.0.1:9", more=more)


def test_without_a_query_the_tables_are_listed(project: Path) -> None:
    answer = run(project, "query", "test")
    assert answer.code == 0
    assert "heap_connect.users" in answer.out.decode()


def test_the_first_rows_are_shown_and_that_there_are_more(project: Path) -> None:
    answer = run(project, "query", "test", "select * from heap_connect.users order by user_id")
    shown = answer.out.decode()
    assert answer.code == 0
    assert "[red]@x.io" in shown
    assert "There are more rows than these 50" in shown
    few = run(project, "query", "test", "select count(*) as users from heap_connect.users").out.decode()
    assert "100" in few
    assert "more rows" not in few


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_files_hold_all_rows(project: Path, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"users.{ending}"
    answer = run(project, "query", "test", "select * from heap_connect.users order by user_id", "-o", file)
    assert (answer.code, answer.out) == (0, b"")
    options = csv.ConvertOptions(strings_can_be_null=True)
    parsing = csv.ParseOptions(newlines_in_values=True)
    read = {
        "csv": lambda: csv.read_csv(file, parse_options=parsing, convert_options=options).to_pylist(),
        "json": lambda: json.loads(file.read_bytes()),
        "parquet": lambda: parquet.read_table(file).to_pylist(),
    }[ending]
    assert read() == USERS.sort_by("user_id").to_pylist()


def test_parameters_and_a_query_from_standard_input(project: Path) -> None:
    sql = b"select user_id from heap_connect.users where email = ? and user_id > cast(? as bigint)"
    answer = run(
        project, "query", "test", "-", "-p", USERS["email"][0].as_py(), "-p", "100", "--format", "json", given=sql
    )
    assert answer.json == [{"user_id": 2**53 + 1}]


def refused(answer: Answer, words: str) -> bool:
    return answer.code == 2 and words in answer.err and "Traceback" not in answer.err


def test_mistakes_are_told_and_leave_no_file(project: Path, tmp_path: Path) -> None:
    ask = ("query", "test")
    assert refused(run(project, *ask, "delete from heap_connect.users"), "only queries")
    assert refused(run(project, *ask, "select * from nowhere"), "nowhere")
    assert refused(run(project, *ask, "select 1", "--format", "parquet"), "--output")
    assert refused(run(project, *ask, "select 1", "-o", "rows.xlsx"), ".parquet")
    assert refused(run(project, *ask, "select 1", "--api"), "heap_connect.api")
    file = tmp_path / "rows.csv"
    answer = run(project, *ask, "select * from generate_series(1, 100000) n", "--rows", "99999", "-o", file)
    assert refused(answer, "more than 99,999 rows")
    assert not [*tmp_path.glob("*rows.csv*")]
