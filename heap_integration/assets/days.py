"""The daily partitions of an environment."""

import dagster as dg

from heap_integration.environment import Environment


def days_of(env: Environment) -> dg.DailyPartitionsDefinition:
    """Return the UTC days from the environment's first to today."""
    return dg.DailyPartitionsDefinition(env.start_date.isoformat(), timezone="UTC", end_offset=1)


def backfill_policy(env: Environment) -> dg.BackfillPolicy:
    """Return how many daily partitions one run of a backfill takes."""
    if env.days_per_run == "all":
        return dg.BackfillPolicy.single_run()
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=env.days_per_run)
