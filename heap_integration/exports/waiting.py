"""What of the models' events waits to be exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from heap_integration.exports.notes import Mark, rows_of
from heap_integration.exports.settings import Export
from heap_integration.exports.statements import ARRIVED, COLUMNS, DAY, KEY, Position, Words
from heap_integration.warehouse.systems.system import QueryError

if TYPE_CHECKING:
    from heap_integration.warehouse.systems.system import Connection

EVENTS, ROWS = "int_events", "export_events"


@dataclass(frozen=True)
class Waiting:
    """How many events wait, and of which days.

    ``after`` is where each of these days begins, ``covered`` how many of its events lie before, ``ends`` where it ends.
    """

    events: int
    after: dict[date, Position | None]
    covered: dict[date, int]
    ends: dict[date, Position]


@dataclass(frozen=True)
class Source:
    """The events of the models in the warehouse, as an export chooses them."""

    connection: Connection
    words: Words
    schema: str
    export: Export

    def days(self) -> dict[date, Mark]:
        """Return how many events each day has, and where it ends in the order of arrival.

        Raises:
            QueryError: the models aren't there.
        """
        if not self.connection.columns(self.schema, ROWS):
            raise QueryError(f"there is no {ROWS} in {self.schema}: build the models first")
        name = self.words.name
        rows = rows_of(
            self.connection,
            f"select {name(DAY)}, count(*) as events, max({name(ARRIVED)}) as last_arrived from {self._events()}"
            f" group by {name(DAY)}",
        )
        return {day: Mark(Position(int(arrived)), int(events)) for day, events, arrived in rows}

    def waiting(self, days: Mapping[date, Mark], marks: Mapping[date, Mark]) -> Waiting:
        """Compare the days' events with how far they were exported.

        A day that has other events at and before its mark than were counted there, is read from its beginning: days are
        computed one by one, and what arrived early may have come late.
        """
        changed = {day: marks[day].position for day in days if day in marks and days[day] != marks[day]}
        beyond = self._beyond(changed)
        after: dict[date, Position | None] = {day: None for day in days if day not in marks}
        for day, position in changed.items():
            is_late = days[day].events - beyond.get(day, 0) != marks[day].events
            if is_late or day in beyond:
                after[day] = None if is_late else position
        covered = {day: days[day].events - beyond[day] if position else 0 for day, position in after.items()}
        return Waiting(
            sum(days[day].events - covered[day] for day in after),
            after,
            covered,
            {day: days[day].position for day in after},
        )

    def bound(self, after: Mapping[date, Position | None], events: int) -> Position:
        """Return the position of the last of so many events that wait, in the order of arrival.

        Raises:
            QueryError: there are fewer.
        """
        arrived = self.words.name(ARRIVED)
        waiting = self.words.pending(after)
        (last,) = self._nth((ARRIVED,), waiting, events)
        query = f"select sum(case when {arrived} < {last} then 1 else 0 end) as earlier, count(*) as events"
        ((earlier, up_to),) = rows_of(
            self.connection, f"{query} from {self._events()} where {waiting} and {arrived} <= {last}"
        )
        if up_to == events:
            return Position(int(last))
        key = self._nth(KEY, f"{waiting} and {arrived} = {last}", events - int(earlier))
        return Position(int(last), *key)

    def rows(self, after: Mapping[date, Position | None] | None = None, until: Position | None = None) -> str:
        """Return the query of the events after the days' positions, or of all, as a table of exported events has them.

        Their days follow.
        """
        choice = {"event_properties": self.export.properties, "user_properties": self.export.user_properties}
        name = self.words.name
        columns = ", ".join(
            f"{self.words.chosen(each, choice[each])} as {name(each)}" if each in choice else name(each)
            for each in (*COLUMNS, DAY)
        )
        condition = "1 = 1" if after is None else self.words.pending(after, until)
        chosen = self.words.of_type("event_type", self.export.events)
        return f"select {columns} from {self.words.table(self.schema, ROWS)} where {condition}{chosen}"

    def _beyond(self, after: Mapping[date, Position]) -> dict[date, int]:
        """Return how many events days have after their positions."""
        if not after:
            return {}
        day = self.words.name(DAY)
        query = (
            f"select {day}, count(*) as events from {self._events()} where {self.words.pending(after)} group by {day}"
        )
        return {each: int(events) for each, events in rows_of(self.connection, query)}

    def _nth(self, columns: Sequence[str], condition: str, nth: int) -> tuple[Any, ...]:
        order = self.words.names(columns)
        ranked = f"select {order}, row_number() over (order by {order}) as nth from {self._events()} where {condition}"
        found = rows_of(self.connection, f"select {order} from ({ranked}) as ranked where nth = {nth}")
        if not found:
            raise QueryError("the models changed while events were exported: export again")
        return found[0]

    def _events(self) -> str:
        """Return the chosen events without their users, whom counting doesn't need."""
        name, chosen = self.words.name, self.words.of_type("event_name", self.export.events)
        columns = f"{self.words.names((DAY, ARRIVED, 'event_id'))}, {name('event_name')} as {name('event_type')}"
        return f"(select {columns} from {self.words.table(self.schema, EVENTS)} where 1 = 1{chosen}) as events"
