"""Puts the parts of one environment together, for Dagster and the command line alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from heap_integration.delivery.engine import Patience, Tally
from heap_integration.delivery.ledger import Ledger, settle
from heap_integration.destinations.userflow import MembershipSender, UserflowClient
from heap_integration.environment import (
    IN_STORE,
    Environment,
    EnvironmentProblems,
    FileSource,
    SegmentSync,
    TableSource,
    load_environment,
)
from heap_integration.events.flatten import Preset
from heap_integration.events.loading import (
    load_file,
    load_files,
    load_landed,
    load_table,
    table_has_news,
    waiting_files,
)
from heap_integration.events.mapping import Mapping as ColumnMapping
from heap_integration.events.mapping import load_mapping
from heap_integration.events.merges import Merges
from heap_integration.events.opt_outs import follow_orders
from heap_integration.events.outbound import FLOW, EventSender, Outbound, together
from heap_integration.events.outbound_profiles import FLOW as PROFILES
from heap_integration.events.outbound_profiles import OutboundProfiles, ProfileSender
from heap_integration.events.prepare import Preparer, PrepareSettings, PropertyLists
from heap_integration.events.profiles import ProfilePreparer
from heap_integration.events.retrying import Retried, retry
from heap_integration.events.sources.files import RowFormat
from heap_integration.events.sources.storage import InputFile, list_files, read_options
from heap_integration.heap.events_api import EventsApi
from heap_integration.heap.profiles_api import ProfilesApi
from heap_integration.landing import Arrivals, FolderArrivals, Landing, LandingWriter, StoreArrivals, StoreLanding
from heap_integration.receiver.settings import Client, ReceiverSettings, Switch, SwitchState
from heap_integration.segments.sync import SegmentSync as Sync
from heap_integration.store import Store
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.events import Balance, Chosen, Loaded, balance, settle_events
from heap_integration.warehouse.memberships import Apart, apart, segment_ids

# Two locks: a large file must not keep back what has just arrived.
LOADING, LANDING = "loading", "loading what landed"
# What stands for the switches of an environment that can't be read any more: nothing is on.
EVERYTHING_OFF = frozenset({"*"})
UNREADABLE = "unreadable sources"
# Sources that need no name of their own: one that was taken out of the YAML is off.
STREAMS = frozenset({"userflow", "userpilot", "heap_webhooks"})


@dataclass(frozen=True)
class PulledFiles:
    """Files as a source; ``variables`` hold the credentials of their storage."""

    source: FileSource
    variables: Mapping[str, str] = field(repr=False)

    @property
    def name(self) -> str:
        """The source's name."""
        return self.source.name

    def listed(self) -> list[InputFile]:
        """Return the files that are there, loaded or not."""
        return list_files(self.source.path, self._options())

    def load(self, warehouse: Warehouse, progress: Callable[[Loaded], None]) -> Loaded:
        """Load what waits; see ``load_files``."""
        return load_files(warehouse, *self._where(), progress=progress)

    def waiting(self, warehouse: Warehouse) -> list[str]:
        """Return the files that wait."""
        return waiting_files(warehouse, *self._where())

    def _where(self) -> tuple[str, str, ColumnMapping | None, RowFormat, dict[str, Any] | None]:
        source = self.source
        mapping = load_mapping(Path(source.mapping)) if source.mapping else None
        return source.name, source.path, mapping, source.format, self._options()

    def _options(self) -> dict[str, Any] | None:
        secret = self.source.credentials
        return read_options(secret.value(self.variables), secret.env) if secret else None


@dataclass(frozen=True)
class PulledTable:
    """A table as a source."""

    source: TableSource

    @property
    def name(self) -> str:
        """The source's name."""
        return self.source.name

    def load(self, warehouse: Warehouse, progress: Callable[[Loaded], None]) -> Loaded:
        """Load what waits; see ``load_table``."""
        return load_table(warehouse, *self._where(), progress=progress)

    def waiting(self, warehouse: Warehouse) -> list[str]:
        """Return the table if any of it waits."""
        return [self.source.table] if table_has_news(warehouse, *self._where()) else []

    def _where(self) -> tuple[str, str, str, ColumnMapping, timedelta]:
        source = self.source
        look_back = timedelta(hours=source.look_back_hours)
        return source.name, source.table, source.cursor, load_mapping(Path(source.mapping)), look_back


@dataclass(frozen=True)
class Deliveries:
    """The two ways into Heap: events, and what is told of people and accounts."""

    events: Outbound
    profiles: OutboundProfiles
    apis: tuple[EventsApi | ProfilesApi, ...]

    @property
    def flows(self) -> dict[str, Outbound | OutboundProfiles]:
        """The ways by the names of their flows."""
        return {"events": self.events, "profiles": self.profiles}

    @property
    def notes(self) -> Counter[str]:
        """What was changed on the way, and how often."""
        return self.events.notes + self.profiles.notes

    def send(
        self,
        first: date,
        last: date,
        *,
        resend: bool = False,
        patience: Patience | None = None,
        progress: Callable[[Tally], None] = lambda _: None,
        wait: float | None = None,
    ) -> Tally:
        """Send what is pending on the days ``first`` to ``last``; see ``Outbound.send``."""
        return together(
            [
                flow.send(first, last, resend=resend, patience=patience, progress=progress, wait=wait)
                for flow in self.flows.values()
            ]
        )

    def close(self) -> None:
        """Close the connections."""
        for api in self.apis:
            api.close()


@dataclass(frozen=True)
class Hub:
    """One environment at work: where its data lives and how its flows are wired."""

    environment: Environment
    store_url: str
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The values of the variables that the environment names."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store, if it was opened."""
        if "store" in self.__dict__:
            self.store.close()

    @cached_property
    def warehouse(self) -> Warehouse:
        """Analytical state."""
        return Warehouse(self.environment.warehouse)

    @cached_property
    def store(self) -> Store:
        """Operational state."""
        return Store(self.store_url)

    @cached_property
    def arrivals(self) -> Arrivals:
        """What the receivers have landed."""
        if self.environment.landing == IN_STORE:
            return StoreArrivals(self.store)
        return FolderArrivals(Path(self.environment.landing))

    def landing(self) -> Landing:
        """Return where a receiver of this process puts what it takes."""
        if self.environment.landing == IN_STORE:
            return StoreLanding(self.store)
        return LandingWriter(Path(self.environment.landing))

    def load(self, progress: Callable[[Loaded], None] = lambda _: None) -> Loaded:
        """Bring everything that waits, landed, in files or in tables, into the warehouse.

        A source that can't be read keeps no other one waiting; see ``unreadable``.
        """
        total, problems = self.load_landed(progress), []
        with self.store.exclusive(LOADING):
            for pulled in self.pulled():
                try:
                    total += pulled.load(self.warehouse, progress)
                except (ValueError, OSError) as problem:
                    problems.append(f"{pulled.name}: {problem}")
        self.store.remember(UNREADABLE, problems)
        return total

    def unreadable(self) -> list[str]:
        """Return, in words, which sources the last load could not read."""
        return list(self.store.recall(UNREADABLE) or ())

    def load_landed(self, progress: Callable[[Loaded], None] = lambda _: None) -> Loaded:
        """Bring what receivers have landed into the warehouse; one process at a time does.

        People whom Customer.io suppressed or deleted are on the opt-out list from then on.
        """
        with self.store.exclusive(LANDING):
            total = load_landed(self.warehouse, self.arrivals, progress)
        follow_orders(self.warehouse, self.store)
        return total

    def settle(self) -> None:
        """Bring the outcomes that a delivery left behind, dead or alive, into the warehouse."""
        for flow in (FLOW, PROFILES):
            settle(Ledger(self.store, flow), self.warehouse, settle_events)

    def load_file(
        self, path: Path, mapping: ColumnMapping | None, progress: Callable[[Loaded], None] = lambda _: None
    ) -> Loaded:
        """Bring one file into the warehouse."""
        with self.store.exclusive(LOADING):
            return load_file(self.warehouse, path, mapping, progress)

    def pulled(self) -> list[PulledFiles | PulledTable]:
        """Return the enabled sources that are read, files before tables."""
        sources = self.environment.sources
        files = [PulledFiles(each, self.variables) for each in sources.files if each.enabled]
        return [*files, *(PulledTable(each) for each in sources.tables if each.enabled)]

    def waiting_inputs(self) -> list[str]:
        """Return what of the sources that are read isn't loaded yet, or what is wrong with one, in words."""
        names = []
        for pulled in self.pulled():
            try:
                names += pulled.waiting(self.warehouse)
            except (ValueError, OSError) as problem:
                names.append(f"{pulled.name}: {problem}")
        return names

    def preparer(self, preset: Preset | None = None) -> Preparer:
        """Return what turns events into Heap's form by this environment's rules."""
        return Preparer(prepare_settings(self.environment, self.variables, preset))

    def event_sender(self, api: EventsApi) -> EventSender:
        """Return the way into Heap for events, at this environment's pace."""
        heap = self.environment.heap
        return EventSender(
            api,
            per_minute=heap.events_per_minute,
            per_minute_per_identity=heap.events_per_minute_per_identity,
        )

    def outbound(self, api: EventsApi, preset: Preset | None = None) -> Outbound:
        """Return the delivery of events to Heap."""
        return Outbound(
            self.warehouse,
            self.store,
            self.event_sender(api),
            self.preparer(preset),
            switched_off(self),
            live_share=self.environment.heap.live_share if self.environment.sources.streams() else 0.0,
        )

    def outbound_profiles(self, api: ProfilesApi, preset: Preset | None = None) -> OutboundProfiles:
        """Return the delivery of what is told of people and accounts to Heap."""
        return OutboundProfiles(
            self.warehouse,
            self.store,
            ProfileSender(api, Merges(self.store)),
            ProfilePreparer(self.preparer(preset), self.environment.heap.account_id_property),
            switched_off(self),
        )

    def deliveries(
        self, preset: Preset | None = None, *, url: str | None = None, app_id: str | None = None
    ) -> Deliveries:
        """Return the ways into Heap, the environment's own unless another is named; the caller closes them."""
        heap = self.environment.heap
        address = url or heap.url, app_id or heap.app_id
        events, profiles = EventsApi(*address), ProfilesApi(*address)
        return Deliveries(self.outbound(events, preset), self.outbound_profiles(profiles, preset), (events, profiles))

    def segment_sync(self, segment: SegmentSync, client: UserflowClient) -> Sync:
        """Return the sync of one segment to Userflow."""
        settings = self.environment.destinations.userflow
        if settings is None:
            raise ValueError(f"environment {self.environment.name} has no destination userflow")
        return Sync(
            name=sync_name(segment),
            segment_name=segment.name,
            segment_id=segment.segment_id,
            warehouse=self.warehouse,
            store=self.store,
            sender=MembershipSender(
                client,
                slug=segment.slug,
                segment_name=segment.name,
                membership=settings.membership,
                create_users=settings.create_users,
                concurrency=settings.concurrency,
            ),
            remove=segment.mode == "mirror",
        )

    def retry(self, chosen: Chosen) -> Retried:
        """Make rejected events pending again, and read refused lines that had landed once more.

        Both by today's rules: what is still wrong is rejected or refused anew.
        """
        self.settle()
        with self.store.exclusive(LANDING):
            return retry(self.warehouse, chosen)

    def balance(self) -> Balance:
        """Hold the counts of all events against the rows that are there."""
        with self.warehouse.read() as con:
            return balance(con)

    def apart(self, segment: SegmentSync) -> Apart:
        """Compare what Userflow has acknowledged of a segment with the segment."""
        with self.warehouse.read(ample=True) as con:
            heap_id = segment.segment_id or segment_ids(con).get(segment.name)
            return apart(con, sync_name(segment), heap_id, remove=segment.mode == "mirror")

    def segment_goes_on(self, segment: SegmentSync) -> Callable[[], bool]:
        """Return a question to ask before each request: is the segment's sync still switched on?"""
        current = _watched(self)

        def goes_on() -> bool:
            environment = current()
            userflow = environment.destinations.userflow if environment else None
            return bool(
                environment
                and userflow
                and userflow.enabled
                and any(other.name == segment.name and other.enabled for other in environment.segments)
            )

        return goes_on


def open_hub(environment: Environment, variables: Mapping[str, str]) -> Hub:
    """Return the hub of an environment whose variables are known.

    Raises:
        MissingSecret: the address of the store stands in a variable that isn't set.
    """
    store = environment.store
    return Hub(environment, store if isinstance(store, str) else store.value(variables), variables)


def sync_name(segment: SegmentSync) -> str:
    """Return what a segment's sync to Userflow is called in the ledger and the warehouse."""
    return f"userflow/{segment.slug}"


def prepare_settings(
    environment: Environment, variables: Mapping[str, str], preset: Preset | None = None
) -> PrepareSettings:
    """Return an environment's rules for events, with another preset where one is named.

    Raises:
        MissingSecret: the variable of the salt isn't set.
    """
    privacy, events = environment.privacy, environment.events
    return PrepareSettings(
        preset=preset or events.preset,
        too_long=events.too_long,
        refuse_placeholder_identities=events.refuse_placeholder_identities,
        anonymous_ids=events.anonymous_ids,
        future_timestamps=events.future_timestamps,
        largest_event_bytes=events.largest_event_kb * 1024,
        mask=privacy.mask,
        mask_properties=privacy.mask_properties,
        action=privacy.action,
        salt=privacy.salt.value(variables) if privacy.salt else "",
        deny_properties=privacy.deny_properties,
        deny_events=privacy.deny_events,
        event_properties={name: PropertyLists(each.allow, each.deny) for name, each in privacy.events.items()},
        consent_property=privacy.consent_property,
        opt_out_property=privacy.opt_out_property,
    )


def receiver_settings(environment: Environment, variables: Mapping[str, str]) -> ReceiverSettings:
    """Return what a receiver of the environment takes and what proves that it may.

    Raises:
        MissingSecret: the variable of a source isn't set.
    """
    sources, pages = environment.sources, environment.heap.segment_sync
    userflow, userpilot, webhooks = sources.userflow, sources.userpilot, sources.heap_webhooks
    return ReceiverSettings(
        userflow_secret=userflow.signing_secret.value(variables) if userflow else None,
        userflow_profiles=userflow.profiles if userflow else False,
        userpilot_secret=userpilot.webhook_secret.value(variables) if userpilot else None,
        heap_webhooks=(webhooks.username, webhooks.password.value(variables)) if webhooks else None,
        clients=tuple(
            Client(
                name=client.name,
                write_key=client.write_key.value(variables),
                dialect=client.dialect,
                largest_call_bytes=client.largest_call_kb * 1024,
                largest_batch_bytes=client.largest_batch_kb * 1024,
            )
            for client in sources.clients
        ),
        segment_sync_secret=pages.webhook_secret.value(variables) if pages else None,
        segment_sync_id_token=pages.id_token if pages else None,
    )


def switch(hub: Hub) -> Switch:
    """Return a question for each call that arrives: is its source's stream on, and else are its events kept?"""
    current = _watched(hub)

    def state(source: str) -> SwitchState:
        environment = current()
        found = environment.sources.streams().get(source) if environment else None
        if found is None:
            return "keep"
        return "on" if found.stream_events else found.while_off

    return state


def switched_off(hub: Hub) -> Callable[[], Collection[str]]:
    """Return a question to ask again and again: which sources' events are held back now?"""
    current = _watched(hub)

    def withheld() -> Collection[str]:
        environment = current()
        if environment is None:
            return EVERYTHING_OFF
        sources = environment.sources
        gone = STREAMS - sources.streams().keys()
        off = {name for name, source in sources.streams().items() if not source.stream_events}
        return gone | off | {source.name for source in sources.pulled() if not source.enabled}

    return withheld


def _watched(hub: Hub) -> Callable[[], Environment | None]:
    """Return the environment as its file says now; ``None`` once the file is gone or wrong."""
    path = hub.environment.file
    if not path.is_absolute():
        # The environment was written into somebody's definitions: it changes when they are loaded again.
        return lambda: hub.environment
    seen: tuple[float, Environment | None] = (0.0, hub.environment)

    def current() -> Environment | None:
        nonlocal seen
        try:
            changed = path.stat().st_mtime
        except FileNotFoundError:
            return None
        if changed != seen[0]:
            try:
                seen = (changed, load_environment(path.parent))
            except EnvironmentProblems:
                seen = (changed, None)
        return seen[1]

    return current
