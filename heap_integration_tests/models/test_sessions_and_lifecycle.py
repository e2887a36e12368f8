"""Sessions and stages of real visitors, held against the same computed in pandas."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from heap_integration.hub import Hub
from heap_integration_tests.models.shop import data_set, hub_with_models, receive, table

LAST_DAY = date(2024, 6, 20)
MINE = ["+user_engagement", "+user_lifecycle_by_day", "+user_lifecycle_transitions", "+user_lifecycle"]
SELECT = """
select row_number() over () as place, 'track' as type, event as name, user_id, timestamp, '{{}}' as traits,
       json_object('session', session_id)::varchar as properties
from '{path}' where hash(user_id, timestamp) % 3 = {lot}
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """Yield a shop whose events came in three lots, each with events of every day and between those of the others."""
    path = data_set("retentioneering_ecom_synthetic/ecom.csv.gz")
    hub = hub_with_models(tmp_path_factory.mktemp("shop"))
    for lot in range(3):
        receive(hub, SELECT.format(path=path, lot=lot))
        build_mine(hub, tests=lot == 2)
    yield hub
    hub.close()


def build_mine(hub: Hub, tests: bool) -> None:
    report = hub.models().build(MINE, as_of=LAST_DAY, tests=tests)
    assert not report.failed, report.problems()


@pytest.fixture(scope="module")
def days(shop: Hub) -> pd.DataFrame:
    """Return who was there on which day with how many sessions, from the file alone."""
    events = pd.read_csv(data_set("retentioneering_ecom_synthetic/ecom.csv.gz"), parse_dates=["timestamp"])
    events = events.sort_values(["user_id", "timestamp"], kind="stable")
    events["starts"] = events.groupby("user_id")["timestamp"].diff().isna() | (
        events.groupby("user_id")["timestamp"].diff() > pd.Timedelta(minutes=30)
    )
    events["day"] = events["timestamp"].dt.normalize()
    found = events.groupby(["user_id", "day"]).agg(sessions=("starts", "sum"), events=("event", "size")).reset_index()
    return found[found["day"] <= pd.Timestamp(LAST_DAY)]


def test_sessions_are_those_that_the_data_set_tells_for_999_events_in_1000(shop: Hub) -> None:
    events = table(shop, "int_events")
    events["theirs"] = events["properties"].str.extract(r'"session":"([^"]+)"')
    pairs = events.groupby(["session_id", "theirs"]).size().reset_index(name="events")
    alike = (pairs["events"] == pairs.groupby("session_id")["events"].transform("sum")) & (
        pairs["events"] == pairs.groupby("theirs")["events"].transform("sum")
    )
    assert len(events) == 31_106
    assert pairs[alike]["events"].sum() >= 0.999 * len(events)


def test_events_that_come_late_and_between_others_leave_the_sessions_that_all_at_once_would_give(
    shop: Hub, days: pd.DataFrame
) -> None:
    ours = table(shop, "int_user_days")
    ours = ours[ours["day"] <= pd.Timestamp(LAST_DAY)]
    merged = days.merge(ours, on=["user_id", "day"], how="outer", suffixes=("", "_ours"))
    assert (merged["events"] == merged["events_ours"]).all()
    assert (merged["sessions"] == merged["sessions_ours"]).all()
    sessions = table(shop, "int_sessions")
    assert sessions["session_id"].is_unique
    assert sessions["events"].sum() == 31_106


def stages(days: pd.DataFrame, as_of: date) -> dict[str, str]:
    """Return everybody's stage at the end of a day, by looking at all days before it."""
    day = pd.Timestamp(as_of)
    known = days[days["day"] <= day]
    seen = known.groupby("user_id")["day"].agg(["min", "max"])
    window = known[known["day"] > day - pd.Timedelta(days=30)]
    seen["active"] = window.groupby("user_id").size()
    seen["sessions"] = window.groupby("user_id")["sessions"].sum()
    seen = seen.fillna(0)
    since, age = (day - seen["max"]).dt.days, (day - seen["min"]).dt.days
    rules = [since > 30, since >= 14, seen["active"] >= 15, age <= 7, seen["sessions"] >= 3]
    names = ["Churned", "At Risk", "Power User", "New", "Active"]
    return dict(zip(seen.index, np.select(rules, names, "Occasional"), strict=True))


def test_everybody_is_in_the_stage_that_pandas_finds(shop: Hub, days: pd.DataFrame) -> None:
    lifecycle = table(shop, "user_lifecycle")
    ours = dict(zip(lifecycle["user_id"], lifecycle["stage"], strict=True))
    assert ours == stages(days, LAST_DAY)
    assert len(set(ours.values())) >= 4


def test_the_history_tells_everybodys_stage_on_any_day(shop: Hub, days: pd.DataFrame) -> None:
    history = table(shop, "user_lifecycle_history")
    by_day = table(shop, "user_lifecycle_by_day").set_index(["day", "stage"])["users"]
    for back in (0, 1, 13, 29, 30, 31, 77, 150):
        day = LAST_DAY - timedelta(days=back)
        moment = pd.Timestamp(day)
        then = history[(history["from_day"] <= moment) & (history["to_day"].isna() | (history["to_day"] >= moment))]
        expected = stages(days, day)
        assert dict(zip(then["user_id"], then["stage"], strict=True)) == expected
        for stage, users in pd.Series(expected).value_counts().items():
            assert by_day[(moment, stage)] == users


def test_who_leaves_a_stage_enters_another(shop: Hub) -> None:
    moved = table(shop, "user_lifecycle_transitions").groupby("day")["users"].sum()
    history = table(shop, "user_lifecycle_history")
    assert moved.sum() == history["previous_stage"].notna().sum()
    assert (history["previous_stage"] != history["stage"]).all()


def test_the_score_is_what_the_playbooks_sql_gives(shop: Hub) -> None:
    with shop.warehouse.read(ample=True) as con:
        expected = con.execute(
            """
            with window_events as (
                select * from main.hub_events
                where time >= $day::date - 29 and time < $day::date + 1
            ), started as (
                select identity, count(*) as sessions from (
                    select identity, time, lag(time) over (partition by identity order by time) as before
                    from main.hub_events
                ) where (before is null or time > before + interval 30 minute)
                    and time >= $day::date - 29 and time < $day::date + 1
                group by identity
            )
            select identity, 5 * count(distinct time::date) + 2 * any_value(sessions) + 10 * count(distinct event)
            from window_events join started using (identity) group by identity
            """,
            {"day": LAST_DAY},
        ).fetchall()
    engagement = table(shop, "user_engagement")
    ours = engagement[engagement["events"] > 0].set_index("user_id")["engagement_score"].to_dict()
    assert ours == dict(expected)
    assert (engagement[engagement["events"] == 0]["engagement_score"] == 0).all()


def test_days_that_are_asked_for_are_computed_again_and_no_others(shop: Hub) -> None:
    before = table(shop, "int_events")["computed_at"].max()
    asked = (date(2024, 3, 1), date(2024, 3, 2))
    report = shop.models().build(["int_events", "int_user_day_events"], as_of=LAST_DAY, days=asked, tests=False)
    assert not report.failed
    for name, day in (("int_events", "event_day"), ("int_user_day_events", "day")):
        rows = table(shop, name)
        again = set(rows[rows["computed_at"] > before][day].dt.date)
        # a session may go on over midnight, so the day after is looked at too
        assert set(asked) <= again <= {*asked, date(2024, 3, 3)}, name
    assert len(table(shop, "int_events")) == 31_106
