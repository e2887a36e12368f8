"""What the load of a dump did, table by table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal


@dataclass(frozen=True)
class TableReport:
    """What a dump did to a table, in rows.

    ``read`` = ``inserted`` + ``updated`` + ``duplicates`` + ``keyless``. ``duplicates`` gave way to another row of the
    dump with the same key, ``keyless`` have no key; neither is in the table. ``removed`` were in a table that was
    replaced, ``rows`` are in the table now. ``unread`` are there without a time, as it can't be read; ``example`` shows
    one. ``gained``, ``lost`` and ``retyped`` are columns; a lost one stays or goes as the settings say. ``bytes`` is
    the size of the dump's files.
    """

    name: str
    how: Literal["replaced", "merged"]
    read: int
    inserted: int
    updated: int
    duplicates: int
    keyless: int
    removed: int
    rows: int
    unread: int
    example: str
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    retyped: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class DumpReport:
    """What the load of one dump did; ``ignored`` tables had newer content, or will have all of it from a later dump."""

    dump_id: int
    tables: tuple[TableReport, ...]
    ignored: tuple[str, ...]
    seconds: float

    @property
    def read(self) -> int:
        """How many rows were read."""
        return sum(table.read for table in self.tables)

    @property
    def bytes(self) -> int:
        """The size of the files that were read."""
        return sum(table.bytes for table in self.tables)


@dataclass(frozen=True)
class LoadedTable:
    """What stands of a table: the dump that brought its newest rows and the one that replaced it last, if one has."""

    name: str
    key: str
    dump_id: int
    replaced_by: int | None
    rows: int
    loaded_at: datetime
