"""Azure Synapse as the warehouse."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from heap_integration.settings import Name, Secret
from heap_integration.warehouse.systems.system import Dialect, ServerSettings


class SynapseSettings(ServerSettings):
    """A dedicated SQL pool of Azure Synapse, reached by Microsoft's ODBC driver."""

    dialect: ClassVar[Dialect] = "tsql"
    title: ClassVar[str] = "Azure Synapse"

    type: Literal["synapse"]
    host: Name
    port: int = Field(1433, gt=0, lt=65536)
    database: Name
    user: Name
    password: Secret
    driver: Name = "ODBC Driver 18 for SQL Server"

    def place(self) -> str:
        """Return server, database and the schemas' prefix."""
        return f"synapse:{self.host.lower()}:{self.port}/{self.database.lower()}/{self.schema_prefix.lower()}"
