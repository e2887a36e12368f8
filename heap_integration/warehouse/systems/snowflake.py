"""Snowflake as the warehouse."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from heap_integration.settings import Name, Secret
from heap_integration.warehouse.systems.system import Dialect, ServerSettings


class SnowflakeSettings(ServerSettings):
    """A database of a Snowflake account, with the virtual warehouse that computes.

    It is opened by a password or by a private key (PEM, unencrypted). ``host``, ``port`` and ``protocol`` are for
    another address than the account's own.
    """

    dialect: ClassVar[Dialect] = "snowflake"
    title: ClassVar[str] = "Snowflake"

    type: Literal["snowflake"]
    account: Name
    user: Name
    password: Secret | None = None
    private_key: Secret | None = None
    database: Name
    warehouse: Name
    role: str | None = None
    host: str | None = None
    port: int = Field(443, gt=0, lt=65536)
    protocol: Literal["https", "http"] = "https"

    def place(self) -> str:
        """Return account, database and the schemas' prefix."""
        return f"snowflake:{self.account.lower()}/{self.database.lower()}/{self.schema_prefix.lower()}"
