"""An environment whose warehouse is PostgreSQL: events in, models beside them, audiences and profiles out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from heap_integration.environment import load_environment, read_variables
from heap_integration.hub import Hub, open_hub
from heap_integration.routes import routes
from heap_integration.syncs import RouteSync
from heap_integration_tests.support.commands import Answer, run
from heap_integration_tests.support.postgres import postgres, postgres_database
from heap_integration_tests.support.project import write_lines
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox
from heap_integration_tests.support.warehouses import postgres_warehouse, rows

__all__ = ["postgres", "postgres_database"]

NOW = datetime.now(UTC)
LOYAL_BUYERS = {
    "name": "Loyal buyers",
    "definition": {
        "events": [{"type": "Order Completed", "properties": {"total": {"gt": 10}}, "within_days": 7}],
        "user_properties": {"plan": "pro"},
        "models": {"stage": {"in": ["Active", "Power User"]}},
    },
}
MODELS = (
    "create schema if not exists test_models",
    "drop table if exists test_models.user_lifecycle",
    "create table test_models.user_lifecycle (user_id text, stage text, score numeric(6, 2), last_seen timestamptz)",
    """insert into test_models.user_lifecycle values
       ('ada', 'Active', 12.5, '2026-03-01 12:00:00+00'), ('bob', 'Churned', 1, null),
       ('cy', 'Power User', 90, null)""",
    "drop table if exists test_models.ids",
    "create table test_models.ids as select user_id as heap_id, 'uf-' || user_id as userflow_id"
    " from test_models.user_lifecycle",
)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    with running_sandbox(tmp_path / "sandbox") as running:
        for user in ("ada", "bob", "cy"):
            assert running.userflow("POST", "/users", json={"id": f"uf-{user}", "attributes": {}}).is_success
        yield running


@pytest.fixture
def project(tmp_path: Path, sandbox: RunningSandbox, postgres_database: str) -> Path:
    """Return a project whose warehouse is a PostgreSQL server with the tables of two models."""
    by_table = {"table": "models.ids", "from": "heap_id", "to": "userflow_id"}
    common = {"sync_to": ["userflow"], "map_users_by": by_table}
    settings = {
        "heap": {"app_id": sandbox.app_id, "base_url": sandbox.url},
        "warehouse": postgres_warehouse(postgres_database, "{name}").model_dump(exclude_none=True),
        "audiences": {
            "models": {"stage": {"table": "models.user_lifecycle", "identity": "user_id", "column": "stage"}}
        },
        "segments": [
            {"name": "Loyal buyers", "from": "audiences/loyal.json", **common},
            {"name": "All", "from": {"table": "models.user_lifecycle", "identity": "user_id"}, **common},
        ],
        "profiles": [
            {
                "name": "Scores",
                "table": "models.user_lifecycle",
                "identity": "user_id",
                "fields": {"score": "score", "stage": "stage", "last_seen": "last_seen"},
                **common,
            }
        ],
        "destinations": {"userflow": {"api_key": {"env": "USERFLOW_API_KEY"}, "base_url": sandbox.userflow_url}},
    }
    folder = tmp_path / "environments" / "test"
    (folder / "audiences").mkdir(parents=True)
    (folder / "environment.yaml").write_text(json.dumps(settings))
    (folder / "audiences" / "loyal.json").write_text(json.dumps(LOYAL_BUYERS))
    key = sandbox.environment.userflow_api_key.get_secret_value()
    (folder / ".env").write_text(f"USERFLOW_API_KEY={key}\n")
    with hub_of(tmp_path) as hub, hub.connect_warehouse() as connection:
        connection.run(MODELS)
        hub.load_file(write_lines(tmp_path / "events.ndjson", calls()), None)
    return tmp_path


def hub_of(project: Path) -> Hub:
    environment = load_environment(project / "environments" / "test")
    return open_hub(environment, read_variables(environment, {}))


def calls() -> Iterator[dict[str, Any]]:
    for user, total, plan in (("ada", 50, "pro"), ("bob", 99, "pro"), ("cy", 3, "pro"), ("dan", 80, "pro")):
        moment = (NOW - timedelta(days=1)).isoformat()
        yield {
            "type": "track",
            "event": "Order Completed",
            "userId": user,
            "messageId": f"order of {user}",
            "timestamp": moment,
            "properties": {"total": total},
        }
        yield {
            "type": "identify",
            "userId": user,
            "messageId": f"plan of {user}",
            "timestamp": moment,
            "traits": {"plan": plan},
        }


def sync(project: Path, *arguments: str) -> Answer:
    answer = run(project, "sync", *arguments, "-e", "test")
    assert answer.code == 0, answer.err
    return answer


def attributes(sandbox: RunningSandbox) -> dict[str, Any]:
    return {user["id"]: user["attributes"] for user in sandbox.state("userflow/users", limit=100)["users"]}


def in_segment(sandbox: RunningSandbox, segment: str) -> list[str]:
    return sorted(who for who, given in attributes(sandbox).items() if given.get(f"heap_segment_{segment}"))


def test_an_audience_over_events_traits_and_a_model_reaches_its_destination(
    project: Path, sandbox: RunningSandbox
) -> None:
    sync(project, "Loyal buyers")
    assert in_segment(sandbox, "loyal_buyers") == ["uf-ada"]
    with hub_of(project) as hub, hub.connect_warehouse() as connection:
        assert rows(connection, "select count(*) from test_hub.product_events") == [(8,)]
        connection.run(["update test_models.user_lifecycle set stage = 'Churned' where user_id = 'ada'"])
        more = {
            "type": "track",
            "event": "Order Completed",
            "userId": "cy",
            "messageId": "another order of cy",
            "timestamp": NOW.isoformat(),
            "properties": {"total": 11},
        }
        hub.load_file(write_lines(project / "more.ndjson", [more]), None)

    sync(project, "Loyal buyers", "--confirm")
    assert in_segment(sandbox, "loyal_buyers") == ["uf-cy"]


def test_rows_of_a_model_become_members_and_properties(project: Path, sandbox: RunningSandbox) -> None:
    sync(project, "All")
    sync(project, "Scores")
    assert in_segment(sandbox, "all") == ["uf-ada", "uf-bob", "uf-cy"]
    found = attributes(sandbox)
    assert {name: found["uf-ada"][name] for name in ("score", "stage", "last_seen")} == {
        "score": 12.5,
        "stage": "Active",
        "last_seen": "2026-03-01T12:00:00.000Z",
    }
    assert "last_seen" not in found["uf-bob"]

    with hub_of(project) as hub, hub.connect_warehouse() as connection:
        connection.run(
            [
                "update test_models.user_lifecycle set score = 13 where user_id = 'ada'",
                "delete from test_models.user_lifecycle where user_id = 'bob'",
            ]
        )
        (route,) = (each for each in routes(hub.environment) if each.sync.name == "Scores")
        # what has changed since counts from the next run on
        assert RouteSync(hub, route).apart().numbers["different"] == 0
        assert RouteSync(hub, route).known().mapped == 3
    (told,) = sync(project, "Scores", "--json").json
    assert (told["counts"]["updated"], told["counts"]["removed"]) == (1, 1)
    assert attributes(sandbox)["uf-ada"]["score"] == 13
    sync(project, "All")
    assert in_segment(sandbox, "all") == ["uf-ada", "uf-cy"]


def test_the_commands_about_audiences_look_at_the_warehouse(project: Path) -> None:
    file = "environments/test/audiences/loyal.json"
    with hub_of(project) as hub:
        hub.publish()
    checked = run(project, "audience", "check", file, "-e", "test")
    assert (checked.code, checked.err) == (0, "")
    (shown,) = [run(project, "audience", "preview", file, "-e", "test", "--json").json]
    assert (shown["members"], shown["sample"]) == (1, ["ada"])
    told = run(project, "audience", "sql", file, "-e", "test", "--dialect", "postgres").out.decode()
    assert '"test_models"."user_lifecycle"' in told
    refused = run(project, "audience", "sql", file, "-e", "test")
    assert refused.code == 2
    assert "speaks postgres" in refused.err


@pytest.mark.slow
def test_models_are_built_there_of_what_is_published_and_an_audience_asks_them(
    project: Path, sandbox: RunningSandbox
) -> None:
    settings = json.loads((project / "environments" / "test" / "environment.yaml").read_text())
    model = {"table": "models.user_engagement", "identity": "user_id", "column": "events"}
    settings["audiences"]["models"] = {"events": model}
    (project / "environments" / "test" / "environment.yaml").write_text(json.dumps(settings))
    definition = {"models": {"events": {"gte": 1}}, "user_properties": {"plan": "pro"}}
    file = project / "environments" / "test" / "audiences" / "loyal.json"
    file.write_text(json.dumps({"name": "Loyal buyers", "definition": definition}))
    built = run(project, "models", "build", "test", "-s", "+user_engagement", "-s", "+event_delivery_by_day", "--json")
    assert built.code == 0, built.err + built.out.decode()
    sync(project, "Loyal buyers")
    assert in_segment(sandbox, "loyal_buyers") == ["uf-ada", "uf-bob", "uf-cy"]


def test_a_warehouse_out_of_reach_stops_the_sync_and_says_so(project: Path, sandbox: RunningSandbox) -> None:
    file = project / "environments" / "test" / "environment.yaml"
    settings = json.loads(file.read_text())
    settings["warehouse"]["host"] = str(project / "nowhere")
    file.write_text(json.dumps(settings))
    for name in ("All", "Loyal buyers"):
        answer = run(project, "sync", name, "-e", "test")
        assert answer.code == 2
        assert "PostgreSQL at" in answer.err
        assert "Traceback" not in answer.err
    assert in_segment(sandbox, "all") == []
