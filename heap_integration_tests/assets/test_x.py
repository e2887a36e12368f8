from datetime import date, timedelta
from heap_integration_tests.assets.project import *
import logging, time, sys
import pytest
import dagster as dg
from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget, create_test_daemon_workspace_context
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._scheduler.scheduler import launch_scheduled_runs
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.test_utils import instance_for_test

@pytest.mark.filterwarnings("ignore:.* is deprecated and will be removed in 2.0:DeprecationWarning")
def test_x(project: Project, monkeypatch, tmp_path):
    monkeypatch.chdir(project.root)
    project.settings["days_per_run"]=3
    project.write()
    log = logging.getLogger("x")
    project.lay("a.ndjson", *(track("ada", START+timedelta(days=d)) for d in range(5)))
    project.hub().load()
    origin = LoadableTargetOrigin(executable_path=sys.executable, module_name="heap_integration.definitions", attribute=NAME, working_directory=str(project.root))
    t=time.time()
    with instance_for_test(synchronous_run_launcher=True, synchronous_run_coordinator=True, temp_dir=str(tmp_path)) as instance:
        with WorkspaceProcessContext(instance, InProcessTestWorkspaceLoadTarget(InProcessCodeLocationOrigin(origin, location_name=NAME))) as workspace:
            print("loaded", time.time()-t); t=time.time()
            print(list(execute_sensor_iteration(workspace, log, None, None)))
            for run in instance.get_runs():
                print(run.job_name, run.status, run.tags)
            print(project.sandbox.counts())
            print("sensed", time.time()-t); t=time.time()
            assets = [key("events","product_events"), key("events","outbound_event_batches")]
            graph = workspace.create_request_context().asset_graph
            b = PartitionBackfill.from_asset_partitions(
                asset_graph=graph, backfill_id="b1", tags={}, backfill_timestamp=time.time(),
                asset_selection=assets, partition_names=[(START+timedelta(days=d)).isoformat() for d in range(30)],
                dynamic_partitions_store=instance, all_partitions=False, title=None, description=None, run_config=None)
            instance.add_backfill(b)
            for i in range(5):
                print(list(execute_backfill_iteration(workspace, log)))
                print(instance.get_backfill("b1").status)
            for run in instance.get_runs():
                print(run.job_name, run.status, run.tags)
            print("backfilled", time.time()-t); t=time.time()

