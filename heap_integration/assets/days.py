"""The daily partitions of an environment."""

import dagster as dg

from heap_integration.environment import Environment


def days_of(env: Environment) -> dg.DailyPartitionsDefinition:
    """Return the UTC days from the environment's first to today."""
    return dg.DailyPartitionsDefinition(env.start_date.isoformat(), timezone="UTC", end_offset=1)
