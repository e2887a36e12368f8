"""Who or what shall be at a destination, as a question to the warehouse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from heap_integration.warehouse.memberships import Action

__all__ = ["Action", "Wanted"]


@dataclass(frozen=True)
class Wanted:
    """A select that yields ``identity`` (text, never null, each once) and ``properties`` (JSON text, or null).

    ``identity`` is the destination's id. ``properties`` is an object of attributes by their names there, its keys
    always in the same order, so that equal texts are equal profiles; for memberships it is null. A JSON string instead
    of an object says why the row can't go out (see ``Unfit``). ``parameters`` are those of the select. ``changed_at``
    is when the source was last known to change, in UTC.
    """

    sql: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    changed_at: datetime | None = None
