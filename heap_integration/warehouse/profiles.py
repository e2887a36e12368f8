"""What sources told of people and accounts: which of it is pending, and what newer has been acknowledged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from heap_integration.warehouse.events import PROFILES

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

# The reason of a row whose properties Heap has taken although the row as a whole is rejected ends so.
PROPERTIES_SENT = "; the properties were sent"

# Nothing can be newer than its arrival: else a clock that is ahead would hold back all later values for years.
MOMENT = "least(timestamp, received_at)"
# What Python's strip() takes away, because that is how an identity is made of a user id.
BLANK = "".join(character for character in map(chr, range(0x3001)) if character.isspace())

COLUMNS = f"""
product_events.seq, {MOMENT} as moment, event_key::blob as event_key, message_id, type, product_events.name,
user_id, anonymous_id, strftime(timestamp, '%Y-%m-%dT%H:%M:%S.%gZ') as timestamp, properties, traits, context,
strftime(received_at, '%Y-%m-%dT%H:%M:%S.%gZ') as received_at
"""

# Narrow columns first, as for events.
PAGE = f"""
create or replace temp table page as
select seq, {MOMENT} as moment from product_events
where list_contains($types, type)
  and event_day between $first and $last
  and ({MOMENT}, seq) > ($moment, $seq)
  and not list_contains($without, '*') and not list_contains($without, source)
  and suppressed is null
  and ($resend or seq not in (
      select seq from event_outcomes where list_contains($types, type) and event_day between $first and $last
  ))
order by moment, seq
limit $rows
"""

PENDING = f"select {COLUMNS} from product_events where seq in (select seq from page) order by moment, seq"

PERSON = "trim(user_id, $blank)"
ACCOUNT = "case type when 'group' then trim(context ->> '$.groupId', $blank) end"

ASKED = f"""
create or replace temp table asked as select {PERSON} as person, {ACCOUNT} as account, moment from given
"""

NEWER = f"""
create or replace temp table newer as
with taken as (
    select seq from event_outcomes
    where list_contains($types, type) and (status = 1 or (status = 2 and ends_with(reason, $sent)))
), told as (
    select seq, {MOMENT} as moment, {PERSON} as person, {ACCOUNT} as account from product_events
    where list_contains($types, type)
      and timestamp >= (select min(moment) from asked) and received_at >= (select min(moment) from asked)
      and seq in (from taken)
), found as (
    select 'user' as kind, person as name, seq, moment from told
    join (select person, min(moment) as since from asked group by person) as of_person using (person)
    where moment >= since
    union all
    select 'account', account, seq, moment from told
    join (select account, min(moment) as since from asked group by account) as of_account using (account)
    where moment >= since
)
select kind, name, seq, row_number() over (partition by kind, name order by moment desc, seq desc) as nth from found
"""

TOLD = f"""
select newer.name as about, {COLUMNS} from product_events
join (
    select name, seq, nth from newer
    where kind = $kind and nth between $first and $last and name in (select unnest($names))
) as newer using (seq)
order by nth
"""


Kind = Literal["user", "account"]


class Position(NamedTuple):
    """Where an update stands in the order of time; the sequence number decides between equal moments."""

    moment: datetime
    seq: int


START = Position(datetime.min, 0)  # noqa: DTZ901 - the warehouse's times are UTC without a zone


def pending_profiles(
    con: duckdb.DuckDBPyConnection,
    *,
    first: date,
    last: date,
    after: Position = START,
    rows: int,
    without_sources: Collection[str] = (),
    resend: bool = False,
) -> pa.Table:
    """Return the next identify, group and alias calls without an outcome, oldest first, as one Arrow table.

    ``first`` and ``last`` are UTC days, both included. ``seq`` and ``moment`` of the last row are the ``after``
    of the next page. ``*`` in ``without_sources`` stands for every source; ``resend`` takes calls with an
    outcome too.
    """
    con.execute(
        PAGE,
        {
            "first": first,
            "last": last,
            "moment": after.moment,
            "seq": after.seq,
            "rows": rows,
            "without": list(without_sources),
            "resend": resend,
            "types": list(PROFILES),
        },
    )
    return con.execute(PENDING).to_arrow_table()


def find_newer(con: duckdb.DuckDBPyConnection, pending: pa.Table) -> None:
    """Look for calls about the people and accounts of ``pending`` whose properties Heap has taken and may be newer.

    ``pending`` is of ``pending_profiles``. Nothing newer is left out; whether a call is newer than a certain
    pending one, its position tells. ``newer_profiles`` returns what was found.
    """
    con.register("given", pending.select(["type", "user_id", "context", "moment"]))
    con.execute(ASKED, {"blank": BLANK})
    con.unregister("given")
    con.execute(NEWER, {"blank": BLANK, "sent": PROPERTIES_SENT, "types": list(PROFILES)})


def newer_profiles(
    con: duckdb.DuckDBPyConnection, kind: Kind, names: Sequence[str], nths: range, rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield the ``nths`` newest calls, the first is 1, about each of the people or accounts of these names.

    The newest of each comes first. Up to ``rows`` at once, with the columns of ``pending_profiles`` and
    ``about``, the name.
    """
    asked = {"kind": kind, "names": list(names), "first": nths.start, "last": nths.stop - 1}
    yield from con.execute(TOLD, asked).to_arrow_reader(rows)
