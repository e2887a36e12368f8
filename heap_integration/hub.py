"""Puts the parts of one environment together, for Dagster and the command line alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from heap_integration.delivery.engine import Patience, Tally
from heap_integration.delivery.ledger import Ledger, settle
from heap_integration.destinations.destination import Destination, Surroundings
from heap_integration.environment import IN_STORE, Environment
from heap_integration.events.flatten import Preset
from heap_integration.events.loading import load_file, load_landed
from heap_integration.events.mapping import Mapping as ColumnMapping
from heap_integration.events.merges import Merges
from heap_integration.events.opt_outs import follow_orders
from heap_integration.events.outbound import FLOW, EventSender, Outbound, together
from heap_integration.events.outbound_profiles import FLOW as PROFILES
from heap_integration.events.outbound_profiles import OutboundProfiles, ProfileSender
from heap_integration.events.prepare import Preparer, PrepareSettings, PropertyLists
from heap_integration.events.profiles import ProfilePreparer
from heap_integration.events.retrying import Retried, retry
from heap_integration.heap.events_api import EventsApi
from heap_integration.heap.profiles_api import ProfilesApi
from heap_integration.heap_connect.query import HeapConnect, by_http
from heap_integration.landing import Arrivals, FolderArrivals, Landing, LandingWriter, StoreArrivals, StoreLanding
from heap_integration.models.project import DbtProject
from heap_integration.pulled import UNREADABLE_ERRORS, PulledFiles, PulledTable
from heap_integration.receiver.settings import Client, ReceiverSettings
from heap_integration.store import Store
from heap_integration.switches import export_goes_on, switched_off
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.events import Balance, Chosen, Loaded, balance, settle_events
from heap_integration.warehouse.systems.system import Connection
from heap_integration.warehouse.systems.system import Surroundings as WarehouseSurroundings

if TYPE_CHECKING:
    from heap_integration.exports.exporting import Exporter
    from heap_integration.exports.settings import Export
    from heap_integration.heap_connect.importer import DumpImporter
    from heap_integration.warehouse.elsewhere import Elsewhere
    from heap_integration.warehouse.publishing import Published

# Two locks: a large file must not keep back what has just arrived.
LOADING, LANDING = "loading", "loading what landed"
PUBLISHING = "publishing"
UNREADABLE = "unreadable sources"


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
        """The hub's own tables; where the warehouse is a DuckDB file, they lie in it."""
        return Warehouse(self.environment.own_tables, self.environment.warehouse_memory_mb)

    def warehouse_surroundings(self) -> WarehouseSurroundings:
        """Return what the warehouse may know of this environment."""
        return WarehouseSurroundings(self.environment.name, self.warehouse, self.variables)

    def connect_warehouse(self) -> Connection:
        """Open the warehouse in which Heap's data and the models live; the caller closes it.

        Raises:
            MissingSecret: the variable of a credential isn't set.
            WarehouseError: it can't be reached, or refuses the credentials.
        """
        return self.environment.warehouse.connect(self.warehouse_surroundings())

    @contextmanager
    def elsewhere(self) -> Iterator[Elsewhere | None]:
        """Open the warehouse if it isn't the file that holds the hub's own tables; then yield ``None``.

        Raises:
            MissingSecret, WarehouseError: as ``connect_warehouse``.
        """
        settings = self.environment.warehouse
        if settings.dialect == "duckdb":
            yield None
            return
        from heap_integration.warehouse.elsewhere import Elsewhere

        with self.connect_warehouse() as connection:
            yield Elsewhere(connection, settings.schemas(), settings.dialect)

    def publish(self) -> Published | None:
        """Bring the hub's own tables up to date where models and audiences find them; one process at a time does.

        ``None``: the warehouse is the file in which they lie.

        Raises:
            MissingSecret, WarehouseError: as ``connect_warehouse``.
            QueryError: the warehouse refuses it.
        """
        with self.elsewhere() as there:
            if there is None:
                return None
            from heap_integration.warehouse.publishing import publish

            with self.store.exclusive(PUBLISHING):
                return publish(self.warehouse, there.connection, there.schemas.hub, there.dialect)

    def models(self) -> DbtProject:
        """Return the dbt models of this environment."""
        return DbtProject(self.environment, self.warehouse_surroundings())

    def exporter(self, export: Export) -> Exporter:
        """Return what writes an export's table; a running one stops once its entry is switched off."""
        from heap_integration.exports.exporting import Exporter
        from heap_integration.heap.plans import PLANS

        env = self.environment
        surroundings, goes_on = self.warehouse_surroundings(), export_goes_on(env, export.name)
        return Exporter(export, env.warehouse, surroundings, self.store, PLANS[env.heap.plan], go_on=goes_on)

    @contextmanager
    def dump_importer(self) -> Iterator[DumpImporter]:
        """Open what loads Heap Connect's dumps into the warehouse.

        Raises:
            ValueError: the environment names no bucket.
            MissingSecret, WarehouseError: as ``connect_warehouse``.
        """
        from heap_integration.heap_connect.importer import DumpImporter

        settings, warehouse = self.environment.heap_connect.s3, self.environment.warehouse
        if settings is None:
            raise ValueError(f"environment {self.environment.name} has no heap_connect.s3")
        with self.connect_warehouse() as connection:
            yield DumpImporter(
                settings,
                connection,
                schema=warehouse.schemas().heap_connect,
                dialect=warehouse.dialect,
                own=self.warehouse,
                store=self.store,
                variables=self.variables,
            )

    def heap_connect(self, *, over_http: bool = False) -> HeapConnect:
        """Open Heap's data for questions, in the warehouse or at ``heap_connect.api``; the caller closes it.

        Raises:
            MissingSecret: the variable of a credential isn't set.
            WarehouseError: it can't be reached, or refuses the credentials.
            ValueError: the environment has no ``heap_connect.api``.
        """
        settings, dialect = self.environment.heap_connect, self.environment.warehouse.dialect
        if over_http:
            return by_http(settings, dialect, self.variables)
        return HeapConnect(self.connect_warehouse(), dialect, settings)

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
                except UNREADABLE_ERRORS as problem:
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

    def waiting_inputs(self) -> tuple[list[str], list[str]]:
        """Return what of the sources that are read isn't loaded yet, and which of them can't be read, in words."""
        names, problems = [], []
        for pulled in self.pulled():
            try:
                names += pulled.waiting(self.warehouse)
            except UNREADABLE_ERRORS as problem:
                problems.append(f"{pulled.name}: {problem}")
        return names, problems

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
            switched_off(self.environment),
            live_share=self.environment.heap.live_share if self.environment.sources.streams() else 0.0,
        )

    def outbound_profiles(self, api: ProfilesApi, preset: Preset | None = None) -> OutboundProfiles:
        """Return the delivery of what is told of people and accounts to Heap."""
        return OutboundProfiles(
            self.warehouse,
            self.store,
            ProfileSender(api, Merges(self.store)),
            ProfilePreparer(self.preparer(preset), self.environment.heap.account_id_property),
            switched_off(self.environment),
        )

    def deliveries(
        self, preset: Preset | None = None, *, url: str | None = None, app_id: str | None = None
    ) -> Deliveries:
        """Return the ways into Heap, the environment's own unless another is named; the caller closes them."""
        heap = self.environment.heap
        address = url or heap.url, app_id or heap.app_id
        events, profiles = EventsApi(*address), ProfilesApi(*address)
        return Deliveries(self.outbound(events, preset), self.outbound_profiles(profiles, preset), (events, profiles))

    def surroundings(self) -> Surroundings:
        """Return what destinations may know of this environment."""
        heap = self.environment.heap
        return Surroundings(
            environment=self.environment.name,
            store=self.store,
            heap_url=heap.url,
            heap_app_id=heap.app_id,
            variables=self.variables,
        )

    def destination(self, name: str) -> Destination:
        """Open a destination by the name that ``sync_to`` uses; the caller closes it.

        Raises:
            MissingSecret: the variable of a credential isn't set.
            ValueError: a credential can't be one, or nothing of that name is configured.
        """
        named = self.environment.destinations.named()
        if name not in named:
            raise ValueError(f"environment {self.environment.name} has no destination {name}")
        return named[name].connect(self.surroundings())

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


def open_hub(environment: Environment, variables: Mapping[str, str]) -> Hub:
    """Return the hub of an environment whose variables are known.

    Raises:
        MissingSecret: the address of the store stands in a variable that isn't set.
    """
    store = environment.store
    return Hub(environment, store if isinstance(store, str) else store.value(variables), variables)


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
