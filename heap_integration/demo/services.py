"""The processes of the demo: started, waited for, and taken down with everything they started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

GRACE_SECONDS = 15.0


class DemoFailed(Exception):
    """The demo can't go on; the message says why."""


class Services:
    """Child processes with their logs in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, name: str, command: Sequence[str | Path], environ: Mapping[str, str], url: str | None = None
    ) -> None:
        """Start a program in a session of its own; with ``url``, first make sure that its port is free."""
        if url:
            _check_free(name, httpx.URL(url))
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(  # noqa: S603
                [str(part) for part in command],
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Started from a shell's background, a child would ignore the signal that stops it.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
            )

    def wait_for(self, name: str, url: str, seconds: float) -> None:
        """Return once ``url`` answers.

        Raises:
            DemoFailed: the program has ended, or takes longer than ``seconds``.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._running[name].poll() is not None:
                raise DemoFailed(f"{name} has ended: {self.tail(name)}")
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(url, timeout=5).is_success:
                    return
            time.sleep(0.1)
        raise DemoFailed(f"{name} doesn't answer at {url} after {seconds:.0f} s: {self.tail(name)}")

    def finish(self, name: str) -> None:
        """Wait for a program's end.

        Raises:
            DemoFailed: it failed.
        """
        if self._running[name].wait():
            raise DemoFailed(f"{name} failed: {self.tail(name)}")

    def check(self) -> None:
        """Raise ``DemoFailed`` where a program has ended that should run."""
        for name, process in self._running.items():
            if process.poll() not in (None, 0):
                raise DemoFailed(f"{name} has ended: {self.tail(name)}")

    def stop(self) -> None:
        """Stop all programs, the newest first, and what they have left behind."""
        for process in reversed(self._running.values()):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        for process in reversed(self._running.values()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
            # `dagster dev` leaves its code servers running.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log(self, name: str) -> Path:
        """Return where a program's output goes."""
        return self.folder / f"{name}.log"

    def tail(self, name: str) -> str:
        """Return the end of a program's output."""
        lines = self.log(name).read_text(errors="replace").splitlines()
        return "\n".join([f"(the whole of it: {self.log(name)})", *lines[-12:]])


def _check_free(name: str, url: httpx.URL) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((url.host, url.port or 80))
        except OSError as error:
            raise DemoFailed(f"{name} needs port {url.port} of {url.host}: {error.strerror or error}") from error
