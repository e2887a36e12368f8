"""PostgreSQL as the warehouse."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from heap_integration.settings import Name, Secret
from heap_integration.warehouse.systems.system import Dialect, ServerSettings


class PostgresSettings(ServerSettings):
    """A database of a PostgreSQL server."""

    dialect: ClassVar[Dialect] = "postgres"
    title: ClassVar[str] = "PostgreSQL"

    type: Literal["postgres"]
    host: Name
    port: int = Field(5432, gt=0, lt=65536)
    database: Name
    user: Name
    password: Secret | None = None
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"

    def place(self) -> str:
        """Return server, database and the schemas' prefix."""
        return f"postgres:{self.host.lower()}:{self.port}/{self.database}/{self.schema_prefix}"
