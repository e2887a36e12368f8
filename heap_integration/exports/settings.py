"""What an environment's YAML may say of its exports."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from heap_integration.settings import KeyPart, Name, Settings
from heap_integration.warehouse.systems.choice import WarehouseChoice

Frequency = Literal["daily", "hourly", "real-time"]


def _simple(given: str) -> str:
    if not given.replace("_", "").isalnum() or not given.isascii():
        raise PydanticCustomError("table_name", "must hold letters, digits and underscores only")
    return given


class Export(Settings):
    """Events on their way into a table for other programs.

    ``to`` is a warehouse, the environment's own where it isn't named. ``mode``: full writes the table anew each time;
    incremental adds what came since the last export; continuous does so as it comes. ``events`` and ``properties``
    choose (all where they aren't named), ``user_properties`` likewise.
    """

    name: KeyPart
    to: WarehouseChoice | None = None
    table: Annotated[Name, AfterValidator(_simple)] = "heap_events"
    mode: Literal["full", "incremental", "continuous"] = "incremental"
    every: Frequency = "daily"
    events: tuple[Name, ...] | None = None
    properties: tuple[Name, ...] | None = None
    user_properties: tuple[Name, ...] | None = None
    enabled: bool = True
