"""Years of real people's activity run through all models, and what the scores then say is what pandas says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from heap_integration.hub import Hub
from heap_integration_tests.models.shop import build, counts, data_set, filled_once, hub_with_models, receive, table

LAST_DAY = date(2018, 8, 20)
# A site is an account, whether somebody has posted there is the plan, and the ways to contribute are the features.
SELECT = """
with told as (
    select *, site || '/' || user_id as person from '{path}'
)
select row_number() over (order by event_time, event_type <> 'user_signup') as place, 'track' as type,
       person as user_id, event_time as timestamp,
       case when event_type in ('question_asked', 'answer_posted', 'comment_posted') then 'Feature: ' else '' end
       || event_type as name, '{{}}' as properties, '{{}}' as traits
from told
union all
select 0, 'identify', person, min(event_time), '', '{{}}',
       json_object('account_id', site, 'plan', case when bool_or(post_id is null) then 'free' else 'pro' end)::varchar
from told group by person, site
"""
STEPS = ["user_signup", "Feature: question_asked", "Feature: answer_posted"]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """Yield a hub whose models, all of them, were built and tested over the data set."""
    path = data_set("stackexchange_activity/events.parquet")

    def hub_in(folder: Path) -> Hub:
        return hub_with_models(folder, funnels=[{"name": "contributor", "steps": STEPS, "window_hours": 24 * 7}])

    def fill(folder: Path) -> None:
        with hub_in(folder) as hub:
            receive(hub, SELECT.format(path=path))
            build(hub, LAST_DAY, tests=True)

    with hub_in(filled_once(tmp_path_factory, "sites", fill)) as hub:
        yield hub


@pytest.fixture(scope="module")
def events(sites: Hub) -> pd.DataFrame:
    """Return the events up to the last day, from the file alone."""
    frame = pd.read_parquet(data_set("stackexchange_activity/events.parquet"))
    frame = frame[frame.event_time < pd.Timestamp(LAST_DAY + timedelta(days=1))]
    contributes = frame.event_type.isin(["question_asked", "answer_posted", "comment_posted"])
    return frame.assign(
        person=frame.site + "/" + frame.user_id.astype(str),
        name=frame.event_type.where(~contributes, "Feature: " + frame.event_type),
        day=frame.event_time.dt.normalize(),
        is_recent=frame.event_time >= pd.Timestamp(LAST_DAY - timedelta(days=29)),
    )


def test_whoever_asks_within_a_week_of_signing_up_has_come_a_step_further(sites: Hub, events: pd.DataFrame) -> None:
    signups = events[events.name == STEPS[0]].groupby("person").event_time.max()
    questions = events[events.name == STEPS[1]]
    waited = questions.event_time - questions.person.map(signups)
    asked = questions[(waited >= pd.Timedelta(0)) & (waited <= pd.Timedelta(days=7))]
    funnel = table(sites, "conversion_funnel").query("scope == 'user'")
    found = counts(funnel, ["step_number"], "reached")
    assert (found[1,], found[2,]) == (len(signups), asked.person.nunique())


def test_a_lead_is_scored_by_what_the_person_did_in_thirty_days(sites: Hub, events: pd.DataFrame) -> None:
    leads = table(sites, "lead_scores").set_index("user_id")
    recent = events[events.is_recent]
    features = recent[recent.name.str.startswith("Feature:")]
    adoption = features.groupby("person").name.nunique() * 100 / features.name.nunique()
    assert (leads.feature_adoption_score == (adoption.reindex(leads.index).fillna(0) + 0.5).astype(int)).all()
    last = events.groupby("person").day.max().reindex(leads.index).astype(leads.last_active_day.dtype)
    pd.testing.assert_series_equal(leads.last_active_day, last, check_names=False)
    idle = (pd.Timestamp(LAST_DAY) - last).dt.days
    recency = ((30 - idle) * 100 / 23).clip(0, 100).where(idle > 7, 100).where(last.notna(), 0)
    engagement = (leads.engagement_score / 2).clip(upper=100)
    wanted = engagement * 0.5 + adoption.reindex(leads.index).fillna(0) * 0.3 + recency * 0.2
    assert ((leads.pql_score - wanted).abs() <= 0.5 + 1e-9).all()
    assert set(leads.grade) == {"hot", "warm", "cold"}


def test_an_account_counts_its_people_and_their_sessions(sites: Hub, events: pd.DataFrame) -> None:
    accounts = table(sites, "account_health").set_index("account_id")
    everybody = pd.read_parquet(data_set("stackexchange_activity/events.parquet"))
    people = (everybody.site + "/" + everybody.user_id.astype(str)).groupby(everybody.site).nunique()
    assert accounts.users.to_dict() == people.to_dict()
    active = events[events.is_recent].groupby("site").person.nunique().reindex(accounts.index).fillna(0)
    assert accounts.active_users_30_days.to_dict() == active.to_dict()
    assert accounts.health_score.between(0, 100).all()


def test_recommended_is_what_others_do_and_the_person_does_not(sites: Hub, events: pd.DataFrame) -> None:
    recent = events[events.is_recent].groupby("person").name
    found = table(sites, "user_recommendations")
    favourites = found[(found.kind == "top") & (found.place == 1)].set_index("user_id").event_name
    wanted = recent.agg(lambda names: sorted(names.value_counts().items(), key=lambda item: (-item[1], item[0]))[0][0])
    pd.testing.assert_series_equal(favourites.sort_index(), wanted, check_names=False, check_dtype=False)
    done = recent.agg(set)
    suggestions = found[found.kind == "next"]
    assert len(suggestions) > 0
    assert not any(
        name in done[person] for person, name in zip(suggestions.user_id, suggestions.event_name, strict=True)
    )
