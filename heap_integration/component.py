"""The door for other people's dg projects: an environment as a Dagster Component."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, cast

import dagster as dg
from pydantic import BaseModel

from heap_integration.environment import Environment


@dataclass
class HeapEnvironment(dg.Component):
    """One Heap environment with all its flows.

    The attributes are those of an ``environment.yaml``, and are checked by the same model: a secret is
    the name of a variable, ``{env: NAME}``, which becomes an ``EnvVar`` in the definitions. Templates
    are not rendered, because ``{{ env.NAME }}`` would put the secret itself there. Relative paths
    count from the dg project's root.

    Example:
        ```yaml
        type: heap_integration.component.HeapEnvironment
        attributes:
          name: production
          heap: {app_id: "3000000003", segment_sync: {webhook_secret: {env: HEAP_SEGMENT_SYNC_SECRET}}}
          segments: [{name: Power users, from: heap, sync_to: [userflow]}]
          destinations: {userflow: {api_key: {env: USERFLOW_API_KEY}}}
        ```
    """

    environment: Environment

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Return the model that the attributes are checked by."""
        return Environment

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Return the component of a ``defs.yaml``."""
        return cls(cast("Environment", attributes).anchored(context.project_root))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002
        """Return the same definitions as a code location of the environment has."""
        from heap_integration.build import build_environment

        return build_environment(self.environment)
