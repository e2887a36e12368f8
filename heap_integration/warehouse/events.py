"""Events in the warehouse: loading them once, finding what is pending, keeping what became of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

# Only the keys are compared and sorted: whole events are carried past DuckDB's temporary tables untouched.
KEYS = """
create or replace temp table arriving_keys as
select event_key::blob::uuid as event_key, row_number() over () as position from arriving
"""

REPEATED = """
create or replace temp table repeated as
select position from (
    select position, event_key, row_number() over (partition by event_key order by position) as nth from arriving_keys
)
where nth > 1 or event_key in (
    select event_key from product_events where event_key in (select event_key from arriving_keys)
)
"""

LOAD = """
insert into product_events
select (select coalesce(max(seq), 0) from product_events) + row_number() over (),
       event_key::blob::uuid, message_id, type, name, user_id, anonymous_id, timestamp, timestamp::date,
       received_at, source, properties, traits, context, $origin, line
from (select *, row_number() over () as position from arriving)
where position not in (from repeated)
"""

# Narrow columns first: to sort whole events for the sake of the first few thousand costs ten times as much.
UNTIL = """
select count(*), max(seq) from (
    select seq from product_events as event
    where {pending}
    order by seq
    limit $rows
)
"""

PENDING = """
select seq, event_key::blob as event_key, message_id, type, name, user_id, anonymous_id,
       strftime(timestamp, '%Y-%m-%dT%H:%M:%S.%gZ') as timestamp, properties, traits, context
from product_events as event
where {pending}
order by seq
"""

# Both tables lie in the order of the sequence numbers, so that a range of them is read and nothing else.
IS_PENDING = """
seq > $after and seq <= $until
and event_day between $first and $last
and not list_contains($without, '*') and not list_contains($without, source)
and ($resend or not exists (
    select 1 from event_outcomes as outcome
    where outcome.seq = event.seq and outcome.seq > $after and outcome.seq <= $until
))
"""

SETTLE = """
insert into event_outcomes
select event.seq, settling.key, event.event_day, settling.status, settling.reason, now()::timestamp
from settling join product_events as event on event.event_key = settling.key
left join (
    select seq, arg_max(status, settled_at) as status from event_outcomes
    where event_key in (select key from settling) group by seq
) as known on known.seq = event.seq
where known.status is distinct from settling.status
"""

DAYS = """
with last_outcome as (
    select seq, arg_max(status, settled_at) as status
    from event_outcomes where event_day between $first and $last group by seq
)
select event.event_day,
       count(*),
       count(*) filter (where status = 1),
       count(*) filter (where status = 2),
       count(*) filter (where status = 3),
       count(*) filter (where status is null)
from product_events as event left join last_outcome using (seq)
where event.event_day between $first and $last
group by event.event_day
order by event.event_day
"""


@dataclass(frozen=True)
class Loaded:
    """What a load did with the rows it read; ``read = loaded + duplicates + refused + unused``."""

    read: int = 0
    loaded: int = 0
    duplicates: int = 0
    refused: int = 0
    unused: int = 0

    def __add__(self, other: Loaded) -> Loaded:
        return Loaded(
            self.read + other.read,
            self.loaded + other.loaded,
            self.duplicates + other.duplicates,
            self.refused + other.refused,
            self.unused + other.unused,
        )


@dataclass(frozen=True)
class DayCounts:
    """Where the events of one UTC day stand; ``read`` is the sum of the others."""

    day: date
    read: int
    accepted: int
    rejected: int
    suppressed: int
    pending: int


def resume_point(con: duckdb.DuckDBPyConnection, fingerprint: str) -> int | None:
    """Return the last line of an input that is already loaded; ``None`` when the whole of it is."""
    row = con.execute(
        "select max(last_line), bool_or(complete) from loaded_inputs where fingerprint = ?", [fingerprint]
    ).fetchone()
    last_line, complete = row or (None, None)
    return None if complete else int(last_line or 0)


def origin_of(con: duckdb.DuckDBPyConnection, name: str, fingerprint: str) -> str:
    """Return what an input is called in the warehouse: its name, and its content where the name had another."""
    row = con.execute(
        "select 1 from loaded_inputs where origin = ? and fingerprint <> ?", [name, fingerprint]
    ).fetchone()
    return f"{name}#{fingerprint[:8]}" if row else name


def load_chunk(
    con: duckdb.DuckDBPyConnection,
    events: pa.Table,
    refused: pa.Table,
    *,
    origin: str,
    fingerprint: str,
    last_line: int,
    read: int,
    unused: int,
    complete: bool,
) -> Loaded:
    """Load a piece of an input together with the note of how far it got, in the caller's transaction.

    An event that is known already, or stands twice in the piece, is counted as a duplicate.
    """
    con.register("arriving", events)
    con.execute(KEYS)
    con.execute(REPEATED)
    inserted = con.execute(LOAD, {"origin": origin}).fetchone()
    con.unregister("arriving")
    loaded = int(inserted[0]) if inserted else 0
    con.register("refusals", refused)
    con.execute("insert into rejected_rows select ?, line, reason, raw, now()::timestamp from refusals", [origin])
    con.unregister("refusals")
    result = Loaded(read, loaded, events.num_rows - loaded, refused.num_rows, unused)
    con.execute(
        "insert into loaded_inputs values (?, ?, ?, ?, ?, ?, ?, ?, ?, now()::timestamp)",
        [
            origin,
            fingerprint,
            last_line,
            complete,
            result.read,
            result.loaded,
            result.duplicates,
            result.refused,
            result.unused,
        ],
    )
    return result


def pending_events(
    con: duckdb.DuckDBPyConnection,
    *,
    first: date,
    last: date,
    after: int,
    rows: int,
    without_sources: Collection[str] = (),
    resend: bool = False,
) -> pa.Table:
    """Return the next events without an outcome, in the order of their arrival, as one Arrow table.

    ``*`` in ``without_sources`` stands for every source.
    """
    asked = {"first": first, "last": last, "without": list(without_sources), "resend": resend}
    until = _until(con, asked, after, rows)
    found = con.execute(PENDING.format(pending=IS_PENDING), {**asked, "after": after, "until": until})
    return found.to_arrow_table()


def _until(con: duckdb.DuckDBPyConnection, asked: Mapping[str, object], after: int, rows: int) -> int:
    """Return the sequence number with which the next ``rows`` pending events end."""
    newest = con.execute("select coalesce(max(seq), 0) from product_events").fetchone()
    end = newest[0] if newest else 0
    query = UNTIL.format(pending=IS_PENDING)
    width, missing = rows, rows
    while after < end and missing:
        until = after + width
        found = con.execute(query, {**asked, "after": after, "until": until, "rows": missing}).fetchone()
        count, last = found or (0, None)
        missing -= count
        after = until if missing else last
        width *= 2
    return after


def settle_events(con: duckdb.DuckDBPyConnection) -> None:
    """Move the outcomes of the temporary table ``settling`` to their events."""
    con.execute(SETTLE)


def day_counts(con: duckdb.DuckDBPyConnection, first: date, last: date) -> list[DayCounts]:
    """Return where the events of each day stand; days without events are left out."""
    rows = con.execute(DAYS, {"first": first, "last": last}).fetchall()
    return [DayCounts(*row) for row in rows]


def pending_days(con: duckdb.DuckDBPyConnection, without_sources: Sequence[str] = ()) -> dict[date, tuple[int, int]]:
    """Return the days that have pending events, each with how many and the highest sequence number."""
    rows = con.execute(
        """
        select event_day, count(*), max(seq) from product_events as event
        where not list_contains($without, '*') and not list_contains($without, source)
          and not exists (select 1 from event_outcomes as o where o.seq = event.seq)
        group by event_day order by event_day
        """,
        {"without": list(without_sources)},
    ).fetchall()
    return {day: (count, seq) for day, count, seq in rows}


@dataclass(frozen=True)
class OriginCounts:
    """Where the lines of one input stand; ``read`` is the sum of the others."""

    read: int = 0
    accepted: int = 0
    duplicates: int = 0
    unused: int = 0
    rejected: int = 0
    suppressed: int = 0
    pending: int = 0
    first_day: date | None = None
    last_day: date | None = None


def origin_counts(con: duckdb.DuckDBPyConnection, fingerprint: str) -> OriginCounts:
    """Return where the lines of an input stand, whatever run sent them."""
    origin = con.execute("select min(origin) from loaded_inputs where fingerprint = ?", [fingerprint]).fetchone()
    if origin is None or origin[0] is None:
        return OriginCounts()
    row = con.execute(
        """
        with outcome as (select seq, arg_max(status, settled_at) as status from event_outcomes group by seq)
        select (select sum(read) from loaded_inputs where fingerprint = $mark),
               count(*) filter (where status = 1),
               (select sum(duplicates) from loaded_inputs where fingerprint = $mark),
               (select sum(unused) from loaded_inputs where fingerprint = $mark),
               count(*) filter (where status = 2)
                   + (select sum(refused) from loaded_inputs where fingerprint = $mark),
               count(*) filter (where status = 3),
               count(*) filter (where status is null),
               min(event_day),
               max(event_day)
        from product_events left join outcome using (seq)
        where origin = $origin
        """,
        {"mark": fingerprint, "origin": origin[0]},
    ).fetchone()
    return OriginCounts(*row) if row else OriginCounts()


def origin_reasons(con: duckdb.DuckDBPyConnection, fingerprint: str) -> list[tuple[str, int]]:
    """Return why lines of an input were not sent, most frequent first."""
    rows = con.execute(
        """
        with mine as (select distinct origin from loaded_inputs where fingerprint = $mark),
        outcome as (
            select seq, arg_max(status, settled_at) as status, arg_max(reason, settled_at) as reason
            from event_outcomes group by seq
        )
        select reason, count(*) from (
            select outcome.reason from outcome join product_events as event using (seq)
            where outcome.status <> 1 and event.origin in (from mine)
            union all
            select reason from rejected_rows where origin in (from mine)
        ) group by reason order by 2 desc, 1 limit 50
        """,
        {"mark": fingerprint},
    ).fetchall()
    return [(str(reason), int(count)) for reason, count in rows]


def reasons(con: duckdb.DuckDBPyConnection, limit: int = 20) -> list[tuple[str, str, int]]:
    """Return why rows were not sent, most frequent first: (rejected or suppressed, reason, rows)."""
    rows = con.execute(
        """
        select case status when 2 then 'rejected' else 'suppressed' end, reason, count(*) from (
            select arg_max(status, settled_at) as status, arg_max(reason, settled_at) as reason
            from event_outcomes group by seq
        ) where status <> 1 group by all
        union all
        select 'rejected', reason, count(*) from rejected_rows group by all
        order by 3 desc, 2 limit ?
        """,
        [limit],
    ).fetchall()
    return [(str(status), str(reason), int(rows)) for status, reason, rows in rows]


def loads(con: duckdb.DuckDBPyConnection) -> Loaded:
    """Return what became of every row that was ever read."""
    row = con.execute(
        "select sum(read), sum(loaded), sum(duplicates), sum(refused), sum(unused) from loaded_inputs"
    ).fetchone()
    return Loaded(*(int(value or 0) for value in row or ()))


def _count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    row = con.execute(f"select count(*) from {table}").fetchone()
    return int(row[0]) if row else 0


@dataclass(frozen=True)
class Balance:
    """All counts since the beginning, and what doesn't add up in them (in words)."""

    numbers: dict[str, int]
    faults: list[str]


def balance(con: duckdb.DuckDBPyConnection) -> Balance:
    """Hold the counts that were kept on the way against the rows that are there."""
    read = loads(con)
    outcomes = {
        int(status): int(rows)
        for status, rows in con.execute(
            """
            select status, count(*) from (
                select seq, arg_max(status, settled_at) as status from event_outcomes group by seq
            ) group by status
            """
        ).fetchall()
    }
    numbers = {
        "read": read.read,
        "events": _count(con, "product_events"),
        "duplicates": read.duplicates,
        "refused": _count(con, "rejected_rows"),
        "unused": read.unused,
        "accepted": outcomes.get(1, 0),
        "rejected": outcomes.get(2, 0),
        "suppressed": outcomes.get(3, 0),
        "pending": sum(rows for rows, _ in pending_days(con).values()),
    }
    sums = {
        "lines read": (
            numbers["read"],
            numbers["events"] + numbers["duplicates"] + numbers["refused"] + numbers["unused"],
        ),
        "events": (
            numbers["events"],
            numbers["accepted"] + numbers["rejected"] + numbers["suppressed"] + numbers["pending"],
        ),
    }
    faults = [
        f"{name}: {whole:,} are not the {parts:,} accounted for"
        for name, (whole, parts) in sums.items()
        if whole != parts
    ]
    return Balance(numbers, faults)
