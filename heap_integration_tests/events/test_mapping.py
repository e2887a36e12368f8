"""A mapping's mistakes are shown with file, line, field and what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from heap_integration.events.mapping import Mapping, MappingError, load_mapping
from heap_integration_tests.events.conftest import ROOT

Write = Callable[[str, str | bytes], Path]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("event: e\nuser_id: u\nusers: x\n", "m.yaml:3: users: unknown field; allowed are event, user_id,"),
        ("user_id: u\n", "m.yaml:1: event: Field required"),
        ("event: e\n", "m.yaml:1: mapping: name a column for user_id or anonymous_id"),
        ("event: e\nuser_id: u\n\nidentical_rows: drop\n", "m.yaml:4: identical_rows: .*'merge' or 'keep'"),
        ("event: e\nuser_id: u\ntimestamp_unit: days\n", "m.yaml:3: timestamp_unit: .*'auto', 's', 'ms' or 'us'"),
        ("event: [e\n", "m.yaml:2: "),
        ("event: e\nevent: f\n", "m.yaml:2: found duplicate key"),
        ("- event\n", "m.yaml:1: a mapping is written as field: column"),
        ("", "m.yaml:1: a mapping is written as field: column"),
    ],
)
def test_a_mistake_is_shown_where_it_stands(write: Write, text: str, problem: str) -> None:
    with pytest.raises(MappingError, match=problem):
        load_mapping(write("m.yaml", text))


def test_a_missing_mapping_is_named(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match=r"none\.yaml: No such file"):
        load_mapping(tmp_path / "none.yaml")


def test_the_shipped_mappings_load() -> None:
    paths = [*ROOT.glob("docs/mappings/*.yaml"), *ROOT.glob("environments/*/mappings/*.yaml")]
    assert len(paths) >= 4
    assert all(isinstance(load_mapping(path), Mapping) for path in paths)
