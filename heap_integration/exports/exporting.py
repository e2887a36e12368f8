"""Exports: what of the events isn't in a table yet goes there once, within what the plan allows."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from heap_integration.exports.notes import Mark, Notes, Sent, rows_of
from heap_integration.exports.quota import Outlook, Quota
from heap_integration.exports.settings import OWN_PREFIX, Export
from heap_integration.exports.statements import COLUMNS, DAY, Words
from heap_integration.exports.waiting import Source, Waiting
from heap_integration.heap.plans import Frequency, Plan
from heap_integration.store import Store
from heap_integration.warehouse.duck import WarehouseError
from heap_integration.warehouse.systems.system import Connection, QueryError, Surroundings, WarehouseSettings

if TYPE_CHECKING:
    import pyarrow as pa

MAKING = "making tables of exports"
# What one transaction takes: a crash costs no more than that.
STEP_ROWS = 1_000_000
# So many whole days before today tell how many events a day has.
RATE_DAYS = 7
SWITCHED_OFF = "the export was switched off"
LENGTHS: dict[Frequency, timedelta] = {"daily": timedelta(days=1), "hourly": timedelta(hours=1)}


@dataclass(frozen=True)
class ExportReport:
    """What one export did.

    ``read`` events = ``sent`` to the table + ``unchanged``, which were there; ``pending`` ones wait. ``stopped`` says
    in words why there is more to send than was sent. ``outlook`` is the plan's month, over all exports.
    """

    export: str
    table: str
    read: int
    sent: int
    unchanged: int
    pending: int
    stopped: str | None
    outlook: Outlook
    last_export: datetime | None
    seconds: float

    @property
    def month_rows(self) -> int:
        """How many rows all exports have written in the month."""
        return self.outlook.rows

    @property
    def limit(self) -> int | None:
        """How many rows the plan allows in a month."""
        return self.outlook.plan.rows_a_month

    @property
    def forecast(self) -> int:
        """How many rows are to be expected by the end of the month."""
        return self.outlook.forecast

    @property
    def warning(self) -> str | None:
        """What there is to worry about, in words."""
        return self.outlook.warning


@dataclass(frozen=True)
class Exporter:
    """One export at work.

    ``source`` is the warehouse with the models, from which events come; ``go_on`` is asked before each transaction.
    """

    export: Export
    source: WarehouseSettings
    surroundings: Surroundings
    store: Store
    plan: Plan
    step_rows: int = STEP_ROWS
    go_on: Callable[[], bool] = lambda: True
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    @property
    def target(self) -> WarehouseSettings:
        """The warehouse that it writes to."""
        return self.export.to or self.source

    def run(self) -> ExportReport:
        """Write what waits into the table, in transactions that also hold how far they went.

        A run that dies at any moment leaves whole transactions, after which the next one goes on.

        Raises:
            MissingSecret: the variable of a credential isn't set.
            QueryError: a warehouse refuses a statement, or the models aren't there.
            WarehouseError: a warehouse can't be reached.
        """
        with self.store.exclusive(f"export {self.export.name}"), self._opened() as work:
            work.prepare()
            return work.full() if self.export.mode == "full" else work.incremental()

    def look(self) -> ExportReport:
        """Return where the export stands: what waits and what the plan leaves. Nothing is written to the table.

        Raises:
            MissingSecret: the variable of a credential isn't set.
            QueryError: a warehouse refuses a statement, or the models aren't there.
            WarehouseError: a warehouse can't be reached.
        """
        with self._opened() as work:
            return work.look()

    @contextmanager
    def _opened(self) -> Iterator[_Work]:
        with self.source.connect(self.surroundings) as source:
            if self.target.place() == self.source.place():
                yield _Work(self, source, source)
                return
            with self.target.connect(self.surroundings) as target:
                yield _Work(self, source, target)


class _Work:
    """An export with its connections open."""

    def __init__(self, exporter: Exporter, source: Connection, target: Connection) -> None:
        export, self.exporter, self.target = exporter.export, exporter, target
        self.name, self.is_full, self.is_same = export.name, export.mode == "full", source is target
        self.frequency = export.frequency
        self.now, self.started = exporter.clock(), time.monotonic()
        self.source = Source(source, Words(exporter.source.dialect), exporter.source.schemas().models, export)
        self.words, self.schema = Words(exporter.target.dialect), exporter.target.schemas().exports
        # other environments may write to the same schema; PostgreSQL cuts names after 63 letters
        known_as = f"{exporter.surroundings.environment}/{export.name}"
        self.table_name, self.staging_name = export.table, f"{OWN_PREFIX}staging_{_digest(known_as)}"
        self.table, self.staging = (self.words.table(self.schema, each) for each in (export.table, self.staging_name))
        chosen = _digest(*([] if export.events is None else sorted(export.events)))
        self.notes = Notes(target, self.words, self.schema, known_as, chosen)
        self.quota = Quota(exporter.store, exporter.plan)
        self.read = self.sent = 0
        self.past = Sent(0, 0, None)

    def prepare(self) -> None:
        """Make what is missing at the target; what its notes say of the month counts."""
        with self.exporter.store.exclusive(MAKING):
            there = self.target.tables(self.schema)
            self.notes.make(there)
            if self.table_name not in there:
                self.target.run([self.words.create(self.table)])
        if self.staging_name in there:
            self._drop_staging()
        self._read_notes()

    def look(self) -> ExportReport:
        """Compare, and write nothing."""
        is_known = self.notes.exist()
        if is_known:
            # not the plan's month: this export may be at work elsewhere, and what it has reserved counts
            self.past = self.notes.sent(self.now)
        days = self.source.days()
        waiting = self.source.waiting(days, self.notes.marks() if is_known and not self.is_full else {})
        return self._report(days, waiting, self._too_soon() if waiting.events else None)

    def incremental(self) -> ExportReport:
        """Write what waits, step by step."""
        days = self.source.days()
        waiting = self.source.waiting(days, self.notes.marks())
        stopped = self._too_soon() if waiting.events else None
        while waiting.events and not stopped:
            with self._reserved(min(waiting.events, self.exporter.step_rows)) as rows:
                if not rows:
                    stopped = self._used_up()
                elif not self.exporter.go_on():
                    stopped = SWITCHED_OFF
                else:
                    waiting = self._step(waiting, rows)
        return self._report(days, waiting, stopped)

    def full(self) -> ExportReport:
        """Write the table anew, or leave it as it is where the plan has no room for all of it."""
        days = self.source.days()
        waiting = self.source.waiting(days, {})
        stopped = self._too_soon() or (None if self.exporter.go_on() else SWITCHED_OFF)
        if not stopped:
            with self._reserved(waiting.events, whole=True) as rows:
                if rows < waiting.events or not self._replace():
                    stopped = f"the table has {waiting.events:,} rows: {self._used_up()}"
                else:
                    waiting = replace(waiting, events=0)
        return self._report(days, waiting, stopped)

    def _step(self, waiting: Waiting, rows: int) -> Waiting:
        """Move so many events in one transaction, and return what waits after it."""
        until = self.source.bound(waiting.after, rows) if rows < waiting.events else None
        with self._staged(self.source.rows(waiting.after, until)):
            staged = self._staged_days()
            new = f"select count(*) as events from {self.staging} as staged where {self.words.unknown(self.table)}"
            ((sent,),) = rows_of(self.target, new)
            reached = {
                day: Mark(until or waiting.ends[day], waiting.covered[day] + staged.get(day, 0))
                for day in (staged if until else waiting.after)
            }
            past = self.past.and_now(sent, None if until else self.now)
            self.target.run(
                [
                    self.words.insert(self.table, self.staging, only_new=True),
                    *self.notes.keep_days(reached),
                    *self.notes.keep_sent(past, self.now),
                ]
            )
            self.past = past
        self.read += sum(staged.values())
        self.sent += sent
        return replace(
            waiting,
            events=waiting.events - sum(staged.values()) if until else 0,
            after=waiting.after | {day: mark.position for day, mark in reached.items()},
            covered=waiting.covered | {day: mark.events for day, mark in reached.items()},
        )

    def _replace(self) -> bool:
        """Put all events in the place of what is there, and say whether the plan had room for them."""
        with self._staged(self.source.rows()):
            rows = sum(self._staged_days().values())
            if self.quota.reserve(self.name, rows, self.now, whole=True) < rows:
                return False
            past = self.past.and_now(rows, self.now)
            self.target.run(
                [
                    f"delete from {self.table} where 1 = 1",
                    self.words.insert(self.table, self.staging, only_new=False),
                    self.notes.forget_days(),
                    *self.notes.keep_sent(past, self.now),
                ]
            )
            self.past = past
        self.read = self.sent = rows
        return True

    @contextmanager
    def _reserved(self, rows: int, *, whole: bool = False) -> Iterator[int]:
        """Yield how many rows the plan has left of so many; afterwards only those count that were written."""
        granted = self.quota.reserve(self.name, rows, self.now, whole=whole)
        try:
            yield granted
        except Exception:
            # a target that has become unreachable may have taken them
            with suppress(QueryError, WarehouseError):
                self._read_notes()
            raise
        self.quota.settle(self.name, self.past.month, self.now)

    @contextmanager
    def _staged(self, query: str) -> Iterator[None]:
        """Keep events in a table of their own at the target, which nobody reads."""
        if self.is_same:
            self.target.run([self.words.create_as(self.staging, query)])
        else:
            schema = _staging_schema()
            rows = (_in_form(batch, schema) for batch in self.source.connection.batches(query))
            self.target.load(self.schema, self.staging_name, rows, schema)
        yield
        self._drop_staging()

    def _drop_staging(self) -> None:
        self.target.run([f"drop table if exists {self.staging}"])

    def _staged_days(self) -> dict[date, int]:
        day = self.words.name(DAY)
        counted = rows_of(self.target, f"select {day}, count(*) as events from {self.staging} group by {day}")
        return {each: int(events) for each, events in counted}

    def _read_notes(self) -> None:
        self.past = self.notes.sent(self.now)
        self.quota.settle(self.name, self.past.month, self.now)

    def _too_soon(self) -> str | None:
        """Return why nothing may be exported now: the plan allows it once a day, or once an hour, of UTC."""
        plan = self.exporter.plan
        last, often = self.past.finished_at, plan.frequencies[-1]
        if last is None or often == "real-time":
            return None
        begin = last.replace(minute=0, second=0, microsecond=0)
        next_time = (begin.replace(hour=0) if often == "daily" else begin) + LENGTHS[often]
        if self.now >= next_time:
            return None
        return (
            f"plan {plan.name} exports {often}: the last was at {last:%Y-%m-%d %H:%M} UTC, "
            f"the next may begin at {next_time:%Y-%m-%d %H:%M}"
        )

    def _used_up(self) -> str:
        outlook = self.quota.outlook(self.now)
        return (
            f"{outlook.rows:,} of the {outlook.plan.rows_a_month or 0:,} rows that plan {outlook.plan.name} allows in "
            f"{outlook.month} are used: what waits goes out next month, or with a larger plan"
        )

    def _rate(self, days: Mapping[date, Mark]) -> float:
        """Return how many rows a day brings: by its last whole days, or all of them at each full export."""
        if self.is_full:
            return sum(mark.events for mark in days.values()) * (timedelta(days=1) / LENGTHS[self.frequency])
        today = self.now.date()
        past = [day for day in days if day < today]
        known = min(RATE_DAYS, (today - min(past)).days) if past else 0
        recent = sum(days[day].events for day in past if day >= today - timedelta(days=known))
        return recent / known if known else 0.0

    def _report(self, days: Mapping[date, Mark], waiting: Waiting, stopped: str | None) -> ExportReport:
        self.quota.expect(self.name, waiting.events, self._rate(days), self.now)
        return ExportReport(
            export=self.name,
            table=f"{self.schema}.{self.table_name}",
            read=self.read,
            sent=self.sent,
            unchanged=self.read - self.sent,
            pending=waiting.events,
            stopped=stopped,
            outlook=self.quota.outlook(self.now),
            last_export=self.past.finished_at,
            seconds=time.monotonic() - self.started,
        )


def _digest(*texts: str) -> str:
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()


def _staging_schema() -> pa.Schema:
    import pyarrow as pa

    fields = [pa.field(name, pa.timestamp("us") if kind == "time" else pa.string()) for name, kind in COLUMNS.items()]
    return pa.schema([*fields, pa.field(DAY, pa.date32())])


def _in_form(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch in the types that every target takes; times with a zone become UTC without one."""
    import pyarrow as pa

    columns = [column.cast(each.type) for column, each in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
