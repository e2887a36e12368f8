"""How long an event takes from the receiver's 200 until Heap (the sandbox) has it: streamed, or by Dagster's sensor.

Starts the sandbox, a receiver, and either `heap-integration stream` or `dagster dev`, each a process of its own,
sends signed Userflow webhooks at a steady rate, and compares when each was acknowledged with when it arrived.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SECRET = "latency-signing-secret"
APP_ID = "1000000001"
ENVIRONMENT = """\
heap: {{app_id: "{app_id}", base_url: "{heap}"}}
automation: true
days_per_run: all
start_date: 2026-01-01
sources:
  userflow: {{signing_secret: {{env: USERFLOW_WEBHOOK_SECRET}}}}
"""
WORKSPACE = """\
load_from:
  - python_module: {module_name: heap_integration.definitions, attribute: latency, location_name: latency}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--by", choices=["stream", "dagster"], default="stream")
    parser.add_argument("--events", type=int, default=600)
    parser.add_argument("--per-second", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="latency-", ignore_cleanup_errors=True) as folder:
        report(measure(Path(folder), options.by, options.events, options.per_second), options)


def measure(folder: Path, by: str, events: int, per_second: float) -> list[float]:
    """Return the seconds that each event took."""
    heap, receiver, ui = (f"http://127.0.0.1:{port}" for port in free_ports(3))
    project(folder, heap)
    variables = {**os.environ, "USERFLOW_WEBHOOK_SECRET": SECRET, "DAGSTER_HOME": str(folder / "dagster")}
    hub = str(BIN / "heap-integration")
    commands = {
        "sandbox": [hub, "sandbox", "--port", heap.rpartition(":")[2], "--state", "sandbox.db"],
        "receiver": [hub, "receive", "-e", "latency", "--port", receiver.rpartition(":")[2]],
    }
    if by == "stream":
        commands["stream"] = [hub, "stream", "-e", "latency"]
    else:
        commands["dagster"] = [str(BIN / "dagster"), "dev", "-w", "workspace.yaml", "-p", ui.rpartition(":")[2]]
    with running(commands, folder, variables):
        wait_for(f"{heap}/_state")
        wait_for(f"{receiver}/health")
        if by == "dagster":
            wait_for(f"{ui}/server_info", 120)
        # Not what the first start costs is of interest.
        send(receiver, 0, 1, per_second)
        collect(heap, 1, 180)
        acknowledged = send(receiver, 1, events + 1, per_second)
        arrived = collect(heap, events + 1, 180)
    missing = acknowledged.keys() - arrived.keys()
    if missing:
        raise SystemExit(f"{len(missing)} of {events} events did not arrive")
    return sorted(arrived[key] - at for key, at in acknowledged.items())


def project(folder: Path, heap: str) -> None:
    environment = folder / "environments" / "latency"
    environment.mkdir(parents=True)
    (environment / "environment.yaml").write_text(ENVIRONMENT.format(app_id=APP_ID, heap=heap))
    (folder / "workspace.yaml").write_text(WORKSPACE)
    (folder / "dagster").mkdir()
    (folder / "dagster" / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())


def send(receiver: str, first: int, end: int, per_second: float) -> dict[str, float]:
    """Return when each event was acknowledged, by its id."""
    acknowledged = {}
    with httpx.Client() as client:
        start = time.monotonic()
        for number in range(first, end):
            time.sleep(max(0.0, start + (number - first) / per_second - time.monotonic()))
            body = json.dumps(notification(number)).encode()
            stamp = str(int(time.time()))
            signed = hmac.new(SECRET.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
            client.post(
                f"{receiver}/userflow", content=body, headers={"Userflow-Signature": f"t={stamp},v1={signed}"}
            ).raise_for_status()
            acknowledged[f"userflow-n{number:09d}"] = time.time()
    return acknowledged


def notification(number: int) -> dict[str, Any]:
    tracked = {"object": "event", "name": "flow_started", "user_id": f"u{number % 500}", "attributes": {"n": number}}
    return {
        "id": f"n{number:09d}",
        "object": "webhook_notification",
        "topic": "event.tracked",
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "data": {"object": tracked},
    }


def collect(heap: str, events: int, seconds: float) -> dict[str, float]:
    """Return when each event arrived at the sandbox, by its idempotency key."""
    deadline = time.monotonic() + seconds
    while True:
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = httpx.get(f"{heap}/_state/events", params={"app_id": APP_ID, "after": after, "limit": 10_000}).json()
            found += page["events"]
            after = page["next"]
        if len(found) >= events or time.monotonic() > deadline:
            return {event["idempotency_key"]: float(event["received_at"]) for event in found}
        time.sleep(0.5)


def report(seconds: list[float], options: argparse.Namespace) -> None:
    cuts = quantiles(seconds, n=100)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu, largest = children.ru_utime + children.ru_stime, children.ru_maxrss / 1024
    print(f"{options.events:,} events at {options.per_second:g} a second, sent by {options.by}")
    print(f"from the 200 to Heap: p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s, longest {seconds[-1]:.2f} s")
    print(f"CPU of all processes {cpu:.1f} s, the largest of them {largest:.0f} MB")


@contextmanager
def running(commands: dict[str, list[str]], folder: Path, variables: dict[str, str]) -> Iterator[None]:
    started = []
    try:
        for name, command in commands.items():
            log = (folder / f"{name}.log").open("wb")
            started.append(
                subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=log, start_new_session=True)
            )
        yield
    finally:
        # Dagster's own processes are in the group of the one that started them.
        for process in reversed(started):
            os.killpg(process.pid, signal.SIGINT)
        for process in started:
            process.wait(60)


def wait_for(url: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=2).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"{url} gives no answer")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


if __name__ == "__main__":
    main()
