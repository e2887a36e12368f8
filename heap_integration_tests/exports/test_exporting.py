"""Exports write each event once, whatever comes late, again or in between."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from heap_integration.exports.settings import Export
from heap_integration.heap.plans import PLANS, Plan
from heap_integration.warehouse.systems.duckdb import DuckDBSettings
from heap_integration.warehouse.systems.postgres import PostgresSettings
from heap_integration.warehouse.systems.system import QueryError
from heap_integration_tests.exports.models import NOON, TEXTS, Models, event

EXPORT = Export(name="warehouse")
EARLIER = date(2026, 5, 9)
TEN = Plan("growth", 10, ("daily",))


def ids(numbers: range | list[int]) -> list[tuple[str]]:
    return sorted((f"e{number}",) for number in numbers)


@pytest.fixture(params=["duckdb", "postgres", "duckdb to postgres", "postgres to duckdb"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Models, Export]:
    """Return models, and an export into their warehouse or another one."""
    file = DuckDBSettings(url=f"duckdb:///{tmp_path}/warehouse.duckdb")
    source, _, target = request.param.partition(" to ")
    server = request.getfixturevalue("server") if "postgres" in request.param else file
    homes = {"duckdb": file, "postgres": server}
    return Models(homes[source], tmp_path), Export(name="warehouse", to=homes[target] if target else None)


def test_an_export_writes_what_came_since_the_last_one(pair: tuple[Models, Export]) -> None:
    models, export = pair
    models.write(event(number) for number in range(8))
    first = models.exporter(export, step_rows=3).run()
    assert (first.read, first.sent, first.unchanged, first.pending, first.stopped) == (8, 8, 0, 0, None)

    models.write(event(number) for number in range(12))
    later = models.exporter(export)
    assert later.look().pending == 4
    assert (later.run().sent, later.run().read) == (4, 0)
    assert models.exported(export) == ids(range(12))
    assert later.run().month_rows == 12


def test_a_table_has_the_columns_that_its_readers_know(pair: tuple[Models, Export]) -> None:
    models, export = pair
    models.write([event(7)])
    models.exporter(export).run()

    columns = ("event_id", "session_id", "user_id", "event_type", *TEXTS)
    assert models.exported(export, columns) == [("e7", "s7", "u2", "Purchase", *["somewhere"] * len(TEXTS))]
    ((time, properties, user),) = models.exported(export, ("time", "event_properties", "user_properties"))
    assert time == datetime.fromisoformat("2026-05-10T03:04:05.678900")
    assert json.loads(properties) == {"number": 7, "note": "ä 'quoted' \"text\"", "nothing": None}
    assert json.loads(user) == {"plan": "plan 2"}


def test_what_arrived_early_and_was_computed_late_is_not_missed(pair: tuple[Models, Export]) -> None:
    models, export = pair
    models.write(event(number) for number in (1, 2, 5, 6))
    models.exporter(export).run()

    # another day, and a place in the order of arrival that was passed already
    models.write([event(3, day=EARLIER), *(event(number) for number in (1, 2, 4, 5, 6))])
    report = models.exporter(export, step_rows=2).run()
    assert (report.sent, report.unchanged) == (2, 4)
    assert models.exported(export) == ids(range(1, 7))
    assert models.exporter(export).run().read == 0


def test_an_event_that_comes_again_is_not_written_again(models: Models) -> None:
    models.write(event(number, arrived=1) for number in range(6))
    models.exporter(EXPORT, step_rows=4).run()

    # a dump that repeats a table
    models.write(event(number, arrived=2) for number in range(7))
    report = models.exporter(EXPORT, step_rows=4).run()
    assert (report.read, report.sent, report.unchanged) == (7, 1, 6)
    assert models.exported(EXPORT) == ids(range(7))


def test_one_event_in_the_tables_of_two_definitions_is_two_rows(models: Models) -> None:
    models.write(event(1, arrived=1, event_name=name) for name in ("Visit", "Purchase", "Pageview"))
    assert models.exporter(EXPORT, step_rows=1).run().sent == 3
    assert models.exported(EXPORT, ("event_type",)) == [("Pageview",), ("Purchase",), ("Visit",)]


def test_an_export_may_choose_events_and_change_its_mind(models: Models) -> None:
    models.write(event(number) for number in range(6))
    some = Export(name="warehouse", events=("Visit",), properties=("number", "gone"), user_properties=())
    assert models.exporter(some).run().sent == 3
    rows = models.exported(some, ("event_id", "event_properties", "user_properties"))
    assert rows == [(f"e{number}", f'{{"number":{number}}}', "{}") for number in (0, 2, 4)]

    more = models.exporter(Export(name="warehouse", events=("Purchase", "Visit"))).run()
    assert (more.sent, more.unchanged) == (3, 3)
    assert models.exported(some) == ids(range(6))


def test_a_full_export_writes_the_table_anew_or_not_at_all(pair: tuple[Models, Export]) -> None:
    models, export = pair
    full = export.model_copy(update={"mode": "full"})
    models.write(event(number) for number in range(6))
    assert models.exporter(full, TEN).run().sent == 6
    models.write(event(number, properties="{}") for number in range(2, 7))

    tomorrow = NOON + timedelta(days=1)
    stopped = models.exporter(full, TEN, now=tomorrow).run()
    assert stopped.stopped is not None
    assert "6 of the 10 rows that plan growth allows in 2026-05 are used" in stopped.stopped
    assert (stopped.sent, stopped.pending) == (0, 5)
    assert models.exported(full) == ids(range(6))

    assert models.exporter(full, now=tomorrow).run().sent == 5
    assert models.exported(full) == ids(range(2, 7))
    assert {row for (row,) in models.exported(full, ("event_properties",))} == {"{}"}


def test_an_export_stops_at_the_plans_limit_and_goes_on_next_month(models: Models) -> None:
    # four at a time; among them the id decides
    models.write(event(number, arrived=number // 4) for number in range(14))
    report = models.exporter(EXPORT, TEN, step_rows=4).run()
    assert (report.sent, report.pending, report.month_rows, report.limit) == (10, 4, 10, 10)
    assert report.stopped is not None
    assert report.stopped.startswith("10 of the 10 rows that plan growth allows in 2026-05 are used")
    assert models.exported(EXPORT) == ids([*range(8), 10, 11])

    june = models.exporter(EXPORT, TEN, now=NOON + timedelta(days=20)).run()
    assert (june.sent, june.pending, june.month_rows, june.stopped) == (4, 0, 4, None)
    assert models.exported(EXPORT) == ids(range(14))


def test_all_exports_share_the_plans_month(models: Models) -> None:
    other = Export(name="other", table="other_events")
    models.write(event(number) for number in range(6))
    assert models.exporter(EXPORT, TEN).run().sent == 6
    report = models.exporter(other, TEN).run()
    assert (report.sent, report.pending, report.month_rows) == (4, 2, 10)


def test_the_plan_says_how_often(models: Models) -> None:
    models.write([event(1)])
    models.exporter(EXPORT, PLANS["growth"], now=NOON.replace(hour=23)).run()
    models.write([event(1), event(2)])
    report = models.exporter(EXPORT, PLANS["growth"], now=NOON.replace(hour=23, minute=59)).run()
    assert (report.sent, report.pending) == (0, 1)
    assert report.stopped == (
        "plan growth exports daily: the last was at 2026-05-20 23:00 UTC, the next may begin at 2026-05-21 00:00"
    )
    midnight = NOON.replace(hour=0) + timedelta(days=1)
    assert models.exporter(EXPORT, PLANS["growth"], now=midnight).run().sent == 1


def test_what_was_interrupted_may_go_on_at_once(models: Models) -> None:
    models.write(event(number) for number in range(6))
    answers = iter([True, True, False])
    stopped = models.exporter(EXPORT, PLANS["growth"], step_rows=2, go_on=lambda: next(answers)).run()
    assert (stopped.sent, stopped.pending, stopped.stopped) == (4, 2, "the export was switched off")
    assert models.exporter(EXPORT, PLANS["growth"]).run().sent == 2


def test_a_table_from_which_readers_take_rows_stays_without_them(models: Models) -> None:
    models.write(event(number) for number in range(4))
    models.exporter(EXPORT).run()
    with models.connect() as con:
        con.run(["delete from exports.heap_events where event_id = 'e1'"])
    models.write(event(number) for number in range(5))
    assert models.exporter(EXPORT).run().sent == 1
    assert models.exported(EXPORT) == ids([0, 2, 3, 4])


def test_an_export_without_models_says_what_to_do(models: Models) -> None:
    with pytest.raises(QueryError, match="there is no export_events in models: build the models first"):
        models.exporter(EXPORT).run()


def test_a_target_that_refuses_leaves_the_plans_month_as_it_was(server: PostgresSettings, tmp_path: Path) -> None:
    models = Models(DuckDBSettings(url=f"duckdb:///{tmp_path}/warehouse.duckdb"), tmp_path)
    export = Export(name="warehouse", to=server)
    models.write([event(1)])
    models.exporter(export).run()
    models.write([event(1), event(2, properties="no JSON")])
    with pytest.raises(QueryError, match="json"):
        models.exporter(export).run()
    models.write([event(1), event(2)])
    assert (models.exporter(export).look().month_rows, models.exporter(export).run().month_rows) == (1, 2)
