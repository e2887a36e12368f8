"""Heap's windows are used up and never overstepped, in real time."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from heap_integration_tests.support.commands import run
from heap_integration_tests.support.project import call, write_lines, write_project
from heap_integration_tests.support.sandbox import running_sandbox

PER_MINUTE, PER_IDENTITY = 600, 100
EVENTS, BUSY = 900, 150


@pytest.mark.slow
def test_nobody_has_to_say_429_and_a_busy_identity_delays_itself_alone(tmp_path: Path) -> None:
    windows = {"events_per_minute": PER_MINUTE, "events_per_minute_per_identity": PER_IDENTITY}
    with running_sandbox(tmp_path / "sandbox", **windows) as sandbox:
        project = write_project(tmp_path, sandbox.url, per_minute=PER_MINUTE, per_minute_per_identity=PER_IDENTITY)
        # The busy one's events come first, so that all of them are read before the first window is full.
        busy = (call(number, userId="busy") for number in range(BUSY))
        file = write_lines(tmp_path / "calls.ndjson", [*busy, *map(call, range(BUSY, EVENTS))])
        counts = run(project, "send-events", file, "-e", "test", "--json").json
        held = sandbox.counts()
    assert (counts["sent"], counts["pending"], counts["rejected"]) == (EVENTS, 0, 0)
    assert (held["events"], held["duplicates"], held["rate_limited"]) == (EVENTS, 0, 0)
    with closing(sqlite3.connect(tmp_path / "sandbox/sandbox.db")) as con:
        arrived = con.execute("select identity, idempotency_key, received_at from heap_events order by seq").fetchall()
    began, ended = arrived[0][2], arrived[-1][2]
    in_first_minute = [identity for identity, _, at in arrived if at - began < 60]
    assert len(in_first_minute) >= 0.97 * PER_MINUTE
    assert in_first_minute.count("busy") == PER_IDENTITY
    assert ended - began < 65
    busy_keys = [key for identity, key, _ in arrived if identity == "busy"]
    assert busy_keys == [f"message-{number}" for number in range(BUSY)]
