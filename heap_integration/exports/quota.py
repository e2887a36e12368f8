"""The rows that a plan allows in a month: counted over all exports, reserved before they go, foreseen to its end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta

from heap_integration.heap.plans import Plan
from heap_integration.store import Store

KEY = "exported rows"
# From so much of the limit on it is a warning, whatever the forecast says.
WARNING_SHARE = 0.8
# What an export was expected to bring counts for so long; one that was taken out of the YAML says nothing more.
EXPECTED_FOR = timedelta(days=3)


@dataclass(frozen=True)
class Use:
    """What one export has written in a month, reserves, and is expected to bring: what waits, and so much a day."""

    rows: int = 0
    reserved: int = 0
    waiting: int = 0
    rows_a_day: float = 0
    told_at: float = 0


@dataclass(frozen=True)
class Outlook:
    """A month's use of a plan: ``rows`` so far, the ``forecast`` for its end, the day on which the limit is reached."""

    plan: Plan
    month: str
    rows: int
    forecast: int
    reached_on: date | None

    @property
    def warning(self) -> str | None:
        """What there is to worry about, in words."""
        limit = self.plan.rows_a_month
        if limit is None:
            return None
        allowed = f"plan {self.plan.name} allows {limit:,} rows a month"
        if self.rows >= limit:
            return f"{allowed}, and all of {self.month} are used"
        if self.reached_on is not None:
            return f"{allowed}; {self.forecast:,} are to be expected in {self.month}: used up about {self.reached_on}"
        if self.rows >= limit * WARNING_SHARE:
            return f"{allowed}, and {self.rows:,} of {self.month} are used"
        return None


class Quota:
    """The rows that the exports of an environment may write in a month of UTC.

    Each row is reserved before it goes, so that exports that run at the same time don't exceed the plan together.
    What the notes beside an export's table say replaces its reservation, also after a crash.
    """

    def __init__(self, store: Store, plan: Plan) -> None:
        self._store = store
        self.plan = plan

    def settle(self, export: str, rows: int, now: datetime) -> None:
        """Take how many rows an export has really written in the month; its reservation ends."""
        with self._uses(now) as uses:
            uses[export] = replace(uses.get(export, Use()), rows=rows, reserved=0)

    def reserve(self, export: str, rows: int, now: datetime, *, whole: bool = False) -> int:
        """Reserve up to ``rows`` for an export and return how many; ``whole``: all or none.

        What it had reserved before is free again.
        """
        with self._uses(now) as uses:
            uses[export] = replace(uses.get(export, Use()), reserved=0)
            limit = self.plan.rows_a_month
            left = rows if limit is None else max(0, limit - _total(uses))
            granted = 0 if whole and left < rows else min(rows, left)
            uses[export] = replace(uses[export], reserved=granted)
        return granted

    def expect(self, export: str, waiting: int, rows_a_day: float, now: datetime) -> None:
        """Keep what an export is expected to bring."""
        with self._uses(now) as uses:
            told = uses.get(export, Use())
            uses[export] = replace(told, waiting=waiting, rows_a_day=rows_a_day, told_at=now.timestamp())

    def outlook(self, now: datetime) -> Outlook:
        """Return the month's use and what is to be expected until its end."""
        uses = self._read(now)
        end = (now.replace(day=1) + timedelta(days=32)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        expected = [use for use in uses.values() if now.timestamp() - use.told_at <= EXPECTED_FOR.total_seconds()]
        rows, rate = _total(uses), sum(use.rows_a_day for use in expected)
        soon = rows + sum(use.waiting for use in expected)
        forecast = soon + math.ceil(rate * (end - now).total_seconds() / 86_400)
        limit, reached = self.plan.rows_a_month, None
        if limit is not None and forecast > limit:
            reached = (now + timedelta(days=max(0, limit - soon) / rate if rate else 0)).date()
        return Outlook(self.plan, _month(now), rows, forecast, reached)

    @contextmanager
    def _uses(self, now: datetime) -> Iterator[dict[str, Use]]:
        with self._store.exclusive(KEY):
            uses = self._read(now)
            yield uses
            kept = {export: asdict(use) for export, use in uses.items()}
            self._store.remember(KEY, {"month": _month(now), "exports": kept})

    def _read(self, now: datetime) -> dict[str, Use]:
        kept = self._store.recall(KEY) or {"month": "", "exports": {}}
        uses = {export: Use(**use) for export, use in kept["exports"].items()}
        if kept["month"] == _month(now):
            return uses
        return {export: replace(use, rows=0, reserved=0) for export, use in uses.items()}


def _total(uses: dict[str, Use]) -> int:
    return sum(use.rows + use.reserved for use in uses.values())


def _month(now: datetime) -> str:
    return f"{now.astimezone(UTC):%Y-%m}"
