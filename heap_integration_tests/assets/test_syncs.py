"""Audiences, tables and profiles through Dagster: computed, previewed, guarded, sent, checked."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from heap_integration_tests.assets.project import NAME, Project, key, numbers

TODAY = datetime.now(UTC).date()
BUYERS = {"name": "Buyers", "definition": {"events": [{"type": "Order Completed", "within_days": 2}]}}


@pytest.fixture
def shop(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project whose buyers go to Customer.io, by an audience and by a table, with their properties."""
    track, app = (f"{project.sandbox.url}/customerio/{surface}" for surface in ("track", "app"))
    keys = {"site_id": "CUSTOMERIO_SITE_ID", "api_key": "CUSTOMERIO_API_KEY", "app_api_key": "CUSTOMERIO_APP_API_KEY"}
    settings = project.settings
    settings["destinations"]["customerio"] = {
        **{field: {"env": variable} for field, variable in keys.items()},
        "track_url": track,
        "app_url": app,
    }
    common = {"sync_to": ["customerio"], "create": True}
    settings["segments"] = [
        {"name": "Buyers", "from": "audiences/buyers.json", **common},
        {"name": "Listed", "from": {"table": "listed", "identity": "person"}, **common},
    ]
    settings["profiles"] = [
        {"name": "Scores", "table": "scores", "identity": "person", "fields": {"score": "pql_score"}, **common}
    ]
    define(project, BUYERS)
    project.write()
    for field, variable in keys.items():
        secret = getattr(project.sandbox.environment, f"customerio_{field}")
        monkeypatch.setenv(variable, secret.get_secret_value())
    return project


def define(project: Project, definition: dict[str, Any]) -> None:
    """Write the definition of the audience."""
    file = project.file.parent / "audiences" / "buyers.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(definition))


def happened(project: Project, *orders: tuple[str, int]) -> None:
    """Load orders: who bought, and how many days ago."""
    from heap_integration_tests.assets.project import track

    project.lay(
        f"orders-{len(list(project.root.rglob('orders-*')))}.ndjson",
        *(track(user, TODAY - timedelta(days=ago)) for user, ago in orders),
    )
    with project.hub() as hub:
        hub.load()


def tables(project: Project, *statements: str) -> None:
    with project.hub() as hub, hub.warehouse.write() as con:
        for statement in statements:
            con.execute(statement)


def audiences(project: Project, ago: int = 0, **config: Any) -> dg.ExecuteInProcessResult:
    """Run ``sync_audiences`` for a day, with the config of the sync."""
    step = f"{NAME}__customerio_segments__buyers"
    ops = {"ops": {step: {"config": config}}} if config else {}
    return project.run("sync_audiences", partition_key=(TODAY - timedelta(days=ago)).isoformat(), run_config=ops)


def there(project: Project, name: str = "Buyers") -> list[str]:
    """Return who is in Customer.io's segment of a name."""
    vendors = project.sandbox.state("vendors", app_id=project.sandbox.app_id, name="customerio")["vendors"]
    return next((sorted(each["sample"]) for each in vendors[0]["audiences"] if each["name"] == name), [])


def failure(result: dg.ExecuteInProcessResult) -> str:
    (failed,) = (event for event in result.all_events if event.is_step_failure)
    told: str = failed.step_failure_data.error_display_string
    return told


def test_an_audience_is_computed_for_a_day_and_its_members_enter_and_leave(shop: Project) -> None:
    happened(shop, ("ada", 1), ("bob", 0), ("old", 9))

    first = audiences(shop)
    told = numbers(first, key("audiences", "buyers"))[TODAY.isoformat()]
    assert (told["members"], told["entered"], told["left"]) == (2, 2, 0)
    assert there(shop) == ["ada", "bob"]

    define(shop, {**BUYERS, "definition": {"events": [{"type": "Order Completed", "within_days": 1}]}})
    happened(shop, ("cy", 0))
    synced = numbers(audiences(shop), key("customerio_segments", "buyers"))[None]

    assert (synced["added"], synced["removed"], synced["unchanged"]) == (1, 1, 1)
    assert there(shop) == ["bob", "cy"]


def test_a_backfilled_day_is_as_it_was_then_and_changes_nothing_at_the_destination(shop: Project) -> None:
    happened(shop, ("ada", 0), ("old", 9))
    audiences(shop)

    backfilled = audiences(shop, ago=8)

    told = numbers(backfilled, key("audiences", "buyers"))[(TODAY - timedelta(days=8)).isoformat()]
    assert told["members"] == 1
    assert there(shop) == ["ada"]


def test_a_definition_that_asks_for_what_is_not_there_fails_in_words(shop: Project) -> None:
    happened(shop, ("ada", 0))
    define(shop, {**BUYERS, "definition": {"events": [{"type": "Order Complete", "within_days": 2}]}})

    result = audiences(shop)

    assert not result.success
    assert "buyers.json:" in failure(result)
    assert "Order Completed" in failure(result)


def test_a_preview_is_observed_and_sends_nothing(shop: Project) -> None:
    happened(shop, ("ada", 0))

    result = audiences(shop, preview=True)

    (observed,) = result.get_asset_observation_events()
    told = observed.asset_observation_data.asset_observation.metadata
    assert (told["would_add"].value, told["would_remove"].value) == (1, 0)
    assert "| add | ada |" in told["sample"].value
    assert result.success
    assert there(shop) == []


def test_one_identity_can_be_tried_alone(shop: Project) -> None:
    happened(shop, ("ada", 0), ("bob", 0))

    tried = audiences(shop, only="bob")
    assert tried.success
    assert len(tried.get_asset_observation_events()) == 1
    assert there(shop) == ["bob"]

    assert audiences(shop).success
    assert there(shop) == ["ada", "bob"]


def test_a_guard_holds_a_sync_back_until_somebody_confirms(shop: Project) -> None:
    shop.settings["segments"][1]["guards"] = {"largest_removal_percent": 20, "removals_to_guard": 1}
    shop.write()
    people = ", ".join(f"('user-{number}')" for number in range(4))
    tables(shop, "create table listed (person varchar)", f"insert into listed values {people}")
    assert shop.sync().success
    tables(shop, "delete from listed where person = 'user-0'")

    held_back = shop.sync()
    assert "would remove 1 of the 4 who are there, 25.0 %; allowed are 20 %" in failure(held_back)
    assert not any(event.is_step_up_for_retry for event in held_back.all_events)
    assert len(there(shop, "Listed")) == 4

    confirmed = shop.sync(**{f"{NAME}__customerio_segments__listed": {"confirm": True}})
    assert confirmed.success
    assert there(shop, "Listed") == ["user-1", "user-2", "user-3"]


def test_profiles_tell_what_changed_and_say_of_a_bad_row_why(shop: Project) -> None:
    tables(
        shop,
        "create table scores (person varchar, score double)",
        "insert into scores values ('ada', 1), ('bob', 2), ('cy', 'NaN')",
    )

    first = numbers(shop.run("sync_profiles"), key("customerio_profiles", "scores"))[None]
    assert (first["sent"], first["added"], first["rejected"]) == (2, 2, 1)
    assert "cy" in first["rejected sample"]

    tables(shop, "update scores set score = 5 where person = 'ada'")
    second = numbers(shop.run("sync_profiles"), key("customerio_profiles", "scores"))[None]
    assert (second["sent"], second["updated"], second["unchanged"], second["rejected"]) == (1, 1, 1, 1)


def test_who_opts_out_leaves_and_is_not_sent_again(shop: Project) -> None:
    from heap_integration.events.opt_outs import opt_out

    happened(shop, ("ada", 0), ("bob", 0))
    audiences(shop)
    with shop.hub() as hub:
        opt_out(hub.store, ["ada"], "by hand")

    told = numbers(audiences(shop), key("customerio_segments", "buyers"))[None]

    assert (told["removed"], told["opted_out"]) == (1, 1)
    assert there(shop) == ["bob"]


def test_few_who_are_known_there_are_a_warning(shop: Project) -> None:
    shop.settings["segments"][1] |= {"create": False}
    shop.write()
    tables(shop, "create table listed (person varchar)", "insert into listed values ('ada'), ('undefined')")

    result = shop.sync()

    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert result.success
    assert checks["baseline_is_source"].passed
    assert (checks["match_rate"].passed, checks["match_rate"].severity) == (False, dg.AssetCheckSeverity.WARN)
    assert checks["match_rate"].metadata["placeholders"].value == 1


def test_what_runs_together_is_scheduled_together_and_reaches_back_to_its_sources(shop: Project) -> None:
    definitions = shop.definitions
    graph = definitions.resolve_asset_graph()

    assert graph.get(key("audiences", "buyers")).parent_keys == {key("events", "product_events")}
    assert graph.get(key("customerio_segments", "listed")).parent_keys == {dg.AssetKey([NAME, "tables", "listed"])}
    assert {schedule.name for schedule in definitions.schedules or ()} == {
        "hourly_events",
        "segments_hourly",
        "audiences_hourly",
        "models_daily",
        "profiles_hourly",
    }
    schedule = definitions.resolve_schedule_def("audiences_hourly")
    context = dg.build_schedule_context(shop.instance, repository_def=definitions.get_repository_def())
    (request,) = schedule.evaluate_tick(context).run_requests or ()
    assert request.partition_key == datetime.now(UTC).date().isoformat()
