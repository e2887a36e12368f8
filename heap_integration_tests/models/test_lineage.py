"""Columns are followed through a model's SQL to the tables they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from heap_integration.models.lineage import LineageNotes, Origin, column_lineage, plain

EVENTS = {"user_id": "VARCHAR", "day": "DATE", "events": "BIGINT"}
USERS = {"user_id": "VARCHAR", "plan": "VARCHAR"}
SQL = """
with counted as (
    select user_id, sum(events) as total from "hub"."models"."int_days" group by user_id
)
select counted.user_id, users.plan, counted.total * 2 as score, 'fixed' as kind
from counted left join "hub"."models"."int_users" as users on users.user_id = counted.user_id
"""
TABLES = {"hub.models.int_days": EVENTS, "hub.models.int_users": USERS}


def test_a_column_is_followed_through_joins_subqueries_and_functions() -> None:
    assert column_lineage(SQL, "duckdb", TABLES) == {
        "user_id": [Origin("hub.models.int_days", "user_id")],
        "plan": [Origin("hub.models.int_users", "plan")],
        "score": [Origin("hub.models.int_days", "events")],
    }


@pytest.mark.parametrize("sql", ["select definitely not sql from", "select '" + "x" * 30_000 + "' as a"])
def test_what_cannot_be_followed_has_no_lineage(sql: str) -> None:
    assert column_lineage(sql, "duckdb", TABLES) == {}


def test_what_was_followed_once_is_known_until_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "notes" / "lineage.json"
    first = LineageNotes(file)
    first.lineage(SQL, "duckdb", TABLES)
    first.keep()
    file.write_text(file.read_text().replace('"plan"]', '"as it was noted"]'))

    again = LineageNotes(file)
    assert again.lineage(SQL, "duckdb", TABLES)["plan"] == [Origin("hub.models.int_users", "as it was noted")]
    changed = again.lineage(SQL.replace("* 2", "+ length(users.plan)"), "duckdb", TABLES)
    assert changed["plan"] == [Origin("hub.models.int_users", "plan")]
    assert changed["score"] == [Origin("hub.models.int_days", "events"), Origin("hub.models.int_users", "plan")]


def test_a_name_is_told_apart_from_its_quotes() -> None:
    assert {plain(name) for name in ('"Hub"."m"."t"', "`hub`.`m`.`t`", "[hub].[m].[t]", "HUB.M.T")} == {"hub.m.t"}
