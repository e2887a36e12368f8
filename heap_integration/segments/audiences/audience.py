"""One audience of an environment: its file, the SQL it becomes, its members on a day."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from heap_integration.environment_yaml import EnvironmentProblems, Lines, Problem, field_path, nearest
from heap_integration.segments.audiences.catalog import Catalog, Location
from heap_integration.segments.audiences.compiler import Tables, compiled
from heap_integration.segments.audiences.definition import AudienceDefinition, load_definition
from heap_integration.segments.audiences.dialects import Dialect
from heap_integration.segments.audiences.places import OwnPlace, Place, elsewhere
from heap_integration.segments.audiences.settings import AudienceSettings
from heap_integration.sync_settings import SegmentSync
from heap_integration.warehouse.audiences import compare, compute_members, replace_result, sample
from heap_integration.warehouse.elsewhere import Elsewhere
from heap_integration.warehouse.spool import spooled
from heap_integration.warehouse.tables import quoted

if TYPE_CHECKING:
    import duckdb

    from heap_integration.warehouse import Warehouse


class Opened(Protocol):
    """Opens a connection to the hub's own tables: ``Warehouse.read`` or ``Warehouse.write``."""

    def __call__(self, *, ample: bool) -> AbstractContextManager[duckdb.DuckDBPyConnection]: ...


class DayToCome(ValueError):
    """The day that an audience is asked for has not begun."""


@dataclass(frozen=True)
class AudienceRun:
    """What computing an audience for a day brought.

    ``moment`` (UTC) is where its windows end. ``entered`` and ``left`` count against the newest result up to that day,
    the one that was replaced included; it is of the day ``compared_with``, ``None`` if there was none.
    """

    audience: str
    as_of: date
    moment: datetime
    members: int
    entered: int
    left: int
    compared_with: date | None


@dataclass(frozen=True)
class AudiencePreview:
    """What computing an audience would bring; ``sample`` holds some of its identities, in their order."""

    run: AudienceRun
    sample: Sequence[str]


@dataclass(frozen=True)
class Audience:
    """An audience definition in its environment.

    ``segments`` are the environment's segments by name, which it may ask for; those of Heap that the environment
    doesn't name are found in the warehouse.
    """

    slug: str
    file: Path
    definition: AudienceDefinition
    settings: AudienceSettings
    segments: Mapping[str, SegmentSync] = field(default_factory=dict)
    lines: Lines = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, file: Path, slug: str, settings: AudienceSettings, segments: Iterable[SegmentSync] = ()) -> Self:
        """Read a definition's file.

        Raises:
            EnvironmentProblems: everything that is wrong with the file, or it asks for itself by way of others.
        """
        definition, lines = load_definition(file)
        audience = cls(slug, file, definition, settings, {each.name: each for each in segments}, lines)
        audience._refuse_circles()
        return audience

    def check(self, place: Place) -> None:
        """Look whether all that the definition names is in the warehouse; stops at the first row that shows it.

        Raises:
            EnvironmentProblems: what isn't there, each with the nearest names.
        """
        catalog = self._catalog(place)
        problems = [
            self._problem(location, message) for location, message in catalog.missing(self.definition.definition)
        ]
        if problems:
            raise EnvironmentProblems(problems)

    def sql(self, dialect: Dialect, moment: datetime, place: Place | None = None, *, pretty: bool = True) -> str:
        """Return the select of the members, as they are at ``moment`` (UTC), in the SQL of an engine.

        With a warehouse it uses the tables' own columns; without one every property is taken from the JSON.

        Raises:
            ValueError: it can't be said in that SQL, or asks for segments, which only a warehouse knows.
        """
        tables = self._catalog(place).tables(self.definition, _day_of(moment)) if place else Tables(self.settings)
        return compiled(self.definition.definition, tables, dialect, moment, pretty=pretty)

    def compute(self, warehouse: Warehouse, day: date, now: datetime, there: Elsewhere | None = None) -> AudienceRun:
        """Compute the members at the end of a UTC day, today's at ``now``, and write them in place of that day's.

        They are computed in the hub's own ``warehouse``, or, where the tables are elsewhere, ``there``; they are kept
        in the hub's own.

        Raises:
            EnvironmentProblems: as ``check``.
            DayToCome: the day has not begun.
            NoResultYet: another audience or segment that it asks for has no members of that day or before.
            QueryError: the warehouse refuses the statement.
            TableError: a table that the environment names isn't there.
        """
        moment = end_of(day, now)
        with self._computed(warehouse, warehouse.write, there, moment) as con:
            run = self._run(con, day, moment)
            replace_result(
                con,
                self.slug,
                day,
                moment,
                self.definition.model_dump_json(by_alias=True, exclude_unset=True),
                self.settings.keep_days,
            )
        return run

    def preview(
        self, warehouse: Warehouse, day: date, now: datetime, there: Elsewhere | None = None, *, rows: int = 10
    ) -> AudiencePreview:
        """Compute the members like ``compute``, and write nothing."""
        moment = end_of(day, now)
        with self._computed(warehouse, warehouse.read, there, moment) as con:
            return AudiencePreview(self._run(con, day, moment), sample(con, rows))

    @contextmanager
    def _computed(
        self, warehouse: Warehouse, opened: Opened, there: Elsewhere | None, moment: datetime
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection to the hub's own tables that knows the members."""
        if there is None:
            with opened(ample=True) as con:
                own = OwnPlace(con)
                self.check(own)
                compute_members(con, self.sql("duckdb", moment, own, pretty=False))
                yield con
            return
        with elsewhere(there, warehouse) as place, spooled() as spool:
            self.check(place)
            spool.fill(there.connection.batches(self.sql(there.dialect, moment, place, pretty=False)))
            with opened(ample=True) as con, spool.read() as arriving:
                con.register("arriving", arriving)
                compute_members(con, f"select {quoted(arriving.schema.names[0])}::varchar as identity from arriving")
                con.unregister("arriving")
                yield con

    def _run(self, con: duckdb.DuckDBPyConnection, day: date, moment: datetime) -> AudienceRun:
        changes = compare(con, self.slug, day)
        return AudienceRun(self.slug, day, moment, changes.members, changes.entered, changes.left, changes.since)

    def _catalog(self, place: Place) -> Catalog:
        return Catalog(place, self.settings, self.segments)

    def _problem(self, location: Location, message: str) -> Problem:
        return Problem(self.file, self.lines.get(nearest(self.lines, location)), field_path(location), message)

    def _refuse_circles(self) -> None:
        """Refuse a definition that asks for itself by way of others.

        Raises:
            EnvironmentProblems: it does; or the file of another audience that it asks for is wrong.
        """
        circle = self._circle(self.definition, (self.definition.name,), set())
        if circle:
            words = f"asks for itself: {' → '.join(circle)}"
            raise EnvironmentProblems([self._problem(("definition",), words)])

    def _circle(self, definition: AudienceDefinition, path: tuple[str, ...], seen: set[str]) -> tuple[str, ...] | None:
        for name in sorted(definition.segment_names()):
            segment = self.segments.get(name)
            if segment is None or segment.kind != "audience":
                continue
            if segment.slug == self.slug:
                return (*path, name)
            if name not in seen:
                seen.add(name)
                other, _ = load_definition(Path(str(segment.source)))
                found = self._circle(other, (*path, name), seen)
                if found:
                    return found
        return None


def end_of(day: date, now: datetime) -> datetime:
    """Return the moment that a day's members are of: its end in UTC, or now where that is earlier.

    Raises:
        DayToCome: the day has not begun.
    """
    end = datetime.combine(day, time(), UTC) + timedelta(days=1)
    if now <= end - timedelta(days=1):
        raise DayToCome(f"{day} is yet to come")
    return min(end, now)


def _day_of(moment: datetime) -> date:
    """Return the day that ends at or after a moment."""
    return (moment - timedelta(microseconds=1)).date()
