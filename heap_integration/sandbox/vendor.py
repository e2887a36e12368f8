"""What every stand-in offers beside its own API: its routes, and what the console shows of it."""

from __future__ import annotations

from typing import Any, Protocol, TypedDict

from starlette.routing import BaseRoute


class ShownAudience(TypedDict):
    """An audience as the vendor's own pages would list it; ``mark`` is whose it is, such as Heap."""

    name: str
    members: int
    sample: list[str]
    mark: str


class Shown(TypedDict):
    """What the console shows of a vendor: numbers by name, audiences, and some users with their attributes."""

    counts: dict[str, int]
    audiences: list[ShownAudience]
    users: list[dict[str, Any]]


class Vendor(Protocol):
    """The stand-in of one vendor, under a path of its own; its tables in the state begin with its name."""

    name: str
    title: str

    def routes(self) -> list[BaseRoute]:
        """Return the routes of its API, all below ``/<name>``."""

    def shown(self, app_id: str) -> Shown:
        """Return what the environment with that Heap app id has there."""
