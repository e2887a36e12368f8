"""Each environment is a code location of its own, and its names say which."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import pytest

from heap_integration import definitions
from heap_integration.environment import EnvironmentProblems, load_environment

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _own_variables() -> Iterator[None]:
    """Give the process its variables back: a code location takes an environment's into its own."""
    with mock.patch.dict(os.environ):
        yield


def load(name: str) -> dg.Definitions:
    found: dg.Definitions = getattr(definitions, name)
    return found


def environments(root: Path, **settings: Mapping[str, Any]) -> None:
    for name, more in settings.items():
        folder = root / "environments" / name
        folder.mkdir(parents=True)
        (folder / "environment.yaml").write_text("".join(f"{key}: {value}\n" for key, value in more.items()))


@pytest.mark.parametrize("name", sorted(path.parent.name for path in ROOT.glob("environments/*/environment.yaml")))
def test_a_shipped_environment_loads_and_every_name_that_is_shared_carries_its_own(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    found = load(name)

    dg.Definitions.validate_loadable(found)
    jobs = [found.resolve_job_def(job) for job in ("send_events", "sync_segments")]
    found.resolve_implicit_global_asset_job_def()
    graph = found.resolve_asset_graph()
    assert {node.key.path[0] for node in graph.asset_nodes} == {name}
    env = load_environment(ROOT / "environments" / name)
    configured = {"events", "segments", "models"}
    configured |= {"heap_connect"} if env.heap_connect.s3 else set()
    configured |= {"exports"} if env.exports else set()
    assert {node.group_name for node in graph.asset_nodes} == {f"{name}_{family}" for family in configured}
    pools = {pool for node in graph.asset_nodes if node.is_executable for pool in node.pools or ()}
    exports = ["exports"] if env.exports else []
    assert pools == {f"{name}_{pool}" for pool in ("warehouse", "heap", *exports, *env.destinations.named())}
    assert {job.tags["environment"] for job in jobs} == {name}
    assert {check.asset_key.path[0] for check in graph.asset_check_keys} == {name}


def test_without_automation_there_is_neither_a_schedule_nor_a_sensor(tmp_path: Path, monkeypatch: Any) -> None:
    segment = "[{name: Loyal, from: heap, sync_to: [userflow]}]"
    common = {"destinations": "{userflow: {api_key: {env: KEY}}}", "segments": segment}
    heap = "{{app_id: '{}', segment_sync: {{webhook_secret: {{env: SECRET}}}}}}"
    environments(
        tmp_path,
        by_hand={**common, "heap": heap.format(1)},
        by_itself={**common, "heap": heap.format(2), "automation": "true"},
    )
    monkeypatch.chdir(tmp_path)

    names = {
        name: sorted(each.name for each in [*(load(name).schedules or ()), *(load(name).sensors or ())])
        for name in ("by_hand", "by_itself")
    }

    assert names == {
        "by_hand": [],
        "by_itself": ["hourly_events", "models_daily", "pending_events", "segment_pages", "segments_hourly"],
    }


def test_environments_that_share_what_must_be_their_own_are_refused_when_they_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of the two loads, and another one that is wrong in itself is no hindrance."""
    environments(
        tmp_path,
        one={"heap": "{app_id: '1'}", "store": "sqlite:///data/state.db"},
        two={"heap": "{app_id: '2'}", "store": "sqlite:///data/../data/state.db"},
        alone={"heap": "{app_id: '3'}"},
        wrong={"heap": "{app_id: none}"},
    )
    monkeypatch.chdir(tmp_path)

    for name, other in (("one", "two"), ("two", "one")):
        with pytest.raises(EnvironmentProblems, match=f"{name}/environment.yaml:2: store: environment {other} has"):
            load(name)
    assert load("alone")


def test_a_location_without_a_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environments(tmp_path, one={"heap": "{app_id: '1'}"})
    monkeypatch.chdir(tmp_path)

    with pytest.raises(AttributeError, match=r"'prodction': there is no .*environments/prodction/environment\.yaml"):
        load("prodction")
