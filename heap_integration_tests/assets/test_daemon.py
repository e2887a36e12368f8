"""What Dagster's daemon makes of the sensors and of a backfill, with the instance that the project ships."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._daemon.sensor import execute_sensor_iteration
from ruamel.yaml import YAML

from heap_integration_tests.assets.project import NAME, START, Project, flow_started, key

SHIPPED = Path(__file__).parents[2] / "dagster.yaml"
LOG = logging.getLogger(__name__)

# Dagster's own code calls what Dagster has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in 2.0:DeprecationWarning")


@contextmanager
def workspace(project: Project, instance: dg.DagsterInstance) -> Iterator[WorkspaceProcessContext]:
    """Load the project as a code location, in this process."""
    origin = LoadableTargetOrigin(
        executable_path=sys.executable,
        module_name="heap_integration.definitions",
        attribute=NAME,
        working_directory=str(project.root),
    )
    location = InProcessCodeLocationOrigin(origin, location_name=NAME)
    with WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(location)) as context:
        yield context


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Serve the instance of dagster.yaml; runs are executed in this process."""
    launcher = {
        "module": "dagster._core.launcher.sync_in_memory_run_launcher",
        "class": "SyncInMemoryRunLauncher",
    }
    home = tmp_path / "home"
    home.mkdir()
    with dg.instance_for_test(YAML(typ="safe").load(SHIPPED) | {"run_launcher": launcher}, temp_dir=str(home)) as made:
        yield made


def ranges(runs: Sequence[dg.DagsterRun]) -> list[tuple[str, str]]:
    def ends(tags: dict[str, str]) -> tuple[str, str]:
        one = tags.get("dagster/partition", "")
        return (
            tags.get("dagster/asset_partition_range_start", one),
            tags.get("dagster/asset_partition_range_end", one),
        )

    return sorted(ends(dict(run.tags)) for run in runs)


def test_the_days_a_sensor_asks_for_are_queued_launched_and_sent(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    project.settings["days_per_run"] = 3
    project.write()
    project.land(*(flow_started(f"n{number}", "ada", START + timedelta(days=number)) for number in range(4)))
    with project.hub() as hub:
        hub.load()

    with workspace(project, instance) as context:
        list(execute_sensor_iteration(context, LOG, None, None))
        queued = instance.get_runs()
        for _ in queued:
            list(QueuedRunCoordinatorDaemon(interval_seconds=1).run_iteration(context))

    assert {run.status for run in queued} == {dg.DagsterRunStatus.QUEUED}
    assert ranges(queued) == [("2026-01-01", "2026-01-03"), ("2026-01-04", "2026-01-04")]
    assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}
    assert {run.tags["environment"] for run in instance.get_runs()} == {NAME}
    assert project.sandbox.counts()["events"] == 4


@pytest.mark.parametrize(("setting", "runs"), [(10, 3), ("all", 1)])
def test_a_backfill_of_30_days_is_as_many_runs_as_the_setting_says(
    project: Project,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    setting: int | str,
    runs: int,
) -> None:
    monkeypatch.chdir(project.root)
    project.settings["days_per_run"] = setting
    project.write()
    days = [(START + timedelta(days=number)).isoformat() for number in range(30)]
    options: dict[str, Any] = dict.fromkeys(("title", "description", "run_config"))

    with workspace(project, instance) as context:
        backfill = PartitionBackfill.from_asset_partitions(
            asset_graph=context.create_request_context().asset_graph,
            backfill_id="thirty",
            tags={},
            backfill_timestamp=time.time(),
            asset_selection=[key("events", "product_events"), key("events", "outbound_event_batches")],
            partition_names=days,
            dynamic_partitions_store=instance,
            all_partitions=False,
            **options,
        )
        instance.add_backfill(backfill)
        for _ in range(2):
            list(execute_backfill_iteration(context, LOG))

    asked = ranges(instance.get_runs())
    assert len(asked) == runs
    assert (asked[0][0], asked[-1][1]) == (days[0], days[-1])
