"""Sources that are read: files and tables, as an environment describes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from heap_integration.environment import FileSource, MissingSecret, TableSource
from heap_integration.events.loading import load_files, load_table, table_has_news, waiting_files
from heap_integration.events.mapping import Mapping as ColumnMapping
from heap_integration.events.mapping import load_mapping
from heap_integration.events.sources.files import RowFormat
from heap_integration.events.sources.storage import InputFile, list_files, read_options
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.events import Loaded

# What keeps one source from being read and no other: settings, storage, secrets.
UNREADABLE_ERRORS = (ValueError, OSError, MissingSecret)


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
