"""How dbt is called for an environment: what it is told and what not, what becomes of a failure, whose turn it is."""

from __future__ import annotations

import fcntl
import threading
import time
from pathlib import Path

import pytest

from heap_integration.environment import Environment
from heap_integration.models.project import DbtProject
from heap_integration.models.run import ModelsError
from heap_integration.settings import MissingSecret
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.systems.system import Surroundings

SERVER = {"type": "postgres", "host": "db.shop.io", "database": "shop", "user": "hub", "password": {"env": "SHOP_DB"}}


def project(folder: Path, models: dict[str, str], /, **settings: object) -> DbtProject:
    """Return a small dbt project of models by their names, for an environment in a folder."""
    given = {"name": "shop", "heap": {"app_id": "1"}, "warehouse": f"duckdb:///{folder}/shop.duckdb", **settings}
    environment = Environment.model_validate(given)
    (folder / "project" / "models").mkdir(parents=True, exist_ok=True)
    (folder / "project" / "dbt_project.yml").write_text(
        "name: small\nprofile: heap_integration\nflags: {send_anonymous_usage_stats: false}\n"
    )
    for name, sql in models.items():
        (folder / "project" / "models" / f"{name}.sql").write_text(sql)
    own = Warehouse(f"duckdb:///{folder}/shop.duckdb")
    return DbtProject(environment, Surroundings("shop", own, {"SHOP_DB": "a word"}), folder=folder / "project")


def numbers(of: DbtProject) -> list[int]:
    with of.surroundings.own.read() as con:
        return [number for (number,) in con.execute("from models.numbers order by 1").fetchall()]


def test_no_secret_lies_in_a_file_and_dbt_learns_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_SECRET", "other word")
    shop = project(tmp_path, {}, warehouse=SERVER)
    shop.prepare()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"a word" in path.read_bytes()]
    told = shop.process_environment()
    assert told["SHOP_DB"] == "a word"
    assert "OTHER_SECRET" not in told
    nobody = DbtProject(shop.environment, Surroundings("shop", shop.surroundings.own, {}))
    with pytest.raises(MissingSecret, match="SHOP_DB"):
        nobody.process_environment()


def test_a_model_that_fails_is_named_and_leaves_its_table_as_it_was(tmp_path: Path) -> None:
    models = {"numbers": "{{ config(materialized='table') }} select 1 as number", "more": "select 2 as two"}
    assert project(tmp_path, models).build().counts() == {"success": 2}
    broken = project(
        tmp_path,
        {"numbers": "{{ config(materialized='table') }} select no_such_column", "more": "from {{ ref('numbers') }}"},
    )
    heard: list[str] = []
    report = broken.build(progress=lambda result: heard.append(result.name))
    assert report.counts() == {"error": 1, "skipped": 1}
    assert [result.name for result in report.failed] == ["numbers"]
    assert "no_such_column" in report.problems()[0]
    assert heard[0] == "numbers"
    assert numbers(broken) == [1]


def test_building_models_leaves_the_hubs_own_rows_packed_as_they_are(tmp_path: Path) -> None:
    shop = project(tmp_path, {"numbers": "{{ config(materialized='table') }} select 1 as number"})
    own = shop.surroundings.own
    with own.write() as con:
        con.execute("create table many as select range as number from range(200000)")

    def packed() -> list[int]:
        with own.read() as con:
            return [rows for (rows,) in con.execute("select count from pragma_storage_info('many')").fetchall()]

    before = packed()
    shop.build()
    assert packed() == before


def test_a_duckdb_file_takes_the_memory_that_its_models_may_have(tmp_path: Path) -> None:
    limit = "{{ config(materialized='table') }} select current_setting('memory_limit') as told"
    shop = project(tmp_path, {"limits": limit}, models={"memory_mb": 1234})
    shop.build()
    with shop.surroundings.own.read() as con:
        assert con.execute("from models.limits").fetchall() == [("1.1 GiB",)]


def test_dbt_waits_for_its_turn_at_the_warehouse(tmp_path: Path) -> None:
    shop = project(tmp_path, {"numbers": "{{ config(materialized='table') }} select 1 as number"})
    reports = []
    with shop.surroundings.own.write() as con:
        waiting = threading.Thread(target=lambda: reports.append(run(shop)))
        waiting.start()
        con.execute("create schema held")
        wait_for_somebody(tmp_path / "shop.duckdb.gate")
        assert waiting.is_alive()
    waiting.join(timeout=120)
    assert reports == [{"success": 1}]
    assert numbers(shop) == [1]


def wait_for_somebody(gate: Path) -> None:
    """Return once a process stands in the gate: whoever waits for the file keeps those behind it out."""
    with gate.open("w") as handle:
        for _ in range(1_200):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            fcntl.flock(handle, fcntl.LOCK_UN)
            time.sleep(0.1)
    pytest.fail("nobody came for the warehouse")


def run(of: DbtProject) -> dict[str, int]:
    from heap_integration.models.run import run_dbt

    return run_dbt(of.invocation("run", (), {})).counts()


def test_all_models_and_worked_examples_hold_where_nothing_has_happened_yet(tmp_path: Path) -> None:
    small = project(tmp_path, {})
    shop = DbtProject(small.environment, small.surroundings)
    assert not shop.build(tests=False).failed
    report = shop.test()
    assert not report.failed, report.problems()
    assert {result.kind for result in report.results} == {"test", "unit_test"}


def test_what_dbt_says_of_a_project_that_it_cannot_read_is_the_error(tmp_path: Path) -> None:
    with pytest.raises(ModelsError, match="nowhere"):
        project(tmp_path, {"numbers": "from {{ ref('nowhere') }}"}).build()


def test_two_builds_at_once_each_tell_what_they_did(tmp_path: Path) -> None:
    models = {"numbers": "{{ config(materialized='table') }} select 1 as number", "more": "select 2 as two"}
    of = project(tmp_path, models)
    told: dict[str, list[str]] = {}

    def build(name: str) -> None:
        told[name] = [result.name for result in of.build([name]).results]

    builders = [threading.Thread(target=build, args=[name]) for name in models]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()

    assert told == {"numbers": ["numbers"], "more": ["more"]}
