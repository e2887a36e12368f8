"""The dbt models on the warehouses that can't run here."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlglot import exp, parse

from heap_integration_tests.golden.compiling import TARGETS, compiled, compiled_for_duckdb, on_record
from heap_integration_tests.golden.warehouse import contents, run, shop


@pytest.mark.slow
@pytest.mark.parametrize("system", TARGETS)
def test_what_is_on_record_is_what_dbt_compiles(system: str, tmp_path: Path) -> None:
    """Renewed by ``python -m heap_integration_tests.golden.renew``."""
    assert compiled(system, tmp_path) == on_record(system)


@pytest.mark.parametrize("system", TARGETS)
def test_every_model_is_one_query_of_the_warehouses_sql(system: str) -> None:
    models = on_record(system)
    assert models.keys() > {"int_events", "int_events.incremental", "user_lifecycle", "conversion_funnel"}
    for name, sql in models.items():
        trees = [tree for tree in parse(sql, dialect=TARGETS[system].dialect) if tree is not None]
        assert [isinstance(tree, exp.Query) for tree in trees] == [True], name


def test_sums_of_moments_are_moments_again_on_bigquery() -> None:
    """BigQuery compares no TIMESTAMP with the DATETIME that its sums are."""
    for name, sql in on_record("bigquery").items():
        for tree in parse(sql, dialect="bigquery"):
            assert tree is not None
            sums = tree.find_all(exp.DatetimeAdd)
            assert [found.parent.sql() for found in sums if not isinstance(found.parent, exp.Cast)] == [], name


@pytest.mark.slow
def test_the_models_of_every_warehouse_give_what_duckdb_gives(tmp_path: Path) -> None:
    native = compiled_for_duckdb(tmp_path)
    built = {name for name in native if "." not in name}
    with shop() as con:
        run(con, native, "duckdb")
        expected = {name: contents(con, name) for name in built}
    # a model without rows would be alike everywhere
    assert sum(1 for rows in expected.values() if rows) > 30
    for system, target in TARGETS.items():
        with shop() as con:
            run(con, on_record(system), target.dialect)
            differing = [name for name in sorted(built) if contents(con, name) != expected[name]]
        assert differing == [], system
