"""Userpilot's bulk jobs: one at a time, worked off row by row at a known speed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from sqlite3 import Row
from typing import Any, Literal

import orjson

from heap_integration.sandbox.settings import SandboxSettings
from heap_integration.sandbox.state import State

Kind = Literal["users", "companies"]
Status = Literal["queued", "validating", "processing", "pending_refresh", "completed", "failed"]

ENDED = ("completed", "failed")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS userpilot_jobs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, app_id TEXT NOT NULL, job_id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
  file_size INTEGER NOT NULL, total_rows INTEGER NOT NULL, wrong_rows INTEGER NOT NULL, rows BLOB NOT NULL,
  applied INTEGER NOT NULL, started_at REAL NOT NULL, ended_at REAL, status TEXT NOT NULL
);
"""


class Jobs:
    """The jobs of all environments. Time does the work: whoever looks sees what is due by then applied.

    ``apply`` gets the environment, the kind and the next rows, within a transaction.
    """

    def __init__(
        self, settings: SandboxSettings, state: State, apply: Callable[[str, Kind, list[dict[str, Any]]], None]
    ) -> None:
        self.settings = settings
        self.state = state
        self._apply = apply
        state.con.executescript(_SCHEMA)

    def start(self, app_id: str, kind: Kind, *, rows: list[dict[str, Any]], wrong: int, size: int) -> dict[str, Any]:
        """Queue a job of the rows that are right; ``wrong`` is how many others the file had."""
        job_id = f"bulk:jobs:NX-{app_id[-8:]}:{uuid.uuid4()}"
        with self.state.write() as con:
            con.execute(
                "INSERT INTO userpilot_jobs (app_id, job_id, kind, file_size, total_rows, wrong_rows, rows, applied,"
                " started_at, status) VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, 'queued')",
                (app_id, job_id, kind, size, len(rows) + wrong, wrong, orjson.dumps(rows), time.time()),
            )
        return self.get(app_id, job_id) or {}

    def is_running(self, app_id: str) -> bool:
        """Say whether a job of this environment hasn't ended."""
        self.advance(app_id)
        return self._running(app_id) is not None

    def get(self, app_id: str, job_id: str) -> dict[str, Any] | None:
        """Return a job as Userpilot describes it."""
        self.advance(app_id)
        row = self.state.row("SELECT * FROM userpilot_jobs WHERE app_id = ? AND job_id = ?", app_id, job_id)
        return None if row is None else {**_described(row), "completed_rows": row["applied"]}

    def all(self, app_id: str) -> list[dict[str, Any]]:
        """Return every job of an environment, the newest first."""
        self.advance(app_id)
        return [
            _described(row)
            for row in self.state.rows("SELECT * FROM userpilot_jobs WHERE app_id = ? ORDER BY seq DESC", app_id)
        ]

    def advance(self, app_id: str) -> None:
        """Bring the running job to where it is by now."""
        job = self._running(app_id)
        if job is None:
            return
        status, due, ended = self._now(job, time.time())
        if status == job["status"] and due == job["applied"]:
            return
        with self.state.write() as con:
            if due > job["applied"]:
                self._apply(app_id, job["kind"], orjson.loads(job["rows"])[job["applied"] : due])
            con.execute(
                "UPDATE userpilot_jobs SET status = ?, applied = ?, ended_at = ? WHERE seq = ?",
                (status, due, ended, job["seq"]),
            )

    def _running(self, app_id: str) -> Row | None:
        return self.state.row(
            "SELECT * FROM userpilot_jobs WHERE app_id = ? AND status NOT IN ('completed', 'failed')", app_id
        )

    def _now(self, job: Row, now: float) -> tuple[Status, int, float | None]:
        """Return the status at a moment, how many rows are applied by then, and when the job ended."""
        around, right = self.settings.userpilot_job_seconds, job["total_rows"] - job["wrong_rows"]
        begun = job["started_at"] + around
        if now < begun:
            return ("queued" if now < begun - around / 2 else "validating"), 0, None
        if job["wrong_rows"] and self.settings.userpilot_wrong_rows == "fail":
            return "failed", 0, begun
        done = begun + job["total_rows"] * 60 / self.settings.userpilot_rows_per_minute
        if now < done:
            return "processing", min(int((now - begun) * self.settings.userpilot_rows_per_minute / 60), right), None
        return ("pending_refresh", right, None) if now < done + around else ("completed", right, done + around)


def _described(job: Row) -> dict[str, Any]:
    return {
        "job_id": job["job_id"],
        "type": f"{job['kind']}_bulk_identify",
        "status": job["status"],
        "filename": f"{job['job_id'].rpartition(':')[2]}.ndjson",
        "file_size": job["file_size"],
        "total_rows": job["total_rows"],
        "start_time": _text(job["started_at"]),
        "end_time": None if job["ended_at"] is None else _text(job["ended_at"]),
        "elapsed_time": int((job["ended_at"] or time.time()) - job["started_at"]),
        "links": f"/v1/background_jobs/{job['job_id']}",
    }


def _text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
