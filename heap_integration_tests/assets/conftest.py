"""A project and a sandbox for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from heap_integration_tests.assets.project import Project
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    with running_sandbox(tmp_path_factory.mktemp("sandbox"), retry_seconds=0.02) as found:
        yield found


@pytest.fixture(scope="module")
def dagster() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture
def project(
    tmp_path: Path, running: RunningSandbox, dagster: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """Return a new project; the sandbox has forgotten everything."""
    running.client.post("/_reset").raise_for_status()
    monkeypatch.setenv("USERFLOW_API_KEY", running.environment.userflow_api_key.get_secret_value())
    return Project(tmp_path, running, dagster)
