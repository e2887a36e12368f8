"""What is read of the dbt project where nothing runs: told in dbt's words, and read again only after a change."""

from __future__ import annotations

from pathlib import Path

import pytest

from heap_integration.models.manifest import project_manifest
from heap_integration.models.run import ModelsError
from heap_integration_tests.models.test_project import project


def test_a_project_is_read_again_once_it_has_changed_and_the_old_reading_is_thrown_away(tmp_path: Path) -> None:
    folder = project(tmp_path, {"numbers": "select 1 as number"}).folder
    assert [*project_manifest("hub", folder)["nodes"]] == ["model.small.numbers"]

    project(tmp_path, {"more": "select * from {{ ref('numbers') }}"})
    project_manifest.cache_clear()

    assert len(project_manifest("hub", folder)["nodes"]) == 2
    assert len([*(folder / "target" / "listed").glob("*.json")]) == 1


def test_a_project_that_cannot_be_read_is_told_of_in_dbts_words_alone(tmp_path: Path) -> None:
    folder = project(tmp_path, {"numbers": "select {{ ref('nowhere') }"}).folder
    with pytest.raises(ModelsError) as caught:
        project_manifest("hub", folder)
    told = str(caught.value)
    assert "models/numbers.sql" in told
    assert "unexpected '}'" in told
    assert not any(noise in told for noise in ("\x1b", "Warning", "Traceback"))
