"""Foreign programs for the contract tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from heap_integration_tests.support.venvs import installed, run, venv

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Return the folder with the npm clients as the lock file has them."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node and npm are not installed")

    def install(folder: Path) -> None:
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / name, folder)
        run(npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)

    return installed("npm", [HERE / "package-lock.json"], install) / "node_modules"


@pytest.fixture(scope="session")
def python_with() -> Callable[[str], Path]:
    """Return the Python of an environment that has what a list in ``venvs`` names."""
    return venv


@pytest.fixture(scope="session")
def tap_python() -> Path:
    """Return the Python of an environment that has tap-userflow."""
    return venv("tap-userflow")
