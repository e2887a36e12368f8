"""The picture of each mart: what is asked of its table, and how the answer is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from heap_integration.assets.charts import bars, funnel, grid, in_words, shares, spark, stacked

if TYPE_CHECKING:
    from heap_integration.warehouse.systems.system import Connection, Dialect

Rows = Sequence[tuple[Any, ...]]
DAYS = 60
LISTED = 10
BINS = 20
COHORTS = 12


@dataclass(frozen=True)
class Picture:
    """A question to a table, which ``{table}`` stands for in DuckDB's SQL, and what draws its rows."""

    title: str
    sql: str
    draw: Callable[[str, Rows], Mapping[str, dg.MetadataValue]]

    def question(self, dialect: Dialect, table: str) -> str:
        """Return the question in a warehouse's words; ``table`` is named and quoted as there."""
        from sqlglot import exp, transpile

        named = exp.to_table(table, dialect=dialect).sql("duckdb")
        (sql,) = transpile(self.sql.format(table=named), read="duckdb", write=dialect)
        return sql

    def look(self, connection: Connection, dialect: Dialect, table: str) -> Mapping[str, dg.MetadataValue]:
        """Ask and draw; nothing where the table is empty.

        Raises:
            QueryError: the warehouse refuses the question.
        """
        batches = connection.batches(self.question(dialect, table))
        rows = [tuple(row.values()) for batch in batches for row in batch.to_pylist()]
        return self.draw(self.title, rows) if rows else {}


def _drawn(title: str, picture: dg.MetadataValue, glance: str) -> dict[str, dg.MetadataValue]:
    """Return a picture, which Dagster shows on a click, and its gist as text, which it shows at once."""
    return {title: picture, f"{title}, at a glance": dg.MetadataValue.text(glance)}


def _shares(title: str, rows: Rows) -> Mapping[str, dg.MetadataValue]:
    """Rows are a label, a number, and the sum of all numbers, also of those that aren't listed; the largest first."""
    parts = [(str(label), float(value or 0)) for label, value, _ in rows]
    total = float(rows[0][2] or 0)
    return _drawn(title, shares(title, parts, total), in_words(parts, total))


def _oldest_first(title: str, rows: Rows) -> Mapping[str, dg.MetadataValue]:
    """Rows are a day and a number, the newest day first."""
    series = [(str(day), float(value or 0)) for day, value in reversed(rows)]
    return _drawn(title, bars(title, series), spark([value for _, value in series]))


def _histogram(title: str, rows: Rows) -> Mapping[str, dg.MetadataValue]:
    """Rows are a bin from 0, the highest value of all, and how many are in the bin; empty bins are none of them."""
    highest = float(rows[0][1] or 0)
    counted = {int(number): int(count) for number, _, count in rows}
    series = [(f"{number * highest / BINS:,.0f}", counted.get(number, 0)) for number in range(BINS)]
    return _drawn(title, bars(title, series), f"0 {spark([value for _, value in series])} {highest:,.0f}")


def _stacked(title: str, rows: Rows) -> Mapping[str, dg.MetadataValue]:
    """Rows are a day, a name and a number."""
    days = sorted({str(row[0]) for row in rows})[-DAYS:]
    told = {(str(day), str(name)): float(value or 0) for day, name, value in rows}
    names = sorted({name for _, name in told}, key=lambda name: -told.get((days[-1], name), 0))
    picture = stacked(title, days, {name: [told.get((day, name), 0) for day in days] for name in names})
    return _drawn(title, picture, f"{days[-1]}: {in_words([(name, told.get((days[-1], name), 0)) for name in names])}")


def _funnels(title: str, rows: Rows) -> Mapping[str, dg.MetadataValue]:
    """Rows are a funnel's name, a step's, and how many came so far."""
    steps: dict[str, list[tuple[str, float]]] = {}
    for name, step, reached in rows:
        steps.setdefault(str(name), []).append((str(step), float(reached)))
    found: dict[str, dg.MetadataValue] = {}
    for name, each in steps.items():
        found |= _drawn(f"{title} {name}", funnel(f"{title} {name}", each), in_words(each, of=each[0][1]))
    return found


def _cohorts(title: str, rows: Rows) -> Mapping[str, dg.MetadataValue]:
    """Rows are a cohort, how many periods later, and the share that was there."""
    told = {(str(cohort), int(later)): float(rate or 0) for cohort, later, rate in rows}
    cohorts = sorted({cohort for cohort, _ in told})[-COHORTS:]
    later = sorted({number for _, number in told})
    found = [(cohort, [told.get((cohort, number)) for number in later]) for cohort in cohorts]
    means = [_mean([told[cohort, number] for cohort in cohorts if (cohort, number) in told]) for number in later]
    glance = " · ".join(f"{number}: {mean:.0%}" for number, mean in zip(later, means, strict=True))
    return _drawn(title, grid(title, found, [str(number) for number in later]), glance)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _by_bins(column: str) -> str:
    # T-SQL groups by no column's place and no column's new name.
    return (
        "select bin, max(highest) as highest, count(*) as users from ("
        f"select case when highest > 0 then cast(floor(value * {BINS - 0.001} / highest) as integer) else 0 end as bin,"
        f" highest from (select {column} as value, max({column}) over () as highest from {{table}}) as scored"
        " where value is not null) as placed group by bin order by bin"
    )


def _top(column: str, number: str, where: str = "1 = 1") -> str:
    return (
        "select label, number, sum(number) over () as total from ("
        f"select label, {number} as number from (select *, {column} as label from {{table}} where {where}) as told"
        f" group by label) as counted order by number desc limit {LISTED}"
    )


def _days(day: str, number: str) -> str:
    return f"select {day}, {number} as number from {{table}} group by {day} order by {day} desc limit {DAYS}"


PICTURES: Mapping[str, Picture] = {
    "user_engagement": Picture("users by engagement score", _by_bins("engagement_score"), _histogram),
    "lead_scores": Picture("users by score", _by_bins("pql_score"), _histogram),
    "account_health": Picture("accounts by health", _by_bins("health_score"), _histogram),
    "user_lifecycle": Picture("users by stage", _top("stage", "count(*)"), _shares),
    "user_lifecycle_by_day": Picture(
        "users by stage", "select day, stage, users from {table}", _stacked
    ),
    "user_lifecycle_history": Picture("changes of stage", _days("from_day", "count(*)"), _oldest_first),
    "user_lifecycle_transitions": Picture(
        "changes of stage",
        _top("from_stage || ' → ' || to_stage", "sum(users)", "from_stage is not null"),
        _shares,
    ),
    "conversion_funnel": Picture(
        "users in",
        "select funnel, step_name, reached from {table} where scope = 'user' order by funnel, step_number",
        _funnels,
    ),
    "conversion_funnel_by_day": Picture(
        "entered by day", _days("entered_day", "sum(case when step_number = 1 then reached else 0 end)"), _oldest_first
    ),
    "conversion_funnel_by_property": Picture(
        "entered by property",
        _top("property_name || ' = ' || property_value", "sum(reached)", "scope = 'user' and step_number = 1"),
        _shares,
    ),
    "conversion_paths": Picture("converting sessions by path", _top("path", "sum(sessions)"), _shares),
    "feature_adoption": Picture("users by feature", _top("event_type", "sum(users_adopted)"), _shares),
    "user_recommendations": Picture(
        "recommended next", _top("event_name", "count(*)", "kind = 'next'"), _shares
    ),
    "retention_cohorts": Picture(
        "weekly retention",
        "select cohort, periods_since, retention_rate from {table} where period = 'week' and periods_since <= 8",
        _cohorts,
    ),
    "attribution": Picture(
        "conversions by last touch", _top("source", "sum(conversions)", "touch = 'last'"), _shares
    ),
    "export_events": Picture("events", _top("event_type", "count(*)"), _shares),
    "event_delivery_by_day": Picture(
        "events by outcome",
        "select event_day, outcome, number from ("
        + " union all ".join(
            f"select event_day, '{outcome}' as outcome, {outcome} as number from {{table}}"
            for outcome in ("accepted", "rejected", "suppressed", "pending")
        )
        + ") as told",
        _stacked,
    ),
    "delivery_latency": Picture("median seconds to Heap", _days("event_day", "max(median_seconds)"), _oldest_first),
    "delivery_size": Picture("records by day", _days("day", "sum(records)"), _oldest_first),
    "delivery_rejections": Picture("rejected, by reason", _top("reason", "sum(records)"), _shares),
}  # fmt: skip
