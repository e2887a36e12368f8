"""The syncs of an environment: each segment and set of profiles, to each destination that follows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from heap_integration.brought import are_here, bring, localized, localized_users
from heap_integration.delivery.engine import DeliveryStopped, Patience, Tally
from heap_integration.delivery.records import AttributeChange, BatchRejected, NotAuthorised, ProfileChange, RetryLater
from heap_integration.destinations.destination import Audience, Destination, IdKind, ProfileSet
from heap_integration.environment import Environment, ProfileSync, SegmentSync
from heap_integration.events.opt_outs import all_opt_outs
from heap_integration.routes import Route
from heap_integration.segments.audiences.audience import Audience as AudienceDefinition
from heap_integration.segments.audiences.audience import AudienceRun
from heap_integration.segments.audiences.settings import UsersTable
from heap_integration.segments.changes import profile_change
from heap_integration.segments.heap_segments import apply_pages
from heap_integration.segments.identity import Match, count_opted_out, mapped, match_counts, without
from heap_integration.segments.members import audience_members, heap_members, table_members
from heap_integration.segments.profiles import profile_match, profile_wanted
from heap_integration.segments.sync import Payload, Preview, RunOptions, Sample, Sync, SyncReport, member_change
from heap_integration.segments.wanted import Wanted
from heap_integration.sync_settings import MembersTable
from heap_integration.warehouse.memberships import Apart, Matched, apart, last_runs, segment_named
from heap_integration.warehouse.tables import is_own_view

if TYPE_CHECKING:
    import duckdb

    from heap_integration.hub import Hub

NOBODY = Match(members=0, mapped=0, ids=0, unmapped=0, ambiguous=0, placeholders=0)


def audience_of(environment: Environment, segment: SegmentSync) -> AudienceDefinition:
    """Return the audience behind a segment.

    Raises:
        EnvironmentProblems: what is wrong with its definition.
    """
    return AudienceDefinition.load(Path(str(segment.source)), segment.slug, environment.audiences, environment.segments)


def heap_id(con: duckdb.DuckDBPyConnection, segment: SegmentSync) -> int | None:
    """Return Heap's number of a segment, ``None`` while Heap has told nothing of it.

    Raises:
        ValueError: several segments have its name.
    """
    return segment.segment_id if segment.segment_id is not None else segment_named(con, segment.name)


def refresh(hub: Hub, sync: SegmentSync | ProfileSync, now: datetime) -> None:
    """Bring a sync's source up to date: apply Heap's waiting pages, or compute the audience as of ``now`` (UTC)."""
    if isinstance(sync, ProfileSync) or sync.kind == "table":
        return
    if sync.kind == "audience":
        compute_audience(hub, sync, now.date(), now)
    else:
        apply_pages(hub.store, hub.warehouse)


def compute_audience(hub: Hub, segment: SegmentSync, day: date, now: datetime) -> AudienceRun:
    """Compute the audience behind a segment where its tables are; see ``Audience.compute``.

    Where that is another warehouse, what the hub knows is published there before.

    Raises:
        EnvironmentProblems: what is wrong with its definition.
        ValueError: it can't be computed.
    """
    audience, settings = audience_of(hub.environment, segment), hub.environment.audiences
    if is_own_view(settings.events.table) or is_own_view(settings.users.table):
        hub.publish()
    with hub.elsewhere() as there:
        return audience.compute(hub.warehouse, day, now, there)


@dataclass(frozen=True)
class RouteSync:
    """A route at work: what is wanted, where it goes, and the sync between them."""

    hub: Hub
    route: Route

    @cached_property
    def sync(self) -> SegmentSync | ProfileSync:
        """What goes there, by the names that its tables have in the hub's own file."""
        return localized(self.route.sync) if self._is_elsewhere else self.route.sync

    @cached_property
    def users(self) -> UsersTable:
        """The table of users, by the name that it has in the hub's own file."""
        users = self.hub.environment.audiences.users
        return localized_users(users) if self._is_elsewhere else users

    @property
    def _is_elsewhere(self) -> bool:
        return self.hub.environment.warehouse.dialect != "duckdb"

    def _bring(self, *, anew: bool) -> None:
        """Bring what is needed of another warehouse; what has been brought before will do unless ``anew``."""
        if not self._is_elsewhere:
            return
        if not anew:
            with self.hub.warehouse.read() as con:
                if are_here(con, self.route.sync, self.hub.environment.audiences.users):
                    return
        with self.hub.elsewhere() as there:
            if there is not None:
                bring(self.hub.environment, self.route.sync, there, self.hub.warehouse)

    @cached_property
    def opted_out(self) -> list[str]:
        """The identities of whom nothing may go out."""
        return all_opt_outs(self.hub.store)

    def run(
        self,
        options: RunOptions | None = None,
        *,
        go_on: Callable[[], bool] = lambda: True,
        patience: Patience | None = None,
        progress: Callable[[Tally], None] = lambda _: None,
    ) -> tuple[SyncReport, Match]:
        """Send the difference, and return what became of it and how many members have an id there.

        Raises:
            DeliveryStopped: the destination stayed out of reach or refuses the credentials.
            GuardStopped: a guard holds the sync back; nothing was sent.
                QueryError: the warehouse in which the source is refuses a query.
            TableError: the source isn't there.
        """
        chosen = options or RunOptions()
        self._bring(anew=True)
        with self._opened() as sync:
            with self.hub.warehouse.read(ample=True) as con:
                match = self.match(con)
            changed_at = sync.wanted.changed_at if sync.wanted else None
            matched = Matched(match.unmapped, match.ambiguous, match.placeholders, changed_at)
            report = sync.run(chosen, matched=matched, go_on=go_on, patience=patience, progress=progress)
        return report, replace(match, unknown_there=report.unknown)

    def preview(self, options: RunOptions | None = None, samples: int = 10) -> Preview:
        """Return what a run would do; nothing is sent or kept.

        Raises:
            DeliveryStopped: the destination can't be asked who is there.
        """
        self._bring(anew=True)
        with self._opened() as sync:
            return sync.preview(samples, options)

    def apart(self) -> Apart:
        """Compare what the destination has acknowledged with what is wanted there.

        Tables of another warehouse are taken as the last run found them.
        """
        self._bring(anew=False)
        with self._opened() as sync, self.hub.warehouse.read(ample=True) as con:
            return apart(con, sync.name, sync.question())

    def known(self) -> Match:
        """Count the source's identities, those included that the destination didn't know in the last run."""
        self._bring(anew=False)
        with self.hub.warehouse.read(ample=True) as con:
            match = self.match(con)
            last = next((run for run in last_runs(con) if run["sync"] == self.route.name), None)
        return replace(match, unknown_there=last["unknown"]) if last else match

    def members(self, con: duckdb.DuckDBPyConnection) -> Wanted | None:
        """Return the segment's members under their identities; ``None`` while its source has told nothing."""
        sync = self.sync
        if not isinstance(sync, SegmentSync):
            raise TypeError(f"{self.route.name} carries profiles")
        if isinstance(sync.source, MembersTable):
            return table_members(con, sync.source)
        if sync.kind == "audience":
            return audience_members(con, sync.slug)
        segment = heap_id(con, sync)
        return None if segment is None else heap_members(con, segment)

    def wanted(self, con: duckdb.DuckDBPyConnection) -> Wanted | None:
        """Return what shall be at the destination, under its own ids."""
        sync, users = self.sync, self.users
        if isinstance(sync, ProfileSync):
            return profile_wanted(con, sync, users, self.route.name, self.opted_out)
        members = self.members(con)
        return members and mapped(con, without(members, self.opted_out), sync.map_users_by, users, self.opted_out)

    def match(self, con: duckdb.DuckDBPyConnection) -> Match:
        """Count the source's identities by whether they have an id at the destination."""
        sync, users = self.sync, self.users
        if isinstance(sync, ProfileSync):
            return profile_match(con, sync, users, self.opted_out)
        members = self.members(con)
        if members is None:
            return NOBODY
        left = without(members, self.opted_out)
        counted = match_counts(con, left, sync.map_users_by, users, self.opted_out)
        return replace(counted, opted_out=count_opted_out(con, members, self.opted_out))

    @contextmanager
    def _opened(self) -> Iterator[Sync]:
        with self.hub.warehouse.read(ample=True) as con:
            wanted = self.wanted(con)
        try:
            with closing(self.hub.destination(self.route.destination)) as destination:
                yield self._sync(wanted, destination)
        except (RetryLater, NotAuthorised, BatchRejected) as error:
            # It was asked who is there already: nothing has been sent.
            raise DeliveryStopped(str(error), Tally()) from error

    def _sync(self, wanted: Wanted | None, destination: Destination) -> Sync:
        payload: Payload
        sync = self.route.sync
        identified_by: IdKind = "email" if sync.map_users_by == "email" else "identity"
        if isinstance(sync, ProfileSync):
            sender = destination.profiles(ProfileSet(sync.of, sync.slug, sync.creates, identified_by))
            payload, existing = profile_change(sync.fields), _nobody
        else:
            audience = Audience(
                slug=sync.slug,
                name=sync.name,
                create=sync.creates,
                identified_by=identified_by,
            )
            sender = destination.members(audience)
            payload, existing = member_change, partial(destination.existing, audience)
        return Sync(
            name=self.route.name,
            wanted=wanted,
            warehouse=self.hub.warehouse,
            store=self.hub.store,
            sender=sender,
            payload=payload,
            mode=sync.mode,
            guards=sync.guards,
            existing=existing,
            removes=sync.removes if isinstance(sync, SegmentSync) else "own",
        )


def _nobody() -> Iterator[str] | None:
    return None


def sample_words(sample: Sample) -> str:
    """Return in words what a change of a preview would tell the destination."""
    change = sample.change
    if sample.unfit:
        return f"rejected: {sample.unfit}"
    if isinstance(change, ProfileChange):
        return ", ".join(_attribute_words(each) for each in change.changes) or "nothing to tell"
    return "" if change else "nothing to tell"


def _attribute_words(change: AttributeChange) -> str:
    if change.operation == "clear":
        return f"{change.name} cleared"
    words = "" if change.operation == "set" else f" {change.operation}"
    return f"{change.name}{words} {change.value!r}"
