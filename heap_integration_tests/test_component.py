"""The Component, in a dg project of somebody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster.components.testing.utils import create_defs_folder_sandbox
from pydantic import ValidationError

from heap_integration.component import HeapEnvironment

ATTRIBUTES = {
    "name": "production",
    "heap": {"app_id": "10", "segment_sync": {"webhook_secret": {"env": "HEAP_SEGMENT_SYNC_SECRET"}}},
    "segments": [{"name": "Power users", "from": "heap", "sync_to": ["userflow"]}],
    "destinations": {"userflow": {"api_key": {"env": "USERFLOW_API_KEY"}}},
}
DEFS_YAML = """\
type: heap_integration.component.HeapEnvironment
attributes:
  name: production
  heap:
    app_id: "10"
    segment_sync: {webhook_secret: {env: HEAP_SEGMENT_SYNC_SECRET}}
  segments:
    - name: Power users
      from: heap
      sync_to: [userflow]
  destinations:
    userflow: {api_key: {env: USERFLOW_API_KEY}}
"""
PROJECT = """\
[project]
name = "other"
version = "1.0"
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "other"
"""


# Dagster reads defs.yaml through pydantic's old names and points back at it with a beta class.
@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20", "ignore::dagster.BetaWarning")
def test_the_definitions_of_the_component_hold_names_of_variables_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("USERFLOW_API_KEY", "hunter2")
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            HeapEnvironment,
            defs_yaml_contents={
                "type": "heap_integration.component.HeapEnvironment",
                "attributes": ATTRIBUTES,
            },
        )
        with sandbox.load_component_and_build_defs(path) as (component, definitions):
            assert isinstance(component, HeapEnvironment)
            assert component.environment.landing == str(sandbox.project_root.resolve() / "data/production/landing")
            dg.Definitions.validate_loadable(definitions)
            keys = definitions.resolve_asset_graph().get_all_asset_keys()
            userflow = definitions.resources["userflow_destination"]  # type: ignore[index]

    assert {key.path[0] for key in keys} == {"production"}
    assert userflow.api_key == dg.EnvVar("USERFLOW_API_KEY")
    assert "hunter2" not in repr(definitions)


def test_a_secret_in_the_attributes_is_refused_and_not_repeated() -> None:
    for secret in ("hunter2", "{{ env.USERFLOW_API_KEY }}"):
        attributes = ATTRIBUTES | {"destinations": {"userflow": {"api_key": secret}}}
        with pytest.raises(ValidationError, match="a secret is the name of a variable") as caught:
            HeapEnvironment.from_attributes_dict(attributes=attributes)
        assert secret not in str(caught.value)


@pytest.mark.slow
def test_dg_check_yaml_takes_a_right_file_and_names_the_line_of_a_wrong_one(tmp_path: Path) -> None:
    file = tmp_path / "src/other/defs/production/defs.yaml"
    file.parent.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "src/other/__init__.py").touch()
    (tmp_path / "src/other/defs/__init__.py").touch()

    def check(text: str) -> subprocess.CompletedProcess[str]:
        file.write_text(text)
        return subprocess.run(
            [Path(sys.executable).with_name("dg"), "check", "yaml"],
            cwd=tmp_path,
            env=os.environ
            | {
                "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "DAGSTER_HOME": str(tmp_path),
                "DAGSTER_DISABLE_TELEMETRY": "1",
                "HOME": str(tmp_path),
            },
            capture_output=True,
            text=True,
            check=False,
        )

    right = check(DEFS_YAML)
    wrong = check(DEFS_YAML.replace("sync_to", "synk_to"))

    assert right.returncode == 0, right.stdout + right.stderr
    assert wrong.returncode == 1
    assert f"{file}:10" in wrong.stdout + wrong.stderr
    assert "'synk_to' was unexpected" in wrong.stdout + wrong.stderr
