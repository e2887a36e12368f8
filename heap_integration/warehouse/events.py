"""Events in the warehouse: loading them once, finding what is pending, keeping what became of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

# What goes into Heap as an event, and what changes what Heap knows of a person or an account.
TRACKED = ("track", "page", "screen")
PROFILES = ("identify", "group", "alias")

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
       received_at, source, properties, traits, context, $origin, line, suppressed
from (select *, row_number() over () as position from arriving)
where position not in (from repeated)
"""

# What is not to go out was said when it was received: its outcome is there before anybody could send it.
SUPPRESS = """
insert into event_outcomes
select seq, event_key, event_day, type, origin, 3, suppressed, now()::timestamp from product_events
where seq > (select max(seq) from product_events) - $loaded and suppressed is not null
"""

REACH = "select min(seq) - 1, max(seq) from product_events where seq > $after and event_day between $first and $last"
# Where little is pending, so many events at once are looked through: more would not fit into memory.
WIDEST = 1_000_000

# Narrow columns first: to sort whole events for the sake of the first few thousand costs ten times as much.
UNTIL = """
select count(*), max(seq) from (
    select seq from product_events
    where {pending}
    order by seq
    limit $rows
)
"""

PENDING = """
select seq, event_key::blob as event_key, message_id, type, name, user_id, anonymous_id,
       strftime(timestamp, '%Y-%m-%dT%H:%M:%S.%gZ') as timestamp, properties, traits, context,
       strftime(received_at, '%Y-%m-%dT%H:%M:%S.%gZ') as received_at
from product_events
where {pending}
order by seq
"""

# Both tables lie in the order of the sequence numbers, so that a range of them is read and nothing else.
IS_PENDING = """
seq > $after and seq <= $until
and event_day between $first and $last
and list_contains($types, type)
and not list_contains($without, '*') and not list_contains($without, source)
and suppressed is null
and ($resend or seq not in (select seq from event_outcomes where seq > $after and seq <= $until))
"""

# An event that was sent again has several outcomes in the ledger: the last one counts.
DECIDED = """
create or replace temp table decided as
select event.seq, event.event_key, event.event_day, event.type, event.origin, news.status, news.reason
from (
    select key, arg_max(status, position) as status, arg_max(reason, position) as reason from settling group by key
) as news
join product_events as event on event.event_key = news.key
"""

# One outcome an event: what asks for counts needs no join and no memory.
FORGET = """
delete from event_outcomes where seq between $first and $last and seq in (select seq from decided)
"""

SETTLE = """
insert into event_outcomes by name select *, now()::timestamp as settled_at from decided
"""

DAYS = """
with outcome as (
    select event_day,
           count(*) filter (where status = 1) as accepted,
           count(*) filter (where status = 2) as rejected,
           count(*) filter (where status = 3) as suppressed
    from event_outcomes where event_day between $first and $last and list_contains($types, type) group by event_day
), event as (
    select event_day, count(*) as events from product_events
    where event_day between $first and $last and list_contains($types, type) group by event_day
)
select event_day, events, coalesce(accepted, 0), coalesce(rejected, 0), coalesce(suppressed, 0),
       events - coalesce(accepted + rejected + suppressed, 0)
from event left join outcome using (event_day)
order by event_day
"""

# Only where the numbers differ it is worth looking for the events that make the difference.
OPEN_DAYS = """
create or replace temp table open_days as
select event_day from (select event_day, count(*) as events from product_events group by event_day)
left join (select event_day, count(*) as decided from event_outcomes group by event_day) using (event_day)
where events > coalesce(decided, 0)
"""

PENDING_DAYS = """
select event_day, count(*), max(seq) from product_events
where event_day in (from open_days)
  and not list_contains($without, '*') and not list_contains($without, source)
  and ($only is null or list_contains($only, source))
  and seq not in (select seq from event_outcomes where event_day in (from open_days))
group by event_day order by event_day
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
    if events.column("suppressed").null_count < events.num_rows:
        con.execute(SUPPRESS, {"loaded": loaded})
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
    types: Collection[str] = TRACKED,
    without_sources: Collection[str] = (),
    resend: bool = False,
) -> pa.Table:
    """Return the next events without an outcome, in the order of their arrival, as one Arrow table.

    ``*`` in ``without_sources`` stands for every source. ``resend`` takes those with an outcome too, but
    for those that were suppressed when they were received.
    """
    asked = {
        "first": first,
        "last": last,
        "types": list(types),
        "without": list(without_sources),
        "resend": resend,
    }
    until = _until(con, asked, after, rows)
    found = con.execute(PENDING.format(pending=IS_PENDING), {**asked, "after": after, "until": until})
    return found.to_arrow_table()


def _until(con: duckdb.DuckDBPyConnection, asked: Mapping[str, object], after: int, rows: int) -> int:
    """Return the sequence number with which the next ``rows`` pending events end."""
    found = con.execute(REACH, {"first": asked["first"], "last": asked["last"], "after": after}).fetchone()
    start, end = found if found and found[0] is not None else (after, after)
    query = UNTIL.format(pending=IS_PENDING)
    width, missing = rows, rows
    while start < end and missing:
        until = start + width
        count, last = con.execute(query, {**asked, "after": start, "until": until, "rows": missing}).fetchone() or (
            0,
            0,
        )
        missing -= count
        start = until if missing else last
        width = min(2 * width, WIDEST)
    return int(start)


def settle_events(con: duckdb.DuckDBPyConnection) -> None:
    """Move the outcomes of the temporary table ``settling`` (see ``settle``) to their events."""
    con.execute(DECIDED)
    first, last = con.execute("select min(seq), max(seq) from decided").fetchone() or (None, None)
    con.execute(FORGET, {"first": first, "last": last})
    con.execute(SETTLE)


def newest_event(con: duckdb.DuckDBPyConnection) -> int:
    """Return the number of the event that was loaded last."""
    row = con.execute("select coalesce(max(seq), 0) from product_events").fetchone()
    return int(row[0]) if row else 0


def days_after(con: duckdb.DuckDBPyConnection, number: int) -> set[date]:
    """Return the days of the events that were loaded after the one with this number."""
    return {
        day
        for (day,) in con.execute("select distinct event_day from product_events where seq > ?", [number]).fetchall()
    }


def withheld_calls(con: duckdb.DuckDBPyConnection, after: int, reason: str) -> list[tuple[str, str]]:
    """Return who did what in the events after ``after`` that were suppressed at receipt for ``reason``, in order."""
    rows = con.execute(
        "select coalesce(user_id, anonymous_id), name from product_events "
        "where seq > ? and suppressed = ? order by seq",
        [after, reason],
    ).fetchall()
    return [(str(identity), str(name)) for identity, name in rows]


def day_counts(
    con: duckdb.DuckDBPyConnection, first: date, last: date, types: Collection[str] = (*TRACKED, *PROFILES)
) -> list[DayCounts]:
    """Return where the events of each day stand; days without events are left out."""
    rows = con.execute(DAYS, {"first": first, "last": last, "types": list(types)}).fetchall()
    return [DayCounts(*row) for row in rows]


def pending_days(
    con: duckdb.DuckDBPyConnection, without_sources: Sequence[str] = (), only_sources: Sequence[str] | None = None
) -> dict[date, tuple[int, int]]:
    """Return the days that have pending events, each with how many and the highest sequence number."""
    con.execute(OPEN_DAYS)
    only = None if only_sources is None else list(only_sources)
    rows = con.execute(PENDING_DAYS, {"without": list(without_sources), "only": only}).fetchall()
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
        with line as (
            select sum(read) as read, sum(duplicates) as duplicates, sum(refused) as refused, sum(unused) as unused
            from loaded_inputs where fingerprint = $mark
        ), outcome as (
            select count(*) filter (where status = 1) as accepted,
                   count(*) filter (where status = 2) as rejected,
                   count(*) filter (where status = 3) as suppressed,
                   count(*) as decided
            from event_outcomes where origin = $origin
        ), event as (
            select count(*) as events, min(event_day) as first_day, max(event_day) as last_day
            from product_events where origin = $origin
        )
        select read, accepted, duplicates, unused, rejected + refused, suppressed, events - decided, first_day, last_day
        from line, outcome, event
        """,
        {"mark": fingerprint, "origin": origin[0]},
    ).fetchone()
    return OriginCounts(*row) if row else OriginCounts()


def origin_reasons(con: duckdb.DuckDBPyConnection, fingerprint: str) -> list[tuple[str, int]]:
    """Return why lines of an input were not sent, most frequent first."""
    rows = con.execute(
        """
        with mine as (select distinct origin from loaded_inputs where fingerprint = $mark)
        select reason, count(*) from (
            select reason from event_outcomes where status <> 1 and origin in (from mine)
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
        select case status when 2 then 'rejected' else 'suppressed' end, reason, count(*)
        from event_outcomes where status <> 1 group by all
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


def accepted_profiles(con: duckdb.DuckDBPyConnection) -> int:
    """Return how many calls that tell of people and accounts Heap has acknowledged."""
    row = con.execute(
        "select count(*) from event_outcomes where status = 1 and list_contains($types, type)", {"types": PROFILES}
    ).fetchone()
    return int(row[0]) if row else 0


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
        for status, rows in con.execute("select status, count(*) from event_outcomes group by status").fetchall()
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


@dataclass(frozen=True)
class Chosen:
    """Which rejected rows are meant: those whose reason holds a text, and those of some days."""

    reason: str = ""
    first: date = date.min
    last: date = date.max
    suppressed: bool = False

    def values(self) -> dict[str, object]:
        """Return the parameters of the statements below."""
        return {
            "reason": self.reason.casefold(),
            "first": self.first,
            "last": self.last,
            "least": 2,
            "most": 3 if self.suppressed else 2,
        }


# A refused line has no day of its own: the day on which it was loaded stands for it.
REJECTED_EVENTS = """
status between $least and $most and event_day between $first and $last and contains(lower(reason), $reason)
"""
REFUSED_LINES = "loaded_at::date between $first and $last and contains(lower(reason), $reason)"


def rejected(con: duckdb.DuckDBPyConnection, chosen: Chosen, limit: int) -> list[dict[str, object]]:
    """Return rejected events and refused lines to look at, newest first, with what they hold and why."""
    found = con.execute(
        f"""
        with outcome as (
            select seq, status, reason, settled_at from event_outcomes where {REJECTED_EVENTS}
            order by seq desc limit $limit
        ), line as (
            select * from rejected_rows where {REFUSED_LINES} order by loaded_at desc limit $limit
        )
        select * exclude (decided_at, seq) from (
            select case status when 2 then 'rejected' else 'suppressed' end as outcome, reason,
                   strftime(event_day, '%Y-%m-%d') as day, source, type, name, user_id, anonymous_id, message_id,
                   properties, traits, origin, line, null as raw, settled_at as decided_at, seq
            from outcome join product_events using (seq)
            union all by name
            select 'rejected' as outcome, reason, strftime(loaded_at, '%Y-%m-%d') as day, origin, line, raw,
                   loaded_at as decided_at
            from line
        )
        order by decided_at desc, seq desc, line limit $limit
        """,
        {**chosen.values(), "limit": limit},
    )
    return list(found.to_arrow_table().to_pylist())


# What was suppressed when it was received stays so, whatever the rules say today.
NOT_FINAL = "seq not in (select seq from product_events where suppressed is not null)"


def forget_rejections(con: duckdb.DuckDBPyConnection, chosen: Chosen) -> dict[date, int]:
    """Make rejected events pending again and return how many on each day."""
    these, values = f"{REJECTED_EVENTS} and {NOT_FINAL}", chosen.values()
    days = con.execute(f"select event_day, count(*) from event_outcomes where {these} group by 1", values).fetchall()
    con.execute(f"delete from event_outcomes where {these}", values)
    return dict(days)


def take_refused_lines(con: duckdb.DuckDBPyConnection, chosen: Chosen) -> list[bytes]:
    """Take refused lines that the receiver had landed out of the table, to read them again in this transaction."""
    values = {key: value for key, value in chosen.values().items() if key not in {"least", "most"}}
    is_landed = "case when json_valid(raw) then json_exists(raw, '$.adapter') else false end"
    landed = f"{REFUSED_LINES} and {is_landed}"
    lines = con.execute(f"select raw from rejected_rows where {landed} order by loaded_at, line", values).fetchall()
    con.execute(f"delete from rejected_rows where {landed}", values)
    return [line.encode() for (line,) in lines]
