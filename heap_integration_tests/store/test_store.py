"""The store keeps what many processes write, on SQLite and on PostgreSQL."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from heap_integration.store import Busy, Store, StoreError, insert_new
from heap_integration.store.tables import meta, rate_grants

GRANT = {"limiter": "heap", "at": 1.5, "records": 3, "keys": b"\0\1"}


def python(program: str, *arguments: str) -> subprocess.Popen[str]:
    """Start another process that uses the package."""
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)


def test_processes_that_create_one_store_at_once_all_succeed(url: str) -> None:
    program = (
        "import sys; from heap_integration.store import Store, insert_new;"
        "from heap_integration.store.tables import meta; store = Store(sys.argv[1])\n"
        "with store.begin() as c: insert_new(c, meta, {'key': sys.argv[2], 'value': ''})"
    )
    creators = [python(program, url, f"creator {number}") for number in range(4)]
    assert [creator.wait(60) for creator in creators] == [0] * 4
    for creator in creators:
        creator.communicate()
    store = Store(url)
    with store.read() as connection:
        found = select(func.count()).where(meta.c.key.like("creator%"))
        assert connection.execute(found).scalar_one() == 4
    store.close()


def test_transactions_with_one_serial_follow_one_another(url: str) -> None:
    store = Store(url)
    with store.begin() as connection:
        connection.execute(insert(meta).values(key="count", value="0"))

    def add_one(_: int) -> None:
        with store.begin(serial="count") as connection:
            value = int(connection.execute(select(meta.c.value).where(meta.c.key == "count")).scalar_one())
            connection.execute(update(meta).where(meta.c.key == "count").values(value=str(value + 1)))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add_one, range(80)))
    with store.read() as connection:
        assert connection.execute(select(meta.c.value).where(meta.c.key == "count")).scalar_one() == "80"
    store.close()


def test_a_transaction_that_fails_leaves_nothing(url: str) -> None:
    store = Store(url)

    def fail_halfway() -> None:
        with store.begin() as connection:
            connection.execute(insert(rate_grants).values(GRANT))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    with store.read() as connection:
        assert connection.execute(select(func.count()).select_from(rate_grants)).scalar_one() == 0
    store.close()


def test_reading_sees_one_moment_and_refuses_to_write(url: str) -> None:
    store = Store(url)
    count = select(func.count()).select_from(rate_grants)
    with store.read() as reader:
        assert reader.execute(count).scalar_one() == 0
        with store.begin() as writer:
            writer.execute(insert(rate_grants).values(GRANT))
        assert reader.execute(count).scalar_one() == 0
        with pytest.raises(DBAPIError, match=r"read-?only") as refusal:
            reader.execute(insert(rate_grants).values(GRANT))
    assert "heap" not in str(refusal.value)
    with store.read() as reader:
        assert reader.execute(count).scalar_one() == 1
    store.close()


def test_the_number_of_a_deleted_row_is_never_given_again(url: str) -> None:
    store = Store(url)
    with store.begin() as connection:
        first = connection.execute(insert(rate_grants).values(GRANT)).inserted_primary_key
        connection.execute(delete(rate_grants))
        second = connection.execute(insert(rate_grants).values(GRANT)).inserted_primary_key
    assert first is not None
    assert second is not None
    assert second[0] > first[0]
    store.close()


def test_a_row_whose_key_is_there_is_left_as_it_is(url: str) -> None:
    store = Store(url)
    with store.begin() as connection:
        assert insert_new(connection, meta, {"key": "k", "value": "first"})
        assert not insert_new(connection, meta, {"key": "k", "value": "second"})
        assert connection.execute(select(meta.c.value).where(meta.c.key == "k")).scalar_one() == "first"
    store.close()


def test_a_lock_keeps_threads_out_until_it_is_released(url: str) -> None:
    store = Store(url)
    with store.exclusive("userflow/power users"):
        started = time.monotonic()
        with ThreadPoolExecutor(1) as thread, pytest.raises(Busy, match="userflow/power users"):
            thread.submit(store.exclusive("userflow/power users", wait=0.3).__enter__).result()
        assert 0.3 <= time.monotonic() - started < 3
        with store.exclusive("another", wait=0):
            pass
    with store.exclusive("userflow/power users", wait=0):
        pass
    store.close()


def test_a_killed_process_gives_its_lock_back(url: str) -> None:
    holder = python(
        "import sys, time; from heap_integration.store import Store\n"
        "with Store(sys.argv[1]).exclusive('events'): print('held', flush=True); time.sleep(60)",
        url,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    store = Store(url)
    with pytest.raises(Busy), store.exclusive("events", wait=0):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with store.exclusive("events", wait=5):
        pass
    store.close()


def test_tables_of_a_newer_version_are_refused(url: str) -> None:
    store = Store(url)
    with store.begin() as connection:
        connection.execute(update(meta).where(meta.c.key == "version").values(value="999"))
    store.close()
    with pytest.raises(StoreError, match="upgrade heap-integration"):
        Store(url)


def test_an_sqlite_store_is_its_owners_alone_and_syncs_every_commit(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/new/folders/hub.db")
    with store.begin() as connection:
        connection.execute(insert(rate_grants).values(GRANT))
        assert connection.exec_driver_sql("pragma journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("pragma synchronous").scalar_one() == 2
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new/folders").iterdir()}
    assert "hub.db-wal" in modes
    assert set(modes.values()) == {0o600}
    store.close()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("5ekret", "can't be read"),
        ("postgresql://hub:p@ss:5ekret@db/hub", "can't be read"),
        ("mysql://hub:5ekret@db/hub", r"mysql://hub:\*\*\*@db/hub is not supported"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:////dev/null/hub.db", "can't be opened"),
        ("postgresql://hub:5ekret@127.0.0.1:1/hub", "can't be opened: .*refused"),
    ],
)
def test_a_url_that_is_no_store_is_explained_without_its_password(url: str, problem: str) -> None:
    with pytest.raises(StoreError, match=problem) as error:
        Store(url)
    assert "5ekret" not in str(error.value)


def test_a_file_that_is_no_database_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Something else, and long enough to be told from an empty database. " * 10)
    with pytest.raises(StoreError, match=r"notes\.txt can't be opened: file is not a database"):
        Store(f"sqlite:///{path}")
