"""Puts the parts of one environment together, for Dagster and the command line alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import Self

from heap_integration.destinations.userflow import MembershipSender, UserflowClient
from heap_integration.environment import (
    Environment,
    EnvironmentProblems,
    FileSource,
    SegmentSync,
    load_environment,
)
from heap_integration.events.flatten import Preset
from heap_integration.events.loading import file_mark, load_file, load_landed
from heap_integration.events.mapping import Mapping as ColumnMapping
from heap_integration.events.mapping import load_mapping
from heap_integration.events.outbound import EventSender, Outbound
from heap_integration.events.prepare import Preparer, PrepareSettings
from heap_integration.heap.events_api import EventsApi
from heap_integration.segments.sync import SegmentSync as Sync
from heap_integration.store import Store
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.events import Balance, Loaded, balance, resume_point
from heap_integration.warehouse.memberships import Apart, apart, segment_ids

LOADING = "loading"
# What stands for the switches of an environment that can't be read any more: nothing is on.
EVERYTHING_OFF = frozenset({"*"})


@dataclass(frozen=True)
class Hub:
    """One environment at work: where its data lives and how its flows are wired."""

    environment: Environment
    store_url: str

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

    @property
    def landing(self) -> Path:
        """Where the receiver writes."""
        return Path(self.environment.landing)

    def load(self, progress: Callable[[Loaded], None] = lambda _: None) -> Loaded:
        """Bring everything that waits, landed or in files, into the warehouse; one process at a time does."""
        with self.store.exclusive(LOADING):
            total = load_landed(self.warehouse, self.landing, progress)
            for source, path, mapping in self._files():
                total += load_file(self.warehouse, path, mapping, progress, source=source)
        return total

    def load_file(
        self, path: Path, mapping: ColumnMapping | None, progress: Callable[[Loaded], None] = lambda _: None
    ) -> Loaded:
        """Bring one file into the warehouse."""
        with self.store.exclusive(LOADING):
            return load_file(self.warehouse, path, mapping, progress)

    def files(self) -> Iterator[tuple[Path, ColumnMapping | None]]:
        """Yield the files of the enabled file sources with their mappings, in order of their names."""
        return ((path, mapping) for _, path, mapping in self._files())

    def _files(self) -> Iterator[tuple[str, Path, ColumnMapping | None]]:
        for source in self.environment.sources.files:
            if source.enabled:
                mapping = load_mapping(Path(source.mapping)) if source.mapping else None
                for path in files_of(source):
                    yield source.name, path, mapping

    def new_files(self) -> list[Path]:
        """Return the files that aren't wholly in the warehouse yet."""
        with self.warehouse.read() as con:
            return [path for path, mapping in self.files() if resume_point(con, file_mark(path, mapping)) is not None]

    def preparer(self, preset: Preset | None = None) -> Preparer:
        """Return what turns events into Heap's form by this environment's rules."""
        return Preparer(prepare_settings(self.environment, preset))

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
        return Outbound(self.warehouse, self.store, self.event_sender(api), self.preparer(preset), switched_off(self))

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

    def balance(self) -> Balance:
        """Hold the counts of all events against the rows that are there."""
        with self.warehouse.read() as con:
            return balance(con)

    def apart(self, segment: SegmentSync) -> Apart:
        """Compare what Userflow has acknowledged of a segment with the segment."""
        with self.warehouse.read() as con:
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
    return Hub(environment, store if isinstance(store, str) else store.value(variables))


def sync_name(segment: SegmentSync) -> str:
    """Return what a segment's sync to Userflow is called in the ledger and the warehouse."""
    return f"userflow/{segment.slug}"


def files_of(source: FileSource) -> list[Path]:
    """Return the files that a source's path names now."""
    return sorted(path for path in map(Path, glob(source.path, recursive=True)) if path.is_file())


def prepare_settings(environment: Environment, preset: Preset | None = None) -> PrepareSettings:
    """Return an environment's rules for events, with another preset where one is named."""
    privacy, events = environment.privacy, environment.events
    return PrepareSettings(
        preset=preset or events.preset,
        too_long=events.too_long,
        refuse_placeholder_identities=events.refuse_placeholder_identities,
        mask=privacy.mask,
        action=privacy.action,
        salt=f"{environment.name}/{environment.heap.app_id}",
        deny_properties=privacy.deny_properties,
        consent_property=privacy.consent_property,
    )


def switched_off(hub: Hub) -> Callable[[], Collection[str]]:
    """Return a question to ask again and again: which sources' events are held back now?"""
    current = _watched(hub)

    def withheld() -> Collection[str]:
        environment = current()
        if environment is None:
            return EVERYTHING_OFF
        userflow = environment.sources.userflow
        off = {source.name for source in environment.sources.files if not source.enabled}
        return off if userflow and userflow.stream_events else off | {"userflow"}

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
