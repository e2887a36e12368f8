"""Exports within a warehouse of a cloud, and from DuckDB into one; Redshift's stand-in has no type for JSON."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from heap_integration.exports.settings import Export
from heap_integration.warehouse.systems.duckdb import DuckDBSettings
from heap_integration.warehouse.systems.system import ServerSettings
from heap_integration_tests.exports.models import Models, event

EARLIER = date(2026, 5, 9)


@pytest.mark.parametrize(("system", "source"), [("bigquery", "there"), ("snowflake", "duckdb")])
def test_an_export_writes_each_event_once(
    system: str, source: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    there: ServerSettings = request.getfixturevalue(system)
    there = there.model_copy(update={"schema_prefix": "exporting"})
    here = there if source == "there" else DuckDBSettings(url=f"duckdb:///{tmp_path}/warehouse.duckdb")
    models, export = Models(here, tmp_path), Export(name="lake", to=there, events=("Visit", "Purchase"))
    models.write(event(number, arrived=number // 2) for number in (1, 2, 5, 6))
    models.exporter(export, step_rows=3).run()

    # one that comes again, one that is late, one of another day, and one that isn't chosen
    late = [event(3, day=EARLIER), event(4), event(7, event_name="Other")]
    models.write([*late, *(event(number, arrived=number // 2 + (number == 5)) for number in (1, 2, 5, 6))])
    report = models.exporter(export).run()
    assert (report.sent, report.month_rows) == (2, 6)
    assert models.exported(export) == [(f"e{number}",) for number in range(1, 7)]

    full = export.model_copy(update={"mode": "full", "properties": ("number", "it's"), "user_properties": ()})
    assert models.exporter(full).run().sent == 6
    (*_, last) = models.exported(full, ("event_id", "time", "event_properties", "user_properties"))
    assert (last[0], last[1].replace(tzinfo=UTC)) == ("e6", datetime(2026, 5, 10, 3, 4, 5, 678900, UTC))
    assert [json.loads(each) for each in last[2:]] == [{"number": 6}, {}]
