"""What the tests of segments share."""

from __future__ import annotations

from pathlib import Path

import pytest

from heap_integration.warehouse import Warehouse


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """Return an empty warehouse."""
    return Warehouse(f"duckdb:///{tmp_path}/warehouse.duckdb")
