"""How all property tests run, and a store for whoever asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from heap_integration.store import Store

# A busy machine draws and runs slowly, which says nothing about the code; and where examples share a fixture, they are
# written so that they may.
SUPPRESSED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("hub", deadline=None, suppress_health_check=SUPPRESSED)
settings.load_profile("hub")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/store.db")
    yield store
    store.close()
