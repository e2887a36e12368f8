"""Locks between processes that the kernel or the server gives back when their holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, text

FIRST_NAP = 0.01
LONGEST_NAP = 0.2


class Busy(Exception):
    """Somebody else holds the lock."""

    def __init__(self, name: str, waited: float) -> None:
        super().__init__(f"{name!r} is held by another process or thread (waited {waited:g} s)")
        self.name = name


@contextmanager
def file_lock(database: Path, name: str, wait: float | None) -> Iterator[None]:
    """Hold the lock ``name`` on a file beside the database."""
    path = database.with_name(f"{database.name}.{quote(name, safe='')}.lock")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _insist(lambda: _flocked(handle), name, wait)
        yield
    finally:
        # Closing alone would leave the lock with a child process that was forked meanwhile.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


@contextmanager
def server_lock(engine: Engine, name: str, wait: float | None) -> Iterator[None]:
    """Hold the advisory lock ``name`` of a PostgreSQL database on a connection of its own.

    ``engine`` must open a new connection each time and really close it: that ends the lock.
    """
    take = text("select pg_try_advisory_lock(:key)")
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        key = lock_key(connection, name)
        _insist(lambda: bool(connection.execute(take, {"key": key}).scalar_one()), name, wait)
        yield


def lock_key(connection: Connection, name: str) -> int:
    """Return the number of an advisory lock: locks belong to a database, stores to a schema."""
    schema = connection.execute(text("select current_schema()")).scalar_one()
    digest = blake2b(f"{schema}\0{name}".encode(), digest_size=8, person=b"heap-integration").digest()
    return int.from_bytes(digest, "big", signed=True)


def _flocked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _insist(attempt: Callable[[], bool], name: str, wait: float | None) -> None:
    # Both kinds of lock can block by themselves, but then neither has a time limit and the wait for
    # the server can't be interrupted from the keyboard.
    started = time.monotonic()
    nap = FIRST_NAP
    while not attempt():
        waited = time.monotonic() - started
        if wait is not None and waited >= wait:
            raise Busy(name, waited)
        time.sleep(nap if wait is None else min(nap, wait - waited))
        nap = min(nap * 1.5, LONGEST_NAP)
