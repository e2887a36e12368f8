"""Builds the Dagster definitions of one environment."""

from __future__ import annotations

import warnings

import dagster as dg

from heap_integration.assets.events import build_event_assets
from heap_integration.assets.exports import build_export_assets
from heap_integration.assets.heap_connect import build_heap_connect_assets
from heap_integration.assets.models import build_model_assets
from heap_integration.assets.segments import build_segment_assets
from heap_integration.environment import Environment
from heap_integration.resources import build_resources


def build_environment(env: Environment) -> dg.Definitions:
    """Return everything Dagster needs to know of an environment."""
    with warnings.catch_warnings():
        # The policy of backfills has been beta for two years; to say so at every load helps nobody.
        warnings.simplefilter("ignore", dg.BetaWarning)
        family = build_event_assets(env)
        family += build_segment_assets(env)
        family += build_heap_connect_assets(env)
        models = build_model_assets(env)
        family += models
        family += build_export_assets(env, models)
    return dg.Definitions(
        assets=family.assets,
        asset_checks=family.checks,
        jobs=family.jobs,
        schedules=family.schedules,
        sensors=family.sensors,
        resources=build_resources(env),
        executor=dg.in_process_executor,
    )
