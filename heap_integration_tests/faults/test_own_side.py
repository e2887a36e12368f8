"""A full disk, a store that somebody holds, a clock that is set back and a second run lose and double nothing."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from multiprocessing.process import BaseProcess

import pytest

from heap_integration.delivery.engine import DeliveryStopped
from heap_integration.delivery.pace import Pace
from heap_integration.delivery.records import Record, Window
from heap_integration.events.outbound import FLOW, Outbound
from heap_integration.heap.events_api import EventsApi
from heap_integration_tests.faults.sending import Delivery, hub_of, start
from heap_integration_tests.support.project import call, write_lines, write_project

EVENTS = 10_000


@pytest.mark.slow
def test_a_disk_that_is_full_for_the_ledger_stops_the_run_and_costs_one_batch_again(delivery: Delivery) -> None:
    file = write_lines(delivery.project / "events.ndjson", map(call, range(EVENTS)))
    delivery.load(file)
    assert ended(start(delivery.project, file, largest_file=200_000)) == 1
    assert "the store can't be used" in (delivery.project / "errors.txt").read_text()
    assert 1_000 <= delivery.arrived() < EVENTS

    assert ended(start(delivery.project, file)) == 0
    delivery.check(accepted=EVENTS)
    assert delivery.arrived() == EVENTS
    assert delivery.sandbox.counts()["duplicates"] <= 1_000


@pytest.mark.slow
def test_a_disk_that_is_full_for_the_warehouse_stops_the_run_and_costs_nothing(
    delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_lines(delivery.project / "events.ndjson", map(call, range(EVENTS)))
    delivery.load(file)
    with monkeypatch.context() as dying:
        dying.setattr(Outbound, "settle", lambda _: None)
        delivery.send()
    delivery.check(accepted=0, pending=EVENTS)
    assert ended(start(delivery.project, file, largest_file=200_000)) == 1
    assert "the warehouse can't be written" in (delivery.project / "errors.txt").read_text()

    assert ended(start(delivery.project, file)) == 0
    delivery.check(accepted=EVENTS)
    assert (delivery.arrived(), delivery.sandbox.counts()["duplicates"]) == (EVENTS, 0)


def ended(process: BaseProcess) -> int | None:
    process.join(60)
    return process.exitcode


class Meddling(EventsApi):
    """Heap, where somebody takes hold of the store right after it took the third batch."""

    def __init__(self, delivery: Delivery, holder: sqlite3.Connection) -> None:
        super().__init__(delivery.sandbox.url, delivery.sandbox.app_id)
        self.holder = holder
        self.batches = 0

    def track(self, payloads: Sequence[bytes]) -> None:
        super().track(payloads)
        self.batches += 1
        if self.batches == 3:
            self.holder.execute("begin immediate")


def test_a_store_that_stays_locked_stops_the_run_and_costs_one_batch_again(
    delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heap_integration.store.store.BUSY_SECONDS", 1.0)
    delivery.load(write_lines(delivery.project / "events.ndjson", map(call, range(4_000))))
    store = str(delivery.hub.store.url.database)
    with closing(sqlite3.connect(store, isolation_level=None, check_same_thread=False)) as holder:
        with pytest.raises(DeliveryStopped, match="the store can't be used: database is locked"):
            delivery.send(Meddling(delivery, holder))
        assert delivery.arrived() == 3_000
        holder.rollback()
        delivery.send()
    delivery.check(accepted=4_000)
    assert (delivery.arrived(), delivery.sandbox.counts()["duplicates"]) == (4_000, 1_000)


HOLD = """
import sqlite3, sys, time
con = sqlite3.connect(sys.argv[1], isolation_level=None)
con.execute("begin immediate")
print("held", flush=True)
time.sleep(3)
con.rollback()
"""


def test_a_store_that_another_process_holds_for_seconds_is_waited_for(delivery: Delivery) -> None:
    delivery.load(write_lines(delivery.project / "events.ndjson", map(call, range(2_000))))
    command = [sys.executable, "-c", HOLD, str(delivery.hub.store.url.database)]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert delivery.send().accepted == 2_000
        assert time.monotonic() - began >= 3
    delivery.check(accepted=2_000)
    assert (delivery.arrived(), delivery.sandbox.counts()["duplicates"]) == (2_000, 0)


def test_a_clock_that_was_set_back_by_an_hour_delays_nothing_and_forgets_nothing(delivery: Delivery) -> None:
    write_project(delivery.project, delivery.sandbox.url, per_minute=3_000, per_minute_per_identity=1_000)
    delivery.load(write_lines(delivery.project / "events.ndjson", map(call, range(2_000))))
    windows = (Window(3_000, 60.0), Window(1_000, 60.0, per_key=True))
    before = Pace(delivery.hub.store, FLOW, windows, clock=lambda: time.time() + 3_600)
    before.ask([Record(bytes(16), b"", f"user {number}") for number in range(1_000)])
    began = time.monotonic()
    with hub_of(delivery.project) as limited:
        Delivery(delivery.project, delivery.sandbox, limited).send()
        assert limited.outbound(EventsApi(delivery.sandbox.url, delivery.sandbox.app_id)).pace.used(windows[0]) == 3_000
    assert time.monotonic() - began < 30
    delivery.check(accepted=2_000)


@pytest.mark.slow
def test_two_runs_of_the_same_days_at_once_send_each_event_once(delivery: Delivery) -> None:
    file = write_lines(delivery.project / "events.ndjson", map(call, range(EVENTS)))
    runs = [start(delivery.project, file, rows_at_once=5_000) for _ in range(2)]
    assert [ended(process) for process in runs] == [0, 0]
    delivery.check(accepted=EVENTS)
    assert json.loads((delivery.project / "answer.json").read_text())["pending"] == 0
    assert (delivery.arrived(), delivery.sandbox.counts()["duplicates"]) == (EVENTS, 0)
