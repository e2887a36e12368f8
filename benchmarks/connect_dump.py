"""What it costs to load a dump of Heap Connect's into DuckDB: ours, dlt over Arrow, and tap-heap, of the same files.

Writes Avro files of 15 columns as Heap does (snappy, times as text), loads them with each contender in a process of
its own, and compares rows, sums of keys and the newest time of what ours and dlt's have loaded. tap-heap reads fewer
files of the same kind from an S3 server beside it, and only prints the rows: what a target does with them is not
counted.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
BUCKET = "heap-rs3-benchmark"
FILE_ROWS, BLOCK_ROWS = 500_000, 1_000
COLUMNS = (
    "event_id", "user_id", "session_id", "time", "type", "library", "platform", "device_type",
    "country", "city", "browser", "referrer", "path", "title", "amount",
)  # fmt: skip
CHECK = 'select count(*), sum(event_id), count(distinct user_id), sum(amount)::bigint, max("time"::timestamp) from {}'


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--tap-rows", type=int, default=500_000, help="tap-heap reads only so many")
    parser.add_argument("--increment", action="store_true", help="also load the same rows as a later dump")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="connect-dump-", dir=options.folder) as folder:
        compare(Path(folder), options.rows, options.tap_rows, options.increment)


def compare(folder: Path, rows: int, tap_rows: int, increment: bool) -> None:
    """Measure the contenders one after the other, and print a table."""
    print(f"writing {rows:,} rows of {len(COLUMNS)} columns", flush=True)
    alone(write_dump, folder / BUCKET, rows)
    size = sum(file.stat().st_size for file in folder.glob(f"{BUCKET}/sync_852/click/*"))
    print(f"{size / 1e6:,.0f} MB of Avro\n")
    print(f"{'':<34}{'rows':>12}{'wall s':>9}{'CPU s':>9}{'rows/s':>10}{'rows/CPU s':>12}{'peak MB':>9}")
    ours = report("ours, the whole import", rows, *alone(load_ours, folder))
    if increment:
        report("ours, the same rows as an increment", rows, *alone(load_ours_again, folder))
    arrow = report("dlt over Arrow, replace", rows, *alone(load_dlt, folder))
    found = {checked(folder / "ours.duckdb", "heap_connect.click"), checked(folder / "dlt.duckdb", "dumps.click")}
    if len(found) > 1:
        sys.exit(f"the tables differ: {found}")
    few = min(tap_rows, rows)
    alone(write_dump, folder / "tap" / BUCKET, few)
    tap = report("tap-heap 1.4.0, rows printed", few, *measure_tap(folder))
    print(f"\nours against dlt: {ours / arrow:.1f} (aim: 1), against tap-heap: {ours / tap:.1f} (aim: 5)")


def report(name: str, rows: int, wall: float, cpu: float, peak_mb: float) -> float:
    """Print a line, and return the rows per second."""
    print(
        f"{name:<34}{rows:>12,}{wall:>9.1f}{cpu:>9.1f}{rows / wall:>10,.0f}{rows / cpu:>12,.0f}{peak_mb:>9,.0f}",
        flush=True,
    )
    return rows / wall


def alone(work: Callable[..., None], *arguments: object) -> tuple[float, float, float]:
    """Run a function in a fresh process; return its wall time, CPU time and peak of memory in MB."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(work, arguments, send))
    process.start()
    send.close()
    try:
        measured: tuple[float, float, float] = receive.recv()
    except EOFError:
        sys.exit(f"{work.__name__} has failed")
    process.join()
    return measured


def _measured(work: Callable[..., None], arguments: tuple[object, ...], send: object) -> None:
    begin = time.monotonic()
    work(*arguments)
    used = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime + children.ru_utime + children.ru_stime
    send.send((time.monotonic() - begin, cpu, max(used.ru_maxrss, children.ru_maxrss) / 1024))  # type: ignore[attr-defined]


def write_dump(bucket: Path, rows: int) -> None:
    """Write dump 852: all of one table, in files of the same number of rows each."""
    import numpy as np
    import polars as pl

    folder = bucket / "sync_852/click"
    folder.mkdir(parents=True)
    (bucket / "manifests").mkdir()
    chance, files = np.random.default_rng(7), []
    for part, first in enumerate(range(0, rows, FILE_ROWS)):
        count = min(FILE_ROWS, rows - first)
        path = folder / f"part-{part:05}-0a06bab5-c000.avro"
        path.write_bytes(avro(people(pl, np, chance, first, count)))
        files.append(f"s3://{BUCKET}/sync_852/click/{path.name}")
    table = {"name": "click", "columns": list(COLUMNS), "files": files, "incremental": False}
    (bucket / "manifests/sync_852.json").write_text(json.dumps({"dump_id": 852, "tables": [table]}))


def people(pl, np, chance, first: int, count: int):  # type: ignore[no-untyped-def]
    """Return events of 200,000 users, spread over 180 days."""
    number = np.arange(first, first + count)
    user = chance.integers(0, 200_000, count) + 10**15
    seconds = 1_767_225_600 + chance.integers(0, 180 * 86_400, count)
    words = {
        "type": ["click", "view_page", "submit"], "library": ["web", "ios", "android"],
        "platform": ["Mac OS X 14.2", "Windows 11", "iOS 19.1", "Android 16"],
        "device_type": ["Desktop", "Mobile", "Tablet"], "country": ["Germany", "United States", "Japan", "Brazil"],
        "city": [f"City {each}" for each in range(500)], "browser": ["Chrome 140", "Safari 19", "Firefox 139"],
        "referrer": [None, *(f"https://site{each}.example/a" for each in range(40))],
        "path": [f"/products/{each}" for each in range(3_000)], "title": [f"Product {each}" for each in range(3_000)],
    }  # fmt: skip
    chosen = {
        name: pl.Series(name, values).gather(chance.integers(0, len(values), count)) for name, values in words.items()
    }
    moment = pl.from_epoch(pl.Series("time", seconds), time_unit="s").dt.strftime("%Y-%m-%d %H:%M:%S.000")
    return pl.DataFrame(
        {
            "event_id": number * 7 + 10**15, "user_id": user, "session_id": user * 3 + seconds // 1800,
            "time": moment, **chosen, "amount": np.round(chance.random(count) * 100, 2),
        }
    ).select(COLUMNS)  # fmt: skip


def avro(frame) -> bytes:  # type: ignore[no-untyped-def]
    """Return an Avro file of blocks of a common size: polars alone would make one block of it."""
    import io

    parts = []
    for piece in frame.iter_slices(BLOCK_ROWS):
        file = io.BytesIO()
        piece.write_avro(file, compression="snappy", name="row")
        content = file.getvalue()
        header = content.index(content[-16:]) + 16
        parts.append(content if not parts else content[header:])
    return b"".join(parts)


def _import(folder: Path, dump_of: Path) -> None:
    from heap_integration.heap_connect.importer import DumpImporter
    from heap_integration.heap_connect.settings import DumpsSettings
    from heap_integration.store import Store
    from heap_integration.warehouse import Warehouse
    from heap_integration.warehouse.systems.duckdb import DuckDBConnection

    own = Warehouse(f"duckdb:///{folder}/ours.duckdb")
    store = Store(f"sqlite:///{folder}/store.db")
    importer = DumpImporter(
        DumpsSettings(bucket=str(dump_of)),
        DuckDBConnection(own),
        schema="heap_connect",
        dialect="duckdb",
        own=own,
        store=store,
        variables={},
    )
    (dump,) = importer.waiting()
    importer.apply(dump)
    store.close()


def load_ours(folder: Path) -> None:
    """Import the dump into an empty warehouse."""
    _import(folder, folder / BUCKET)


def load_ours_again(folder: Path) -> None:
    """Import the same rows as a later dump, which changes each of them."""
    manifest = json.loads((folder / BUCKET / "manifests/sync_852.json").read_text())
    manifest["dump_id"], manifest["tables"][0]["incremental"] = 853, True
    (folder / BUCKET / "manifests/sync_853.json").write_text(json.dumps(manifest))
    _import(folder, folder / BUCKET)


def load_dlt(folder: Path) -> None:
    """Load the files with dlt as its documentation has it for speed: a resource that yields Arrow tables."""
    os.environ.update({"RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_DATA_DIR": str(folder / "dlt")})
    import dlt
    import polars as pl

    @dlt.resource(name="click", write_disposition="replace")
    def click():  # type: ignore[no-untyped-def]
        for file in sorted((folder / BUCKET / "sync_852/click").iterdir()):
            yield pl.read_avro(file).to_arrow()

    pipeline = dlt.pipeline(
        "dumps", destination=dlt.destinations.duckdb(str(folder / "dlt.duckdb")), dataset_name="dumps",
        pipelines_dir=str(folder / "dlt"),
    )  # fmt: skip
    pipeline.run(click(), loader_file_format="parquet")


def checked(file: Path, table: str) -> tuple[object, ...]:
    """Return what two loads of the same files must have in common."""
    import duckdb

    with duckdb.connect(str(file), read_only=True) as con:
        return con.execute(CHECK.format(table)).fetchone() or ()


def measure_tap(folder: Path) -> tuple[float, float, float]:
    """Let tap-heap read its part from an S3 server, whose own time isn't counted."""
    import boto3
    from moto.server import ThreadedMotoServer

    from heap_integration_tests.support.venvs import venv

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    python, server = venv("tap-heap"), ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}",
    }
    try:
        client = boto3.client(
            "s3",
            endpoint_url=variables["AWS_ENDPOINT_URL_S3"],
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=BUCKET)
        for file in sorted((folder / "tap" / BUCKET).rglob("*.*")):
            client.upload_file(str(file), BUCKET, str(file.relative_to(folder / "tap" / BUCKET)))
        return run_tap(python, folder, variables)
    finally:
        server.stop()


def run_tap(python: Path, folder: Path, variables: dict[str, str]) -> tuple[float, float, float]:
    """Let it read all there is."""
    program = ROOT / "heap_integration_tests/heap_connect/run_tap_heap.py"
    command = [str(python), str(program), BUCKET, "none", "{}"]
    begin = time.monotonic()
    with (folder / "rows.ndjson").open("wb") as rows:
        tap = subprocess.Popen(command, env=variables, cwd=folder, stdout=rows, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(tap.pid, 0)
    tap.returncode = os.waitstatus_to_exitcode(status)
    if tap.returncode:
        sys.exit("tap-heap has failed")
    return time.monotonic() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
