"""What the dbt models of an environment are told: whose events, which of Heap's tables, what they are to compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from heap_integration.environment import Environment
    from heap_integration.warehouse.systems.system import Connection

EventsFrom = Literal["hub", "heap_connect"]


@dataclass(frozen=True)
class HeapTables:
    """Which of Heap's tables are in a warehouse, with their columns; ``events`` names the event of each event table."""

    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    events: Mapping[str, str] = field(default_factory=dict)


def find_heap_tables(environment: Environment, connection: Connection) -> HeapTables:
    """Return what there is of Heap's tables in the environment's warehouse.

    A table with an event's columns is an event's; which one, the settings say, else an event that the models' settings
    name and that makes this table, else the table's name.
    """
    from heap_integration.heap_connect.event_tables import NOT_EVENTS, event_names, event_tables
    from heap_integration.heap_connect.tables_in_place import tables_in

    settings, connect, warehouse = environment.models, environment.heap_connect, environment.warehouse
    schema, database = warehouse.schemas().heap_connect, None
    if connect.tables:
        schema, database = connect.tables.db_schema, connect.tables.database
    tables = tables_in(connection, warehouse.dialect, schema, database)
    known = [*(step for funnel in settings.funnels for step in funnel.steps), *settings.conversion_events]
    events = event_tables(tables, event_names(known, connect.event_names))
    return HeapTables({name: tables[name] for name in tables if name in events or name in NOT_EVENTS}, events)


def events_from(environment: Environment) -> EventsFrom:
    """Return whose events the models are about: what the YAML says, else Heap's where Heap Connect is configured."""
    connect = environment.heap_connect
    return environment.models.events_from or ("heap_connect" if connect.s3 or connect.tables else "hub")


def model_variables(
    environment: Environment,
    heap: HeapTables,
    *,
    as_of: date | None = None,
    days: tuple[date, date] | None = None,
) -> dict[str, Any]:
    """Return dbt's variables for an environment.

    ``as_of`` is the last UTC day that counts, today if none is given. ``days`` (both included) are the days of the
    incremental models to compute; without them those whose events have changed.
    """
    settings, connect, schemas = environment.models, environment.heap_connect, environment.warehouse.schemas()
    tables = connect.tables
    return {
        "as_of": as_of.isoformat() if as_of else "",
        "from_day": days[0].isoformat() if days else "",
        "to_day": days[1].isoformat() if days else "",
        "first_day": environment.start_date.isoformat(),
        "events_from": events_from(environment),
        "hub_schema": schemas.hub,
        "heap_connect_schema": tables.db_schema if tables else schemas.heap_connect,
        "heap_connect_database": (tables.database or "") if tables else "",
        "migrations_applied": tables.migrations_applied if tables else False,
        "heap_tables": {name: list(columns) for name, columns in heap.columns.items()},
        "heap_event_tables": dict(heap.events),
        "session_minutes": settings.session_minutes,
        "funnels": [funnel.model_dump(mode="json") for funnel in settings.funnels],
        "conversion_events": list(settings.conversion_events),
        "feature_prefix": settings.feature_prefix,
        "plan_property": settings.plan_property,
        "account_property": settings.account_property,
    }
