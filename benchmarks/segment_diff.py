"""What it costs to compare a segment with what a destination has acknowledged, and to send the difference.

python benchmarks/segment_diff.py [--members 10000000] [--send 1000000] [--rounds 1] [--folder DIR] [--alone]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

HERE = Path(__file__).resolve().parent
BATCH = 1_000
# One in two hundred leaves and as many enter: 1 % of changes.
LEAVING = 200
# Ids in no order, all different below 2^32.
ID = "'user_' || ((i * 2654435761) % 4294967296)"
CHANGED, SAME, NEW = 1, 2, 3


@dataclass(frozen=True)
class Run:
    """What one process cost, start-up included, what the work itself took of that, and what it says that it did."""

    name: str
    cpu: float
    wall: float
    work_cpu: float
    work_wall: float
    peak_mb: float
    said: str
    arrived: int


def prepare(folder: Path, _url: str, members: int, send: int) -> str:
    """Fill a warehouse: three segments, and what a destination has acknowledged; the same as Parquet for the others."""
    from heap_integration.warehouse import Warehouse

    enter = members // LEAVING
    segments = {CHANGED: (enter, members + enter), SAME: (0, members), NEW: (0, send)}
    with Warehouse(warehouse_in(folder)).write(ample=True) as con:
        for segment, (first, stop) in segments.items():
            con.execute(f"insert into segment_members select {segment}, {ID} from range({first}, {stop}) t(i)")
        con.execute(f"insert into sync_baseline select 'bench', {ID}, true, null from range({members}) t(i)")
        if not (folder / "alone").exists():
            wanted = f"select identity from segment_members where segment_id = {CHANGED}"
            con.execute(f"copy ({wanted}) to '{folder}/wanted.parquet'")
            con.execute(f"copy (select identity from sync_baseline) to '{folder}/baseline.parquet'")
    return f"{members:,} members"


def warehouse_in(folder: Path) -> str:
    """Return the address of the warehouse."""
    return f"duckdb:///{folder}/warehouse.duckdb"


class Counting:
    """A destination that takes everything, in batches, over HTTP."""

    def __init__(self, url: str) -> None:
        import http.client

        from heap_integration.delivery.records import Limits

        self.limits = Limits(batch_records=BATCH)
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc)

    def send(self, batch: Sequence[Any]) -> Sequence[Any]:
        """Post a batch and accept what the sink answers."""
        import orjson

        from heap_integration.delivery.records import Outcome, Status

        members = [
            {"idempotency_key": record.key.hex(), "id": record.payload.identity, "member": record.payload.member}
            for record in batch
        ]
        self.connection.request("POST", "/members", orjson.dumps(members))
        self.connection.getresponse().read()
        return [Outcome(record.key, Status.ACCEPTED) for record in batch]


def sync(folder: Path, url: str, name: str, segment: int, *, sends: bool) -> str:
    """Run a sync as the hub does; one that may not send ends with its plan."""
    from heap_integration.segments.sync import Sync
    from heap_integration.segments.wanted import Wanted
    from heap_integration.store import Store
    from heap_integration.warehouse import Warehouse

    wanted = Wanted(
        "select identity, null::varchar as properties from segment_members where segment_id = $segment",
        {"segment": segment},
    )
    store = Store(f"sqlite:///{folder}/store.db")
    report = Sync(name, wanted, Warehouse(warehouse_in(folder)), store, Counting(url)).run(go_on=lambda: sends)
    store.close()
    return f"{report.planned:,} changes, {report.sent:,} sent, {report.unchanged:,} unchanged"


def plan(folder: Path, url: str, _members: int, _send: int) -> str:
    """Plan a sync of which 1 % has changed."""
    return sync(folder, url, "bench", CHANGED, sends=False)


def unchanged(folder: Path, url: str, _members: int, _send: int) -> str:
    """Run a whole sync of which nothing has changed."""
    return sync(folder, url, "bench", SAME, sends=True)


def send_all(folder: Path, url: str, _members: int, _send: int) -> str:
    """Run the first sync of a segment: everybody enters."""
    return sync(folder, url, "new", NEW, sends=True)


def polars_antijoins(folder: Path, _url: str, _members: int, _send: int) -> str:
    """Two anti-joins by polars' streaming engine."""
    import polars as pl

    wanted, baseline = (pl.scan_parquet(folder / f"{name}.parquet") for name in ("wanted", "baseline"))
    found = [
        one.join(other, on="identity", how="anti").collect(engine="streaming").height
        for one, other in ((wanted, baseline), (baseline, wanted))
    ]
    return f"{sum(found):,} changes"


def pandas_merge(folder: Path, _url: str, _members: int, _send: int) -> str:
    """An outer merge with an indicator by pandas."""
    import pandas as pd

    wanted, baseline = (pd.read_parquet(folder / f"{name}.parquet") for name in ("wanted", "baseline"))
    merged = wanted.merge(baseline, on="identity", how="outer", indicator=True)
    return f"{int((merged['_merge'] != 'both').sum()):,} changes"


Part = Callable[[Path, str, int, int], str]
PARTS: dict[str, tuple[str, Part]] = {
    "prepare": ("(filling the warehouse)", prepare),
    "unchanged": ("hub: whole sync, nothing changed", unchanged),
    "plan": ("hub: plan of a sync, 1 % changed", plan),
    "polars": ("polars, streaming anti-joins", polars_antijoins),
    "pandas": ("pandas, merge with indicator", pandas_merge),
    "send": ("hub: first sync, all sent over HTTP", send_all),
}


OURS = ("duckdb", "pyarrow", "heap_integration.segments.sync", "heap_integration.store")
IMPORTS = {"polars": ("polars",), "pandas": ("pandas", "pyarrow.parquet")}


@contextmanager
def sink() -> Iterator[str]:
    """Run the counting server in a process of its own and yield its address."""
    with subprocess.Popen([sys.executable, HERE / "sink.py"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def measured(part: str, folder: Path, url: str, members: int, send: int) -> Run:
    """Run a part in a process of its own and read from the kernel what it used: user and system time, peak memory."""
    with urlopen(url):
        pass
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder), "--url", url]
    command += ["--members", str(members), "--send", str(send)]
    began = time.perf_counter()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{part} failed:\n{(folder / 'log').read_text()}")
    work = json.loads((folder / "log").read_text().splitlines()[-1])
    with urlopen(url) as answer:
        arrived = json.load(answer)["events"]
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    return Run(PARTS[part][0], cpu, wall, work["cpu"], work["wall"], peak, work["said"], arrived)


def worked(options: argparse.Namespace) -> str:
    """Do one part in this process, and tell what it took once everything was imported."""
    for module in IMPORTS.get(options.part, OURS):
        import_module(module)
    began, cpu = time.perf_counter(), time.process_time()
    said = PARTS[options.part][1](options.folder, options.url, options.members, options.send)
    return json.dumps({"said": said, "wall": time.perf_counter() - began, "cpu": time.process_time() - cpu})


def one_round(folder: Path, url: str, options: argparse.Namespace) -> list[Run]:
    """Fill a warehouse, run every part on it, and delete it."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        here = Path(temporary)
        if options.alone:
            (here / "alone").touch()
        parts = [part for part in PARTS if not (options.alone and part in ("polars", "pandas"))]
        return [measured(part, here, url, options.members, options.send) for part in parts]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--members", type=int, default=10_000_000)
    parser.add_argument("--send", type=int, default=1_000_000, help="how many members the first sync sends")
    parser.add_argument("--rounds", type=int, default=1, help="the table shows the medians of so many rounds")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the files go meanwhile")
    parser.add_argument("--alone", action="store_true", help="without pandas and polars")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(worked(options))
        return
    with sink() as url:
        print(f"{shutil.disk_usage(options.folder).free / 1e9:,.0f} GB free in {options.folder}")
        rounds = [one_round(options.folder, url, options) for _ in range(options.rounds)]
    print(f"{'':<38}{'start-up included':>17}{'work alone':>17}")
    print(f"{'':<38}{'CPU s':>8}{'wall s':>9}{'CPU s':>8}{'wall s':>9}{'peak MB':>9}{'arrived':>12}")
    for runs in zip(*rounds, strict=True):
        names = ("cpu", "wall", "work_cpu", "work_wall", "peak_mb")
        cpu, wall, work_cpu, work_wall, peak = (statistics.median(getattr(run, name) for run in runs) for name in names)
        run = runs[0]
        times = f"{cpu:>8.1f}{wall:>9.1f}{work_cpu:>8.1f}{work_wall:>9.1f}{peak:>9.0f}"
        print(f"{run.name:<38}{times}{run.arrived:>12,}  {run.said}")
        if run.arrived:
            print(f"{'':<38}{run.arrived / cpu:>8,.0f} members per CPU-second")


if __name__ == "__main__":
    main()
