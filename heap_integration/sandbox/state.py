"""The sandbox's memory: one SQLite file that outlives the process."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

_SCHEMA = """
CREATE TABLE IF NOT EXISTS counters (
  app_id TEXT NOT NULL, name TEXT NOT NULL, value INTEGER NOT NULL, PRIMARY KEY (app_id, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refusals (
  id INTEGER PRIMARY KEY, app_id TEXT NOT NULL, path TEXT NOT NULL, status INTEGER NOT NULL,
  reason TEXT NOT NULL, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS tokens (
  digest TEXT PRIMARY KEY, kind TEXT NOT NULL, app_id TEXT NOT NULL, redirect_uri TEXT NOT NULL,
  created_at REAL NOT NULL, expires_at REAL
);
CREATE TABLE IF NOT EXISTS heap_events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, app_id TEXT NOT NULL, user_id INTEGER NOT NULL, identity TEXT,
  event TEXT NOT NULL, timestamp TEXT NOT NULL, received_at REAL NOT NULL, session_id TEXT,
  idempotency_key TEXT, properties BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS heap_events_key ON heap_events (app_id, idempotency_key)
  WHERE idempotency_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS heap_events_user ON heap_events (app_id, user_id);
CREATE TABLE IF NOT EXISTS heap_users (
  app_id TEXT NOT NULL, user_id INTEGER NOT NULL, identity TEXT, email TEXT, properties BLOB NOT NULL,
  first_seen REAL NOT NULL, last_seen REAL NOT NULL, PRIMARY KEY (app_id, user_id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS heap_users_identity ON heap_users (app_id, identity)
  WHERE identity IS NOT NULL;
CREATE TABLE IF NOT EXISTS heap_identifies (
  app_id TEXT NOT NULL, user_id INTEGER NOT NULL, identity TEXT NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (app_id, user_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS heap_identifies_identity ON heap_identifies (app_id, identity);
CREATE TABLE IF NOT EXISTS heap_accounts (
  app_id TEXT NOT NULL, account_id TEXT NOT NULL, properties BLOB NOT NULL, PRIMARY KEY (app_id, account_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heap_deletions (
  id TEXT PRIMARY KEY, app_id TEXT NOT NULL, users BLOB NOT NULL, complete_at REAL NOT NULL,
  status TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS heap_segments (
  app_id TEXT NOT NULL, id INTEGER NOT NULL, name TEXT NOT NULL, webhook_url TEXT, page_size INTEGER NOT NULL,
  rule BLOB, synced_at REAL, PRIMARY KEY (app_id, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heap_segment_members (
  app_id TEXT NOT NULL, segment_id INTEGER NOT NULL, member TEXT NOT NULL, present INTEGER NOT NULL,
  acknowledged INTEGER NOT NULL, PRIMARY KEY (app_id, segment_id, member)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heap_dumps (
  app_id TEXT NOT NULL, address TEXT NOT NULL, dump_id INTEGER NOT NULL, marks BLOB NOT NULL,
  PRIMARY KEY (app_id, address, dump_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS userflow_objects (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, app_id TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL,
  created_at TEXT NOT NULL, user_id TEXT, group_id TEXT, content_id TEXT, name TEXT, data BLOB NOT NULL,
  UNIQUE (app_id, kind, id)
);
CREATE INDEX IF NOT EXISTS userflow_objects_order ON userflow_objects (app_id, kind, created_at, seq);
CREATE INDEX IF NOT EXISTS userflow_objects_user ON userflow_objects (app_id, kind, user_id)
  WHERE user_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS userflow_objects_group ON userflow_objects (app_id, kind, group_id)
  WHERE group_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS userflow_objects_content ON userflow_objects (app_id, kind, content_id)
  WHERE content_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS userflow_objects_name ON userflow_objects (app_id, kind, name)
  WHERE name IS NOT NULL;
CREATE TABLE IF NOT EXISTS userflow_deliveries (
  id INTEGER PRIMARY KEY, app_id TEXT NOT NULL, subscription_id TEXT NOT NULL, topic TEXT NOT NULL,
  body BLOB NOT NULL, attempts INTEGER NOT NULL, due_at REAL NOT NULL, status TEXT NOT NULL, error TEXT
);
CREATE INDEX IF NOT EXISTS userflow_deliveries_due ON userflow_deliveries (status, due_at);
"""
_REFUSALS_KEPT = 500


def utc_text(moment: datetime) -> str:
    """Write a moment as Userflow does: milliseconds and a numeric offset."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def digest(token: str) -> str:
    """Name a token without holding it."""
    return hashlib.sha256(token.encode()).hexdigest()


class State:
    """The file and its one connection, used by one thread.

    A request is applied within one transaction that nothing awaits in, and committed before it is
    answered: what a client was told of survives the end of the process. ``vendors`` are those beside Heap: their
    refusals are counted by themselves.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.con = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.con.row_factory = sqlite3.Row
        self.vendors: tuple[str, ...] = ()
        # a commit of random keys touches many pages: fewer checkpoints write each of them less often
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "busy_timeout = 5000",
            "cache_size = -64000",
            "wal_autocheckpoint = 20000",
        ):
            self.con.execute(f"PRAGMA {pragma}")
        self.con.executescript(_SCHEMA)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Give the connection within one transaction; an exception undoes it."""
        self.con.execute("BEGIN IMMEDIATE")
        try:
            yield self.con
        except BaseException:
            self.con.execute("ROLLBACK")
            raise
        self.con.execute("COMMIT")

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """Give a connection of its own that reads the state as it is now, for what takes long, in another thread."""
        con = sqlite3.connect(f"file:{quote(str(self._path.resolve()))}?mode=ro", uri=True, isolation_level=None)
        con.row_factory = sqlite3.Row
        try:
            con.execute("BEGIN")
            yield con
        finally:
            con.close()

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Return every row of a query."""
        return self.con.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        """Return the first row of a query, if any."""
        found: sqlite3.Row | None = self.con.execute(sql, values).fetchone()
        return found

    def one(self, sql: str, *values: Any) -> sqlite3.Row:
        """Return the first row of a query that has one.

        Raises:
            LookupError: it has none.
        """
        found = self.row(sql, *values)
        if found is None:
            raise LookupError("the state lacks a row that it must have")
        return found

    def count(self, app_id: str, **amounts: int) -> None:
        """Add to an app id's counters; belongs in a transaction where it must agree with the rest."""
        self.con.executemany(
            "INSERT INTO counters VALUES (?, ?, ?) "
            "ON CONFLICT (app_id, name) DO UPDATE SET value = value + excluded.value",
            [(app_id, name, amount) for name, amount in amounts.items() if amount],
        )

    def counters(self, app_id: str) -> dict[str, int]:
        """Return an app id's counters by name."""
        return {row["name"]: row["value"] for row in self.rows("SELECT * FROM counters WHERE app_id = ?", app_id)}

    def refuse(self, app_id: str, path: str, status: int, reason: str) -> None:
        """Note an answer above 399: when, where, why."""
        with self.write() as con:
            cursor = con.execute(
                "INSERT INTO refusals (app_id, path, status, reason, at) VALUES (?, ?, ?, ?, ?)",
                (app_id, path, status, reason[:500], time.time()),
            )
            con.execute("DELETE FROM refusals WHERE id <= ?", ((cursor.lastrowid or 0) - _REFUSALS_KEPT,))
            kind = "rate_limited" if status == 429 else "rejected_requests"
            first = path.split("/")[1]
            service = f"{first}_" if first in self.vendors else ""
            self.count(app_id, **{f"{service}{kind}": 1, f"{service}requests": 1})

    def issue(self, token: str, kind: str, app_id: str, *, seconds: float | None, redirect_uri: str = "") -> None:
        """Remember a token that was handed out, by its digest."""
        now = time.time()
        self.con.execute("DELETE FROM tokens WHERE expires_at < ?", (now,))
        self.con.execute(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?)",
            (digest(token), kind, app_id, redirect_uri, now, None if seconds is None else now + seconds),
        )

    def token(self, token: str, kind: str) -> sqlite3.Row | None:
        """Return what is known of a token that is still good."""
        return self.row(
            "SELECT * FROM tokens WHERE digest = ? AND kind = ? AND (expires_at IS NULL OR expires_at > ?)",
            digest(token),
            kind,
            time.time(),
        )

    def reset(self) -> None:
        """Forget everything."""
        tables = [
            row["name"]
            for row in self.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        ]
        with self.write() as con:
            for table in tables:
                con.execute(f"DELETE FROM {table}")

    def close(self) -> None:
        """Close the file."""
        self.con.close()
