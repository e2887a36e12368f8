"""What happens now goes before what happened long ago, and never twice."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_integration.events.lanes import lanes
from heap_integration.store import Busy, Store

TODAY = date(2026, 1, 10)
DAYS = st.integers(-5, 5).map(lambda number: TODAY + timedelta(days=number))


@given(DAYS, DAYS)
def test_lanes_hold_each_day_once_and_the_last_two_come_first(one: date, other: date) -> None:
    first, last = sorted((one, other))
    found = lanes(first, last, TODAY)
    days = [
        lane.first + timedelta(days=number) for lane in found for number in range((lane.last - lane.first).days + 1)
    ]
    assert sorted(days) == [first + timedelta(days=number) for number in range((last - first).days + 1)]
    assert [lane.live for lane in found] in ([True], [False], [True, False])
    assert all((day >= TODAY - timedelta(days=1)) == lane.live for lane in found for day in (lane.first, lane.last))


def test_a_backfill_keeps_nobody_from_sending_what_happens_now(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store.db")
    live, old = lanes(date(2026, 1, 1), TODAY, TODAY)
    with old.mine(store, "events", 0), live.mine(store, "events", 0):
        with pytest.raises(Busy), old.mine(store, "events", 0):
            pass
        with pytest.raises(Busy), live.mine(store, "events", 0):
            pass
    with live.mine(store, "events", 0), pytest.raises(Busy), old.mine(store, "events", 0):
        # A day that was live when that delivery began may be an old one by now.
        pass
    store.close()
