"""What a plan doesn't allow is told when the environment is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from heap_integration.environment import EnvironmentProblems, load_environment
from heap_integration_tests.support.project import write_project


def problems(root: Path, plan: str, exports: str) -> list[str]:
    folder = (
        write_project(root, "http://127.0.0.1:1", more=f"  plan: {plan}\nexports:\n{exports}") / "environments/test"
    )
    try:
        load_environment(folder)
    except EnvironmentProblems as found:
        return [str(problem).removeprefix(f"{folder}/") for problem in found.problems]
    return []


LATER = "exports need plan"
NAMES = "must hold letters, digits and underscores only and begin with neither a digit nor _hub_"


@pytest.mark.parametrize(
    ("plan", "export", "told"),
    [
        ("growth", "", None),
        ("growth", "every: hourly", f"every: hourly {LATER} pro or premier; heap.plan is growth, which allows daily"),
        ("pro", "every: hourly, mode: full", None),
        ("pro", "mode: continuous", f"mode: real-time {LATER} premier; heap.plan is pro, which allows daily, hourly"),
        ("premier", "mode: continuous", None),
        ("premier", "mode: continuous, every: real-time", None),
        ("premier", "mode: continuous, every: daily", "every: a continuous export is real-time: leave every out"),
        ("premier", "every: real-time", "every: needs mode: continuous"),
        ("premier", "table: _hub_rows", f"table: {NAMES}"),
        ("premier", "events: []", "events: must not be empty"),
    ],
)
def test_an_export_keeps_to_the_plan(tmp_path: Path, plan: str, export: str, told: str | None) -> None:
    expected = [] if told is None else [f"environment.yaml:8: exports[0].{told}"]
    assert problems(tmp_path, plan, f"  - {{name: lake, {export}}}\n") == expected


def test_each_export_has_a_name_and_a_table_of_its_own(tmp_path: Path) -> None:
    exports = """\
  - {name: lake, table: events}
  - {name: Lake, table: more}
  - {name: other, table: Events}
  - {name: elsewhere, table: events, to: "duckdb:///elsewhere.duckdb"}
"""
    assert problems(tmp_path, "pro", exports) == [
        "environment.yaml:9: exports[1].name: becomes lake, as exports[0] does: each needs a name of its own",
        "environment.yaml:10: exports[2].table: is the table of exports[0]: each needs its own",
    ]
