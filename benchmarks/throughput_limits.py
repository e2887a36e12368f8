"""How much of Heap's 15,000 events a minute a delivery uses, and whether Heap ever has to say 429.

python benchmarks/throughput_limits.py [--windows 5]
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

PER_MINUTE = 15_000
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
    """Write an environment with Heap's own limits, and a file of events of many people."""
    settings = folder / "environments/bench"
    settings.mkdir(parents=True)
    (settings / "environment.yaml").write_text(f'heap:\n  app_id: "{APP_ID}"\n  base_url: {url}\n')
    file = folder / "events.ndjson"
    with file.open("w") as lines:
        for number in range(events):
            call = {
                "type": "track",
                "event": "Step",
                "userId": f"user {number % IDENTITIES}",
                "messageId": f"message-{number}",
                "timestamp": "2026-01-02T03:04:05Z",
                "properties": {"number": number},
            }
            lines.write(json.dumps(call) + "\n")
    return file


def arrivals(url: str, delivery: subprocess.Popen[bytes]) -> list[tuple[float, int]]:
    """Return how many events had arrived at which second, looked at four times a second."""
    seen: list[tuple[float, int]] = []
    while delivery.poll() is None:
        seen.append((time.monotonic(), counts(url)["events"]))
        time.sleep(0.25)
    seen.append((time.monotonic(), counts(url)["events"]))
    return seen


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--windows", type=int, default=5, help="how many minutes' worth of events after the first")
    windows = parser.parse_args().windows
    events = (windows + 1) * PER_MINUTE
    with tempfile.TemporaryDirectory() as temporary:
        folder, url = Path(temporary), f"http://127.0.0.1:{(port := free_port())}"
        file = project(folder, url, events)
        state = ["--port", str(port), "--state", str(folder / "sandbox.db")]
        sandbox = subprocess.Popen([*COMMAND, "sandbox", *state], cwd=folder, stderr=subprocess.DEVNULL)
        try:
            wait_for(url)
            delivery = subprocess.Popen([*COMMAND, "send-events", str(file), "-e", "bench", "--json"], cwd=folder)
            seen = arrivals(url, delivery)
            found = counts(url)
        finally:
            sandbox.kill()
            sandbox.wait()
    # From the first event to the first of the last window: the burst with which a window opens counts once.
    began = next(at for at, count in seen if count)
    ended = next(at for at, count in seen if count > windows * PER_MINUTE)
    rate = windows * PER_MINUTE / (ended - began) * 60
    print(f"events sent {events:,}, in the sandbox {found['events']:,}, duplicates {found['duplicates']:,}")
    print(f"{windows} windows of {PER_MINUTE:,} events took {ended - began:.1f} s: {rate:,.0f} events a minute")
    print(f"utilisation {rate / PER_MINUTE:.1%}, answers 429: {found['rate_limited']}")


if __name__ == "__main__":
    main()
