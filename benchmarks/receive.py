"""How many requests a second the receiver makes durable, and how long each takes; wrk sends them.

python benchmarks/receive.py [--seconds 5] [--rounds 3] [--connections 64] [--store postgresql://...]
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = Path(__file__).with_name("prepared_requests.lua")
WRITE_KEY, SIGNING_SECRET = "bench-write-key", "bench-signing-secret"
VARIABLES = {"BENCH_WRITE_KEY": WRITE_KEY, "BENCH_SIGNING_SECRET": SIGNING_SECRET}
ENVIRONMENT = """\
heap: {app_id: "1000000001"}
sources:
  userflow: {signing_secret: {env: BENCH_SIGNING_SECRET}}
  clients: [{name: web, write_key: {env: BENCH_WRITE_KEY}}]
"""
REQUESTS = 2_000
BATCH = 100
BATCHES = 50


@dataclass(frozen=True)
class Case:
    """A server under a kind of request; ``landing`` is what the environment says of it."""

    name: str
    command: list[str]
    requests: Callable[[], Iterator[bytes]]
    events: int = 1
    landing: str = ""
    store: str = ""


@dataclass(frozen=True)
class Run:
    """What wrk saw and what the server used meanwhile; ``kept`` is ``None`` for servers that keep nothing."""

    answers: int
    seconds: float
    p50: float
    p99: float
    cpu: float
    peak_mb: float
    kept: int | None
    problem: str

    @property
    def speed(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds


def call(number: int) -> dict[str, object]:
    """Return one Segment-style call of about a kilobyte."""
    return {
        "type": "track",
        "event": f"Step {number % 13}",
        "userId": f"user_{number % 25_000}",
        "messageId": f"message-{number:08}",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "context": {"library": {"name": "bench", "version": "1"}, "ip": "192.0.2.1", "locale": "en-GB"},
        "properties": {f"property_{index}": f"value {index} of {number}, some words long" for index in range(16)},
    }


def tracks() -> Iterator[bytes]:
    """Yield calls of /v1/track."""
    return (_segment("track", call(number)) for number in range(REQUESTS))


def batches() -> Iterator[bytes]:
    """Yield calls of /v1/batch."""
    for number in range(BATCHES):
        yield _segment("batch", {"batch": [call(number * BATCH + position) for position in range(BATCH)]})


def notifications() -> Iterator[bytes]:
    """Yield signed notifications of Userflow's; a signature holds for 300 seconds."""
    stamp = int(time.time())
    for number in range(REQUESTS):
        event = {"id": f"event-{number}", "object": "event", "name": "flow_started", "time": "2026-01-01T00:00:00Z"}
        event["attributes"] = call(number)["properties"]  # type: ignore[assignment]
        body = json.dumps({"id": f"n-{number}", "topic": "event.tracked", "data": {"object": event}}).encode()
        digest = hmac.new(SIGNING_SECRET.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        yield _post("/userflow", body, f"Userflow-Signature: t={stamp},v1={digest}")


def _segment(path: str, content: dict[str, object]) -> bytes:
    key = base64.b64encode(f"{WRITE_KEY}:".encode()).decode()
    return _post(f"/v1/{path}", json.dumps(content).encode(), f"Authorization: Basic {key}")


def _post(path: str, body: bytes, header: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n{header}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def cases(store: str | None) -> list[Case]:
    """Return what is compared: the baselines first."""
    bare = [sys.executable, str(Path(__file__).resolve()), "--bare"]
    code = "from heap_integration.cli import main; main()"
    ours = [sys.executable, "-c", code, "receive", "--environment", "bench", "--port", "0"]
    found = [
        Case("bare ASGI, keeps nothing: single calls", [*bare, "nothing"], tracks),
        Case("bare ASGI, one sync a request: single calls", [*bare, "sync"], tracks),
        Case("receiver: single calls (/v1/track)", ours, tracks),
        Case("receiver: signed webhooks (/userflow)", ours, notifications),
        Case("bare ASGI, keeps nothing: batches of 100", [*bare, "nothing"], batches, BATCH),
        Case("receiver: batches of 100 (/v1/batch)", ours, batches, BATCH),
        Case("receiver, landing in SQLite: single calls", ours, tracks, landing="store"),
    ]
    if store:
        found.append(Case("receiver, landing in PostgreSQL: single calls", ours, tracks, landing="store", store=store))
    return found


def measure(case: Case, seconds: int, connections: int) -> Run:
    """Start a server in a folder of its own, let wrk load it, stop it, and count what it has kept."""
    # Not the system's folder for temporary files: where that is in memory, syncing costs nothing.
    (ROOT / "data").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "data", prefix="bench-") as temporary:
        folder = Path(temporary)
        settings = folder / "environments/bench"
        settings.mkdir(parents=True)
        lines = [ENVIRONMENT, f"landing: {case.landing}\n" * bool(case.landing)]
        lines.append("store: {env: BENCH_STORE}\n" * bool(case.store))
        (settings / "environment.yaml").write_text("".join(lines))
        prepared = folder / "requests"
        prepared.write_bytes(b"".join(b"%d\n%b" % (len(request), request) for request in case.requests()))
        with serving(case, folder) as (process, url):
            load(url, prepared, 1, connections)
            time.sleep(0.5)
            before = cpu_seconds(process.pid)
            first = answered(url)
            seen = load(url, prepared, seconds, connections)
            cpu, peak = cpu_seconds(process.pid) - before, peak_mb(process.pid)
            # What wrk has hung up on is being answered still.
            time.sleep(1)
            given = answered(url)
        ours = case.command[1] == "-c"
        kept = landed(case, folder) if ours else None
        return Run(
            answers=seen["answers"] - seen["refused"],
            seconds=seen["seconds"],
            p50=seen["p50_ms"],
            p99=seen["p99_ms"],
            cpu=cpu,
            peak_mb=peak,
            kept=kept,
            problem=problem(seen, kept, given, first),
        )


def problem(seen: dict[str, int], kept: int | None, given: int, before: int) -> str:
    """Return what doesn't add up: each answer 200 is one line, and each of wrk's answers one of the server's."""
    if seen["refused"] or seen["broken"]:
        return f"{seen['refused']} requests refused, {seen['broken']} broken"
    if kept is None:
        return ""
    if kept != given:
        return f"{given} answers 200, but {kept} lines"
    return "" if seen["answers"] <= given - before else "wrk got more answers than were given"


@contextmanager
def serving(case: Case, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a server and yield its process and address, once it has told it."""
    log = folder / "log"
    variables = {**os.environ, **VARIABLES, "BENCH_STORE": case.store}
    with (
        log.open("wb") as output,
        subprocess.Popen(case.command, cwd=folder, env=variables, stdout=output, stderr=output) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            while not (found := re.search(r"http://[\d.:]+", log.read_text())):
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{case.name} did not start:\n{log.read_text()}")
                time.sleep(0.05)
            yield process, found[0]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def load(url: str, prepared: Path, seconds: int, connections: int) -> dict[str, int]:
    """Run wrk and return what it counted."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(SCRIPT), url]
    told = subprocess.run(
        command, env={**os.environ, "REQUESTS": str(prepared)}, check=True, capture_output=True, text=True
    )
    counted: dict[str, int] = json.loads(told.stdout.splitlines()[-1])
    return counted


def answered(url: str) -> int:
    """Return how many answers 200 to what it keeps the receiver says it has given; 0 for the baselines."""
    with urlopen(f"{url}/metrics") as answer:
        text = answer.read().decode()
    counts = re.findall(r'^heap_receiver_requests_total\{source="(?:web|userflow)",status="200"\} (\S+)', text, re.M)
    return sum(int(float(count)) for count in counts)


def landed(case: Case, folder: Path) -> int:
    """Return how many lines have landed, and remove them from a database that outlives this."""
    from heap_integration.landing import Arrivals, FolderArrivals, StoreArrivals
    from heap_integration.store import Store

    arrivals: Arrivals = FolderArrivals(folder / "data/bench/landing")
    if case.landing == "store":
        arrivals = StoreArrivals(Store(case.store or f"sqlite:///{folder}/data/bench.db"))
    count = 0
    for segment in arrivals.waiting():
        with segment.open() as lines:
            count += sum(1 for _ in lines)
        segment.remove()
    return count


def cpu_seconds(process: int) -> float:
    """Return the user and system time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(process: int) -> float:
    """Return the most memory that a process has had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def sync_ms(folder: Path) -> float:
    """Return how long this disk takes to sync a kilobyte, in milliseconds."""
    folder.mkdir(exist_ok=True)
    took = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(100):
            started = time.perf_counter()
            os.write(file.fileno(), b"x" * 1024)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - started)
    return statistics.median(took) * 1000


def serve_bare(keep: str) -> None:
    """Serve the application that anybody would write first: read the body, keep it or not, answer 200."""
    import socket

    import uvicorn
    from starlette.types import Receive, Scope, Send

    handle = os.open("kept", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if keep == "sync":
            os.write(handle, body + b"\n")
            os.fdatasync(handle)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, lifespan="off", access_log=False, log_config=None)).run([listener])


def report(name: str, events: int, runs: list[Run], plain: float) -> None:
    """Print a line: medians of the rounds, and what doesn't add up."""
    speed = statistics.median(run.speed for run in runs)
    print(
        f"{name:<48}{speed:>9,.0f}{speed * events:>10,.0f}{speed / plain:>7.2f}"
        f"{statistics.median(run.p50 for run in runs):>8.1f}{statistics.median(run.p99 for run in runs):>8.1f}"
        f"{statistics.median(run.cpu / run.answers * 1e6 for run in runs):>8.0f}"
        f"{max(run.peak_mb for run in runs):>7.0f}"
        f"  {'; '.join(sorted({run.problem for run in runs if run.problem})) or verdict(runs)}"
    )


def verdict(runs: list[Run]) -> str:
    """Return that all that was acknowledged is there, for servers that keep it."""
    return "-" if runs[0].kept is None else f"all {sum(run.kept or 0 for run in runs):,} kept"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--store", help="also let lines land in this PostgreSQL database, which should be empty")
    parser.add_argument("--bare", choices=["nothing", "sync"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        return serve_bare(options.bare)
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt install wrk, brew install wrk, or https://github.com/wg/wrk")
    compared = cases(options.store)
    # Round by round, so that a busy moment of the machine hits all alike.
    rounds = [[measure(case, options.seconds, options.connections) for case in compared] for _ in range(options.rounds)]
    print(f"{options.connections} connections; a sync of 1 KB takes this disk {sync_ms(ROOT / 'data'):.2f} ms")
    print(f"{'':<48}{'req/s':>9}{'events/s':>10}{'ratio':>7}{'p50 ms':>8}{'p99 ms':>8}{'CPU µs':>8}{'MB':>7}")
    runs = [list(column) for column in zip(*rounds, strict=True)]
    plain = {
        case.requests: statistics.median(run.speed for run in found)
        for case, found in zip(compared, runs, strict=True)
        if case.command[-1] == "nothing"
    }
    for case, found in zip(compared, runs, strict=True):
        report(case.name, case.events, found, plain.get(case.requests, plain[tracks]))
    if any(run.problem for found in runs for run in found):
        sys.exit(1)
    return None


if __name__ == "__main__":
    main()
