"""Funnels, paths, campaigns and cohorts of a shop, held against the same computed in pandas."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from heap_integration.environment import Environment
from heap_integration.hub import Hub
from heap_integration_tests.models.shop import build, counts, data_set, filled_once, hub_with_models, receive, table
from heap_integration_tests.support.postgres import postgres
from heap_integration_tests.support.warehouses import postgres_warehouse

__all__ = ["postgres"]

STEPS = ["product_view", "add_to_cart", "shipping_details", "payment_details", "purchase"]
FUNNELS: list[dict[str, Any]] = [
    {"name": "whole", "steps": STEPS, "by": ["platform", "acquisition_channel"]},
    {"name": "in_a_day", "steps": STEPS[:2] + STEPS[-1:], "window_hours": 24},
    {"name": "any_order", "steps": STEPS, "ordered": False},
    {"name": "any_order_in_half_a_day", "steps": STEPS[:2] + STEPS[-1:], "ordered": False, "window_hours": 12.5},
]
LAST_DAY = date(2024, 6, 20)
MARTS = [
    "conversion_funnel",
    "conversion_funnel_by_day",
    "conversion_funnel_by_property",
    "conversion_paths",
    "attribution",
    "feature_adoption",
    "retention_cohorts",
    "lead_scores",
    "account_health",
    "user_recommendations",
]

SELECT = """
select row_number() over () as place, 'track' as type, event as name, user_id, timestamp, '{{}}' as traits,
       json_object('platform', platform, 'acquisition_channel', acquisition_channel, 'utm_source',
                   case when acquisition_channel <> 'direct' then acquisition_channel end)::varchar as properties
from '{path}' where user_id < 'user_0200' and {condition}
"""
PEOPLE = """
select row_number() over () as place, 'identify' as type, '' as name, user_id, min(timestamp) as timestamp,
       json_object('email', user_id || '@example.com', 'account_id', 'account ' || hash(user_id) % 40, 'plan',
                   case when hash(user_id) % 2 = 0 then 'free' else 'pro' end)::varchar as traits, '{{}}' as properties
from '{path}' where user_id < 'user_0180' group by user_id
"""
# What comes on the second day is not only the newest: some users' events, and some events of many, come late.
LATE = "(timestamp >= date '2024-06-01' or hash(user_id) % 20 = 0 or hash(user_id, timestamp) % 50 = 0)"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """Yield a shop whose models were built twice, so that the second time was incremental."""
    path = data_set("retentioneering_ecom_synthetic/ecom.csv.gz")

    def hub_in(folder: Path) -> Hub:
        return hub_with_models(folder, funnels=FUNNELS, feature_prefix="w")

    def fill(folder: Path) -> None:
        with hub_in(folder) as hub:
            receive(hub, PEOPLE.format(path=path))
            for condition, as_of in [(f"not {LATE}", LAST_DAY - timedelta(days=30)), (LATE, LAST_DAY)]:
                receive(hub, SELECT.format(path=path, condition=condition))
                build(hub, as_of, [f"+{mart}" for mart in MARTS])

    with hub_in(filled_once(tmp_path_factory, "shop-in-two-builds", fill)) as hub:
        yield hub


@pytest.fixture(scope="module")
def units(events: pd.DataFrame) -> dict[str, dict[str, list[Any]]]:
    """Return the events of each session and of each user."""
    found: dict[str, dict[str, list[Any]]] = {"session": defaultdict(list), "user": defaultdict(list)}
    for row in events.itertuples():
        found["session"][row.session].append(row)
        found["user"][row.user_id].append(row)
    return found


@pytest.fixture(scope="module")
def events(shop: Hub) -> pd.DataFrame:
    """Return the events up to the last day in the order of time, with sessions of at most 30 minutes' pauses."""
    frame = table(shop, "stg_product_events").query("event_type == 'track'")
    frame = frame.sort_values(["user_id", "occurred_at", "seq"])
    pauses = frame.groupby("user_id").occurred_at.diff() > pd.Timedelta(minutes=30)
    frame["session"] = frame.user_id + "/" + pauses.groupby(frame.user_id).cumsum().astype(str)
    properties = frame.properties.map(pd.io.json.ujson_loads).apply(pd.Series)
    frame = frame.assign(**{name: properties[name] for name in ("platform", "acquisition_channel", "utm_source")})
    return frame[frame.occurred_at < pd.Timestamp(LAST_DAY + timedelta(days=1))]


def credited(rows: list[Any], funnel: dict[str, Any], window: pd.Timedelta) -> Iterator[tuple[Any, int]]:
    """Yield the entry and the step of all that a session or user reached, by trying the entries before each event."""
    steps = funnel["steps"]
    rows = [row for row in rows if row.event_name in steps]
    for end, row in enumerate(rows):
        past = [before for before in rows[: end + 1] if row.occurred_at - before.occurred_at <= window]
        for start in reversed(range(len(past))):
            if past[start].event_name != steps[0]:
                continue
            if not funnel.get("ordered", True):
                recent = {before.event_name for before in past}
                yield from ((past[start], n + 1) for n in range(len(steps)) if set(steps[: n + 1]) <= recent)
                break
            number = steps.index(row.event_name) + 1
            since = iter(before.event_name for before in past[start:])
            if all(step in since for step in steps[:number]):
                yield past[start], number
                break


@pytest.mark.parametrize("scope", ["session", "user"])
@pytest.mark.parametrize("funnel", FUNNELS, ids=lambda funnel: funnel["name"])
def test_a_funnel_counts_whom_trying_every_entry_finds(
    shop: Hub, units: dict[str, dict[str, list[Any]]], funnel: dict[str, Any], scope: str
) -> None:
    hours = funnel.get("window_hours") if scope == "user" else None
    window = pd.Timedelta(hours=hours) if hours else pd.Timedelta.max
    reached: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for unit, rows in units[scope].items():
        for entry, number in credited(rows, funnel, window):
            reached[number,].add(unit)
            reached[entry.event_day, number].add(unit)
            for name in funnel.get("by", []):
                reached[name, getattr(entry, name), number].add(unit)
    found: dict[tuple[Any, ...], int] = {}
    for mart, key in {
        "conversion_funnel": ["step_number"],
        "conversion_funnel_by_day": ["entered_day", "step_number"],
        "conversion_funnel_by_property": ["property_name", "property_value", "step_number"],
    }.items():
        frame = table(shop, mart)
        frame = frame[(frame.funnel == funnel["name"]) & (frame.scope == scope) & (frame.reached > 0)]
        found |= counts(frame, key, "reached")
    assert found == {key: len(units) for key, units in reached.items()}


def test_without_order_a_step_is_reached_by_whoever_did_it_and_all_before(shop: Hub) -> None:
    flags = ", ".join(
        f"max(case when event_name = '{step}' then 1 else 0 end) as step_{n}" for n, step in enumerate(STEPS)
    )
    sums = ", ".join("sum(" + " * ".join(f"step_{before}" for before in range(n + 1)) + ")" for n in range(len(STEPS)))
    with shop.warehouse.read() as con:
        plain = con.execute(
            f"select {sums} from (select session_id, {flags} from models.int_events where event_day <= ? group by all)",
            [LAST_DAY],
        ).fetchone()
    funnel = table(shop, "conversion_funnel")
    funnel = funnel[(funnel.funnel == "any_order") & (funnel.scope == "session")].sort_values("step_number")
    assert tuple(funnel.reached) == plain


def test_paths_are_the_events_of_converting_sessions(shop: Hub, events: pd.DataFrame) -> None:
    paths: Counter[str] = Counter()
    for _, rows in events.groupby("session"):
        names = list(rows.event_name)
        if "purchase" in names:
            steps = [name for name, _ in groupby(names[: names.index("purchase") + 1])]
            paths["... > " * (len(steps) > 12) + " > ".join(steps[-12:])] += 1
    found = table(shop, "conversion_paths")
    kept = sorted(paths.items(), key=lambda path: (-path[1], path[0]))[:100]
    assert list(zip(found.sort_values("path_rank").path, found.sort_values("path_rank").sessions, strict=True)) == kept
    assert found.share.sum() == pytest.approx(sum(times for _, times in kept) / paths.total())


def test_the_first_and_the_last_campaign_before_a_purchase_are_credited(shop: Hub, events: pd.DataFrame) -> None:
    first_rows = events.groupby("session").head(1)
    touches = first_rows[first_rows.utm_source.notna()]
    wanted: Counter[tuple[str, str]] = Counter()
    for purchase in events[events.event_name == "purchase"].itertuples():
        before = touches[(touches.user_id == purchase.user_id) & (touches.occurred_at <= purchase.occurred_at)]
        sources = list(before.sort_values("occurred_at").utm_source) or ["(direct)"]
        wanted.update({("first", sources[0]): 1, ("last", sources[-1]): 1})
    assert counts(table(shop, "attribution"), ["touch", "source"], "conversions") == wanted


def test_cohorts_are_the_users_of_a_first_week_or_month(shop: Hub, events: pd.DataFrame) -> None:
    found = table(shop, "retention_cohorts")
    for period, frequency in [("week", "W-SUN"), ("month", "M")]:
        active = events.occurred_at.dt.to_period(frequency)
        first = active.groupby(events.user_id).transform("min")
        since = (active.dt.start_time - first.dt.start_time).dt.days
        users: dict[tuple[Any, ...], set[str]] = defaultdict(set)
        for user, cohort, now, days in zip(events.user_id, first, active, since, strict=True):
            number = days // 7 if period == "week" else now.ordinal - cohort.ordinal
            users[cohort.start_time, number].add(user)
        mine = found[(found.period == period) & (found.retained_users > 0)]
        assert counts(mine, ["cohort", "periods_since"], "retained_users") == {
            key: len(who) for key, who in users.items()
        }


def test_features_are_counted_by_who_used_them(shop: Hub, events: pd.DataFrame) -> None:
    used = events[events.event_name == "wishlist_add"]
    recent = used[used.event_day > pd.Timestamp(LAST_DAY - timedelta(days=30))]
    users = table(shop, "int_users").set_index("user_id").plan_level.fillna("(none)")
    for row in table(shop, "feature_adoption").itertuples():
        ours = used[used.user_id.map(users) == row.plan_level]
        assert (row.users_adopted, row.uses) == (ours.user_id.nunique(), len(ours))
        assert row.users_adopted_30_days == recent.user_id[recent.user_id.map(users) == row.plan_level].nunique()
    assert table(shop, "feature_adoption").uses.sum() == len(used) > 0


def test_postgresql_gives_the_same_marts(shop: Hub, postgres: str) -> None:
    warehouse = postgres_warehouse(postgres)
    settings = shop.environment.model_dump(mode="json", include={"models"})
    environment = Environment.model_validate(
        {
            "name": "shop",
            "heap": {"app_id": "1"},
            "warehouse": warehouse.model_dump(mode="json"),
            **settings,
            "hub_tables": shop.environment.own_tables,
        }
    )
    elsewhere = Hub(environment, shop.store_url)
    inputs = ["int_events", "int_sessions", "int_users", "int_user_days", "int_user_day_events"]
    with elsewhere.connect_warehouse() as connection:
        for name in inputs:
            with shop.warehouse.read(ample=True) as con:
                reader = con.execute(f"from models.{name}").to_arrow_reader()
                connection.load(warehouse.schemas().models, name, reader, reader.schema)
        mine = ["int_funnel_events", "int_funnel_progress", "int_conversion_paths", "user_engagement", "user_lifecycle"]
        report = elsewhere.models().build([*mine, *MARTS], as_of=LAST_DAY, tests=False)
        assert not report.failed, report.problems()
        for name in MARTS:
            ours = table(shop, name)
            query = f"select * from {warehouse.schemas().models}.{name}"
            there = pd.concat([batch.to_pandas() for batch in connection.batches(query)])
            key = [column for column in ours.columns if not pd.api.types.is_float_dtype(ours[column])]
            pd.testing.assert_frame_equal(
                ours.sort_values(key, ignore_index=True).convert_dtypes(),
                there.astype(ours.dtypes).sort_values(key, ignore_index=True).convert_dtypes(),
            )
