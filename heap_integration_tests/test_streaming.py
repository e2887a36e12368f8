"""What arrives is with Heap in seconds, until a switch says no, and whatever is killed meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from heap_integration import streaming as streams
from heap_integration.environment import load_environment
from heap_integration.hub import Hub, open_hub
from heap_integration.streaming import Streaming
from heap_integration_tests.support.project import write_project
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

STREAM = [sys.executable, "-c", "from heap_integration.cli import main; main()", "stream", "-e", "test"]
SOURCE = "sources: {{userflow: {{signing_secret: {{env: USERFLOW_WEBHOOK_SECRET}}, stream_events: {on}}}}}\n"


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    with running_sandbox(tmp_path / "sandbox", limits=False) as running:
        yield running


def project(root: Path, sandbox: RunningSandbox, *, on: bool = True) -> Path:
    return write_project(root, sandbox.url, more=SOURCE.format(on=str(on).lower()))


def hub_of(root: Path) -> Hub:
    return open_hub(load_environment(root / "environments" / "test"), {})


def land(root: Path, *numbers: int, when: str | None = None) -> None:
    """Leave a sealed segment as a receiver does; ``when`` it happened, now if not told."""
    folder = root / "data" / "test" / "landing"
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    moment = when or now
    lines = [
        {
            "id": f"n{number}",
            "received_at": now,
            "source": "userflow",
            "adapter": "userflow",
            "body": flow(number, moment),
        }
        for number in numbers
    ]
    segment = folder / f"{time.time_ns():019d}-1-00000000.ndjson"
    fresh = segment.with_suffix(".new")
    fresh.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    fresh.rename(segment)


def flow(number: int, when: str) -> dict[str, object]:
    tracked = {"object": "event", "name": "flow_started", "user_id": f"u{number}", "time": when, "attributes": {}}
    return {
        "id": f"n{number}",
        "object": "webhook_notification",
        "topic": "event.tracked",
        "data": {"object": tracked},
    }


def eventually(holds: Callable[[], bool], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


@contextmanager
def streaming(root: Path) -> Iterator[None]:
    """Stream in a thread."""
    stop = threading.Event()
    with hub_of(root) as hub:
        deliveries = hub.deliveries()
        thread = threading.Thread(target=Streaming(hub, deliveries).run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            deliveries.close()


def test_what_lands_is_sent_until_the_switch_is_off_and_goes_on_when_it_is_on_again(
    tmp_path: Path, sandbox: RunningSandbox
) -> None:
    project(tmp_path, sandbox)
    with streaming(tmp_path):
        land(tmp_path, *range(10))
        assert eventually(lambda: sandbox.counts()["events"] == 10)

        project(tmp_path, sandbox, on=False)
        land(tmp_path, *range(10, 20))
        with hub_of(tmp_path) as hub:
            assert eventually(lambda: hub.balance().numbers["events"] == 20)
            assert sandbox.counts()["events"] == 10
            assert hub.balance().numbers["pending"] == 10

        project(tmp_path, sandbox, on=True)
        assert eventually(lambda: sandbox.counts()["events"] == 20)
    assert sandbox.counts()["duplicates"] == 0


def test_heap_out_of_reach_ends_nothing(tmp_path: Path, sandbox: RunningSandbox) -> None:
    project(tmp_path, sandbox)
    sandbox.fault(kind="503", path="/api/track", next=3)
    with streaming(tmp_path):
        land(tmp_path, 1, 2, 3)
        assert eventually(lambda: sandbox.counts()["events"] == 3, 30)


def test_a_refusal_of_heap_ends_no_stream_and_late_events_are_not_forgotten(
    tmp_path: Path, sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "REFUSED_SECONDS", 0.5)
    project(tmp_path, sandbox)
    sandbox.fault(kind="401", path="/api/track", next=1)
    with streaming(tmp_path):
        land(tmp_path, 1, 2, 3, when="2026-01-02T03:04:05Z")
        assert eventually(lambda: sandbox.counts()["events"] == 3)
    assert sandbox.counts()["duplicates"] == 0


@pytest.mark.slow
def test_a_stream_that_is_killed_again_and_again_loses_and_doubles_nothing(
    tmp_path: Path, sandbox: RunningSandbox
) -> None:
    project(tmp_path, sandbox)
    sent = 0
    for seconds in (1.0, 1.4, 1.9, 2.3):
        process = subprocess.Popen(STREAM, cwd=tmp_path, stderr=subprocess.DEVNULL)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            land(tmp_path, *range(sent, sent + 20))
            sent += 20
            time.sleep(0.05)
        process.kill()
        process.wait()
    process = subprocess.Popen(STREAM, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    with hub_of(tmp_path) as hub:
        assert eventually(lambda: hub.balance().numbers["accepted"] == sent, 30)
        assert hub.balance().faults == []
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in told) == (0, False)
    assert sandbox.counts()["events"] == sent
