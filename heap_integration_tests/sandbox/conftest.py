"""A sandbox with two environments for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from heap_integration.sandbox.settings import DEVELOPMENT, SandboxEnvironment
from heap_integration_tests.support.s3 import heap_bucket, s3_server
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

__all__ = ["heap_bucket", "s3_server"]

SECOND = SandboxEnvironment(
    app_id="2000000002",
    heap_api_key=SecretStr("second-api-key"),
    heap_webhook_secret=SecretStr("second-webhook-secret"),
    heap_client_id="second-client",
    heap_client_secret=SecretStr("second-client-secret"),
    userflow_api_key=SecretStr("ak_second"),
    userflow_signing_secret=SecretStr("second-signing-secret"),
)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    """Serve with short pauses before anything is sent again."""
    with running_sandbox(
        tmp_path,
        environments=(DEVELOPMENT, SECOND),
        retry_seconds=0.02,
        deletion_seconds=0.2,
        userflow_queue_seconds=0.2,
    ) as running:
        yield running
