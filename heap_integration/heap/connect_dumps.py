"""Heap Connect for S3: what a dump's manifest says, and which of its tables have to be loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

MIGRATIONS = "user_migrations"
OWN_PREFIX = "_hub_"

_KEYS = {"users": "user_id", MIGRATIONS: "from_user_id"}
_EVENT_KEY = "event_id"
_FILE_NAME = re.compile(r"sync_(\d+)\.json")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]+/")


class BadManifest(ValueError):
    """A manifest that can't be followed; the message names it and what is wrong."""


@dataclass(frozen=True)
class DumpTable:
    """A table as one dump brings it: all its columns, the addresses of its files, and whether it only adds to it."""

    name: str
    columns: tuple[str, ...]
    files: tuple[str, ...]
    incremental: bool

    @property
    def key(self) -> str:
        """The column whose value a row has alone."""
        return _KEYS.get(self.name, _EVENT_KEY)

    @property
    def replaces(self) -> bool:
        """Whether the table is whole in this dump; Heap always writes all of ``user_migrations``."""
        return not self.incremental or self.name == MIGRATIONS


@dataclass(frozen=True)
class Manifest:
    """What a dump holds; a table that had nothing new may be missing."""

    dump_id: int
    tables: tuple[DumpTable, ...]

    # the file is written when all others are there: its name alone says that a dump is complete
    FOLDER: ClassVar[str] = "manifests"


def dump_id_of(name: str) -> int | None:
    """Return the number of the dump whose manifest has this file name, ``None`` for any other file."""
    found = _FILE_NAME.fullmatch(name.rpartition("/")[2])
    return int(found[1]) if found else None


def read_manifest(content: bytes, name: str) -> Manifest:
    """Return what a manifest says; ``name`` is its address, for messages and for its number.

    Raises:
        BadManifest: it isn't JSON of that form, bears another number than its name, or names a table twice.
    """
    try:
        said = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BadManifest(f"{name} is not JSON: {error}") from None
    dump_id = dump_id_of(name)
    if not isinstance(said, dict) or not isinstance(said.get("tables"), list):
        raise BadManifest(f"{name} is no manifest: it has no list of tables")
    if dump_id is None or said.get("dump_id", dump_id) != dump_id:
        raise BadManifest(f"{name} bears another number than its name: {said.get('dump_id')!r}")
    tables = tuple(_table(entry, f"{name}: tables[{number}]") for number, entry in enumerate(said["tables"]))
    names = [table.name.casefold() for table in tables]
    for table in tables:
        if names.count(table.name.casefold()) > 1:
            raise BadManifest(f"{name} names the table {table.name} twice")
    return Manifest(dump_id, tables)


def _table(entry: Any, place: str) -> DumpTable:
    if not isinstance(entry, dict):
        raise BadManifest(f"{place} is not an object")
    name, incremental = entry.get("name"), entry.get("incremental")
    if not isinstance(name, str) or not name or name.casefold().startswith(OWN_PREFIX):
        raise BadManifest(f"{place}.name is {name!r}: no name of a table of Heap's")
    if not isinstance(incremental, bool):
        raise BadManifest(f"{place}.incremental is {incremental!r}: neither true nor false")
    columns, files = _texts(entry, "columns", place), _texts(entry, "files", place)
    return DumpTable(name, columns, files, incremental)


def _texts(entry: dict[str, Any], field: str, place: str) -> tuple[str, ...]:
    values = entry.get(field)
    if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
        raise BadManifest(f"{place}.{field} is not a list of texts")
    return tuple(values)


def tables_to_load(
    manifest: Manifest, later: Iterable[Manifest], loaded: Mapping[str, int], left_out: Iterable[str] = ()
) -> list[DumpTable]:
    """Return the tables of a dump that have to be loaded.

    ``loaded`` is the newest dump from which each table was loaded. A table is not loaded from an older one than that,
    nor where one of the ``later`` dumps holds all of it anew, nor where its name is ``left_out``.
    """
    whole_later = {
        table.name for each in later if each.dump_id > manifest.dump_id for table in each.tables if table.replaces
    }
    unwanted = {*left_out} | whole_later
    return [
        table
        for table in manifest.tables
        if table.name not in unwanted and loaded.get(table.name, -1) < manifest.dump_id
    ]


def place_of(file: str, root: str) -> str:
    """Return where a file that a manifest names lies in the bucket, or in the copy of it, at ``root``.

    Raises:
        BadManifest: it lies outside.
    """
    base = root.rstrip("/") + "/"
    if file.startswith(base):
        key = file.removeprefix(base)
    else:
        address = _ADDRESS.match(file)
        key = file[address.end() :] if address else file
    if not key or any(part in ("", ".", "..") for part in key.split("/")):
        raise BadManifest(f"{file} is no file in the bucket {root}")
    return base + key
