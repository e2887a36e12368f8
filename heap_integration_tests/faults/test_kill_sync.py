"""A sync that is killed at any moment ends with the audience that is wanted, and nobody goes out to come in again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from heap_integration.delivery.ledger import Ledger
from heap_integration.warehouse.memberships import acknowledged_changes
from heap_integration_tests.faults.audience import (
    BATCH,
    CONCURRENCY,
    NAME,
    SEGMENT,
    audience,
    start,
    store_of,
    warehouse_of,
)

LEAVE, STAY, ENTER = 25_000, 10_000, 25_000
KILLS_SENDING, KILLS_STARTING = 14, 6


class Interrupted:
    """A sync that is killed and started again."""

    def __init__(self, folder: Path, port: int, seed: int) -> None:
        self.folder, self.port = folder, port
        self.chance = random.Random(seed)
        self.ledger = Ledger(store_of(folder), NAME)
        self.found_unsettled = 0

    def kill(self, moment: Callable[[], bool], extra_seconds: float) -> None:
        """Start, and kill a little after the moment."""
        process = start(self.folder, self.port)
        while not moment() and process.is_alive():
            time.sleep(0.002)
        time.sleep(self.chance.uniform(0, extra_seconds))
        assert process.is_alive()
        process.kill()
        process.join(20)
        self.found_unsettled += bool(self.ledger.unsettled(1))

    def finish(self) -> None:
        """Start, and let it come to its end."""
        process = start(self.folder, self.port)
        process.join(120)
        assert process.exitcode == 0


def fill(folder: Path) -> tuple[set[str], set[str]]:
    """Let a segment change since a destination has acknowledged it; return who was in it and who is."""
    with warehouse_of(folder).write() as con:
        people = "select 'person ' || i as identity from range(?, ?) t(i)"
        con.execute(
            f"insert into sync_baseline select '{NAME}', identity, true, null from ({people})", [0, LEAVE + STAY]
        )
        con.execute(f"insert into segment_members select {SEGMENT}, identity from ({people})", [LEAVE, 60_000])
    return {f"person {i}" for i in range(LEAVE + STAY)}, {f"person {i}" for i in range(LEAVE, LEAVE + STAY + ENTER)}


@pytest.mark.slow
def test_kill_9_at_20_moments_leaves_the_audience_as_wanted(tmp_path: Path) -> None:
    before, wanted = fill(tmp_path)
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    with audience(set(before)) as destination:
        sync = Interrupted(tmp_path, destination.server_address[1], seed)
        changes = LEAVE + ENTER
        moments = sorted(sync.chance.sample(range(100, changes - 4_000, 100), KILLS_SENDING))
        starting = set(sync.chance.sample(moments, KILLS_STARTING))
        for moment in moments:
            sync.kill(lambda: len(destination.told) >= moment, 0.05)  # noqa: B023 - it is asked at once
            if moment in starting:
                sync.kill(lambda: True, 0.4)
        sync.finish()
        told = list(destination.told)
        assert destination.members == wanted

    repeated = len(told) - len(set(told))
    print(f"unsettled {sync.found_unsettled} times, told again {repeated}")
    assert sync.found_unsettled >= KILLS_SENDING // 2
    assert repeated <= (KILLS_SENDING + KILLS_STARTING) * BATCH * CONCURRENCY
    assert {identity for identity, member in told if not member} == before - wanted
    assert {identity for identity, member in told if member} == wanted - before
    with warehouse_of(tmp_path).read() as con:
        held = con.execute("select identity from sync_baseline where sync = ?", [NAME]).fetchall()
        assert acknowledged_changes(con, NAME) == (ENTER, LEAVE, 0)
        assert con.execute("select count(*) from sync_plan").fetchone() == (0,)
    assert {identity for (identity,) in held} == wanted
    assert len(held) == len(wanted)
