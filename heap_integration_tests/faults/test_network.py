"""Whatever the way to Heap does, each event is there once in the end."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from heap_integration.delivery.engine import DeliveryStopped
from heap_integration.heap.events_api import EventsApi
from heap_integration_tests.faults.sending import QUICK, Delivery
from heap_integration_tests.support.project import call, write_lines

EVENTS = 3_000


@pytest.fixture
def loaded(delivery: Delivery, tmp_path: Path) -> Delivery:
    delivery.load(write_lines(tmp_path / "events.ndjson", map(call, range(EVENTS))))
    return delivery


@pytest.mark.parametrize("retry_after", [None, 0])
def test_a_storm_of_429_delays_and_uses_up_no_attempt(loaded: Delivery, retry_after: int | None) -> None:
    loaded.sandbox.fault(kind="429", path="/api/track", after=2, next=40, retry_after=retry_after)
    assert loaded.send().accepted == EVENTS
    loaded.check(accepted=EVENTS)
    assert loaded.hits() == [40] > [QUICK.attempts]
    assert loaded.sandbox.counts()["duplicates"] == 0


def test_a_wait_that_heap_asks_for_is_kept(loaded: Delivery) -> None:
    loaded.sandbox.fault(kind="429", path="/api/track", after=1, next=1, retry_after=1)
    began = time.monotonic()
    assert loaded.send().accepted == EVENTS
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("kind", ["500", "503", "drop", "cut"])
def test_a_storm_of_faults_stops_the_run_and_the_next_one_goes_on(loaded: Delivery, kind: str) -> None:
    loaded.sandbox.fault(kind=kind, path="/api/track", after=2)
    with pytest.raises(DeliveryStopped, match=r"Heap answered 50|no answer from"):
        loaded.send()
    loaded.check(accepted=2_000, pending=1_000)
    assert loaded.hits() == [QUICK.attempts]
    loaded.sandbox.client.delete("/_faults")
    assert loaded.send().accepted == 1_000
    loaded.check(accepted=EVENTS)
    assert loaded.sandbox.counts()["duplicates"] == 0


@pytest.mark.parametrize("kind", ["lost_ack", "truncate"])
def test_what_heap_took_without_being_heard_is_repeated_and_recognised(loaded: Delivery, kind: str) -> None:
    loaded.sandbox.fault(kind=kind, path="/api/track", after=1, next=3)
    assert loaded.send().accepted == EVENTS
    loaded.check(accepted=EVENTS)
    assert loaded.arrived() == EVENTS
    assert loaded.sandbox.counts()["duplicates"] == 3_000


def test_an_answer_that_comes_too_late_is_no_second_event(loaded: Delivery) -> None:
    loaded.sandbox.fault(kind="latency", path="/api/track", after=1, next=2, seconds=2)
    hasty = EventsApi(loaded.sandbox.url, loaded.sandbox.app_id, httpx.Client(timeout=1, trust_env=False))
    assert loaded.send(hasty).accepted == EVENTS
    until = time.monotonic() + 20
    while loaded.sandbox.counts()["duplicates"] < 2_000 and time.monotonic() < until:
        time.sleep(0.05)
    assert loaded.sandbox.counts()["duplicates"] >= 2_000
    loaded.check(accepted=EVENTS)
    assert loaded.arrived() == EVENTS
