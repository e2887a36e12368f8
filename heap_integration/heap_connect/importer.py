"""Heap's dumps on their way from the bucket into the warehouse: each once, in their order, whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from heap_integration.events.sources.storage import InputFile, list_files, read_options
from heap_integration.heap.connect_dumps import (
    BadManifest,
    Manifest,
    dump_id_of,
    place_of,
    read_manifest,
    tables_to_load,
)
from heap_integration.heap_connect.places import Notes, place_for
from heap_integration.heap_connect.reports import DumpReport, LoadedTable
from heap_integration.heap_connect.settings import DumpsSettings
from heap_integration.heap_connect.staging import DumpError, StagedTable, Staging
from heap_integration.store import Store
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.systems.system import Connection, Dialect

__all__ = ["Dump", "DumpError", "DumpImporter", "DumpReport", "LoadedTable"]

LOCK = "heap connect dumps"

Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Dump:
    """A complete dump in the bucket: its number, and its manifest."""

    dump_id: int
    manifest: InputFile


class DumpImporter:
    """Loads an environment's dumps.

    ``connection`` leads to the warehouse, where Heap's tables lie in ``schema``; the caller closes it. Files are made
    ready in a folder beside the hub's ``own`` tables, within the memory that those may take. ``variables`` holds
    the bucket's credentials. One process at a time loads dumps, by a lock of the ``store``.
    """

    def __init__(
        self,
        settings: DumpsSettings,
        connection: Connection,
        *,
        schema: str,
        dialect: Dialect,
        own: Warehouse,
        store: Store,
        variables: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._own = own
        self._store = store
        self._variables = variables
        self._notes = Notes(connection, schema, dialect)
        self._place = place_for(connection, schema, dialect, settings.lost_columns)
        self._manifests: dict[int, Manifest] = {}

    def waiting(self) -> list[Dump]:
        """Return the complete dumps that aren't loaded, by their numbers; one listing, and no manifest is read.

        Raises:
            StorageError: the bucket can't be listed.
        """
        done = self._notes.dumps() | set(self._settings.skip_dumps)
        return [dump for dump in self.listed() if dump.dump_id not in done]

    def listed(self) -> list[Dump]:
        """Return all complete dumps of the bucket, by their numbers; see ``dumps_in``."""
        return dumps_in(self._settings, self._variables)

    @property
    def nothing_there(self) -> str:
        """What to say of a bucket without a complete dump."""
        return f"no manifest of a dump is in {manifests_of(self._settings)}"

    def tables(self) -> list[LoadedTable]:
        """Return what stands of each table that a dump has brought."""
        return self._notes.tables()

    def apply(self, dump: Dump, progress: Progress = lambda _table, _rows: None) -> DumpReport:
        """Load a dump, unless it is loaded; ``progress`` is told a table and how many of its rows are read.

        Readers see what was there before until all of it is there.

        Raises:
            DumpError: an older dump waits, its manifest can't be followed, or one of its files is missing or broken;
                the message names the file, and nothing has changed.
            StorageError, OSError: the bucket can't be read.
            WarehouseError, QueryError: the warehouse can't take it.
        """
        with self._store.exclusive(LOCK):
            begin = time.monotonic()
            waiting = self.waiting()
            if dump.dump_id not in {each.dump_id for each in waiting}:
                return DumpReport(dump.dump_id, (), (), 0.0)
            if waiting[0].dump_id < dump.dump_id:
                raise DumpError(f"dump {waiting[0].dump_id} comes before dump {dump.dump_id}")
            manifest = self._manifest(dump)
            later = [found for each in waiting[1:] if (found := self._readable(each))]
            loaded = {table.name: table.dump_id for table in self._notes.tables()}
            tables = tables_to_load(manifest, later, loaded, self._settings.skip_tables)
            with Staging(self._folder(), self._own.ample_mb, self._settings.time_columns) as staging:
                staged = [self._stage(staging, manifest, table.name, progress) for table in tables]
                staging.rest()
                reports = self._place.apply(dump.dump_id, staged)
            names = {table.name for table in tables}
            ignored = tuple(table.name for table in manifest.tables if table.name not in names)
            return DumpReport(dump.dump_id, tuple(reports), ignored, time.monotonic() - begin)

    def _stage(self, staging: Staging, manifest: Manifest, name: str, progress: Progress) -> StagedTable:
        table = next(each for each in manifest.tables if each.name == name)
        try:
            places = [place_of(file, self._settings.bucket) for file in table.files]
        except BadManifest as error:
            raise DumpError(f"dump {manifest.dump_id}: {error}") from error
        files = [self._file(place, manifest.dump_id) for place in places]
        return staging.stage(table, files, lambda rows: progress(name, rows))

    def _file(self, place: str, dump_id: int) -> InputFile:
        found = list_files(escape(place), self._options())
        if not found:
            raise DumpError(f"dump {dump_id} names {place}, which isn't there")
        if found[0].name.rpartition("/")[2] != place.rpartition("/")[2]:
            raise DumpError(f"dump {dump_id} names {place}, which is a folder")
        return found[0]

    def _manifest(self, dump: Dump) -> Manifest:
        if dump.dump_id not in self._manifests:
            try:
                with dump.manifest.open() as file:
                    self._manifests[dump.dump_id] = read_manifest(file.read(), dump.manifest.name)
            except BadManifest as error:
                raise DumpError(str(error)) from error
        return self._manifests[dump.dump_id]

    def _readable(self, dump: Dump) -> Manifest | None:
        """Return what a later dump says, where it says anything: it fails when its turn has come."""
        try:
            return self._manifest(dump)
        except DumpError:
            return None

    def _options(self) -> dict[str, object] | None:
        return _options(self._settings, self._variables)

    def _folder(self) -> Path:
        return self._own.path.with_name(f"{self._own.path.name}.dumps")


def dumps_in(settings: DumpsSettings, variables: Mapping[str, str]) -> list[Dump]:
    """Return the complete dumps of a bucket by their numbers; one listing.

    Raises:
        StorageError: the bucket can't be listed.
    """
    files = list_files(f"{escape(manifests_of(settings))}/sync_*.json", _options(settings, variables))
    dumps = [Dump(number, file) for file in files if (number := dump_id_of(file.name)) is not None]
    return sorted(dumps, key=lambda dump: dump.dump_id)


def manifests_of(settings: DumpsSettings) -> str:
    """Return the address of the folder that holds a bucket's manifests."""
    return f"{settings.bucket.rstrip('/')}/{Manifest.FOLDER}"


def _options(settings: DumpsSettings, variables: Mapping[str, str]) -> dict[str, object] | None:
    secret = settings.credentials
    return read_options(secret.value(variables), secret.env) if secret else None
