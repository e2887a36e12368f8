"""The store's two homes."""

from __future__ import annotations

from pathlib import Path

import pytest

from heap_integration_tests.support.postgres import postgres, postgres_database

__all__ = ["postgres", "postgres_database"]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a store that doesn't exist yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/data/hub.db"
    return str(request.getfixturevalue("postgres_database"))
