from __future__ import annotations

import pytest

from heap_integration.warehouse.systems.system import QueryError
from heap_integration.warehouse.systems.turns import in_turns, must_read


def test_changes_of_rows_stand_together_with_tables_made_before_and_dropped_after() -> None:
    turns = in_turns(
        [
            "create table if not exists notes (dump int)",
            "delete from users",
            "create table staged as select 1 as user_id",
            "insert into users select user_id from staged",
            "alter table users add column plan text",
            "drop table staged",
            "insert into notes values (1)",
        ],
        "snowflake",
    )
    assert [statement.split()[0] for statement in turns.before] == ["create", "create", "alter"]
    assert [statement.split()[0] for statement in turns.together] == ["delete", "insert", "insert"]
    assert [statement.split()[0] for statement in turns.after] == ["drop"]


def test_tables_alone_change_in_the_order_that_is_asked_for() -> None:
    statements = [
        "drop table if exists users",
        "create table users as select 1 as n",
        "alter table users rename to old",
    ]
    assert in_turns(statements, "snowflake").before == statements


@pytest.mark.parametrize(
    "statements",
    [
        ["delete from notes", "drop table users", "create table users (n int)"],
        ["delete from notes", "alter table staged rename to users"],
        ["delete from users", "create table kept as select * from users"],
        ["delete from notes", "truncate table users"],
        ["selec 1 fro"],
    ],
    ids=["dropped and made again", "renamed", "made of what has changed", "truncated", "unreadable"],
)
def test_an_order_that_cannot_be_kept_is_refused(statements: list[str]) -> None:
    with pytest.raises(QueryError):
        in_turns(statements, "snowflake")


@pytest.mark.parametrize(
    "statement",
    [
        "insert into users select 1",
        "with one as (select 1 as n) insert into users select n from one",
        "select 1 as n into copies",
        "create table copies as select 1 as n",
        "call cleaned()",
        "merge into users using staged on users.id = staged.id when matched then delete",
    ],
)
@pytest.mark.parametrize("dialect", ["snowflake", "redshift", "tsql"])
def test_what_changes_something_is_no_query(statement: str, dialect: str) -> None:
    with pytest.raises(QueryError):
        must_read(statement, dialect)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "statement", ["select 1", "with a as (select 1 as n) select * from a", "select 1 union all select 2"]
)
def test_a_query_is_one(statement: str) -> None:
    must_read(statement, "snowflake")
