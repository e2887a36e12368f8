"""Syncs in the warehouse: the difference between what is wanted and what is acknowledged, and what became of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal

from heap_integration.delivery.records import UNKNOWN_THERE

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

Removes = Literal["own", "all"]
Mode = Literal["mirror", "add_only", "update_only", "drain"]

NOBODY = "select null::varchar as identity, null::varchar as properties where false"


class Action(IntEnum):
    """What a planned row asks for; the values are those in the tables.

    ADD tells everything that is wanted. Where something was acknowledged before (a full resync, or a change that
    may have arrived or not) that is ``previous``, for what counts from there, as the growth of a number; it leaves
    nothing out. UPDATE tells what differs from ``previous``. REMOVE takes away ``previous``.
    """

    ADD = 1
    REMOVE = 2
    UPDATE = 3


# Who leaves and isn't removed: stays in the baseline, or goes out of it and stays at the destination.
_STAYS, _RELEASED = 0, 4
# Whether these changes arrived isn't known, and nothing is told of them now: they wait below all positions.
_UNDECIDED = f"select identity from difference where action = {_STAYS} and record_key is not null"

# Both sides of a sync are joined once, whatever their size. The text of the properties is the comparison.
_DIFFERENCE = """
create or replace temp table difference as
select identity,
       case when is_wanted and not held then 1
            when is_wanted and getvariable('this_full') then 1
            when is_wanted then 3
            when getvariable('this_stays') then 0
            when owned or getvariable('this_all') then 2
            else 4 end::utinyint as action,
       properties, acknowledged as previous, is_wanted, held, null::uuid as record_key
from (
    select coalesce(wanted.identity, baseline.identity) as identity, wanted.identity is not null as is_wanted,
           baseline.identity is not null as held, wanted.properties, baseline.properties as acknowledged, owned
    from ({wanted}) as wanted full join ({baseline}) as baseline on wanted.identity = baseline.identity
    where wanted.identity is null or baseline.identity is null or getvariable('this_full')
       or wanted.properties is distinct from baseline.properties
)
"""

_PARAMETER = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(\w+)""")
_BASELINE = "select identity, owned, properties from sync_baseline where sync = getvariable('this_sync')"
_HANDED_OUT = "from sync_plan where sync = getvariable('this_sync') and position < getvariable('this_mark')"
_ADOPTED = "select identity, false as owned, null::varchar as properties from adopted"

# A change that was handed out and has no outcome may have arrived or not. Whoever it is about is told again
# what is wanted now, also where that is what was acknowledged last; under the same key where it is the same change.
# Entries of a list that may have arrived count as previous: else nobody would ever take them away.
_DOUBTS = """
create or replace temp table doubts as
with doubt as (
    select identity, any_value(record_key) as record_key, any_value(action) as told,
           any_value(properties) as told_properties, any_value(previous) as told_previous
    from ({doubts}) group by identity
), now as (
    select doubt.*, wanted.identity is not null as is_wanted, wanted.properties,
           baseline.identity is not null as held, baseline.properties as acknowledged,
           coalesce(baseline.owned, guests.identity is null) as owned
    from doubt
    left join sync_guests as guests on guests.sync = getvariable('this_sync') and guests.identity = doubt.identity
    left join ({wanted}) as wanted on wanted.identity = doubt.identity
    left join ({baseline}) as baseline on baseline.identity = doubt.identity
), decided as (
    select *,
           case when is_wanted and held and told = 3 and properties is not distinct from told_properties
                     and acknowledged is not distinct from told_previous and not getvariable('this_full') then 3
                when is_wanted then 1
                when getvariable('this_stays') then 0
                when owned or getvariable('this_all') then 2
                else 4 end::utinyint as action
    from now
), told_attributes as (
    select identity, action, source, unnest(json_keys(text)) as name, unnest(json_extract(text, '$.*')) as value
    from (
        select identity, action, 1 as source, acknowledged as text from decided
        union all
        select identity, action, 2, told_properties from decided where properties is distinct from told_properties
        union all
        select identity, action, 3, told_previous from decided
    )
    where json_type(text) = 'OBJECT'
), attributes as (
    select identity, action, name, any_value(value) filter (source = 1) as acknowledged,
           min_by(value, source) filter (json_type(value) <> 'NULL') as value,
           list_sort(list_distinct(flatten(list(json_extract(value, '$[*]')) filter (json_type(value) = 'ARRAY'))))
               as entries
    from told_attributes group by all
), kept as (
    select identity, name,
           case when json_type(acknowledged) not in ('ARRAY', 'NULL') then acknowledged
                when entries is not null then to_json(entries)
                when action = 2 then coalesce(value, 'null'::json)
                else acknowledged end as value
    from attributes
), before as (
    select identity, '{{' || string_agg(to_json(name) || ':' || value, ',' order by name) || '}}' as previous
    from kept where value is not null group by identity
), planned as (
    select decided.*, case when action = 3 then acknowledged else before.previous end as previous
    from decided left join before using (identity)
)
select identity, action, properties, previous, is_wanted, held,
       case when action = told and properties is not distinct from told_properties
                 and previous is not distinct from told_previous then record_key else uuid() end as record_key
from planned
"""

_COUNTS = """
select count(*) filter (where held and not is_wanted),
       count(*) filter (where is_wanted and not held),
       count(*) filter (where held),
       count(*) filter (where action = 0 and held),
       count(*) filter (where action = 1 and not held),
       count(*) filter (where action = 2),
       count(*) filter (where action = 3),
       count(*) filter (where action = 1 and held),
       count(*) filter (where action = 2 and not held),
       count(*) filter (where record_key is not null and action in (1, 2, 3))
from difference
"""

_PLAN = """
insert into sync_plan
select $sync, $first + row_number() over () - 1, coalesce(record_key, uuid()), identity, action, properties, previous,
       $doubtful
from difference where action in (1, 2, 3) and (record_key is not null) = $doubtful
"""


@dataclass(frozen=True)
class Question:
    """What a sync asks of the warehouse.

    ``sql`` yields ``identity`` and ``properties`` of who or what is wanted, with ``parameters`` like ``$name``.
    ``full`` plans everything that is wanted again, ``only`` one identity. ``mark`` is the position below which planned
    changes were handed out and may have been sent.
    """

    sync: str
    sql: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    mode: Mode = "mirror"
    removes: Removes = "own"
    full: bool = False
    only: str | None = None
    mark: int = 0


@dataclass(frozen=True)
class Difference:
    """How far a destination is from what is wanted.

    ``held`` is who is there now, as far as is known; ``added``, ``removed`` and ``updated`` are planned changes,
    ``again`` those that tell once more what was acknowledged or may have arrived. ``unchanged`` needs nothing.
    ``ghosts`` of the removals are about somebody of whom it isn't known whether they arrived.
    """

    wanted: int = 0
    held: int = 0
    added: int = 0
    removed: int = 0
    updated: int = 0
    again: int = 0
    unchanged: int = 0
    ghosts: int = 0
    doubtful: int = 0

    @property
    def planned(self) -> int:
        """Changes to tell."""
        return self.added + self.removed + self.updated + self.again


@dataclass(frozen=True)
class Planned:
    """One planned change: what is wanted, and what was acknowledged before, as JSON texts."""

    identity: str
    action: Action
    properties: str | None
    previous: str | None


def is_new(con: duckdb.DuckDBPyConnection, sync: str) -> bool:
    """Return whether a sync has never had anything to do with its destination."""
    row = con.execute(
        """
        select exists (from sync_adoptions where sync = $sync) or exists (from sync_baseline where sync = $sync)
            or exists (from sync_plan where sync = $sync)
        """,
        {"sync": sync},
    ).fetchone()
    return not (row and row[0])


def find_difference(
    con: duckdb.DuckDBPyConnection, question: Question, existing: pa.RecordBatchReader | None = None
) -> Difference:
    """Compare what is wanted with what is acknowledged; the result waits in temporary tables for ``write_plan``.

    ``existing`` (a column ``identity``) is who was at the destination before a sync that is new: those who are wanted,
    or all where the sync removes all, count as acknowledged and not as our own.
    """
    everybody = NOBODY if question.mode == "drain" else _bound(con, question)
    wanted = _narrowed(question, everybody)
    rules = {
        "sync": question.sync,
        "stays": question.mode == "add_only",
        "all": question.removes == "all",
        "full": question.full,
        "only": question.only,
        "mark": question.mark,
    }
    for name, value in rules.items():
        con.execute(f"set variable this_{name} = ?", [value])
    if existing is not None:
        # In a test with one user the others were there before, too.
        _find_adopted(con, question, everybody, existing)
    baseline = _narrowed(question, _BASELINE if existing is None else _ADOPTED)
    con.execute(_DIFFERENCE.format(wanted=wanted, baseline=baseline))
    if con.execute(f"select exists ({_HANDED_OUT})").fetchone() == (True,):
        con.execute(_DOUBTS.format(wanted=wanted, baseline=baseline, doubts=_narrowed(question, _HANDED_OUT)))
        con.execute("delete from difference where identity in (select identity from doubts)")
        con.execute("insert into difference by name select * from doubts")
    return _counted(con, con.execute(f"select count(*) from ({baseline})").fetchone())


def _bound(con: duckdb.DuckDBPyConnection, question: Question) -> str:
    """Return the question with its parameters as variables: DuckDB plans by their values, a third faster."""
    for name, value in question.parameters.items():
        con.execute(f'set variable "wanted_{name}" = ?', [value])
    return _PARAMETER.sub(lambda found: f"getvariable('wanted_{found[1]}')" if found[1] else found[0], question.sql)


def _narrowed(question: Question, sql: str) -> str:
    return sql if question.only is None else f"select * from ({sql}) where identity = getvariable('this_only')"


def _find_adopted(
    con: duckdb.DuckDBPyConnection, question: Question, wanted: str, existing: pa.RecordBatchReader
) -> None:
    con.register("existing", existing)
    con.execute("create or replace temp table guests as select distinct identity from existing")
    con.unregister("existing")
    only = "" if question.removes == "all" else f" where identity in (select identity from ({wanted}))"
    con.execute(f"create or replace temp table adopted as select identity from guests{only}")


def _counted(con: duckdb.DuckDBPyConnection, held: tuple[Any, ...] | None) -> Difference:
    row = con.execute(_COUNTS).fetchone()
    there = int(held[0]) if held else 0
    leaving, entering, touched, staying, added, removed, updated, again, ghosts, doubtful = map(int, row or [0] * 10)
    return Difference(
        wanted=there - leaving + entering,
        held=there,
        added=added,
        removed=removed,
        updated=updated,
        again=again,
        unchanged=there - touched + staying,
        ghosts=ghosts,
        doubtful=doubtful,
    )


def write_plan(con: duckdb.DuckDBPyConnection, question: Question, found: Difference, *, adopts: bool) -> range:
    """Write what ``find_difference`` found, and return the positions of the planned changes.

    Changes in doubt stand before ``mark``, new ones follow from it on.
    """
    sync, mark = question.sync, question.mark
    if adopts:
        con.execute("insert into sync_adoptions select ?, count(*), now()::timestamp from adopted", [sync])
        con.execute("insert into sync_guests select ?, identity from guests", [sync])
        con.execute("insert into sync_baseline select ?, identity, false, null from adopted", [sync])
    if question.only is None:
        con.execute(f"delete from sync_plan where sync = ? and identity not in ({_UNDECIDED})", [sync])
        con.execute("delete from sync_rejections where sync = ?", [sync])
    else:
        con.execute(
            "delete from sync_plan where sync = ? and (position >= ? or identity = ?) "
            f"and identity not in ({_UNDECIDED})",
            [sync, mark, question.only],
        )
        con.execute("delete from sync_rejections where sync = ? and identity = ?", [sync, question.only])
    con.execute(
        f"""
        delete from sync_baseline
        where sync = ? and identity in (select identity from difference where action = {_RELEASED})
        """,
        [sync],
    )
    con.execute(f"update sync_plan set position = -1 where sync = ? and identity in ({_UNDECIDED})", [sync])
    first = mark - found.doubtful
    if found.doubtful:
        con.execute(_PLAN, {"sync": sync, "first": first, "doubtful": True})
    con.execute(_PLAN, {"sync": sync, "first": mark, "doubtful": False})
    return range(first, first + found.planned)


def sample_difference(con: duckdb.DuckDBPyConnection, action: Action, samples: int) -> list[Planned]:
    """Return a few of the changes that ``find_difference`` found."""
    rows = con.execute(
        "select identity, properties, previous from difference where action = ? order by identity limit ?",
        [int(action), samples],
    ).fetchall()
    return [Planned(identity, action, properties, previous) for identity, properties, previous in rows]


def planned_changes(
    con: duckdb.DuckDBPyConnection, sync: str, positions: range, only: str | None = None
) -> tuple[Sequence[Any], ...]:
    """Return keys (16 bytes), identities, actions, properties and previous ones of planned changes, in their order."""
    table = con.execute(
        """
        select record_key::blob as record_key, identity, action, properties, previous from sync_plan
        where sync = $sync and position >= $first and position < $stop and ($only is null or identity = $only)
        order by position
        """,
        {"sync": sync, "first": positions.start, "stop": positions.stop, "only": only},
    ).to_arrow_table()
    return tuple(column.to_pylist() for column in table.columns)


def settle_sync(con: duckdb.DuckDBPyConnection, sync: str) -> None:
    """Move the baseline by the accepted outcomes of the temporary table ``settling``; keep why others were refused.

    What has an outcome leaves the plan. But a refusal says nothing of what may have arrived before, unless nobody is
    known there: a change that was in doubt stays so.
    """
    _find_settled(con, sync)
    con.execute(
        """
        insert into sync_changes
        select $sync,
               count(*) filter (where action in (1, 3) and not held),
               count(*) filter (where action = 2 and held),
               count(*) filter (where action in (1, 3) and held and properties is distinct from acknowledged),
               now()::timestamp
        from settled where status = 1 having count(*) > 0
        """,
        {"sync": sync},
    )
    con.execute(
        "insert into sync_rejections select ?, identity, action, reason, now()::timestamp from settled "
        "where status = 2",
        [sync],
    )
    _move_baseline(con, sync)


def settle_silently(con: duckdb.DuckDBPyConnection, sync: str, keys: pa.Table) -> None:
    """Let the baseline take planned changes (a column ``key`` of 16 bytes) that leave nothing to tell."""
    con.register("silent", keys)
    con.execute(
        "create or replace temp table settling as "
        "select key::blob::uuid as key, 1::utinyint as status, '' as reason, 0::bigint as position from silent"
    )
    con.unregister("silent")
    _find_settled(con, sync)
    _move_baseline(con, sync)


def _find_settled(con: duckdb.DuckDBPyConnection, sync: str) -> None:
    con.execute(
        """
        create or replace temp table settled as
        select plan.record_key, plan.identity, plan.action, plan.properties, plan.doubtful, news.status, news.reason,
               baseline.identity is not null as held, baseline.properties as acknowledged
        from (
            select key, arg_max(status, position) as status, arg_max(reason, position) as reason
            from settling group by key
        ) as news
        join (from sync_plan where sync = $sync) as plan on plan.record_key = news.key
        left join (from sync_baseline where sync = $sync) as baseline on baseline.identity = plan.identity
        """,
        {"sync": sync},
    )


def _move_baseline(con: duckdb.DuckDBPyConnection, sync: str) -> None:
    con.execute(
        "delete from sync_baseline where sync = ? "
        "and identity in (select identity from settled where status = 1 and action = 2 and held)",
        [sync],
    )
    con.execute(
        """
        update sync_baseline set properties = settled.properties from settled
        where sync_baseline.sync = ? and settled.identity = sync_baseline.identity
          and settled.status = 1 and settled.action in (1, 3) and settled.held
          and settled.properties is distinct from settled.acknowledged
        """,
        [sync],
    )
    con.execute(
        """
        insert into sync_baseline
        select $sync, identity, identity not in (select identity from sync_guests where sync = $sync),
               any_value(properties)
        from settled where status = 1 and action in (1, 3) and not held group by identity
        """,
        {"sync": sync},
    )
    con.execute(
        """
        delete from sync_plan where sync = ? and record_key in (
            select record_key from settled where status <> 2 or not doubtful or starts_with(reason, ?)
        )
        """,
        [sync, UNKNOWN_THERE],
    )


@dataclass(frozen=True)
class Matched:
    """What the source of a sync says of itself: who could not be mapped to an id there, and when it last changed.

    ``ambiguous`` have several ids there, ``placeholders`` are identities like "undefined". ``changed_at`` is in UTC.
    """

    unmapped: int = 0
    ambiguous: int = 0
    placeholders: int = 0
    changed_at: datetime | None = None


@dataclass(frozen=True)
class SyncRun:
    """The counts of one finished sync; ``unknown`` of the rejected are not known at the destination."""

    wanted: int
    held: int
    added: int
    removed: int
    updated: int
    unchanged: int
    rejected: int
    pending: int
    unknown: int


def record_run(con: duckdb.DuckDBPyConnection, sync: str, run: SyncRun, matched: Matched) -> None:
    """Keep the counts of a finished sync."""
    changed_at = matched.changed_at
    if changed_at is not None and changed_at.tzinfo is not None:
        changed_at = changed_at.astimezone(UTC).replace(tzinfo=None)
    con.execute(
        """
        insert into sync_runs by name
        select $sync as sync, now()::timestamp as finished_at, $wanted as wanted, $held as held, $added as added,
               $removed as removed, $updated as updated, $unchanged as unchanged, $rejected as rejected,
               $pending as pending, $unknown as unknown, $unmapped as unmapped, $ambiguous as ambiguous,
               $placeholders as placeholders, $changed_at::timestamp as source_changed_at
        """,
        {
            "sync": sync,
            **vars(run),
            "unmapped": matched.unmapped,
            "ambiguous": matched.ambiguous,
            "placeholders": matched.placeholders,
            "changed_at": changed_at,
        },
    )


def finish_drain(con: duckdb.DuckDBPyConnection, sync: str) -> None:
    """Let a sync that has been drained to the end begin anew: whoever is there from now on isn't its own."""
    for table in ("sync_adoptions", "sync_guests"):
        con.execute(
            f"""
            delete from {table} where sync = $sync
               and not exists (from sync_baseline where sync = $sync) and not exists (from sync_plan where sync = $sync)
            """,
            {"sync": sync},
        )


def acknowledged_changes(con: duckdb.DuckDBPyConnection, sync: str | None = None) -> tuple[int, int, int]:
    """Return how many entered, left and changed since the beginning, by a destination's acknowledgement."""
    row = con.execute(
        """
        select coalesce(sum(added), 0), coalesce(sum(removed), 0), coalesce(sum(updated), 0) from sync_changes
        where sync = coalesce($sync, sync)
        """,
        {"sync": sync},
    ).fetchone()
    added, removed, updated = map(int, row or (0, 0, 0))
    return added, removed, updated


def baseline_size(con: duckdb.DuckDBPyConnection, sync: str | None = None) -> int:
    """Return how many a destination has acknowledged, or all destinations together."""
    row = con.execute(
        "select count(*) from sync_baseline where sync = coalesce($sync, sync)", {"sync": sync}
    ).fetchone()
    return int(row[0]) if row else 0


def last_runs(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Return the last run of each sync with its counts."""
    cursor = con.execute(
        "select * from sync_runs "
        "qualify row_number() over (partition by sync order by finished_at desc) = 1 order by sync"
    )
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@dataclass(frozen=True)
class PastRun:
    """One point of a sync's history: when it finished (UTC), how many were there then, how many had changed."""

    finished_at: datetime
    held: int
    added: int
    removed: int
    updated: int
    source_changed_at: datetime | None = None


def sync_history(con: duckdb.DuckDBPyConnection, sync: str, runs: int = 30) -> list[PastRun]:
    """Return the last runs of a sync, oldest first."""
    rows = con.execute(
        "select finished_at, held, added, removed, updated, source_changed_at from sync_runs where sync = ? "
        "order by finished_at desc limit ?",
        [sync, runs],
    ).fetchall()
    return [PastRun(*row) for row in reversed(rows)]


@dataclass(frozen=True)
class Rejection:
    """Somebody whom the destination refused in the last run, and why."""

    identity: str
    action: Action
    reason: str


def rejections(con: duckdb.DuckDBPyConnection, sync: str, limit: int = 100) -> list[Rejection]:
    """Return whom the destination refused in the last run of a sync."""
    rows = con.execute(
        "select identity, action, reason from sync_rejections where sync = ? order by identity limit ?", [sync, limit]
    ).fetchall()
    return [Rejection(identity, Action(action), reason) for identity, action, reason in rows]


@dataclass(frozen=True)
class KnownSync:
    """A sync that the warehouse knows; ``held`` is how many its destination has acknowledged."""

    sync: str
    held: int
    finished_at: datetime | None


def known_syncs(con: duckdb.DuckDBPyConnection) -> list[KnownSync]:
    """Return every sync that has ever run, also those that are no longer configured."""
    rows = con.execute(
        """
        select sync, coalesce(held, 0), finished_at
        from (select sync, count(*) as held from sync_baseline group by sync)
        full join (select sync, max(finished_at) as finished_at from sync_runs group by sync) using (sync)
        order by sync
        """
    ).fetchall()
    return [KnownSync(*row) for row in rows]


def forget(con: duckdb.DuckDBPyConnection, sync: str) -> None:
    """Forget all of a sync; its members stay at the destination and are nobody's from then on."""
    for table in ("baseline", "plan", "rejections", "changes", "runs", "adoptions", "guests"):
        con.execute(f"delete from sync_{table} where sync = ?", [sync])


@dataclass(frozen=True)
class Apart:
    """How far a baseline is from what is wanted, and how much of that was refused or is pending (``unsettled``)."""

    numbers: dict[str, int]
    explained: bool


def apart(con: duckdb.DuckDBPyConnection, sync: str, question: Question | None) -> Apart:
    """Compare what is acknowledged with what is wanted, one by one.

    A difference is explained where the very same identity was refused or is pending. Without a question (the source
    has told nothing) nobody may be there: a source that had told something is gone, or has another name.
    """
    if question is None:
        held = baseline_size(con, sync)
        numbers = dict.fromkeys(("baseline", "missing", "superfluous", "different", "unsettled"), 0)
        return Apart({**numbers, "baseline": held}, explained=not held)
    found = find_difference(con, question)
    row = con.execute(
        """
        select count(*) from difference where (action in (2, 3) or action = 1 and not held) and identity in (
            select identity from sync_rejections where sync = $sync
            union all
            select identity from sync_plan where sync = $sync
        )
        """,
        {"sync": sync},
    ).fetchone()
    unsettled = int(row[0]) if row else 0
    numbers = {
        "baseline": found.held,
        "missing": found.added,
        "superfluous": found.removed,
        "different": found.updated,
        "unsettled": unsettled,
    }
    return Apart(numbers, explained=found.added + found.removed + found.updated == unsettled)


def segment_named(con: duckdb.DuckDBPyConnection, name: str) -> int | None:
    """Return Heap's id of the segment that had a name last, ``None`` where Heap has told of none.

    Raises:
        ValueError: several have it that were not switched off.
    """
    rows = con.execute(
        "select segment_id, told_at > drained_at from heap_segments where name = ? order by told_at desc", [name]
    ).fetchall()
    live = [int(segment) for segment, is_live in rows if is_live]
    if len(live) > 1:
        raise ValueError(
            f"Heap has told of {len(live)} segments called {name!r} ({', '.join(map(str, sorted(live)))}): "
            "say by segment_id which one is meant"
        )
    return live[0] if live else int(rows[0][0]) if rows else None


def segment_changed_at(con: duckdb.DuckDBPyConnection, segment: int) -> datetime | None:
    """Return when Heap last told of a segment, in UTC."""
    row = con.execute("select told_at from heap_segments where segment_id = ?", [segment]).fetchone()
    return None if row is None else datetime.fromtimestamp(row[0], UTC)


def member_count(con: duckdb.DuckDBPyConnection, segment: int) -> int:
    """Return how many members a segment of Heap has."""
    row = con.execute("select count(*) from segment_members where segment_id = ?", [segment]).fetchone()
    return int(row[0]) if row else 0
