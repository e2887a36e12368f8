"""Builds the Dagster definitions of one environment."""

from __future__ import annotations

import warnings

import dagster as dg

from heap_integration.assets.events import build_event_assets
from heap_integration.assets.segments import build_segment_assets
from heap_integration.environment import Environment
from heap_integration.resources import build_resources


def build_environment(env: Environment) -> dg.Definitions:
    """Return everything Dagster needs to know of an environment."""
    with warnings.catch_warnings():
        # The policy of backfills has been beta for two years; to say so at every load helps nobody.
        warnings.simplefilter("ignore", dg.BetaWarning)
        events = build_event_assets(env)
        segments = build_segment_assets(env)
    return dg.Definitions(
        assets=[*events.assets, *segments.assets],
        asset_checks=[*events.checks, *segments.checks],
        jobs=[events.job, *segments.jobs],
        schedules=[*events.schedules, *segments.schedules],
        sensors=[*events.sensors, *segments.sensors],
        resources=build_resources(env),
        executor=dg.in_process_executor,
    )
