"""BigQuery as the warehouse."""

from __future__ import annotations

from typing import ClassVar, Literal

from heap_integration.settings import Name, Secret, WebAddress
from heap_integration.warehouse.systems.system import Dialect, ServerSettings


class BigQuerySettings(ServerSettings):
    """A project of BigQuery; schemas are its datasets.

    ``credentials`` is the variable that holds a service account's key as JSON; without it the machine's own identity
    (application default credentials) is used. ``endpoint`` is another address of the API.
    """

    dialect: ClassVar[Dialect] = "bigquery"
    title: ClassVar[str] = "BigQuery"

    type: Literal["bigquery"]
    project: Name
    location: Name = "US"
    credentials: Secret | None = None
    endpoint: WebAddress | None = None

    def place(self) -> str:
        """Return the project and the datasets' prefix."""
        return f"bigquery:{self.project}/{self.schema_prefix}"
