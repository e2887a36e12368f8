"""A family of assets of one environment: what belongs to one flow."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition as UnresolvedAssetJob,
    )

    from heap_integration.environment import Environment


@dataclass
class Family:
    """The assets of one flow, with their checks and what runs them."""

    assets: list[dg.AssetsDefinition | dg.AssetSpec] = field(default_factory=list)
    checks: list[dg.AssetChecksDefinition] = field(default_factory=list)
    jobs: list[UnresolvedAssetJob] = field(default_factory=list)
    schedules: list[dg.ScheduleDefinition] = field(default_factory=list)
    sensors: list[dg.SensorDefinition] = field(default_factory=list)

    def __iadd__(self, other: Family) -> Family:
        """Take in another family."""
        for part in fields(self):
            getattr(self, part.name).extend(getattr(other, part.name))
        return self


def owners(env: Environment, flow: str) -> list[str] | None:
    """Return who answers for a flow, as Dagster takes it."""
    return [env.owners[flow]] if flow in env.owners else None
