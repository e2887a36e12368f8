"""Which tables of the warehouse audience definitions speak of."""

from __future__ import annotations

from pydantic import Field

from heap_integration.settings import Name, Settings


class EventsTable(Settings):
    """The events that definitions ask for, one row each.

    A property is a column of its own name where the table has one, else a member of the JSON in ``properties``.
    The default is what the hub itself has loaded, of known users, without what was suppressed.
    """

    table: Name = "main.hub_events"
    identity: Name = "identity"
    event: Name = "event"
    time: Name = "time"
    properties: Name | None = "properties"


class UsersTable(Settings):
    """The users and their properties, one row each; properties as in ``EventsTable``.

    The default is what identify calls told the hub, the newest value of each trait.
    """

    table: Name = "main.hub_users"
    identity: Name = "identity"
    properties: Name | None = "properties"


class ModelColumn(Settings):
    """One number or stage that a model computes for each user, such as a score or the lifecycle stage."""

    table: Name
    identity: Name
    column: Name


class AudienceSettings(Settings):
    """What the environment's audience definitions are computed from, and how many days of results are kept.

    ``models`` gives the names that conditions on scores and stages use.
    """

    events: EventsTable = EventsTable()
    users: UsersTable = UsersTable()
    models: dict[Name, ModelColumn] = Field(default_factory=dict)
    keep_days: int = Field(default=35, ge=1)
