"""A plan's month: what is written, reserved and expected of all exports together."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from heap_integration.exports.quota import Quota
from heap_integration.exports.settings import Export
from heap_integration.heap.plans import PLANS, Plan
from heap_integration.store import Store
from heap_integration_tests.exports.models import Models, event

NOW = datetime(2026, 5, 11, tzinfo=UTC)
THOUSAND = Plan("growth", 1_000, ("daily",))


def test_a_month_is_foreseen_from_the_last_whole_days(models: Models) -> None:
    # ten events on each of the last seven days; what was before them and today says nothing of a day
    days = [NOW.date() - timedelta(days=before) for before in range(1, 8) for _ in range(10)]
    days += [NOW.date() - timedelta(days=30)] * 50 + [NOW.date()] * 3
    models.write(event(number, day=day) for number, day in enumerate(days))

    exporter = models.exporter(Export(name="x"), THOUSAND, now=NOW)
    ahead = exporter.look()
    assert (ahead.pending, ahead.month_rows, ahead.forecast, ahead.warning) == (123, 0, 123 + 21 * 10, None)
    done = exporter.run()
    assert (done.sent, done.month_rows, done.forecast) == (123, 123, 123 + 21 * 10)


def test_a_full_export_is_foreseen_to_write_everything_each_time(models: Models) -> None:
    models.write(event(number, day=NOW.date()) for number in range(40))
    full = Export(name="x", mode="full")
    report = models.exporter(full, THOUSAND, now=NOW).run()
    assert report.forecast == 40 + 21 * 40
    assert report.warning is None
    report = models.exporter(Export(name="y", mode="full", table="y"), THOUSAND, now=NOW).run()
    assert report.forecast == 2 * (40 + 21 * 40)
    assert report.outlook.reached_on == date(2026, 5, 22)
    assert report.warning == (
        "plan growth allows 1,000 rows a month; 1,760 are to be expected in 2026-05: used up about 2026-05-22"
    )


def test_a_warning_comes_before_the_limit_and_at_it(store: Store) -> None:
    quota = Quota(store, THOUSAND)
    quota.settle("x", 799, NOW)
    assert quota.outlook(NOW).warning is None
    quota.settle("x", 800, NOW)
    assert quota.outlook(NOW).warning == "plan growth allows 1,000 rows a month, and 800 of 2026-05 are used"
    quota.settle("x", 1_000, NOW)
    assert quota.outlook(NOW).warning == "plan growth allows 1,000 rows a month, and all of 2026-05 are used"
    assert quota.outlook(NOW + timedelta(days=21)).warning is None
    quota = Quota(store, PLANS["premier"])
    assert quota.outlook(NOW).warning is None


def test_exports_at_work_together_reserve_what_is_left(store: Store) -> None:
    quota = Quota(store, THOUSAND)
    quota.settle("done", 300, NOW)
    assert quota.reserve("x", 600, NOW) == 600
    assert quota.reserve("y", 600, NOW) == 100
    assert quota.reserve("z", 1, NOW) == 0
    # x died, and its table says that half of it arrived
    quota.settle("x", 300, NOW)
    assert quota.reserve("z", 301, NOW, whole=True) == 0
    assert quota.reserve("z", 300, NOW, whole=True) == 300


def test_an_export_that_is_gone_from_the_yaml_is_no_longer_expected(store: Store) -> None:
    quota = Quota(store, THOUSAND)
    quota.expect("gone", 500, 100, NOW)
    assert quota.outlook(NOW).forecast == 500 + 21 * 100
    assert quota.outlook(NOW + timedelta(days=4)).forecast == 0
