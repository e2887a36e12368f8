"""Connections, transactions and locks of the operational state."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, Table, create_engine, delete, event, insert, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from heap_integration.store.locks import file_lock, lock_key, server_lock
from heap_integration.store.tables import VERSION, meta, metadata

ALLOWED = "allowed are sqlite:///path/to/file.db and postgresql://user@host/database"
BUSY_SECONDS = 30.0
CREATE = "create"
# Parameters are people's data, and errors end up in logs.
POOL: dict[str, Any] = {"pool_size": 5, "max_overflow": 20, "hide_parameters": True}


class StoreError(ValueError):
    """The store can't be used as it is configured; the message holds no password."""


class Store:
    """The operational state of one environment, shared by threads and processes.

    ``url`` is ``sqlite:///path`` or ``postgresql://...``. What is missing is made: the file, readable
    for its owner alone, its folders, the tables. Committed is durable: SQLite syncs its log at each
    commit, PostgreSQL as its server is set up.

    Raises:
        StoreError: the URL isn't one of the two, the file or the server can't be opened, or a newer
            version of this package has made the tables.
    """

    def __init__(self, url: str) -> None:
        self.url = _checked(url)
        self.name = self.url.render_as_string(hide_password=True)
        self._file = Path(str(self.url.database)) if self.url.get_backend_name() == "sqlite" else None
        try:
            self._engine, self._locks = self._engines()
            self._reader = self._engine.execution_options(**self._reading())
            try:
                self._create()
            except BaseException:
                self.close()
                raise
        except ModuleNotFoundError as missing:
            raise StoreError(
                f"store {self.name} needs {missing.name}: pip install 'heap-integration[postgres]'"
            ) from missing
        except (OSError, sqlite3.Error, SQLAlchemyError) as error:
            raise StoreError(f"store {self.name} can't be opened: {_cause(error)}") from error

    @contextmanager
    def begin(self, serial: str | None = None) -> Iterator[Connection]:
        """Yield a connection inside a transaction that may write; committed at the end.

        SQLite lets one such transaction run at a time. PostgreSQL runs them side by side: those with
        the same ``serial`` still follow one another, so that one of them can read, decide and write.
        """
        with self._engine.begin() as connection:
            if serial is not None and self._file is None:
                key = lock_key(connection, f"transaction {serial}")
                connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": key})
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection that sees one moment's state and refuses to write."""
        with self._reader.connect() as connection:
            yield connection

    def exclusive(self, name: str, wait: float | None = None) -> AbstractContextManager[None]:
        """Keep every other thread and process out of what they also call ``name``.

        ``wait`` is in seconds, ``None`` waits for ever. A holder that dies by any means gives the lock
        back. It isn't re-entrant. On PostgreSQL it lasts no longer than its connection does.

        Raises:
            Busy: somebody else held it all the while.
        """
        if self._file is not None:
            return file_lock(self._file, name, wait)
        return server_lock(self._locks, name, wait)

    def remember(self, key: str, value: Any) -> None:
        """Keep a small value that JSON can hold under a name."""
        with self.begin(serial=key) as connection:
            connection.execute(delete(meta).where(meta.c.key == key))
            connection.execute(insert(meta).values(key=key, value=json.dumps(value)))

    def recall(self, key: str) -> Any:
        """Return what was kept under a name, ``None`` where nothing was."""
        with self.read() as connection:
            found = connection.execute(select(meta.c.value).where(meta.c.key == key)).scalar()
        return None if found is None else json.loads(found)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._engine.dispose()
        self._locks.dispose()

    def _engines(self) -> tuple[Engine, Engine]:
        if self._file is None:
            # Keepalives let the server see within a minute that a machine is gone, and free its locks.
            # The other two keep a host that has vanished from holding a caller for minutes.
            alive = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
            alive |= {"connect_timeout": 10, "tcp_user_timeout": 30_000}
            return (
                create_engine(self.url, pool_pre_ping=True, connect_args=alive, **POOL),
                create_engine(self.url, poolclass=NullPool, connect_args=alive),
            )
        engine = create_engine(self.url, connect_args={"timeout": BUSY_SECONDS}, **POOL)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine, engine

    def _reading(self) -> dict[str, Any]:
        if self._file is not None:
            return {"reading": True}
        return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

    def _create(self) -> None:
        if self._file is None:
            with self.begin(serial=CREATE) as connection:
                self._create_tables(connection)
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self.exclusive(CREATE):
            os.close(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            # The mode stays with the file. Only the change needs the lock: it doesn't wait for others.
            with closing(self._engine.raw_connection()) as connection:
                connection.cursor().execute("pragma journal_mode = wal")
            with self.begin() as transaction:
                self._create_tables(transaction)

    def _create_tables(self, connection: Connection) -> None:
        metadata.create_all(connection)
        insert_new(connection, meta, {"key": "version", "value": str(VERSION)})
        found = int(connection.execute(select(meta.c.value).where(meta.c.key == "version")).scalar_one())
        if found > VERSION:
            raise StoreError(
                f"store {self.name} has version {found} of the tables, this package knows up to {VERSION}: "
                "upgrade heap-integration"
            )


def insert_new(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless one with its key is there, and return whether it was new."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table).values(row).on_conflict_do_nothing()
    return bool(connection.execute(statement).rowcount)


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # What can't be read may be a password: the text isn't repeated, as it is where a port should stand.
        raise StoreError(f"the store's URL can't be read: {ALLOWED}") from None
    shown = parsed.render_as_string(hide_password=True)
    if parsed.drivername not in {"sqlite", "postgresql", "postgresql+psycopg2"}:
        raise StoreError(f"store {shown} is not supported: {ALLOWED}")
    if parsed.drivername == "sqlite" and (parsed.database in {None, "", ":memory:"} or parsed.host or parsed.query):
        raise StoreError(f"store {shown} names no file: {ALLOWED}")
    return parsed


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Python's module would begin transactions by itself, and too late: at the first write.
    connection.isolation_level = None
    try:
        connection.execute("pragma synchronous = full")
    except sqlite3.Error:
        connection.close()
        raise


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that starts as a reader can't become a writer once somebody else has written.
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql(f"pragma query_only = {'on' if reading else 'off'}")
    connection.exec_driver_sql("begin" if reading else "begin immediate")


def _cause(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(str(cause).split())
