"""Heap's data at home through Dagster: dumps, models with their tests and pictures, exports within the plan."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from heap_integration_tests.assets.project import NAME, START, Project, key, numbers, track

TODAY = datetime.now(UTC).date()
FUNNEL = {"name": "buy", "steps": ["Visited", "Ordered"]}
CHANGED = {"ops": {"models": {"config": {"days": "changed"}}}}


@pytest.fixture
def shop(project: Project) -> Project:
    """Return a project that loads Heap's dumps from a folder, with models about them and an export."""
    project.settings |= {
        "heap": project.settings["heap"] | {"plan": "growth"},
        "heap_connect": {"s3": {"bucket": "bucket"}},
        "models": {"funnels": [FUNNEL]},
        "exports": [{"name": "bi", "events": ["Ordered"]}],
        "owners": {"models": "team:analytics"},
    }
    project.write()
    (project.root / "bucket").mkdir()
    return project


def happen(project: Project, *events: dict[str, Any]) -> None:
    """Let Heap take events, without the hub, and write what is new into its bucket."""
    client, app_id = project.sandbox.client, project.sandbox.app_id
    client.post("/api/track", json={"app_id": app_id, "events": list(events)}).raise_for_status()
    address = str(project.root / "bucket")
    client.post(f"/_heap/{app_id}/dumps", json={"address": address}).raise_for_status()


def event(user: str, name: str, ago: int, minute: int = 0) -> dict[str, Any]:
    moment = datetime.combine(TODAY - timedelta(days=ago), datetime.min.time(), UTC).replace(hour=12, minute=minute)
    return {"identity": user, "event": name, "timestamp": moment.isoformat(), "idempotency_key": f"{user}{name}{ago}"}


def models(project: Project, **options: Any) -> dg.ExecuteInProcessResult:
    return project.run("build_models", **{"partition_key": TODAY.isoformat(), "run_config": CHANGED, **options})


def rows(project: Project, sql: str) -> list[tuple[Any, ...]]:
    with project.hub() as hub, hub.warehouse.read() as con:
        return con.execute(sql).fetchall()


@pytest.mark.slow
def test_a_dump_becomes_tables_models_and_an_export_and_each_shows_what_it_holds(shop: Project) -> None:
    happen(shop, event("ann", "Visited", 2), event("ann", "Ordered", 2, 5), event("bob", "Visited", 1))

    loaded = shop.run("import_dumps")
    found = numbers(loaded, key("heap_connect", "events"))[None]
    assert {name: found[name] for name in ("read", "inserted", "duplicates", "row_count")} == {
        "read": 3, "inserted": 3, "duplicates": 0, "row_count": 3,
    }  # fmt: skip

    built = models(shop)
    assert built.success
    funnel = numbers(built, key("models", "conversion_funnel"))[None]
    assert funnel["users in buy, at a glance"] == "Visited 2 (100%) · Ordered 1 (50%)"
    assert funnel["users in buy"].startswith("![users in buy](data:image/svg+xml;base64,")
    columns = {column.name: column for column in funnel["column_schema"].columns}
    assert columns["step_name"].description == "The event that is the step."
    origins = funnel["column_lineage"].deps_by_column["average_hours"]
    assert key("models", "int_funnel_progress") in {origin.asset_key for origin in origins}
    days = numbers(built, key("models", "int_events"))
    assert set(days) == {(TODAY - timedelta(days=ago)).isoformat() for ago in (0, 1, 2)}
    checks = {check.check_name: check.passed for check in built.get_asset_check_evaluations()}
    assert len(checks) > 50
    assert all(checks.values())

    exported = shop.run("export_daily", partition_key=TODAY.isoformat(), run_config=CHANGED)
    assert numbers(exported, key("exports", "bi"))[None].items() >= {"read": 1, "sent": 1, "pending": 0}.items()
    assert rows(shop, "select event_type from exports.heap_events") == [("Ordered",)]


@pytest.mark.slow
def test_a_day_that_changed_is_computed_again_and_a_day_that_is_asked_for_alone(shop: Project) -> None:
    shop.settings |= {"heap_connect": {}, "exports": []}
    shop.write()
    first, second = TODAY - timedelta(days=3), TODAY - timedelta(days=2)
    load(shop, track("ann", first), track("ann", second))
    graph = shop.definitions.resolve_asset_graph()
    selection = dg.AssetSelection.assets(key("models", "user_engagement")).upstream()
    needed = [each for each in selection.resolve(graph) if each.path[1] == "models"]
    first_built = models(shop, asset_selection=needed)
    assert len(first_built.get_asset_materialization_events()) >= len(needed)
    load(shop, track("bob", first))

    alone = [key("models", "int_events")]
    asked = models(shop, asset_selection=alone, partition_key=second.isoformat(), run_config={})
    assert set(numbers(asked, *alone)) == {second.isoformat()}
    assert rows(shop, "select count(*) from models.int_events") == [(2,)]
    assert {check.asset_key for check in asked.get_asset_check_evaluations()} == {*alone}

    changed = models(shop, asset_selection=needed)
    # A session may go on into the day after the one that changed; today's is the partition that the run bears.
    assert set(numbers(changed, *alone)) == {day.isoformat() for day in (first, second, TODAY)}
    assert rows(shop, "select user_id, sessions from models.user_engagement order by 1") == [("ann", 2), ("bob", 1)]
    # What nobody asked for wasn't built.
    assert rows(shop, "from duckdb_tables() where table_name = 'retention_cohorts'") == []


def test_a_day_that_is_none_is_refused_before_dbt_is_called(shop: Project) -> None:
    failed = models(shop, run_config={"ops": {"models": {"config": {"as_of": "yesterday"}}}})
    (step,) = failed.get_step_failure_events()
    assert "as_of is 'yesterday': wanted is a day such as" in step.event_specific_data.error.message
    misspelt = {"ops": {"models": {"config": {"days": "all"}}}}
    with pytest.raises(dg.DagsterInvalidConfigError):
        models(shop, run_config=misspelt)


def load(project: Project, *events: dict[str, Any]) -> None:
    project.lay(f"{len(list(project.root.rglob('*.ndjson')))}.ndjson", *events)
    with project.hub() as hub:
        hub.load()


def test_the_sensor_asks_once_for_each_dump(shop: Project) -> None:
    definitions = shop.definitions
    sensor = definitions.resolve_sensor_def("new_dumps")

    def tick(cursor: str | None) -> tuple[int, str | None]:
        resources = definitions.resources
        context = dg.build_sensor_context(shop.instance, cursor, definitions=definitions, resources=resources)
        ticked = sensor.evaluate_tick(context)
        return len(ticked.run_requests or ()), ticked.cursor

    assert tick(None)[0] == 0
    happen(shop, event("ann", "Visited", 2))
    asked, cursor = tick(None)
    assert (asked, tick(cursor)[0]) == (1, 0)
    assert shop.run("import_dumps").success
    assert tick(None)[0] == 0


def test_a_broken_file_fails_the_dump_by_its_name_and_leaves_what_stands_before_it(shop: Project) -> None:
    happen(shop, event("ann", "Visited", 2))
    happen(shop, event("bob", "Visited", 1))
    newest = max((shop.root / "bucket").glob("sync_*/visited/*.avro"), key=lambda file: file.stat().st_mtime)
    newest.write_bytes(newest.read_bytes()[:-7])

    failed = shop.run("import_dumps")

    assert not failed.success
    told = json.dumps([each.event_specific_data.error.message for each in failed.get_step_failure_events()])
    assert newest.name in told
    # The dump before it is loaded, and told of.
    assert numbers(failed, key("heap_connect", "events"))[None]["row_count"] == 1
    assert rows(shop, "select count(*) from heap_connect.visited") == [(1,)]


def test_models_and_exports_stand_in_the_graph_under_their_environment(shop: Project) -> None:
    graph = shop.definitions.resolve_asset_graph()
    node = graph.get(key("models", "int_events"))

    assert node.group_name == f"{NAME}_models"
    assert node.owners == ["team:analytics"]
    assert node.partitions_def == dg.DailyPartitionsDefinition(START.isoformat(), timezone="UTC", end_offset=1)
    assert node.metadata["dagster/table_name"] == "models.int_events"
    assert graph.get(key("models", "user_engagement")).partitions_def is None
    assert key("models", "export_events") in graph.get(key("exports", "bi")).parent_keys
    for table in ("users", "sessions", "pageviews", "events"):
        assert key("heap_connect", table) in graph.get(key("models", f"stg_heap__{table}")).parent_keys
    assert {each.name for each in shop.definitions.schedules or ()} >= {"models_daily", "exports_daily"}
