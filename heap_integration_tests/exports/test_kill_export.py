"""An export that is killed at any moment has written each event once, and counts them so in the plan's month."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Iterable
from datetime import date, timedelta
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from typing import Any

import pytest

from heap_integration.exports.settings import Export
from heap_integration.heap.plans import Plan
from heap_integration.warehouse.systems.duckdb import DuckDBSettings
from heap_integration_tests.exports.models import NOON, Models, event

EVENTS, DAYS, STEP = 12_000, 5, 250
PLAN = Plan("pro", 10_000, ("daily", "hourly"))
# on each of two targets
KILLS = 10
SPAWN = multiprocessing.get_context("forkserver")


def start(models: Models, export: Export, step: Semaphore) -> BaseProcess:
    """Start the export in a process of its own, which says when it begins a step."""
    SPAWN.set_forkserver_preload(["heap_integration_tests.exports.test_kill_export", "duckdb", "pyarrow", "sqlglot"])
    process = SPAWN.Process(target=run, args=(models, export, step))
    process.start()
    return process


def run(models: Models, export: Export, step: Semaphore) -> None:
    """Export by a plan that hasn't room for everything."""

    def go_on() -> bool:
        step.release()
        return True

    models.exporter(export, PLAN, step_rows=STEP, go_on=go_on).run()


def events(numbers: Iterable[int]) -> list[dict[str, Any]]:
    """Return events of some days, each of which arrived together with others."""
    first = date(2026, 5, 1)
    return [event(number, day=first + timedelta(days=number % DAYS), arrived=number // 7) for number in numbers]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["duckdb", "postgres"])
def test_kill_9_at_10_moments_writes_nothing_twice(target: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    models = Models(DuckDBSettings(url=f"duckdb:///{tmp_path}/warehouse.duckdb"), tmp_path)
    export = Export(name="warehouse", to=request.getfixturevalue("server") if target == "postgres" else None)
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    models.write(events(number for number in range(EVENTS) if number % 50))

    for kill in range(KILLS):
        step = SPAWN.Semaphore(0)
        process = start(models, export, step)
        for _ in range(chance.randint(1, 3)):
            assert step.acquire(timeout=60)
        time.sleep(chance.uniform(0, 0.4))
        assert process.is_alive()
        process.kill()
        process.join(20)
        if kill == KILLS // 2:
            # some that arrived early were computed late
            models.write(events(range(EVENTS)))
    killed = models.exported(export)
    report = models.exporter(export, PLAN, now=NOON + timedelta(hours=1)).run()

    exported = models.exported(export)
    print(f"{len(killed)} were exported by those that were killed")
    assert 0 < len(killed) < len(exported)
    assert len(exported) == len(set(exported)) == report.month_rows == PLAN.rows_a_month
    june = models.exporter(export, PLAN, now=NOON + timedelta(days=30)).run()
    assert (june.sent, june.pending) == (EVENTS - len(exported), 0)
    assert len(set(models.exported(export))) == EVENTS
