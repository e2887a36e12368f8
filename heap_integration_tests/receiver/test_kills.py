"""Nothing that was acknowledged is lost or doubled, however often the receiver is killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import count
from pathlib import Path

import httpx
import pytest

from heap_integration.landing import waiting
from heap_integration_tests.receiver.signing import userflow_headers

KILLS = 10
CLIENTS = 4
SECONDS_BEFORE_A_KILL = 0.4


class Receiver:
    """A receiver process that can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.process = self._started()

    def _started(self) -> subprocess.Popen[str]:
        program = [sys.executable, "-m", "heap_integration_tests.receiver.program"]
        log = (self.folder / "log").open("a")
        process = subprocess.Popen(
            [*program, str(self.folder), str(self.port)], stdout=subprocess.PIPE, stderr=log, text=True
        )
        log.close()
        assert process.stdout is not None
        self.url = process.stdout.readline().strip()
        self.port = httpx.URL(self.url).port or 0
        return process

    def stop(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        self.process.communicate(timeout=20)
        return self.process.returncode

    def start(self) -> None:
        self.process = self._started()


class Traffic:
    """Clients that send each notification once, and remember which were acknowledged."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.acknowledged: set[str] = set()
        self.sent = 0
        self._numbers = count()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        with httpx.Client(base_url=self.url, timeout=10) as client:
            while not self._over.is_set():
                identifier = f"n-{next(self._numbers)}"
                body = json.dumps({"id": identifier, "filler": "x" * 700}).encode()
                self.sent += 1
                try:
                    answer = client.post("/userflow", content=body, headers=userflow_headers(body))
                except httpx.TransportError:
                    time.sleep(0.1)
                    continue
                assert answer.status_code in {200, 503}
                if answer.status_code == 200:
                    self.acknowledged.add(identifier)

    def wait_for(self, more: int) -> None:
        wanted = len(self.acknowledged) + more
        deadline = time.monotonic() + 20
        while len(self.acknowledged) < wanted:
            assert time.monotonic() < deadline, "the receiver acknowledges nothing"
            time.sleep(0.005)

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


class Loader:
    """Takes sealed segments in while others are written, as the real one does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loaded: Counter[str] = Counter()
        self.alone = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._load_regularly)
        self._thread.start()

    def load(self) -> None:
        with self.alone:
            for path in waiting(self.folder):
                self.loaded.update(json.loads(line)["id"] for line in path.read_bytes().splitlines())
                path.unlink()

    def _load_regularly(self) -> None:
        while not self._over.wait(0.05):
            self.load()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self.load()


def tear(folder: Path) -> int:
    """Add the half line of a write that a dying machine did not finish, and return how many have one."""
    torn = 0
    for path in folder.glob("*.open"):
        with path.open("ab") as segment:
            segment.write(b'{"id":"torn')
        torn += 1
    return torn


@pytest.mark.timeout(90)
def test_every_acknowledged_notification_is_loaded_exactly_once(tmp_path: Path) -> None:
    moments = random.Random()
    landing = tmp_path / "landing"
    torn = 0
    running = Receiver(tmp_path)
    traffic, loader = Traffic(running.url), Loader(landing)
    try:
        for _ in range(KILLS):
            traffic.wait_for(1)
            time.sleep(moments.uniform(0, SECONDS_BEFORE_A_KILL))
            with loader.alone:
                assert running.stop(signal.SIGKILL) == -signal.SIGKILL
                torn += tear(landing)
            running.start()
        traffic.wait_for(50)
    finally:
        traffic.stop()
        running.stop(signal.SIGTERM)
        loader.stop()
    assert list(landing.iterdir()) == []
    assert torn >= KILLS / 2
    assert traffic.acknowledged <= loader.loaded.keys()
    assert set(loader.loaded.values()) == {1}
    assert len(loader.loaded) <= traffic.sent
    print(f"{KILLS} kills: {traffic.sent} sent, {len(traffic.acknowledged)} acknowledged, {torn} torn tails")


def test_a_receiver_told_to_stop_answers_what_it_has_and_seals(tmp_path: Path) -> None:
    running = Receiver(tmp_path)
    traffic = Traffic(running.url)
    traffic.wait_for(20)
    running.stop(signal.SIGTERM)
    traffic.stop()
    sealed = list((tmp_path / "landing").iterdir())
    assert {path.suffix for path in sealed} == {".ndjson"}
    kept = {json.loads(line)["id"] for path in sealed for line in path.read_bytes().splitlines()}
    assert traffic.acknowledged <= kept
    log = (tmp_path / "log").read_text()
    assert f"userflow 200: {len(kept)}" in log
    assert "5ekret" not in log
