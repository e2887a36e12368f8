"""Nothing that was acknowledged is lost or doubled, however often the receiver is killed."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest

from heap_integration.landing import FolderArrivals, StoreArrivals
from heap_integration.store import Store
from heap_integration_tests.landing.processes import Loader, Receiver, Traffic, assert_exactly_once
from heap_integration_tests.support.postgres import postgres, postgres_database

__all__ = ["postgres", "postgres_database"]

KILLS = 10
KILLS_WITH_A_STORE = 4
SECONDS_BEFORE_A_KILL = 0.4


def tear(folder: Path) -> int:
    """Add the half line of a write that a dying machine did not finish, and return how many have one."""
    torn = 0
    for path in folder.glob("*.open"):
        with path.open("ab") as segment:
            segment.write(b'{"id":"torn')
        torn += 1
    return torn


@pytest.mark.timeout(90)
def test_every_acknowledged_notification_is_loaded_exactly_once(tmp_path: Path) -> None:
    moments = random.Random()
    landing = tmp_path / "landing"
    torn = 0
    running = Receiver(tmp_path)
    traffic, loader = Traffic(running.url), Loader(FolderArrivals(landing))
    try:
        for _ in range(KILLS):
            traffic.wait_for_acknowledged(1)
            time.sleep(moments.uniform(0, SECONDS_BEFORE_A_KILL))
            with loader.alone:
                assert running.stop(signal.SIGKILL) == -signal.SIGKILL
                torn += tear(landing)
            running.start()
        traffic.wait_for_acknowledged(50)
    finally:
        traffic.stop()
        running.stop()
        loader.stop()
    assert list(landing.iterdir()) == []
    assert torn >= KILLS / 2
    assert not traffic.refused
    assert_exactly_once(traffic, loader)
    print(f"{KILLS} kills: {traffic.sent} sent, {len(traffic.acknowledged)} acknowledged, {torn} torn tails")


@pytest.mark.timeout(90)
@pytest.mark.parametrize("home", ["sqlite", "postgresql"])
def test_every_acknowledged_notification_is_taken_out_of_the_store_exactly_once(
    home: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/shared.db" if home == "sqlite" else str(request.getfixturevalue("postgres_database"))
    moments = random.Random()
    store = Store(url)
    running = Receiver(tmp_path, url)
    traffic, loader = Traffic(running.url), Loader(StoreArrivals(store))
    try:
        for _ in range(KILLS_WITH_A_STORE):
            traffic.wait_for_acknowledged(1)
            time.sleep(moments.uniform(0, SECONDS_BEFORE_A_KILL))
            assert running.stop(signal.SIGKILL) == -signal.SIGKILL
            running.start()
        traffic.wait_for_acknowledged(50)
    finally:
        traffic.stop()
        running.stop()
        loader.stop()
        store.close()
    assert not traffic.refused
    assert_exactly_once(traffic, loader)


def test_a_receiver_told_to_stop_answers_what_it_has_and_seals(tmp_path: Path) -> None:
    running = Receiver(tmp_path)
    traffic = Traffic(running.url)
    traffic.wait_for_acknowledged(20)
    running.stop()
    traffic.stop()
    sealed = list((tmp_path / "landing").iterdir())
    assert {path.suffix for path in sealed} == {".ndjson"}
    kept = {json.loads(line)["id"] for path in sealed for line in path.read_bytes().splitlines()}
    assert traffic.acknowledged <= kept
    log = (tmp_path / "log").read_text()
    assert f"userflow 200: {len(kept)}" in log
    assert "5ekret" not in log
