"""What exports keep beside the tables that they write: how far each day was exported, and the rows of each hour."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from heap_integration.exports.statements import Position, Words

if TYPE_CHECKING:
    import pyarrow as pa

    from heap_integration.warehouse.systems.system import Connection

DAYS, HOURS = "_hub_export_days", "_hub_export_hours"
DAY_COLUMNS = ("export", "chosen", "event_day", "events", *Position._fields)
HOUR_COLUMNS = ("export", "hour", "sent", "finished_at")


@dataclass(frozen=True)
class Mark:
    """How far the events of a day were exported: up to a position, with so many events before and at it."""

    position: Position
    events: int


@dataclass(frozen=True)
class Sent:
    """How many rows an export has written in an hour and in its month, and when it last came to its end."""

    hour: int
    month: int
    finished_at: datetime | None

    def and_now(self, rows: int, finished_at: datetime | None) -> Sent:
        """Return the same with rows of this hour; ``finished_at`` is ``None`` unless the export has come to its end."""
        return Sent(self.hour + rows, self.month + rows, finished_at or self.finished_at)


@dataclass(frozen=True)
class Notes:
    """The notes of one export in the schema of the exported tables.

    ``export`` is its environment's name and its own. ``chosen`` stands for the events that are chosen: with other ones,
    days count as not exported yet.
    """

    connection: Connection
    words: Words
    schema: str
    export: str
    chosen: str

    def exist(self) -> bool:
        """Say whether anything was ever exported to this schema."""
        return HOURS in self.connection.tables(self.schema)

    def make(self, there: Collection[str]) -> None:
        """Make the tables that aren't among those that are there; only one process at a time may."""
        for table, columns in ((DAYS, _day_schema()), (HOURS, _hour_schema())):
            if table not in there:
                self.connection.load(self.schema, table, [], columns)

    def marks(self) -> dict[date, Mark]:
        """Return how far each day was exported."""
        rows = self._rows(
            f"select {self.words.names(DAY_COLUMNS[2:])} from {self._table(DAYS)}"
            f" where {self._ours} and {self.words.name('chosen')} = {self.words.value(self.chosen)}"
        )
        return {day: Mark(Position(int(arrived), *key), int(events)) for day, events, arrived, *key in rows}

    def sent(self, now: datetime) -> Sent:
        """Return what was written in the hour and the month of ``now``, and the last end of all."""
        name = self.words.name
        rows = self._rows(
            f"select {name('hour')}, {name('sent')}, {name('finished_at')} from {self._table(HOURS)} where {self._ours}"
        )
        hours = {_utc(hour): int(sent) for hour, sent, _ in rows}
        month = sum(sent for hour, sent in hours.items() if (hour.year, hour.month) == (now.year, now.month))
        ends = [_utc(end) for *_, end in rows if end is not None]
        return Sent(hours.get(_hour(now), 0), month, max(ends, default=None))

    def keep_days(self, marks: Mapping[date, Mark]) -> list[str]:
        """Return the statements that keep how far days were exported, in place of what was kept of them."""
        return [self.forget_days(list(marks)), *self._insert_days(marks)] if marks else []

    def forget_days(self, days: Sequence[date] | None = None) -> str:
        """Return the statement that forgets how far days, or all days, were exported; other choices go with them."""
        other = f"{self.words.name('chosen')} <> {self.words.value(self.chosen)}"
        of = "" if days is None else f" and ({other} or {self.words.name('event_day')} in ({self.words.values(days)}))"
        return f"delete from {self._table(DAYS)} where {self._ours}{of}"

    def keep_sent(self, sent: Sent, now: datetime) -> list[str]:
        """Return the statements that keep what was written in the hour of ``now``, in place of what was kept of it."""
        hour, end = (None if each is None else each.replace(tzinfo=None) for each in (_hour(now), sent.finished_at))
        values = self.words.values([self.export, hour, sent.hour, end])
        of_hour = f"{self.words.name('hour')} = {self.words.value(hour)}"
        return [
            f"delete from {self._table(HOURS)} where {self._ours} and {of_hour}",
            f"insert into {self._table(HOURS)} ({self.words.names(HOUR_COLUMNS)}) values ({values})",
        ]

    def _insert_days(self, marks: Mapping[date, Mark]) -> list[str]:
        """Several rows of values are beyond Synapse."""
        rows = " union all ".join(
            f"select {self.words.values([self.export, self.chosen, day, mark.events, *mark.position])}"
            for day, mark in marks.items()
        )
        return [f"insert into {self._table(DAYS)} ({self.words.names(DAY_COLUMNS)}) {rows}"]

    def _table(self, name: str) -> str:
        return self.words.table(self.schema, name)

    @property
    def _ours(self) -> str:
        return f"{self.words.name('export')} = {self.words.value(self.export)}"

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        return rows_of(self.connection, sql)


def rows_of(connection: Connection, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a small result, in the order of its columns."""
    batches = [[column.to_pylist() for column in batch.columns] for batch in connection.batches(sql)]
    return [row for columns in batches for row in zip(*columns, strict=True)]


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _day_schema() -> pa.Schema:
    import pyarrow as pa

    types = (pa.string(), pa.string(), pa.date32(), pa.int64(), pa.int64(), pa.string(), pa.string())
    return pa.schema(list(zip(DAY_COLUMNS, types, strict=True)))


def _hour_schema() -> pa.Schema:
    import pyarrow as pa

    types = (pa.string(), pa.timestamp("us"), pa.int64(), pa.timestamp("us"))
    return pa.schema(list(zip(HOUR_COLUMNS, types, strict=True)))
