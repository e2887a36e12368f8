"""What it costs to bring rows into PostgreSQL and out again: ours, by ADBC, and dlt over Arrow.

The same rows of 15 columns go into a throw-away server, from each contender in a process of its own. What the server
itself costs isn't counted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
BATCH_ROWS = 50_000
TEXTS = ("type", "library", "platform", "device_type", "country", "city", "browser", "referrer", "path", "title")


def main() -> None:
    from heap_integration_tests.support.postgres import found_binaries, server

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with server(found_binaries()) as url:
        folder = url.split("host=")[1]
        print(f"{'':<22}{'wall s':>9}{'CPU s':>9}{'rows/s':>10}{'rows/CPU s':>12}{'peak MB':>9}")
        for _ in range(options.rounds):
            for name, work in (("ours, in", load), ("dlt over Arrow, in", load_by_dlt), ("ours, out", read)):
                wall, cpu, peak = alone(work, folder, options.rows)
                figures = f"{options.rows / wall:>10,.0f}{options.rows / cpu:>12,.0f}{peak:>9,.0f}"
                print(f"{name:<22}{wall:>9.1f}{cpu:>9.1f}{figures}", flush=True)


def batches(rows: int) -> list[pa.RecordBatch]:
    """Return rows of Heap's kind."""
    first = datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)
    found = []
    for start in range(0, rows, BATCH_ROWS):
        numbers = range(start, min(start + BATCH_ROWS, rows))
        columns: dict[str, object] = {
            "event_id": pa.array(numbers, pa.int64()),
            "user_id": pa.array((n * 7919 % 100_003 for n in numbers), pa.int64()),
            "session_id": pa.array((n // 9 for n in numbers), pa.int64()),
            "time": pa.array((first + timedelta(seconds=n) for n in numbers), pa.timestamp("us")),
            **{name: [f"{name} {n % 997}" for n in numbers] for name in TEXTS},
            "amount": pa.array((n % 1_000 / 10 for n in numbers), pa.float64()),
        }
        found.append(pa.RecordBatch.from_pydict(columns))
    return found


def alone(work: Callable[[str, int], None], folder: str, rows: int) -> tuple[float, float, float]:
    """Run a function in a fresh process; return its wall time, CPU time and peak of memory in MB."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(work, folder, rows, send))
    process.start()
    send.close()
    result: tuple[float, float, float] = receive.recv()
    process.join()
    return result


def _measured(work: Callable[[str, list[pa.RecordBatch]], None], folder: str, rows: int, send: object) -> None:
    given = batches(rows)
    before, begin = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    work(folder, given)
    wall, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    send.send((wall, cpu, after.ru_maxrss / 1024))  # type: ignore[attr-defined]


def load(folder: str, given: list[pa.RecordBatch]) -> None:
    """Load by the warehouse's own connection."""
    with _connection(folder) as connection:
        connection.load("ours", "click", given, given[0].schema)


def read(folder: str, given: list[pa.RecordBatch]) -> None:
    """Read what was loaded, and look whether it is all."""
    with _connection(folder) as connection:
        rows = sum(batch.num_rows for batch in connection.batches("select * from ours.click"))
    if rows != sum(batch.num_rows for batch in given):
        sys.exit(f"{rows} rows came back")


def load_by_dlt(folder: str, given: list[pa.RecordBatch]) -> None:
    """Load with dlt, as Parquet files that go to the server by ADBC too."""
    with tempfile.TemporaryDirectory() as work:
        os.environ.update({"RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_DATA_DIR": work})
        import dlt

        address = f"postgresql://hub:none@localhost:5432/postgres?host={folder}"
        pipeline = dlt.pipeline(
            "click", destination=dlt.destinations.postgres(address), dataset_name="by_dlt", pipelines_dir=work
        )
        rows = dlt.resource(lambda: iter(given), name="click", write_disposition="replace", file_format="parquet")
        pipeline.run(rows, loader_file_format="parquet")


def _connection(folder: str):  # type: ignore[no-untyped-def]
    from heap_integration.warehouse import Warehouse
    from heap_integration.warehouse.systems.postgres import PostgresSettings
    from heap_integration.warehouse.systems.system import Surroundings

    given = {"type": "postgres", "host": folder, "database": "postgres", "user": "hub"}
    own = Warehouse(f"duckdb:///{tempfile.gettempdir()}/unused.duckdb")
    return PostgresSettings.model_validate(given).connect(Surroundings("benchmark", own, {}))


if __name__ == "__main__":
    main()
