"""A sandbox without limits and a project whose events go there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from heap_integration_tests.faults.sending import Delivery, hub_of
from heap_integration_tests.support.project import write_project
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    """Serve; what arrives is in ``sandbox/sandbox.db`` of the test's folder."""
    with running_sandbox(tmp_path / "sandbox", limits=False) as running:
        yield running


@pytest.fixture
def delivery(tmp_path: Path, sandbox: RunningSandbox) -> Iterator[Delivery]:
    """Return the way from the test's folder to the sandbox."""
    with hub_of(write_project(tmp_path, sandbox.url)) as hub:
        yield Delivery(tmp_path, sandbox, hub)
