"""Names of variables in, plain clients out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import dagster as dg

from heap_integration.environment import Environment, Secret, read_variables

if TYPE_CHECKING:
    from heap_integration.destinations.userflow import UserflowClient
    from heap_integration.hub import Deliveries, Hub


class HeapResource(dg.ConfigurableResource[Any]):
    """Heap's events API of one environment, which the app id names."""

    url: str
    app_id: str

    def deliveries(self, hub: Hub) -> Deliveries:
        """Return the ways into Heap; the caller closes them."""
        return hub.deliveries(url=self.url, app_id=self.app_id)


class UserflowResource(dg.ConfigurableResource[Any]):
    """Userflow's API of one environment, which the key selects."""

    url: str
    api_key: str

    def client(self) -> UserflowClient:
        """Return a client; the caller closes it."""
        from heap_integration.destinations.userflow import UserflowClient

        return UserflowClient(self.url, self.api_key)


class StoreResource(dg.ConfigurableResource[Any]):
    """Where the operational state of one environment lives."""

    url: str

    def hub(self, env: Environment) -> Hub:
        """Return the environment at work; the caller closes it."""
        from heap_integration.hub import Hub

        return Hub(env, self.url, read_variables(env, os.environ))


def build_resources(env: Environment) -> dict[str, dg.ConfigurableResource[Any]]:
    """Return the resources of an environment; a secret is an ``EnvVar``, never a value."""
    resources: dict[str, dg.ConfigurableResource[Any]] = {
        "heap": HeapResource(url=env.heap.url, app_id=env.heap.app_id),
        "store": StoreResource(url=dg.EnvVar(env.store.env) if isinstance(env.store, Secret) else env.store),
    }
    if userflow := env.destinations.userflow:
        resources["userflow"] = UserflowResource(url=userflow.url, api_key=dg.EnvVar(userflow.api_key.env))
    return resources
