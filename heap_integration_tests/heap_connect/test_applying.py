"""The statements that apply a table can be read by every system that they are for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import pytest
import sqlglot

from heap_integration.heap.connect_dumps import DumpTable
from heap_integration.heap_connect.applying import Arriving, LostColumns, Plan, Target
from heap_integration.heap_connect.staging import StagedTable
from heap_integration.warehouse.systems.system import Dialect

DIALECTS: tuple[Dialect, ...] = get_args(Dialect)


class ThreeEvents:
    """A warehouse in which the table ``click`` has three events; two of them arrive again."""

    def __init__(self, there: bool) -> None:
        self.there = there

    def columns(self, table: str) -> dict[str, str]:
        """Return the columns."""
        return (
            {"event_id": "bigint", "Order": "varchar", "seats": "bigint", "_hub_dump": "bigint"} if self.there else {}
        )

    def row(self, sql: str) -> Sequence[Any]:
        """Return how many there are, or how many of them arrive."""
        return [2 if " where " in sql else 3]


def plan(dialect: Dialect, *, incremental: bool = True, there: bool = True, lost: LostColumns = "keep") -> Plan:
    """Plan a table with a new column, one of another type, and one that is lost."""
    table = DumpTable("click", ("event_id", "seats", "plan"), (), incremental)
    staged = StagedTable(table, {"event_id": "bigint", "seats": "text", "plan": "boolean"}, ("x",), 4, 4, 0, 0, "", 10)
    types = {"event_id": "bigint", "seats": "varchar(10)", "plan": "boolean" if dialect != "tsql" else "bit"}
    return Target(ThreeEvents(there), "shop_heap_connect", dialect, lost).plan(Arriving(staged, "source", types), 7)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("incremental", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_every_statement_is_sql_of_its_system(dialect: Dialect, incremental: bool, there: bool) -> None:
    planned = plan(dialect, incremental=incremental, there=there, lost="drop")
    statements = [*planned.before, *planned.together, *planned.after]
    assert statements
    for statement in statements:
        # sqlglot has no word for Synapse's own way to rename a table
        if not statement.startswith("rename object"):
            sqlglot.parse_one(statement, dialect=dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_rows_change_in_the_transaction_and_columns_only_where_it_can_hold_them(dialect: Dialect) -> None:
    planned = plan(dialect, lost="drop")
    for statement in (*planned.before, *planned.after):
        assert not statement.startswith(("delete", "insert"))
    if dialect in ("bigquery", "snowflake", "tsql"):
        assert [statement.split()[0] for statement in planned.together] == ["delete", "insert"]
        assert all("drop column" in statement for statement in planned.after)
    else:
        assert (planned.before, planned.after) == ([], [])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_counts_and_changes_are_the_same_everywhere(dialect: Dialect) -> None:
    told = plan(dialect).report
    assert (told.inserted, told.updated, told.rows) == (2, 2, 5)
    assert (told.gained, told.lost, told.retyped) == (("plan",), ("Order",), ("seats",))
    whole = plan(dialect, incremental=False).report
    assert (whole.inserted, whole.updated, whole.removed, whole.rows) == (4, 0, 3, 4)
