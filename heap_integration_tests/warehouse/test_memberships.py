"""Whole segments are compared in the warehouse."""

from __future__ import annotations

from pathlib import Path

from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.memberships import (
    Action,
    Question,
    find_difference,
    planned_changes,
    sample_difference,
    write_plan,
)

WANTED = "select 'user ' || i as identity, null::varchar as properties from range(2000000) t(i)"


def test_a_segment_of_two_million_is_compared_with_its_baseline(tmp_path: Path) -> None:
    warehouse = Warehouse(f"duckdb:///{tmp_path}/warehouse.duckdb")
    with warehouse.write(ample=True) as con:
        con.execute(
            "insert into sync_baseline select 'sync', 'user ' || i, true, null from range(20000, 2000010) t(i) "
            "union all select 'another', 'user ' || i, true, null from range(1000) t(i)"
        )
    question = Question("sync", WANTED)
    with warehouse.write(ample=True) as con:
        found = find_difference(con, question)
        positions = write_plan(con, question, found, adopts=False)
    assert (found.wanted, found.held, found.added, found.removed) == (2_000_000, 1_980_010, 20_000, 10)
    assert found.unchanged == 1_980_000
    assert positions == range(20_010)
    with warehouse.read() as con:
        pieces = [planned_changes(con, "sync", range(start, start + 10_000)) for start in range(0, 20_010, 10_000)]
    assert [len(piece[0]) for piece in pieces] == [10_000, 10_000, 10]
    assert len({key for piece in pieces for key in piece[0]}) == 20_010


def test_only_the_parameters_of_a_question_are_filled_in(tmp_path: Path) -> None:
    sql = """
    select '$name''s "$name"' as identity, "$column" as properties
    from (select $name as "$column") where $name is not null and $names = ['a', 'b']
    """
    question = Question("sync", sql, {"name": "ann $names", "names": ["a", "b"]})
    with Warehouse(f"duckdb:///{tmp_path}/warehouse.duckdb").read(ample=True) as con:
        assert find_difference(con, question).added == 1
        (planned,) = sample_difference(con, Action.ADD, 5)
    assert (planned.identity, planned.properties) == ('$name\'s "$name"', "ann $names")
