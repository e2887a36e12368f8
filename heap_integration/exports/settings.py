"""What an environment's YAML may say of its exports."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from heap_integration.heap.plans import Frequency
from heap_integration.settings import KeyPart, Name, Settings
from heap_integration.warehouse.systems.choice import WarehouseChoice

# Tables of that beginning are the hub's notes beside the exported ones.
OWN_PREFIX = "_hub_"


def _table_name(given: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", given) or given.lower().startswith(OWN_PREFIX):
        message = f"must hold letters, digits and underscores only and begin with neither a digit nor {OWN_PREFIX}"
        raise PydanticCustomError("table_name", message)
    return given


class Export(Settings):
    """Events on their way into a table for other programs.

    ``to`` is a warehouse, the environment's own where it isn't named. ``mode``: full writes the table anew each time;
    incremental adds what came since the last export; continuous does so as it comes. ``every`` is daily unless it is
    given, and real-time where the mode is continuous. ``events`` and ``properties`` choose (all where they aren't
    named), ``user_properties`` likewise.
    """

    name: KeyPart
    to: WarehouseChoice | None = None
    table: Annotated[Name, AfterValidator(_table_name)] = "heap_events"
    mode: Literal["full", "incremental", "continuous"] = "incremental"
    every: Frequency | None = None
    events: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    properties: tuple[Name, ...] | None = None
    user_properties: tuple[Name, ...] | None = None
    enabled: bool = True

    @property
    def frequency(self) -> Frequency:
        """How often it is written."""
        return self.every or ("real-time" if self.mode == "continuous" else "daily")
