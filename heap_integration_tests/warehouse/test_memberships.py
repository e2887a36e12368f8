"""Whole segments are compared in the warehouse."""

from __future__ import annotations

from pathlib import Path

from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.memberships import Difference, member_count, plan_sync


def test_a_segment_of_two_million_is_compared_with_its_baseline(tmp_path: Path) -> None:
    warehouse = Warehouse(f"duckdb:///{tmp_path}/warehouse.duckdb")
    with warehouse.write(ample=True) as con:
        con.execute("insert into segment_changes select 7, 's', 'user ' || i, true, 1.0, 1 from range(2000000) t(i)")
        con.execute("insert into sync_baseline select 'sync', 'user ' || i from range(20000, 2000010) t(i)")
    with warehouse.write(ample=True) as con:
        assert member_count(con, 7) == 2_000_000
        assert plan_sync(con, "sync", 7, remove=True) == Difference(added=20_000, removed=10, unchanged=1_980_000)
