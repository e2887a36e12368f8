"""The commands that export events, from what was loaded to the rows in a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from heap_integration.environment import load_environment
from heap_integration.exports.notes import rows_of
from heap_integration.hub import Hub, open_hub
from heap_integration.models.project import DbtProject
from heap_integration_tests.support.commands import Answer, run
from heap_integration_tests.support.project import call, write_lines, write_project

YAML = """\
  plan: growth
start_date: 2026-01-01
exports:
  - {name: lake, events: [Step 1, Step 2], properties: [number]}
  - {name: partner, mode: full, to: "duckdb:///partner.duckdb", table: events}
  - {name: nobody, enabled: false, table: nothing}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path, "http://127.0.0.1:1", more=YAML)


def hub_of(project: Path) -> Hub:
    return open_hub(load_environment(project / "environments" / "test"), {})


def build(project: Path, calls: range) -> None:
    """Load calls and build the models that exports read."""
    with hub_of(project) as hub:
        hub.load_file(write_lines(project / f"{calls.start}.ndjson", map(call, calls)), None)
        report = DbtProject(hub.environment, hub.warehouse_surroundings()).build(["+export_events"], tests=False)
        assert not report.failed


def exported(project: Path, *arguments: str) -> Answer:
    answer = run(project, *arguments)
    assert "Traceback" not in answer.err
    return answer


@pytest.mark.slow
def test_events_that_were_loaded_are_exported_once(project: Path) -> None:
    build(project, range(70))
    answer = exported(project, "export", "test")
    assert answer.code == 0
    assert "lake → exports.heap_events\n  20 read = 20 sent + 0 unchanged; 0 pending" in answer.out.decode()
    assert "partner → exports.events\n  70 read = 70 sent + 0 unchanged; 0 pending" in answer.out.decode()
    assert b"90 rows exported, " in answer.out

    with hub_of(project) as hub, hub.connect_warehouse() as con:
        columns = "event_type, event_properties, user_id, time"
        query = f"select {columns} from exports.heap_events order by time, user_id limit 1"
        ((event, properties, user, time),) = rows_of(con, query)
    assert (event, properties, user, time.isoformat()) == (
        "Step 1",
        '{"number":15}',
        "user 15",
        "2026-01-01T03:04:05.678000",
    )

    build(project, range(70, 77))
    listed = exported(project, "exports", "test", "--json").json
    assert [(each["export"], each["pending"]) for each in listed["exports"]] == [("lake", 2), ("partner", 77)]
    assert (listed["month"]["rows"], listed["month"]["limit"]) == (90, 100_000)
    assert b"Exports: 90 of 100,000 rows in 2" in exported(project, "status", "-e", "test").out

    # by plan growth, once a day
    again = exported(project, "export", "test", "lake", "--json")
    assert (again.code, again.json["exports"][0]["pending"]) == (1, 2)
    assert again.json["exports"][0]["stopped"].startswith("plan growth exports daily: the last was at ")


@pytest.mark.slow
def test_a_model_that_is_not_there_is_told_of(project: Path) -> None:
    answer = exported(project, "models", "build", "test", "-s", "user_engagment")
    assert answer.code == 2
    assert "nothing is called user_engagment; see heap-integration models list test" in answer.err


def test_an_export_that_is_not_there_is_told_of(project: Path) -> None:
    answer = exported(project, "export", "test", "nobody")
    assert answer.code == 2
    assert "no export called 'nobody' is switched on; there are: lake, partner" in answer.err
