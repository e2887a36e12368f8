"""Receivers that can be killed, clients that remember what was acknowledged, and a loader that counts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import httpx

from heap_integration.landing import Arrivals
from heap_integration_tests.receiver.signing import userflow_headers

CLIENTS = 4
PATIENCE_SECONDS = 20


class Receiver:
    """A receiver process that can be killed and started again at the same address.

    It lands in ``folder``, or in the ``store`` whose URL is given.
    """

    def __init__(self, folder: Path, store: str | None = None) -> None:
        self.folder = folder
        self.store = store
        self.port = 0
        self.process = self._started()

    def _started(self) -> subprocess.Popen[str]:
        program = [sys.executable, "-m", "heap_integration_tests.receiver.program", str(self.folder), str(self.port)]
        with (self.folder / "log").open("a") as log:
            process = subprocess.Popen(
                [*program, *([self.store] if self.store else [])], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert process.stdout is not None
        self.url = process.stdout.readline().strip()
        assert self.url, (self.folder / "log").read_text()
        self.port = httpx.URL(self.url).port or 0
        return process

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return how the process ended."""
        self.process.send_signal(how)
        self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode

    def start(self) -> None:
        """Start it again."""
        self.process = self._started()

    def readiness(self) -> int:
        """Return the status that a balancer gets."""
        return httpx.get(f"{self.url}/ready", timeout=PATIENCE_SECONDS).status_code


class Traffic:
    """Clients that send each notification once, to one address after the other, and remember the answers."""

    def __init__(self, *urls: str) -> None:
        self.acknowledged: set[str] = set()
        self.refused: list[httpx.Response] = []
        self.sent = 0
        self._numbers = count()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(urls,)) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _send(self, urls: Sequence[str]) -> None:
        with httpx.Client(timeout=PATIENCE_SECONDS) as client:
            while not self._over.is_set():
                number = next(self._numbers)
                body = _notification(f"n-{number}")
                self.sent += 1
                try:
                    answer = client.post(
                        f"{urls[number % len(urls)]}/userflow", content=body, headers=userflow_headers(body)
                    )
                except httpx.TransportError:
                    time.sleep(0.1)
                    continue
                if answer.status_code == 200:
                    self.acknowledged.add(f"n-{number}")
                else:
                    self.refused.append(answer)
                    time.sleep(0.02)

    def wait_for_acknowledged(self, more: int) -> None:
        """Wait until so many more notifications are acknowledged."""
        wanted = len(self.acknowledged) + more
        wait_until(lambda: len(self.acknowledged) >= wanted, "the receiver acknowledges nothing")

    def wait_for_refused(self, more: int) -> None:
        """Wait until so many more notifications are refused."""
        wanted = len(self.refused) + more
        wait_until(lambda: len(self.refused) >= wanted, "the receiver refuses nothing")

    def stop(self) -> None:
        """Let the clients end."""
        self._over.set()
        for thread in self._threads:
            thread.join()


class Loader:
    """Takes in what waits while more arrives, as the real one does."""

    def __init__(self, arrivals: Arrivals) -> None:
        self.arrivals = arrivals
        self.loaded: Counter[str] = Counter()
        self.alone = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._load_regularly)
        self._thread.start()

    def load(self) -> None:
        """Take in what waits now."""
        with self.alone:
            if not self.arrivals.has_waiting():
                return
            self.arrivals.gather()
            for segment in self.arrivals.waiting():
                with segment.open() as lines:
                    self.loaded.update(json.loads(line)["id"] for line in lines)
                segment.remove()

    def _load_regularly(self) -> None:
        while not self._over.wait(0.05):
            self.load()

    def stop(self) -> None:
        """End, with everything taken in."""
        self._over.set()
        self._thread.join()
        self.load()


class RealLoader:
    """A process that loads into a warehouse, as ``stream`` does, and can be killed and started again."""

    def __init__(self, warehouse: Path, home: str) -> None:
        self.arguments = [str(warehouse), home]
        self.process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "heap_integration_tests.landing.load_until_killed", *self.arguments]
        )

    def kill(self) -> None:
        """Kill it."""
        assert self.process.poll() is None, "the loader has failed"
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        """Start it again."""
        self.process = self._started()


def _notification(identifier: str) -> bytes:
    event = {"object": "event", "name": "flow_started", "user_id": "u-1", "attributes": {"filler": "x" * 500}}
    notification = {"object": "webhook_notification", "topic": "event.tracked", "data": {"object": event}}
    return json.dumps({"id": identifier, **notification}).encode()


def assert_exactly_once(traffic: Traffic, loader: Loader) -> None:
    """Hold what was acknowledged against what was loaded."""
    assert traffic.acknowledged, "nothing was acknowledged"
    assert traffic.acknowledged <= loader.loaded.keys()
    assert set(loader.loaded.values()) == {1}
    assert len(loader.loaded) <= traffic.sent


def wait_until(until: Callable[[], bool], otherwise: str) -> None:
    """Wait for something that happens within seconds, or fail with what is wrong ``otherwise``."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not until():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.005)
