"""Amazon Redshift as the warehouse."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from heap_integration.settings import Name, Secret
from heap_integration.warehouse.systems.system import Dialect, ServerSettings


class RedshiftSettings(ServerSettings):
    """A database of a Redshift cluster or workgroup."""

    dialect: ClassVar[Dialect] = "redshift"
    title: ClassVar[str] = "Redshift"

    type: Literal["redshift"]
    host: Name
    port: int = Field(5439, gt=0, lt=65536)
    database: Name
    user: Name
    password: Secret

    def place(self) -> str:
        """Return server, database and the schemas' prefix."""
        return f"redshift:{self.host.lower()}:{self.port}/{self.database}/{self.schema_prefix}"
