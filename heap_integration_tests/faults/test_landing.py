"""What a receiver acknowledges survives a full disk, a store that is away or locked, and the death of replicas."""

from __future__ import annotations

import random
import resource
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from heap_integration.events.loading import load_landed
from heap_integration.landing import FolderArrivals, StoreArrivals
from heap_integration.store import Store
from heap_integration.warehouse import Warehouse
from heap_integration_tests.landing.load_until_killed import arrivals_in
from heap_integration_tests.landing.processes import (
    Loader,
    RealLoader,
    Receiver,
    Traffic,
    assert_exactly_once,
    wait_until,
)
from heap_integration_tests.support.postgres import durable_postgres, postgres, postgres_database, stopped

__all__ = ["durable_postgres", "postgres", "postgres_database"]

pytestmark = pytest.mark.slow

LOADER_KILLS = 3
DISK_BYTES = 48 * 1024 * 1024


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a small disk; skip where that isn't allowed."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Fill a disk to its last byte and return the file that does."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def assert_refused_politely(traffic: Traffic) -> None:
    assert {answer.status_code for answer in traffic.refused} == {503}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in traffic.refused)


@pytest.mark.timeout(90)
def test_a_full_disk_costs_nothing_but_time(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        running = Receiver(disk)
        traffic, loader = Traffic(running.url), Loader(FolderArrivals(disk / "landing"))
        try:
            traffic.wait_for_acknowledged(50)
            filler = fill(disk)
            traffic.wait_for_refused(50)
            assert running.readiness() == 503
            filler.unlink()
            traffic.wait_for_acknowledged(50)
            wait_until(lambda: running.readiness() == 200, "the receiver isn't ready again")
        finally:
            traffic.stop()
            running.stop()
            loader.stop()
        assert list((disk / "landing").iterdir()) == []
    assert_refused_politely(traffic)
    assert_exactly_once(traffic, loader)


@pytest.mark.timeout(90)
def test_a_file_that_may_not_grow_costs_nothing_but_time(tmp_path: Path) -> None:
    running = Receiver(tmp_path)
    traffic, loader = Traffic(running.url), Loader(FolderArrivals(tmp_path / "landing"))
    try:
        traffic.wait_for_acknowledged(50)
        process = running.process.pid
        soft, hard = resource.prlimit(process, resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        traffic.wait_for_refused(50)
        assert running.readiness() == 503
        resource.prlimit(process, resource.RLIMIT_FSIZE, (soft, hard))
        traffic.wait_for_acknowledged(50)
    finally:
        traffic.stop()
        running.stop()
        loader.stop()
    assert list((tmp_path / "landing").iterdir()) == []
    assert_refused_politely(traffic)
    assert_exactly_once(traffic, loader)


@pytest.mark.timeout(90)
def test_a_server_that_stops_and_comes_back_costs_nothing_but_time(durable_postgres: str, tmp_path: Path) -> None:
    store = Store(durable_postgres)
    running = Receiver(tmp_path, durable_postgres)
    traffic, loader = Traffic(running.url), Loader(StoreArrivals(store))
    try:
        traffic.wait_for_acknowledged(50)
        for _ in range(2):
            with loader.alone:
                with stopped(durable_postgres):
                    traffic.wait_for_refused(20)
                    assert running.readiness() == 503
                traffic.wait_for_acknowledged(50)
        wait_until(lambda: running.readiness() == 200, "the receiver isn't ready again")
    finally:
        traffic.stop()
        running.stop()
        loader.stop()
        store.close()
    assert_refused_politely(traffic)
    assert_exactly_once(traffic, loader)


@pytest.mark.timeout(90)
def test_a_locked_store_is_refused_soon_and_used_again_once_it_is_free(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shared.db"
    store = Store(url)
    running = Receiver(tmp_path, url)
    traffic, loader = Traffic(running.url), Loader(StoreArrivals(store))
    try:
        traffic.wait_for_acknowledged(50)
        with loader.alone:
            locker = sqlite3.connect(tmp_path / "shared.db", isolation_level=None, timeout=10)
            locker.execute("begin immediate")
            started = time.monotonic()
            traffic.wait_for_refused(50)
            assert time.monotonic() - started < 10
            locker.execute("rollback")
            locker.close()
            traffic.wait_for_acknowledged(50)
    finally:
        traffic.stop()
        running.stop()
        loader.stop()
        store.close()
    assert_refused_politely(traffic)
    assert_exactly_once(traffic, loader)


@pytest.mark.timeout(120)
def test_replicas_on_one_store_may_die_in_turn(postgres_database: str, tmp_path: Path) -> None:
    moments = random.Random()
    store = Store(postgres_database)
    replicas = []
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
        replicas.append(Receiver(tmp_path / name, postgres_database))
    traffic, loader = Traffic(*(replica.url for replica in replicas)), Loader(StoreArrivals(store))
    try:
        for replica in replicas:
            traffic.wait_for_acknowledged(20)
            time.sleep(moments.uniform(0, 0.3))
            assert replica.stop(signal.SIGKILL) == -signal.SIGKILL
            replica.start()
        traffic.wait_for_acknowledged(100)
    finally:
        traffic.stop()
        for replica in replicas:
            replica.stop()
        loader.stop()
        store.close()
    assert not traffic.refused
    assert_exactly_once(traffic, loader)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("home", ["folder", "postgresql"])
def test_a_loader_that_is_killed_again_and_again_loads_each_line_once(
    home: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    moments = random.Random()
    url = None if home == "folder" else str(request.getfixturevalue("postgres_database"))
    place = url or str(tmp_path / "landing")
    running = Receiver(tmp_path, url)
    traffic, loader = Traffic(running.url), RealLoader(tmp_path / "hub.duckdb", place)
    warehouse = Warehouse(f"duckdb:///{tmp_path}/hub.duckdb")
    try:
        for _ in range(LOADER_KILLS):
            wait_for_a_load(warehouse)
            time.sleep(moments.uniform(0, 0.5))
            loader.kill()
            loader.start()
    finally:
        traffic.stop()
        running.stop()
        loader.kill()
    arrivals = arrivals_in(place)
    load_landed(warehouse, arrivals)
    assert not arrivals.has_waiting()
    with warehouse.read() as con:
        found = Counter(name for (name,) in con.execute("select message_id[10:] from product_events").fetchall())
        read, duplicates = con.execute("select sum(read), sum(duplicates) from loaded_inputs").fetchone() or (0, 0)
    assert traffic.acknowledged <= found.keys()
    assert set(found.values()) == {1}
    # Nothing was read twice and only recognised: each segment goes on where its last piece ended.
    assert (read, duplicates) == (len(found), 0)


def wait_for_a_load(warehouse: Warehouse) -> None:
    """Wait until another piece of a segment is in a warehouse."""

    def pieces() -> int:
        with warehouse.read() as con:
            (count,) = con.execute("select count(*) from loaded_inputs").fetchone() or (0,)
        return int(count)

    before = pieces()
    wait_until(lambda: pieces() > before, "the loader loads nothing")
