"""Foreign programs for the contract tests, installed once outside the tree's sources."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache"


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Keep other test processes from installing the same thing."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _installed(name: str, locks: list[Path], install: Callable[[Path], None]) -> Path:
    """Return the folder of what the lock files describe, installed where it is missing."""
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks) + sys.version.encode()).hexdigest()[:12]
    folder = CACHE / f"{name}-{digest}"
    with _alone(name):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                install(folder)
            except subprocess.CalledProcessError as error:
                last = (error.stderr or error.stdout or str(error)).strip().splitlines()[-1:]
                pytest.skip(f"{name} can't be installed here: {' '.join(last)}")
            (folder / "complete").touch()
    return folder


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    subprocess.run([str(part) for part in command], cwd=cwd, check=True, capture_output=True, text=True)


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Return the folder with the npm clients as the lock file has them."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node and npm are not installed")

    def install(folder: Path) -> None:
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / name, folder)
        _run(npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)

    return _installed("npm", [HERE / "package-lock.json"], install) / "node_modules"


@pytest.fixture(scope="session")
def python_with() -> Callable[[str], Path]:
    """Return the Python of an environment that has what a lock file beside this one lists."""

    def find(name: str) -> Path:
        lock = HERE / f"{name}.txt"
        beside = ROOT / ".venv/bin/uv"
        uv = str(beside) if beside.exists() else shutil.which("uv")

        def install(folder: Path) -> None:
            python = folder / "venv/bin/python"
            if uv is not None:
                _run(uv, "venv", "--python", sys.executable, folder / "venv")
                _run(uv, "pip", "install", "--python", python, "--require-hashes", "-r", lock)
            else:
                _run(sys.executable, "-m", "venv", folder / "venv")
                _run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", lock)

        return _installed(name, [lock], install) / "venv/bin/python"

    return find


@pytest.fixture(scope="session")
def tap_python(python_with: Callable[[str], Path]) -> Path:
    """Return the Python of an environment that has tap-userflow."""
    return python_with("tap-userflow")
