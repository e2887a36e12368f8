"""A receiver with all sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from heap_integration_tests.receiver.serving import receiver


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    """Yield a client of a receiver that keeps its data in ``tmp_path``."""
    with receiver(tmp_path) as found:
        yield found
