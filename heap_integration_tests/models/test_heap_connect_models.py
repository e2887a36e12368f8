"""What the models make of Heap's own tables: merged users, rows that came twice, sessions, properties."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from heap_integration.environment import Environment
from heap_integration.hub import Hub
from heap_integration_tests.support.postgres import postgres, postgres_database

__all__ = ["postgres", "postgres_database"]

TABLES = {
    "user_migrations": ("from_user_id, to_user_id, time", ["10, 20, timestamp '2026-01-03 00:00:00'"]),
    "users": (
        "user_id, identity, email, joindate, last_modified, plan, company, _hub_dump",
        [
            "10, null, null, timestamp '2026-01-01 09:00:00', timestamp '2026-01-01 09:00:00', 'free', null, 1",
            "20, 'ann', 'ann@shop.io', timestamp '2026-01-02 09:00:00', timestamp '2026-01-05 09:00:00',"
            " 'pro', 'Acme', 2",
            "30, 'bob', 'bob@shop.io', timestamp '2026-01-02 10:00:00', timestamp '2026-01-02 10:00:00',"
            " 'free', 'Acme', 2",
        ],
    ),
    "sessions": (
        "event_id, user_id, session_id, time, platform, landing_page, landing_page_query, utm_source, _hub_dump",
        [
            "1, 10, 100, timestamp '2026-01-02 10:00:00', 'web', 'https://shop.io/a', '?gclid=XYZ&b=1', 'news', 1",
            "1, 10, 100, timestamp '2026-01-02 10:00:00', 'web', 'https://shop.io/a', '?gclid=XYZ&b=1', 'news', 2",
            "5, 20, 200, timestamp '2026-01-02 23:50:00', 'web', null, null, null, 2",
            "9, 30, 300, timestamp '2026-01-04 12:00:00', 'ios', null, null, null, 2",
        ],
    ),
    "pageviews": (
        "event_id, user_id, session_id, time, domain, path, query, title, _hub_dump",
        [
            "2, 10, 100, timestamp '2026-01-02 10:00:01', 'shop.io', '/a', '?gclid=XYZ&b=1', 'A', 1",
            "2, 10, 100, timestamp '2026-01-02 10:00:01', 'shop.io', '/a', '?gclid=XYZ&b=1', 'A', 2",
        ],
    ),
    "sign_up": (
        "event_id, user_id, session_id, time, amount, remark, _hub_dump",
        [
            "3, 20, 200, timestamp '2026-01-03 00:10:00', 12.5, 'a \"b\" \\ c', 2",
            "4, 30, null, timestamp '2026-01-02 08:00:00', null, null, 2",
        ],
    ),
    "_sync_info": ("event_table_name", ["'sign_up'"]),
}


@pytest.fixture(params=["duckdb", "postgres"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hub]:
    """Yield a hub whose warehouse, each of those that run here, holds some of Heap's tables."""
    from heap_integration_tests.support.warehouses import postgres_warehouse

    warehouse: Any = f"duckdb:///{tmp_path}/shop.duckdb"
    if request.param == "postgres":
        warehouse = postgres_warehouse(request.getfixturevalue("postgres_database"), "shop")
    environment = Environment.model_validate(
        {
            "name": "shop",
            "heap": {"app_id": "1"},
            "warehouse": warehouse,
            "hub_tables": f"duckdb:///{tmp_path}/own.duckdb",
            "store": f"sqlite:///{tmp_path}/shop.db",
            "heap_connect": {"s3": {"bucket": "s3://heap-rs3-shop"}},
            "models": {"account_property": "company"},
        }
    )
    hub = Hub(environment, f"sqlite:///{tmp_path}/shop.db")
    schema = environment.warehouse.schemas().heap_connect
    with hub.connect_warehouse() as connection:
        connection.run([f"create schema {schema}", *(filling(schema, name) for name in TABLES)])
    hub.publish()
    yield hub
    hub.close()


def filling(schema: str, name: str) -> str:
    columns, rows = TABLES[name]
    first, *others = rows
    named = ", ".join(
        f"{value.strip()} as {column.strip()}" for column, value in zip(columns.split(","), apart(first), strict=True)
    )
    return f"create table {schema}.{name} as select {named}" + "".join(f" union all select {row}" for row in others)


def apart(row: str) -> list[str]:
    return [part if part.strip() != "null" else "cast(null as text)" for part in row.split(", ")]


def built(hub: Hub) -> None:
    report = hub.models().build(["staging.heap", "+int_users"], as_of=date(2026, 1, 31))
    assert not report.failed, report.problems()


def rows(hub: Hub, sql: str) -> list[tuple[Any, ...]]:
    models = hub.environment.warehouse.schemas().models
    with hub.connect_warehouse() as connection:
        found = [row for batch in connection.batches(sql.format(models=models)) for row in batch.to_pylist()]
    return [tuple(row.values()) for row in found]


def test_the_models_know_each_event_once_and_of_the_user_whom_heap_has_made_of_another(hub: Hub) -> None:
    built(hub)
    events = rows(hub, "select event_id, user_id, session_id, event_name, arrived from {models}.int_events order by 1")
    assert events == [
        ("2", "20", "100", "Pageview", 2),
        ("3", "20", "200", "sign_up", 2),
        ("4", "30", "30/1767340800", "sign_up", 2),
    ]
    pages = rows(hub, "select page_url, gclid, page_title from {models}.int_events where event_id = '2'")
    assert pages == [("shop.io/a?gclid=XYZ&b=1", "XYZ", "A")]
    ((told,),) = rows(hub, "select properties from {models}.int_events where event_id = '3'")
    assert json.loads(told) == {"amount": "12.5", "remark": 'a "b" \\ c'}

    sessions = rows(
        hub,
        "select session_id, user_id, session_day, events, landing_page, utm_source, gclid"
        " from {models}.int_sessions where is_of_heap = 1 order by 1",
    )
    assert sessions == [
        ("100", "20", date(2026, 1, 2), 1, "https://shop.io/a?gclid=XYZ&b=1", "news", "XYZ"),
        ("200", "20", date(2026, 1, 2), 1, None, None, None),
        ("300", "30", date(2026, 1, 4), 0, None, None, None),
    ]
    users = rows(
        hub, "select user_id, email, account_id, plan_level, cast(joined_at as date) from {models}.int_users order by 1"
    )
    assert users == [
        ("20", "ann@shop.io", "Acme", "pro", date(2026, 1, 1)),
        ("30", "bob@shop.io", "Acme", "free", date(2026, 1, 2)),
    ]

    schema = hub.environment.warehouse.schemas().heap_connect
    with hub.connect_warehouse() as connection:
        connection.run([f"insert into {schema}.user_migrations values (30, 20, timestamp '2026-01-06 00:00:00')"])
    built(hub)
    assert {user for (user,) in rows(hub, "select user_id from {models}.int_events")} == {"20"}
    assert {user for (user,) in rows(hub, "select user_id from {models}.int_sessions")} == {"20"}
    days = rows(hub, "select user_id, day, sessions from {models}.int_user_days order by day")
    assert days == [("20", date(2026, 1, 2), 3), ("20", date(2026, 1, 3), 0), ("20", date(2026, 1, 4), 1)]
