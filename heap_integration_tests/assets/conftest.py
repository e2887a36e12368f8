"""A project and a sandbox for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from heap_integration_tests.assets.project import Project
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    with running_sandbox(tmp_path, retry_seconds=0.02) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setenv("USERFLOW_API_KEY", sandbox.environment.userflow_api_key.get_secret_value())
    with dg.DagsterInstance.ephemeral() as instance:
        yield Project(tmp_path, sandbox, instance)
