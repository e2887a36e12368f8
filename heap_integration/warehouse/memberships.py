"""Memberships in the warehouse: what Heap reported, what a destination has acknowledged, the difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

# Deltas may arrive late or twice: somebody is a member if the newest word about them says so. The
# empty identity stands for everybody: Heap has drained the segment.
MEMBERS = """
select identity from segment_changes
where segment_id = $segment and identity <> '' and task_order > coalesce(
    (select max(task_order) from segment_changes where segment_id = $segment and identity = ''), -1
)
group by identity
having arg_max(member, row(task_order, page_number, member))
"""

# The key is derived from the change, so a sync that died and starts again names it alike.
PLAN = f"""
insert into sync_plan
with wanted as ({MEMBERS})
select $sync,
       md5(concat_ws(chr(31), $sync, member::varchar, identity))::uuid,
       identity,
       member
from (
    select coalesce(wanted.identity, baseline.identity) as identity, baseline.identity is null as member
    from wanted full join (select identity from sync_baseline where sync = $sync) as baseline using (identity)
    where wanted.identity is null or baseline.identity is null
)
where member or $remove
"""


@dataclass(frozen=True)
class Difference:
    """How far a destination is from what is wanted."""

    added: int
    removed: int
    unchanged: int


def segment_ids(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Return the segments Heap has told of, by the name each had last."""
    rows = con.execute(
        "select arg_max(segment_name, task_order), segment_id from segment_changes group by segment_id"
    ).fetchall()
    return {str(name): int(segment) for name, segment in rows}


def member_count(con: duckdb.DuckDBPyConnection, segment: int) -> int:
    """Return how many members a segment has."""
    row = con.execute(f"select count(*) from ({MEMBERS})", {"segment": segment}).fetchone()
    return int(row[0]) if row else 0


def forget_plan(con: duckdb.DuckDBPyConnection, sync: str) -> None:
    """Forget the changes that were planned for a sync."""
    con.execute("delete from sync_plan where sync = ?", [sync])


def plan_sync(con: duckdb.DuckDBPyConnection, sync: str, segment: int, *, remove: bool) -> Difference:
    """Write the difference between a segment and its baseline into ``sync_plan``, and count it."""
    forget_plan(con, sync)
    con.execute(PLAN, {"sync": sync, "segment": segment, "remove": remove})
    row = con.execute(
        """
        select count(*) filter (where member), count(*) filter (where not member),
               (select count(*) from sync_baseline where sync = $sync)
        from sync_plan where sync = $sync
        """,
        {"sync": sync},
    ).fetchone()
    added, removed, baseline = (int(value) for value in row or (0, 0, 0))
    return Difference(added, removed, baseline - removed)


def planned_changes(con: duckdb.DuckDBPyConnection, sync: str) -> pa.Table:
    """Return the planned changes of a sync: record key (16 bytes), identity, member."""
    return con.execute(
        "select record_key::blob as record_key, identity, member from sync_plan where sync = ? order by identity",
        [sync],
    ).to_arrow_table()


def settle_memberships(con: duckdb.DuckDBPyConnection, sync: str) -> None:
    """Move the baseline by the accepted outcomes of the temporary table ``settling``."""
    con.execute(
        """
        insert into sync_changes
        select $sync,
               count(distinct plan.identity) filter (where plan.member and baseline.identity is null),
               count(distinct plan.identity) filter (where not plan.member and baseline.identity is not null),
               now()::timestamp
        from settling
        join sync_plan as plan on plan.record_key = settling.key
        left join sync_baseline as baseline on baseline.sync = plan.sync and baseline.identity = plan.identity
        where plan.sync = $sync and settling.status = 1
        """,
        {"sync": sync},
    )
    con.execute(
        """
        delete from sync_baseline where sync = $sync and identity in (
            select plan.identity from settling join sync_plan as plan on plan.record_key = settling.key
            where plan.sync = $sync and settling.status = 1
        )
        """,
        {"sync": sync},
    )
    con.execute(
        """
        insert into sync_baseline
        select distinct plan.sync, plan.identity from settling join sync_plan as plan on plan.record_key = settling.key
        where plan.sync = $sync and settling.status = 1 and plan.member
        """,
        {"sync": sync},
    )


def record_run(con: duckdb.DuckDBPyConnection, sync: str, counts: tuple[int, int, int, int, int]) -> None:
    """Keep the counts of a finished sync: added, removed, unchanged, rejected, pending."""
    con.execute("insert into sync_runs values (?, now()::timestamp, ?, ?, ?, ?, ?)", [sync, *counts])


def acknowledged_changes(con: duckdb.DuckDBPyConnection, sync: str | None = None) -> tuple[int, int]:
    """Return how many entered and left since the beginning, by a destination's acknowledgement."""
    row = con.execute(
        "select coalesce(sum(added), 0), coalesce(sum(removed), 0) from sync_changes "
        "where sync = coalesce($sync, sync)",
        {"sync": sync},
    ).fetchone()
    added, removed = (int(value) for value in row or (0, 0))
    return added, removed


def baseline_size(con: duckdb.DuckDBPyConnection) -> int:
    """Return how many memberships all destinations have acknowledged."""
    row = con.execute("select count(*) from sync_baseline").fetchone()
    return int(row[0]) if row else 0


def last_runs(con: duckdb.DuckDBPyConnection) -> list[dict[str, object]]:
    """Return the last run of each sync with its counts."""
    cursor = con.execute(
        "select * from sync_runs "
        "qualify row_number() over (partition by sync order by finished_at desc) = 1 order by sync"
    )
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def sync_history(con: duckdb.DuckDBPyConnection, sync: str, runs: int = 30) -> list[tuple[str, int]]:
    """Return when the last syncs finished and how many changes each had, oldest first."""
    rows = con.execute(
        "select strftime(finished_at, '%m-%d %H:%M'), added + removed from sync_runs where sync = ? "
        "order by finished_at desc limit ?",
        [sync, runs],
    ).fetchall()
    return [(str(moment), int(changes)) for moment, changes in reversed(rows)]


@dataclass(frozen=True)
class Apart:
    """How far a baseline is from its segment, and how much of that the last sync could not settle."""

    numbers: dict[str, int]
    explained: bool


def apart(con: duckdb.DuckDBPyConnection, sync: str, segment: int | None, *, remove: bool) -> Apart:
    """Compare a baseline with its segment, member by member.

    A difference is explained where the last sync counted as many changes as rejected or pending.
    """
    if segment is None:
        return Apart({"baseline": 0, "missing": 0, "superfluous": 0, "unsettled": 0}, explained=True)
    row = con.execute(
        f"""
        with wanted as ({MEMBERS}), baseline as (select identity from sync_baseline where sync = $sync)
        select (select count(*) from baseline),
               (select count(*) from (from wanted except from baseline)),
               (select count(*) from (from baseline except from wanted)),
               coalesce((select arg_max(rejected + pending, finished_at) from sync_runs where sync = $sync), 0)
        """,
        {"segment": segment, "sync": sync},
    ).fetchone()
    held, missing, superfluous, unsettled = (int(value) for value in row or (0, 0, 0, 0))
    numbers = {"baseline": held, "missing": missing, "superfluous": superfluous, "unsettled": unsettled}
    return Apart(numbers, explained=missing + (superfluous if remove else 0) <= unsettled)
