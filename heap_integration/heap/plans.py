"""What Heap's plans allow of exports: rows in a month, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

PlanName = Literal["growth", "pro", "premier"]
Frequency = Literal["daily", "hourly", "real-time"]
FREQUENCIES: tuple[Frequency, ...] = get_args(Frequency)


@dataclass(frozen=True)
class Plan:
    """Heap's licence tier.

    ``rows_a_month`` counts what all exports of an environment write in a calendar month of UTC; ``None`` is no limit.
    """

    name: PlanName
    rows_a_month: int | None
    frequencies: tuple[Frequency, ...]


PLANS: Mapping[str, Plan] = MappingProxyType(
    {
        "growth": Plan("growth", 100_000, ("daily",)),
        "pro": Plan("pro", 1_000_000, ("daily", "hourly")),
        "premier": Plan("premier", None, ("daily", "hourly", "real-time")),
    }
)


def plans_with(frequency: str) -> tuple[PlanName, ...]:
    """Return the plans that export so often, the smallest first."""
    return tuple(plan.name for plan in PLANS.values() if frequency in plan.frequencies)
