"""Events of today go out while a backfill of other days is under way."""

from __future__ import annotations

import threading
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from heap_integration.environment import Environment, load_environment
from heap_integration.hub import open_hub
from heap_integration_tests.support.project import call, write_lines, write_project
from heap_integration_tests.support.sandbox import running_sandbox

OLD = 4_000
LIVE = 50


def send(environment: Environment, first: date, last: date) -> int:
    """Send what is pending, as a process of its own would, and return how many Heap took."""
    with open_hub(environment, {}) as hub:
        ways = hub.deliveries()
        try:
            return ways.send(first, last).accepted
        finally:
            ways.close()


def test_what_happens_now_does_not_wait_for_a_backfill(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    old = [call(number, timestamp="2026-01-02T00:00:00Z") for number in range(OLD)]
    live = [call(OLD + number, timestamp=f"{today}T00:00:00Z") for number in range(LIVE)]
    with running_sandbox(tmp_path / "sandbox", limits=False) as sandbox:
        write_project(tmp_path, sandbox.url)
        environment = load_environment(tmp_path / "environments" / "test")
        backfill = threading.Thread(target=send, args=(environment, date(2026, 1, 1), date(2026, 1, 9)))
        with open_hub(environment, {}) as hub:
            hub.load_file(write_lines(tmp_path / "old.ndjson", old), None)
            sandbox.fault(kind="latency", path="/api/track", seconds=0.7)
            backfill.start()
            while not sandbox.counts()["requests"]:
                time.sleep(0.02)
            hub.load_file(write_lines(tmp_path / "live.ndjson", live), None)
            assert send(environment, today - timedelta(days=1), today) == LIVE
            assert backfill.is_alive()
            backfill.join()
            assert hub.balance().numbers["accepted"] == OLD + LIVE
        assert (sandbox.counts()["events"], sandbox.counts()["duplicates"]) == (OLD + LIVE, 0)
