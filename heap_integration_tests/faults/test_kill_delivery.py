"""A delivery that is killed at any moment ends with each event in Heap exactly once."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from heap_integration.delivery.ledger import Ledger
from heap_integration.events.outbound import FLOW
from heap_integration_tests.faults.sending import hub_of, keys_in, start
from heap_integration_tests.support.commands import run
from heap_integration_tests.support.project import call, write_lines, write_project
from heap_integration_tests.support.sandbox import RunningSandbox

EVENTS = 100_000
ROWS_AT_ONCE = 5_000
# Besides, every third of those while sending is followed by one at the start: 20 in all.
KILLS_LOADING, KILLS_SENDING = 6, 10
BAD_LINES: dict[int, tuple[str, str]] = {
    3: ("{'no': json}", "not JSON"),
    5_000: ('["a", "list"]', "not a JSON object"),
    50_001: (json.dumps(call(1, userId=None)), "no user"),
    77_777: (json.dumps(call(1, timestamp="yesterday")), "timestamp"),
    99_000: (json.dumps(call(1, event=None)), "event"),
}


class Interrupted:
    """A delivery that is killed and started again."""

    def __init__(self, project: Path, file: Path, sandbox_state: Path, seed: int) -> None:
        self.project, self.file, self.sandbox_state = project, file, sandbox_state
        self.chance = random.Random(seed)
        self.found_half_loaded = 0
        self.found_unsettled = 0

    def kill_when_a_piece_is_loaded(self) -> None:
        warehouse = self.project / "data/test.duckdb"
        before = warehouse.stat().st_mtime_ns if warehouse.exists() else 0
        self._kill_after(lambda: warehouse.exists() and warehouse.stat().st_mtime_ns > before, 0.2)

    def kill_when_so_many_arrived(self, events: int) -> None:
        with closing(sqlite3.connect(f"file:{self.sandbox_state}?mode=ro", uri=True)) as con:
            query = "select coalesce(max(seq), 0) from heap_events"
            self._kill_after(lambda: con.execute(query).fetchone()[0] >= events, 0.08)

    def kill_at_the_start(self) -> None:
        self._kill_after(lambda: True, 0.4)

    def _kill_after(self, moment: Callable[[], bool], extra_seconds: float) -> None:
        process = start(self.project, self.file, ROWS_AT_ONCE)
        while not moment() and process.is_alive():
            time.sleep(0.005)
        time.sleep(self.chance.uniform(0, extra_seconds))
        process.kill()
        process.join(20)
        with hub_of(self.project) as hub:
            with hub.warehouse.read() as con:
                rows, complete = con.execute("select count(*), bool_or(complete) from loaded_inputs").fetchone() or ()
            self.found_half_loaded += bool(rows) and not complete
            self.found_unsettled += bool(Ledger(hub.store, FLOW).unsettled())

    def finish(self) -> None:
        """Start, and let it come to its end."""
        process = start(self.project, self.file, ROWS_AT_ONCE)
        process.join(120)
        assert process.exitcode == 0


@pytest.mark.slow
def test_kill_9_at_20_moments_loses_nothing_and_doubles_nothing(tmp_path: Path, sandbox: RunningSandbox) -> None:
    project = write_project(tmp_path, sandbox.url)
    good = (call(number) for number in range(EVENTS))
    total = EVENTS + len(BAD_LINES)
    lines = (BAD_LINES[line][0] if line in BAD_LINES else next(good) for line in range(1, total + 1))
    file = write_lines(tmp_path / "events.ndjson", lines)
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    delivery = Interrupted(project, file, tmp_path / "sandbox/sandbox.db", seed)

    for _ in range(KILLS_LOADING):
        delivery.kill_when_a_piece_is_loaded()
    moments = sorted(delivery.chance.sample(range(3, EVENTS // 1000 + 1), KILLS_SENDING))
    for moment in moments:
        delivery.kill_when_so_many_arrived(moment * 1000)
        if moment in moments[::3]:
            delivery.kill_at_the_start()
    delivery.finish()

    print(f"half loaded {delivery.found_half_loaded} times, unsettled {delivery.found_unsettled} times")
    print(f"repeated and recognised by their key: {sandbox.counts()['duplicates']}")
    assert delivery.found_half_loaded >= 4
    assert delivery.found_unsettled >= 5
    keys = keys_in(tmp_path / "sandbox/sandbox.db")
    assert len(keys) == EVENTS
    assert set(keys) == {f"message-{number}" for number in range(EVENTS)}
    status = run(project, "status", "-e", "test", "--json").json
    assert status["faults"] == []
    assert status["events"] == {
        "read": total,
        "events": EVENTS,
        "duplicates": 0,
        "refused": len(BAD_LINES),
        "unused": 0,
        "accepted": EVENTS,
        "rejected": 0,
        "suppressed": 0,
        "pending": 0,
    }
    assert status["quota"]["events_this_month"] == EVENTS
    assert sandbox.counts()["rejected_requests"] == 0
    with hub_of(project) as hub, hub.warehouse.read() as con:
        outcomes = con.execute("select count(*), count(distinct seq) from event_outcomes").fetchone()
        refused = dict(con.execute("select line, reason from rejected_rows").fetchall())
    assert outcomes == (EVENTS, EVENTS)
    assert refused.keys() == BAD_LINES.keys()
    assert all(words in refused[line] for line, (_, words) in BAD_LINES.items())
