"""Results of audiences in the warehouse: who was a member on which day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

NEWEST = """
select as_of, moment, members from audience_runs
where audience = $audience and ($until is null or as_of <= $until)
order by as_of desc limit 1
"""

CHANGES = """
select count(*) filter (where kept.identity is null), count(*) filter (where found.identity is null)
from computed_members as found
full join (select identity from audience_members where audience = $audience and as_of = $as_of) as kept
on kept.identity = found.identity
where found.identity is null or kept.identity is null
"""


@dataclass(frozen=True)
class Result:
    """An audience's members of one day, counted; ``moment`` (UTC) is where its windows ended."""

    as_of: date
    moment: datetime
    members: int


@dataclass(frozen=True)
class Changes:
    """What is computed against the result of ``since``, all new where there is none."""

    members: int
    entered: int
    left: int
    since: date | None


def newest_result(con: duckdb.DuckDBPyConnection, audience: str, until: date | None = None) -> Result | None:
    """Return the newest result of an audience, of ``until`` at the latest; ``None`` where there is none."""
    row = con.execute(NEWEST, {"audience": audience, "until": until}).fetchone()
    return Result(row[0], row[1].replace(tzinfo=UTC), int(row[2])) if row else None


def result_sizes(con: duckdb.DuckDBPyConnection, audience: str) -> list[tuple[date, int]]:
    """Return the days that an audience has results of and its members on each, oldest first."""
    rows = con.execute("select as_of, members from audience_runs where audience = ? order by as_of", [audience])
    return [(day, int(members)) for day, members in rows.fetchall()]


def compute_members(con: duckdb.DuckDBPyConnection, members: str) -> None:
    """Compute who belongs to an audience, by a select of ``identity``, into the temporary ``computed_members``."""
    con.execute(f"create or replace temp table computed_members as {members}")


def compare(con: duckdb.DuckDBPyConnection, audience: str, day: date) -> Changes:
    """Compare what was computed with the audience's newest result up to a day."""
    newest = newest_result(con, audience, day)
    since = newest.as_of if newest else None
    (members,) = con.execute("select count(*) from computed_members").fetchone() or (0,)
    entered, left = con.execute(CHANGES, {"audience": audience, "as_of": since}).fetchone() or (0, 0)
    return Changes(int(members), int(entered), int(left), since)


def sample(con: duckdb.DuckDBPyConnection, rows: int) -> list[str]:
    """Return the first of the identities that were computed."""
    found = con.execute("select identity from computed_members order by identity limit ?", [rows]).fetchall()
    return [str(identity) for (identity,) in found]


def replace_result(
    con: duckdb.DuckDBPyConnection, audience: str, day: date, moment: datetime, definition: str, keep_days: int
) -> None:
    """Keep what was computed as the result of a day, and forget results older than ``keep_days`` before the newest.

    ``moment`` is in UTC, ``definition`` the JSON that was computed. The caller holds the transaction.
    """
    day_of = {"audience": audience, "as_of": day}
    _forget(con, "as_of = $as_of", day_of)
    con.execute("insert into audience_members select $audience, $as_of, identity from computed_members", day_of)
    con.execute(
        "insert into audience_runs select $audience, $as_of, $moment, count(*), $definition, now()::timestamp"
        " from computed_members",
        {**day_of, "moment": moment.astimezone(UTC).replace(tzinfo=None), "definition": definition},
    )
    newest = newest_result(con, audience)
    if newest:
        oldest = newest.as_of - timedelta(days=keep_days - 1)
        _forget(con, "as_of < $oldest", {"audience": audience, "oldest": oldest})


def _forget(con: duckdb.DuckDBPyConnection, days: str, values: dict[str, object]) -> None:
    for table in ("audience_members", "audience_runs"):
        con.execute(f"delete from {table} where audience = $audience and {days}", values)
