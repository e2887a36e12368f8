"""Stand-ins for the warehouses of clouds, each a program in an environment of its own."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from heap_integration_tests.support.venvs import venv

HERE = Path(__file__).parent
STARTED_SECONDS = 60


@contextmanager
def bigquery_server(folder: Path) -> Iterator[str]:
    """Run bqemulator with nothing in it; yield its address."""
    port, grpc = _free_port(), _free_port()
    command = [venv("bigquery-server"), HERE / "bigquery_server.py", folder, str(port), str(grpc)]
    with _running(command, folder, lambda: _listens(port)):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def snowflake_server(folder: Path) -> Iterator[int]:
    """Run fakesnow with nothing in it; yield its port."""
    port = _free_port()
    command = [venv("snowflake-server"), "-m", "fakesnow", "-s", "-p", str(port)]
    with _running(command, folder, lambda: _listens(port)):
        yield port


@contextmanager
def redshift_server(folder: Path, s3: str = "") -> Iterator[int]:
    """Run the stand-in for Redshift, which reads from the S3 at an address; yield its port."""
    told = folder / "port"
    command = [venv("redshift-server"), HERE / "redshift_server.py", told, s3]
    with _running(command, folder, lambda: told.exists() and bool(told.read_text())):
        yield int(told.read_text())


@contextmanager
def _running(command: Sequence[str | Path], folder: Path, is_ready: Callable[[], bool]) -> Iterator[None]:
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen([str(part) for part in command], cwd=folder, stdout=output, stderr=output)
    try:
        end = time.monotonic() + STARTED_SECONDS
        while not is_ready():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command[1]} has not started: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(timeout=STARTED_SECONDS)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
