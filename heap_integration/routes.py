"""Which segment or set of profiles goes to which destination."""

from __future__ import annotations

from dataclasses import dataclass

from heap_integration.environment import Environment, ProfileSync, SegmentSync


@dataclass(frozen=True)
class Route:
    """One segment or set of profiles on its way to one destination."""

    sync: SegmentSync | ProfileSync
    destination: str

    @property
    def name(self) -> str:
        """What the sync is called in the ledger and the warehouse."""
        family = "profiles/" if isinstance(self.sync, ProfileSync) else ""
        return f"{self.destination}/{family}{self.sync.slug}"


def routes(environment: Environment) -> list[Route]:
    """Return the routes that are switched on, segments before profiles."""
    open_to = {name for name, settings in environment.destinations.named().items() if settings.enabled}
    return [Route(sync, to) for sync in environment.syncs() if sync.enabled for to in sync.sync_to if to in open_to]
