"""Foreign programs that tests run, installed once under .cache in environments of their own."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
CACHE = ROOT / ".cache"
LOCKS = TESTS / "venvs"


def venv(name: str) -> Path:
    """Return the Python of an environment that has what ``venvs/<name>.txt`` lists with its hashes.

    Made the first time and whenever the list or our own Python changes; several test processes may ask at once.
    Skips the test that asks where the packages can't be fetched. Lists are renewed with
    ``uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header <name>.in -o
    <name>.txt``.
    """
    lock = LOCKS / f"{name}.txt"

    def install(folder: Path) -> None:
        made, python = folder / "venv", folder / "venv/bin/python"
        if uv := _uv():
            # uv reads no pip.conf: where only pip knows the way to the packages, pip goes.
            with contextlib.suppress(subprocess.CalledProcessError):
                run(uv, "venv", "--python", sys.executable, made)
                run(uv, "pip", "install", "--python", python, "--require-hashes", "-r", lock)
                return
        run(sys.executable, "-m", "venv", "--clear", made)
        run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", lock)

    return installed(name, [lock], install) / "venv/bin/python"


def installed(name: str, locks: Sequence[Path], install: Callable[[Path], None]) -> Path:
    """Return the folder that ``install`` filled with what the lock files describe; skip the test where it can't."""
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


def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Run a command of an installation; what it says is kept for the error alone."""
    subprocess.run([str(part) for part in command], cwd=cwd, check=True, capture_output=True, text=True)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Keep other test processes from installing the same thing."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _uv() -> str | None:
    beside = ROOT / ".venv/bin/uv"
    return str(beside) if beside.exists() else shutil.which("uv")
