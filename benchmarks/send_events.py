"""How many events a CPU-second of ours loads, prepares, sends and keeps, and how much memory that takes.

python benchmarks/send_events.py [--events N] [--rounds 3]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DATA = ROOT.parent / "shared/data/retentioneering_ecom_synthetic/ecom_25000users_seed7.parquet"
MAPPING = ROOT / "docs/mappings/ecom_parquet.yaml"
PROPERTIES = ("session_id", "platform", "acquisition_channel", "user_cohort", "user_lifecycle")
WHOLE = 1_289_470
NO_LIMIT = 1_000_000_000
ENVIRONMENT = """\
heap:
  app_id: "1000000001"
  base_url: {url}
  events_per_minute: {limit}
  events_per_minute_per_identity: {limit}
privacy:
  mask: [email, phone, payment_card, ssn, ip_address, iban, secret]
  deny_properties: [password]
"""


@dataclass(frozen=True)
class Run:
    """What one process cost, and what arrived."""

    name: str
    events: int
    arrived: int
    cpu: float
    wall: float
    peak_mb: float

    @property
    def speed(self) -> float:
        """Events per CPU-second."""
        return self.events / self.cpu


@contextmanager
def sink() -> Iterator[str]:
    """Run the counting server in a process of its own and yield its address."""
    with subprocess.Popen([sys.executable, HERE / "sink.py"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def measured(name: str, command: list[str], folder: Path, url: str, events: int) -> Run:
    """Run a command and read from the kernel what it used: user and system time, peak memory."""
    with urlopen(url):
        pass
    began = time.perf_counter()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{name} failed:\n{(folder / 'log').read_text()}")
    with urlopen(url) as answer:
        arrived = json.load(answer)["events"]
    return Run(name, events, arrived, usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024)


def ours(file: Path, url: str, events: int, name: str) -> Run:
    """Measure `heap-integration send-events` as a user runs it, in a new project folder."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings = folder / "environments/bench"
        settings.mkdir(parents=True)
        (settings / "environment.yaml").write_text(ENVIRONMENT.format(url=url, limit=NO_LIMIT))
        code = "from heap_integration.cli import main; main()"
        mapping = ["--mapping", str(MAPPING)] if file.suffix == ".parquet" else []
        command = [sys.executable, "-c", code, "send-events", str(file), "-e", "bench", "--json", *mapping]
        return measured(name, command, folder, url, events)


def straight(file: Path, url: str, events: int) -> Run:
    """Measure the straight loop."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, str(HERE / "send_events.py"), "--straight", str(file), url]
        name = "straight loop: json + POST, no checks, no ledger"
        return measured(name, command, Path(temporary), url, events)


def straight_loop(file: Path, url: str) -> None:
    """Read rows, build dicts, post 1000 at a time: what anybody would write first."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    batch: list[dict[str, object]] = []

    def post() -> None:
        body = json.dumps({"app_id": "1000000001", "events": batch})
        connection.request("POST", "/api/track", body, {"content-type": "application/json"})
        connection.getresponse().read()
        batch.clear()

    for number, row in enumerate(rows_of(file)):
        event = {
            "event": row["event"],
            "identity": row["user_id"],
            "timestamp": str(row["timestamp"]),
            "properties": {name: row[name] for name in PROPERTIES},
            "idempotency_key": f"{file.name}:{number}",
        }
        batch.append(event)
        if len(batch) == 1000:
            post()
    if batch:
        post()


def rows_of(file: Path) -> Iterator[dict[str, object]]:
    """Yield the rows of a Parquet file, or of NDJSON in Segment's form."""
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(file).iter_batches(10_000):
            yield from batch.to_pylist()
        return
    with file.open() as lines:
        for line in lines:
            call = json.loads(line)
            yield {"user_id": call["userId"], **call, **call["properties"]}


def prepare_file(folder: Path, events: int) -> Path:
    """Return a file with the first ``events`` of the data set, or with made ones where it is missing."""
    if not DATA.exists():
        return made_file(folder / f"{events}.ndjson", events)
    if events >= WHOLE:
        return DATA
    file = folder / f"{events}.parquet"
    code = (
        "import sys, pyarrow.parquet as pq\n"
        "source, target, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])\n"
        "pq.write_table(pq.read_table(source).slice(0, rows), target, row_group_size=245_760)"
    )
    subprocess.run([sys.executable, "-c", code, str(DATA), str(file), str(events)], check=True)
    return file


def made_file(file: Path, events: int) -> Path:
    """Write events of the same shape as the data set's, in Segment's form."""
    with file.open("w") as lines:
        for number in range(events):
            call = {
                "type": "track",
                "event": f"Step {number % 13}",
                "userId": f"user_{number % 25_000}",
                "messageId": f"message-{number}",
                "timestamp": f"2026-01-{number % 28 + 1:02}T{number % 24:02}:{number % 60:02}:00Z",
                "properties": {name: f"{name} {number // 10 % 50_000}" for name in PROPERTIES},
            }
            lines.write(json.dumps(call) + "\n")
    return file


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=WHOLE, help="how many events, at most those of the data set")
    parser.add_argument("--rounds", type=int, default=1, help="the table shows the medians of so many rounds")
    parser.add_argument("--straight", nargs=2, metavar=("FILE", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.straight:
        straight_loop(Path(options.straight[0]), options.straight[1])
        return
    with tempfile.TemporaryDirectory() as temporary, sink() as url:
        folder = Path(temporary)
        half, whole = options.events // 2, options.events
        files = {events: prepare_file(folder, events) for events in (half, whole)}
        rounds = [
            (
                ours(files[half], url, half, "send-events, half the file"),
                ours(files[whole], url, whole, "send-events, the whole file"),
                straight(files[whole], url, whole),
            )
            for _ in range(options.rounds)
        ]
    print(f"{'':<52}{'events':>10}{'arrived':>10}{'CPU s':>8}{'events/CPU s':>14}{'wall s':>8}{'peak MB':>9}")
    for runs in zip(*rounds, strict=True):
        cpu, wall, peak = (statistics.median(getattr(run, name) for run in runs) for name in ("cpu", "wall", "peak_mb"))
        run = runs[0]
        print(
            f"{run.name:<52}{run.events:>10,}{run.arrived:>10,}{cpu:>8.1f}{run.events / cpu:>14,.0f}"
            f"{wall:>8.1f}{peak:>9.0f}"
        )


if __name__ == "__main__":
    main()
