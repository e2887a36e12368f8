"""A bucket in a folder, and the importer of an environment that reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from heap_integration.heap_connect.importer import DumpImporter, DumpReport
from heap_integration.heap_connect.reports import TableReport
from heap_integration.heap_connect.settings import DumpsSettings
from heap_integration.sandbox.dumps import AvroType, DumpBucket, DumpTable, Row
from heap_integration.store import Store
from heap_integration.warehouse.systems.system import Connection, WarehouseSettings
from heap_integration_tests.support.warehouses import rows, surroundings

SCHEMA = "heap_connect"
USERS: dict[str, AvroType] = {"user_id": "long", "identity": "string", "last_modified": "long"}
EVENTS: dict[str, AvroType] = {"event_id": "long", "user_id": "long", "session_id": "long", "time": "string"}
MIGRATIONS: dict[str, AvroType] = {"from_user_id": "long", "to_user_id": "long", "time": "long"}


def users(given: Iterable[Row], columns: dict[str, AvroType] | None = None, **options: Any) -> DumpTable:
    """Return the table of users."""
    return DumpTable("users", {**USERS, **(columns or {})}, list(given), **options)


def clicks(given: Iterable[Row], columns: dict[str, AvroType] | None = None, **options: Any) -> DumpTable:
    """Return the table of an event."""
    return DumpTable("click", {**EVENTS, **(columns or {})}, list(given), **options)


def click(number: int, **properties: Any) -> Row:
    """Return an event of its own number."""
    return {"event_id": number, "user_id": 1, "session_id": 1, "time": "2026-01-02 03:04:05.678", **properties}


class Importing:
    """Heap's bucket and the warehouse into which its dumps go."""

    def __init__(self, folder: Path, warehouse: WarehouseSettings, connection: Connection, **settings: Any) -> None:
        self.bucket = DumpBucket(str(folder / "heap-rs3-test"))
        self.folder = folder
        self.warehouse = warehouse
        self.connection = connection
        self.store = Store(f"sqlite:///{folder}/store.db")
        self.settings = settings

    @property
    def schema(self) -> str:
        """Where Heap's tables lie."""
        return self.warehouse.schemas().heap_connect

    def importer(self, **options: Any) -> DumpImporter:
        """Return an importer as another process would have it."""
        given = {"bucket": self.bucket.address, **self.settings, **options}
        return DumpImporter(
            DumpsSettings.model_validate(given),
            self.connection,
            schema=self.schema,
            dialect=self.warehouse.dialect,
            own=surroundings(self.folder).own,
            store=self.store,
            variables={},
        )

    def run(self, **options: Any) -> list[DumpReport]:
        """Load all that waits."""
        importer = self.importer(**options)
        return [importer.apply(dump) for dump in importer.waiting()]

    def load(self, dump_id: int, *tables: DumpTable, **options: Any) -> dict[str, TableReport]:
        """Write a dump and load what waits; return what the last one did to its tables."""
        self.bucket.write(dump_id, tables)
        return {table.name: table for table in self.run(**options)[-1].tables}

    def say_files(self, dump_id: int, table: str, files: list[str]) -> None:
        """Let a dump's manifest name other files of a table."""
        path = Path(self.bucket.address) / f"manifests/sync_{dump_id}.json"
        manifest = json.loads(path.read_text())
        (said,) = (each for each in manifest["tables"] if each["name"] == table)
        said["files"] = files
        path.write_text(json.dumps(manifest))

    def rows(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        """Return columns of a table, in their order."""
        listed = ", ".join(columns)
        return rows(self.connection, f'select {listed} from "{self.schema}"."{table}" order by {listed}')

    def columns(self, table: str) -> list[str]:
        """Return the columns of a table that are Heap's."""
        return [name for name in self.connection.columns(self.schema, table) if name != "_hub_dump"]
