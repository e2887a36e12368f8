"""Names of variables in, plain clients out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import create_model

from heap_integration.environment import Environment, Secret, read_variables

if TYPE_CHECKING:
    from heap_integration.destinations.destination import DestinationSettings
    from heap_integration.hub import Deliveries, Hub


class HeapResource(dg.ConfigurableResource[Any]):
    """Heap's events API of one environment, which the app id names."""

    url: str
    app_id: str

    def deliveries(self, hub: Hub) -> Deliveries:
        """Return the ways into Heap; the caller closes them."""
        return hub.deliveries(url=self.url, app_id=self.app_id)


class Credentials(dg.ConfigurableResource[Any]):
    """The credentials of one destination."""

    def variables(self, settings: DestinationSettings) -> dict[str, str]:
        """Return the values by the names of their variables."""
        return {secret.env: getattr(self, name) for name, secret in settings.secrets().items()}


class StoreResource(dg.ConfigurableResource[Any]):
    """Where the operational state of one environment lives."""

    url: str

    def hub(self, env: Environment, variables: Mapping[str, str] | None = None) -> Hub:
        """Return the environment at work, with the given values before the process's; the caller closes it."""
        from heap_integration.hub import Hub

        return Hub(env, self.url, {**read_variables(env, os.environ), **(variables or {})})


def destination_key(name: str) -> str:
    """Return what the resource of a destination is called."""
    return f"{name}_destination"


def _credentials(settings: DestinationSettings) -> dg.ConfigurableResource[Any]:
    """Return a resource with a field for each credential of a destination: so the UI tells which variable it is."""
    secrets = settings.secrets()
    fields: dict[str, Any] = dict.fromkeys(secrets, (str, ...))
    made = create_model(type(settings).__name__.replace("Settings", "Credentials"), __base__=Credentials, **fields)
    return made(**{name: dg.EnvVar(secret.env) for name, secret in secrets.items()})


def build_resources(env: Environment) -> dict[str, dg.ConfigurableResource[Any]]:
    """Return the resources of an environment; a secret is an ``EnvVar``, never a value."""
    destinations = {
        destination_key(name): _credentials(settings) for name, settings in env.destinations.named().items()
    }
    return {
        **destinations,
        "heap": HeapResource(url=env.heap.url, app_id=env.heap.app_id),
        "store": StoreResource(url=dg.EnvVar(env.store.env) if isinstance(env.store, Secret) else env.store),
    }
