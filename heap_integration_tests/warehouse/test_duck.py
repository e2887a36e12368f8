"""Processes that share one DuckDB file wait for each other instead of failing."""

from __future__ import annotations

import multiprocessing
import resource
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import duckdb
import pytest

from heap_integration.warehouse import Warehouse, WarehouseError

PROCESSES, ROUNDS = 4, 5


def url_of(folder: Path) -> str:
    return f"duckdb:///{folder}/warehouse.duckdb"


def started(target: Callable[..., None], *arguments: object) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["duckdb", "heap_integration.warehouse"])
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def note_batches(url: str, worker: int) -> None:
    warehouse = Warehouse(url)
    for number in range(ROUNDS):
        with warehouse.read() as con:
            before = con.execute("select count(*) from settled_batches").fetchone()
        with warehouse.write() as con:
            con.execute("insert into settled_batches values (?, ?)", [f"worker {worker}", number])
        with warehouse.read() as con:
            after = con.execute("select count(*) from settled_batches").fetchone()
        assert before is not None
        assert after is not None
        assert after[0] > before[0]


def read_until(url: str, over: Path) -> None:
    warehouse = Warehouse(url)
    while not over.exists():
        with warehouse.read() as con:
            con.execute("select count(*) from product_events").fetchone()


def write_and_hang(url: str, begun: Path) -> None:
    with Warehouse(url).write() as con:
        con.execute("insert into settled_batches values ('unfinished', 1)")
        begun.touch()
        time.sleep(60)


def test_writers_and_readers_of_several_processes_all_get_their_turn(tmp_path: Path) -> None:
    workers = [started(note_batches, url_of(tmp_path), worker) for worker in range(PROCESSES)]
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    with Warehouse(url_of(tmp_path)).read() as con:
        assert con.execute("select count(*) from settled_batches").fetchone() == (PROCESSES * ROUNDS,)


def test_readers_that_overlap_keep_no_writer_waiting(tmp_path: Path) -> None:
    warehouse, over = Warehouse(url_of(tmp_path)), tmp_path / "over"
    readers = [started(read_until, url_of(tmp_path), over) for _ in range(3)]
    try:
        time.sleep(0.5)
        began = time.monotonic()
        for number in range(3):
            with warehouse.write() as con:
                con.execute("insert into settled_batches values ('writer', ?)", [number])
        assert time.monotonic() - began < 10
    finally:
        over.touch()
        for reader in readers:
            reader.join(20)
    assert [reader.exitcode for reader in readers] == [0, 0, 0]


def test_a_killed_writer_leaves_neither_its_lock_nor_half_a_transaction(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    writer = started(write_and_hang, url_of(tmp_path), begun)
    while not begun.exists():
        time.sleep(0.01)
    writer.kill()
    writer.join(10)
    with Warehouse(url_of(tmp_path)).read() as con:
        assert con.execute("select count(*) from settled_batches").fetchone() == (0,)


def test_an_error_inside_a_transaction_undoes_it_and_leaves_the_tables(tmp_path: Path) -> None:
    warehouse = Warehouse(url_of(tmp_path))

    def change_my_mind() -> None:
        with warehouse.write() as con:
            con.execute("insert into settled_batches values ('undone', 1)")
            raise RuntimeError("changed my mind")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="changed my mind"):
            change_my_mind()
    with warehouse.read() as con:
        assert con.execute("select count(*) from settled_batches").fetchone() == (0,)


def test_what_does_not_fit_into_memory_waits_in_files_that_do_not_stay(tmp_path: Path) -> None:
    warehouse = Warehouse(url_of(tmp_path))
    (tmp_path / "warehouse.duckdb.waiting-killed").mkdir()
    (tmp_path / "warehouse.duckdb.waiting-killed/duckdb_temp_storage-0.tmp").write_text("half a segment")
    with warehouse.write(ample=True) as con:
        con.execute("set memory_limit = '60MB'")
        con.execute("create temp table large as select 'somebody ' || i as name, hash(i) from range(4000000) t(i)")
        (waiting,) = tmp_path.glob("*.waiting-*")
        assert waiting.name != "warehouse.duckdb.waiting-killed"
    assert not list(tmp_path.glob("*.waiting-*"))


def test_a_file_without_tables_gets_them(tmp_path: Path) -> None:
    duckdb.connect(str(tmp_path / "warehouse.duckdb")).close()
    with Warehouse(url_of(tmp_path)).read() as con:
        assert con.execute("select count(*) from product_events").fetchone() == (0,)


def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    with Warehouse(f"duckdb:///{tmp_path}/o'neil's data/100% wäre.duckdb").write() as con:
        con.execute("insert into settled_batches values ('quoted', 1)")
    assert (tmp_path / "o'neil's data/100% wäre.duckdb").exists()


def fill_a_disk(url: str, said: Path) -> None:
    warehouse = Warehouse(url)
    # beyond the limit a write fails as it does on a full disk
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
    try:
        with warehouse.write() as con:
            con.execute("insert into settled_batches select hash(i)::varchar, i from range(2000000) t(i)")
    except WarehouseError as error:
        said.write_text(str(error))


def test_a_full_disk_is_told_in_words_and_costs_the_transaction_only(tmp_path: Path) -> None:
    with Warehouse(url_of(tmp_path)).write() as con:
        con.execute("insert into settled_batches values ('before', 1)")
    process = started(fill_a_disk, url_of(tmp_path), tmp_path / "said")
    process.join(60)
    assert "warehouse.duckdb: there is no more room on the disk" in (tmp_path / "said").read_text()
    with Warehouse(url_of(tmp_path)).read() as con:
        assert con.execute("select flow from settled_batches").fetchall() == [("before",)]


def test_a_damaged_file_is_told_by_its_name(tmp_path: Path) -> None:
    warehouse = Warehouse(url_of(tmp_path))
    with warehouse.write() as con:
        con.execute("insert into settled_batches select hash(i)::varchar, i from range(200000) t(i)")
    size = warehouse.path.stat().st_size
    with warehouse.path.open("r+b") as file:
        for place in range(size // 3, size * 2 // 3, 50_000):
            file.seek(place)
            file.write(b"damaged")
    with pytest.raises(WarehouseError, match=r"warehouse\.duckdb: the file is damaged"), warehouse.read() as con:
        con.execute("select max(flow) from settled_batches").fetchall()


def test_a_mistake_in_a_statement_stays_the_statements_own(tmp_path: Path) -> None:
    with pytest.raises(duckdb.CatalogException), Warehouse(url_of(tmp_path)).read() as con:
        con.execute("from nowhere")


def test_what_is_no_warehouse_is_told(tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match="allowed is duckdb:///path"):
        Warehouse("snowflake://account/database")
    (tmp_path / "warehouse.duckdb").write_text("something else" * 1_000)
    with pytest.raises(WarehouseError, match="can't be opened"), Warehouse(url_of(tmp_path)).read():
        pass
