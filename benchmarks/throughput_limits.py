"""How much of Heap's 15,000 events a minute a delivery uses, with a fifth of the events from one identity.

python benchmarks/throughput_limits.py [--minutes 2]

The heavy identity offers 3,000 events a minute of the 1,000 it may send, so its surplus must wait without
holding up the others. The input is long enough for others to remain all the while; what then is left of the
heavy identity, at 1,000 a minute, isn't waited for.
"""

from __future__ import annotations

import argparse
import json
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

PER_MINUTE, PER_IDENTITY = 15_000, 1_000
HEAVY, HEAVY_EVERY = "heavy", 5
IDENTITIES = 2_000
APP_ID = "1000000001"
COMMAND = [sys.executable, "-c", "from heap_integration.cli import main; main()"]


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def counts(url: str) -> dict[str, int]:
    """Return what the sandbox has counted for the app id."""
    with urlopen(f"{url}/_state") as answer:
        found: dict[str, int] = json.load(answer)["apps"][APP_ID]
        return found


def wait_for(url: str) -> None:
    """Wait until the sandbox answers."""
    for _ in range(200):
        try:
            counts(url)
            return
        except URLError:
            time.sleep(0.1)
    sys.exit("the sandbox did not start")


def project(folder: Path, url: str, events: int) -> Path:
    """Write an environment with Heap's own limits, and a file of events of many people and a heavy one."""
    settings = folder / "environments/bench"
    settings.mkdir(parents=True)
    (settings / "environment.yaml").write_text(f'heap:\n  app_id: "{APP_ID}"\n  base_url: {url}\n')
    file = folder / "events.ndjson"
    with file.open("w") as lines:
        for number in range(events):
            call = {
                "type": "track",
                "event": "Step",
                "userId": f"user {number % IDENTITIES}" if number % HEAVY_EVERY else HEAVY,
                "messageId": f"message-{number}",
                "timestamp": "2026-01-02T03:04:05Z",
                "properties": {"number": number},
            }
            lines.write(json.dumps(call) + "\n")
    return file


def busiest(times: Iterable[float]) -> int:
    """Return the most moments of an ascending sequence that lie within any 60 seconds."""
    window: deque[float] = deque()
    most = 0
    for at in times:
        window.append(at)
        while window[0] <= at - 60:
            window.popleft()
        most = max(most, len(window))
    return most


def arrivals(state: Path) -> list[tuple[float, str]]:
    """Return when the sandbox took each event, and whose it is, in order."""
    with closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as con:
        return con.execute("select received_at, identity from heap_events order by received_at, seq").fetchall()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=int, default=2, help="for how many windows, in real time")
    minutes = parser.parse_args().minutes
    # Others fill what the heavy identity leaves of each window, and of one more.
    events = (PER_MINUTE - PER_IDENTITY) * (minutes + 1) * HEAVY_EVERY // (HEAVY_EVERY - 1)
    others = events - events // HEAVY_EVERY
    with tempfile.TemporaryDirectory() as temporary:
        folder, url = Path(temporary), f"http://127.0.0.1:{(port := free_port())}"
        file = project(folder, url, events)
        state = folder / "sandbox.db"
        sandbox = subprocess.Popen(
            [*COMMAND, "sandbox", "--port", str(port), "--state", str(state)], cwd=folder, stderr=subprocess.DEVNULL
        )
        try:
            wait_for(url)
            delivery = subprocess.Popen([*COMMAND, "send-events", str(file), "-e", "bench"], cwd=folder)
            while delivery.poll() is None and counts(url)["events"] <= minutes * PER_MINUTE:
                time.sleep(0.5)
            found = counts(url)
            delivery.kill()
            delivery.wait()
        finally:
            sandbox.kill()
            sandbox.wait()
        seen = arrivals(state)
    whole = minutes * PER_MINUTE
    if len(seen) <= whole or sum(identity != HEAVY for _, identity in seen) >= others:
        sys.exit("the delivery ended too early")
    of_identity: dict[str, list[float]] = defaultdict(list)
    for at, identity in seen:
        of_identity[identity].append(at)
    # From the first event to the first of the last window: the burst with which a window opens counts once.
    took = seen[whole][0] - seen[0][0]
    rate = whole / took * 60
    print(f"events offered {events:,}, arrived {len(seen):,}, duplicates {found['duplicates']:,}")
    print(f"{minutes} windows of {PER_MINUTE:,} events took {took:.1f} s: {rate:,.0f} events a minute")
    print(f"utilisation {rate / PER_MINUTE:.1%}, answers 429: {found['rate_limited']}")
    heavy = busiest(of_identity.pop(HEAVY))
    print(f"most in any 60 s: {busiest(at for at, _ in seen):,}, of the heavy identity {heavy:,},", end=" ")
    print(f"of any other {max(map(busiest, of_identity.values()))}")


if __name__ == "__main__":
    main()
