"""Two environments under one Dagster: neither process has the other's secrets, and nobody writes one down."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import httpx
import orjson
import pytest
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._serdes import serialize_value
from dagster_graphql.schema import create_schema

from heap_integration.sandbox.settings import ENVIRONMENTS_VARIABLE, settings_from
from heap_integration_tests.assets.project import START, flow_started, track
from heap_integration_tests.receiver.signing import userflow_headers
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

PROJECT = Path(__file__).parents[2]
NAMES = ("alpha", "beta")
READABLE = sys.platform == "linux"
AT_ONCE = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}
# Larger regions are reserved, not used.
MOST_MEMORY = 512 * 1024 * 1024

LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
LOOK = """
query($repository: RepositorySelector!) {
  allTopLevelResourceDetailsOrError(repositorySelector: $repository) {
    ... on ResourceDetailsList {
      results { name resourceType configuredValues { key value type } configFields { name configTypeKey } }
    }
  }
  utilizedEnvVarsOrError(repositorySelector: $repository) {
    ... on EnvVarWithConsumersList { results { envVarName } }
  }
  runsOrError {
    ... on Runs {
      results {
        runId status runConfigYaml tags { key value }
        eventConnection {
          events {
            __typename
            ... on MessageEvent { message stepKey }
            ... on ExecutionStepFailureEvent { error { message stack causes { message stack } } }
            ... on MaterializationEvent { metadataEntries { label description } }
          }
        }
      }
    }
  }
  assetNodes { assetKey { path } description groupName opNames metadataEntries { label description } }
  instance { info }
  workspaceOrError { ... on Workspace { locationEntries { name displayMetadata { key value } } } }
}
"""

# Dagster's own code calls what Dagster has deprecated.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in 2.0:DeprecationWarning"),
]


@dataclass
class Secrets:
    """One environment's variables; ``values`` are what must be found nowhere."""

    name: str
    app_id: str
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for variable in ("HEAP_API_KEY", "HEAP_SEGMENT_SYNC_SECRET", "USERFLOW_API_KEY", "USERFLOW_WEBHOOK_SECRET"):
            self.variables[variable] = f"{self.name}-{secrets.token_hex(16)}"

    @property
    def values(self) -> set[bytes]:
        """The secrets themselves."""
        return {value.encode() for value in self.variables.values()}

    def sandbox(self) -> dict[str, str]:
        """Describe the environment to a sandbox."""
        return {
            "app_id": self.app_id,
            "heap_api_key": self.variables["HEAP_API_KEY"],
            "heap_webhook_secret": self.variables["HEAP_SEGMENT_SYNC_SECRET"],
            "heap_client_id": f"client-{self.name}",
            "heap_client_secret": f"client-secret-{self.name}",
            "userflow_api_key": self.variables["USERFLOW_API_KEY"],
            "userflow_signing_secret": self.variables["USERFLOW_WEBHOOK_SECRET"],
        }

    def write(self, root: Path, sandbox: RunningSandbox) -> None:
        """Describe the environment to the project, with a store whose address is secret too."""
        self.variables["STORE_URL"] = f"sqlite:///{root}/data/{self.name}-{secrets.token_hex(16)}.db"
        folder = root / "environments" / self.name
        folder.mkdir(parents=True)
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in self.variables.items()))
        settings = {
            "heap": {
                "app_id": self.app_id,
                "api_key": {"env": "HEAP_API_KEY"},
                "base_url": sandbox.url,
                "segment_sync": {"webhook_secret": {"env": "HEAP_SEGMENT_SYNC_SECRET"}},
            },
            "store": {"env": "STORE_URL"},
            "start_date": START.isoformat(),
            "automation": True,
            "sources": {
                "userflow": {"signing_secret": {"env": "USERFLOW_WEBHOOK_SECRET"}},
                "files": [{"name": "backend", "path": f"incoming/{self.name}.ndjson"}],
            },
            "destinations": {"userflow": {"api_key": {"env": "USERFLOW_API_KEY"}, "base_url": sandbox.userflow_url}},
            "segments": [{"name": "Loyal buyers", "from": "heap", "sync_to": ["userflow"]}],
        }
        (folder / "environment.yaml").write_text(json.dumps(settings))
        (root / "incoming").mkdir(exist_ok=True)
        (root / "incoming" / f"{self.name}.ndjson").write_text(json.dumps(track("ada", START)))


@dataclass
class Deployment:
    """A project of two environments while it runs: code locations, receivers and a sandbox."""

    root: Path
    sandbox: RunningSandbox
    environments: dict[str, Secrets]
    context: WorkspaceProcessContext
    schema: Any = field(default_factory=create_schema)

    @property
    def values(self) -> set[bytes]:
        """Every secret."""
        return set().union(*(environment.values for environment in self.environments.values()))

    def ask(self, query: str, **variables: Any) -> Any:
        """Ask what the UI asks."""
        asked = self.schema.execute_async(
            query, context_value=self.context.create_request_context(), variable_values=variables
        )
        answer = asyncio.run(asked)
        assert not answer.errors, answer
        return answer.data

    def repository(self, name: str) -> dict[str, str]:
        """Name a location's repository."""
        location = self.context.create_request_context().get_code_location(name)
        return {"repositoryLocationName": name, "repositoryName": next(iter(location.get_repositories()))}

    def launch(self, name: str) -> str:
        """Start a run of everything in an environment, for the first day."""
        events = [f"events/{asset}" for asset in ("product_events", "outbound_event_batches")]
        segments = [f"{family}/loyal_buyers" for family in ("heap_segments", "userflow_segments")]
        assets = [{"path": [name, *asset.split("/")]} for asset in (*events, *segments)]
        job = {**self.repository(name), "jobName": "__ASSET_JOB", "assetSelection": assets, "assetCheckSelection": []}
        tags = [{"key": "dagster/partition", "value": START.isoformat()}]
        params = {"selector": job, "executionMetadata": {"tags": tags}, "mode": "default", "runConfigData": {}}
        launched = self.ask(LAUNCH, params=params)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run: str = launched["run"]["runId"]
        return run

    def wait(self, reached: Callable[[], bool]) -> None:
        """Wait for something that takes a few seconds."""
        until = time.monotonic() + 90
        while not reached():
            assert time.monotonic() < until
            time.sleep(0.1)

    def finish(self) -> dict[str, str]:
        """Wait for the end of every run and return their statuses by location."""
        instance = self.context.instance
        self.wait(lambda: all(run.is_finished for run in instance.get_runs()))
        return {run.tags["dagster/code_location"]: run.status.value for run in instance.get_runs()}

    def bring(self, name: str) -> None:
        """Let Userflow and Heap call an environment's receiver."""
        environment = self.environments[name]
        words = self.root / f"receive-{name}.log"
        self.wait(lambda: "receiving on " in words.read_text())
        receiver = words.read_text().split("receiving on ")[1].split()[0]
        body = orjson.dumps(flow_started("n1", "ada", START))
        headers = userflow_headers(body, secret=environment.variables["USERFLOW_WEBHOOK_SECRET"])
        assert httpx.post(f"{receiver}/userflow", content=body, headers=headers).status_code == 200
        segments = f"/_heap/{environment.app_id}/segments"
        segment = {"id": 7, "name": "Loyal buyers", "members": ["ada"], "webhook_url": f"{receiver}/heap/segments"}
        assert self.sandbox.client.post(segments, json=segment).is_success
        synced = self.sandbox.client.post(f"{segments}/7/sync", json={}).json()
        assert synced["acknowledged"], synced


@contextmanager
def receiving(root: Path, name: str) -> Iterator[None]:
    """Run an environment's receiver, its words in a file."""
    command = [str(Path(sys.executable).with_name("heap-integration")), "receive", "-e", name, "--port", "0"]
    with (
        (root / f"receive-{name}.log").open("w") as words,
        subprocess.Popen(command, cwd=root, stdout=words, stderr=words) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


def processes_below(top: int) -> dict[int, str]:
    """Return the processes below one, each with the environment that its command or a parent's names."""
    found: dict[int, str] = {}
    waiting = [(top, "")]
    parents = {int(path.name): _parent(path) for path in Path("/proc").iterdir() if path.name.isdigit()}
    while waiting:
        above, inherited = waiting.pop()
        for pid in (pid for pid, parent in parents.items() if parent == above):
            words = _read(pid, "cmdline").decode().split("\0")
            name = next((name for name in NAMES if name in words), inherited)
            found[pid] = name
            waiting.append((pid, name))
    return found


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def held(pid: int, values: set[bytes]) -> set[bytes]:
    """Return which values a process has in the environment it was started with, or in what it can write."""
    found = {value for value in values if value in _read(pid, "environ")}
    regions = [line.split() for line in _read(pid, "maps").decode().splitlines()]
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for place, rights, *_ in regions:
                start, end = (int(number, 16) for number in place.split("-"))
                if rights.startswith("rw") and end - start < MOST_MEMORY:
                    content = os.pread(memory.fileno(), end - start, start)
                    found |= {value for value in values if value in content}
    except OSError:
        # It has ended in the meantime.
        return found
    return found


def written(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file's content, and what is in the tables of databases, which may be packed in the file."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    yield from [(str(path), path.read_bytes()) for path in files]
    # Only then: to open a database may remove the files beside it.
    for path in files:
        if path.suffix == ".duckdb":
            with duckdb.connect(str(path), read_only=True) as con:
                for (table,) in con.execute("select table_name from duckdb_tables()").fetchall():
                    yield f"{path} {table}", repr(con.table(table).fetchall()).encode()
        elif path.suffix == ".db":
            with closing(sqlite3.connect(path)) as database:
                yield f"{path} as text", "\n".join(database.iterdump()).encode()


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Serve two environments; the Userflow key of beta has been revoked, so that its run fails."""
    environments = {name: Secrets(name, f"{number}000") for number, name in enumerate(NAMES, 1)}
    described = [environment.sandbox() for environment in environments.values()]
    described[1]["userflow_api_key"] = "another"
    settings = settings_from({ENVIRONMENTS_VARIABLE: json.dumps(described)})
    root, home = tmp_path / "project", tmp_path / "project" / "home"
    home.mkdir(parents=True)
    locations = [
        {"python_module": {"module_name": "heap_integration.definitions", "attribute": name, "location_name": name}}
        for name in NAMES
    ]
    (root / "workspace.yaml").write_text(json.dumps({"load_from": locations}))
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    with running_sandbox(root, environments=settings.environments, retry_seconds=0.02) as sandbox:
        for environment in environments.values():
            environment.write(root, sandbox)
        target = WorkspaceFileTarget([str(root / "workspace.yaml")])
        with (
            receiving(root, "alpha"),
            receiving(root, "beta"),
            dg.instance_for_test({"run_coordinator": AT_ONCE}, temp_dir=str(home)) as instance,
            create_test_daemon_workspace_context(target, instance) as context,
        ):
            yield Deployment(root, sandbox, environments, context)


def test_each_process_has_its_own_secrets_alone_and_nothing_that_is_written_or_shown_has_any(
    deployment: Deployment, capfd: pytest.CaptureFixture[str]
) -> None:
    root, sandbox = deployment.root, deployment.sandbox
    assert sandbox.userflow("POST", "/users", json={"id": "ada", "attributes": {}}).is_success
    hold = sandbox.fault(kind="latency", path="/api/track", seconds=3)["id"]
    held_by: dict[str, set[bytes]] = {name: set() for name in NAMES}
    looked_at: dict[str, set[int]] = {name: set() for name in NAMES}
    for name in NAMES:
        deployment.bring(name)
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(deployment.launch, name) for name in NAMES]
        for requests in (1, 2):
            # A run whose request is held is there to be looked into.
            deployment.wait(partial(has_met, sandbox, hold, requests))
            for pid, owner in processes_below(os.getpid()).items() if READABLE else ():
                if owner and pid not in looked_at[owner]:
                    held_by[owner] |= held(pid, deployment.values)
                    looked_at[owner].add(pid)
        for run in runs:
            run.result()
    status = deployment.finish()

    assert status == {"alpha": "SUCCESS", "beta": "FAILURE"}
    for name, environment in deployment.environments.items():
        assert sandbox.counts(environment.app_id)["events"] == 2
        if READABLE:
            assert held_by[name] == environment.values
            # the location's server, its run and its receiver
            assert len(looked_at[name]) >= 3
    shown = {name: repr(deployment.ask(LOOK, repository=deployment.repository(name))) for name in NAMES}
    assert "Check the Userflow API key" in shown["beta"]
    assert all("'USERFLOW_API_KEY', 'type': 'ENV_VAR'" in text for text in shown.values())
    for entry in deployment.context.create_request_context().code_locations:
        snapshots = (repository.repository_snap for repository in entry.get_repositories().values())
        shown[f"definitions of {entry.name}"] = "".join(map(serialize_value, snapshots))
    shown["words"] = "".join(capfd.readouterr())
    texts = {**{name: text.encode() for name, text in shown.items()}, **dict(written(root))}
    found = {name for name, text in texts.items() if any(value in text for value in deployment.values)}
    assert found == {str(root / "environments" / name / ".env") for name in NAMES}


def has_met(sandbox: RunningSandbox, fault: int, requests: int) -> bool:
    """Say whether so many requests have met a fault."""
    hits = {rule["id"]: rule["hits"] for rule in sandbox.state()["faults"]}
    return bool(hits[fault] >= requests)
