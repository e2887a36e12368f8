"""What an environment's YAML may say of its dbt models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from heap_integration.settings import KeyPart, Name, Settings
from heap_integration.sync_settings import Cadence


def _several_steps(given: tuple[str, ...]) -> tuple[str, ...]:
    if len(given) < 2:
        raise PydanticCustomError("funnel_steps", "must name two events or more")
    if len(set(given)) != len(given):
        raise PydanticCustomError("funnel_steps", "names a step twice: each step is another event")
    return given


class Funnel(Settings):
    """The steps of a conversion, each the name of an event.

    ``ordered``: a step counts only after the one before it. ``window_hours``: from the first step on, for users; a
    session has its own end. ``by``: properties (columns of the events, else of their JSON) to split the steps by.
    """

    name: KeyPart
    steps: Annotated[tuple[Name, ...], AfterValidator(_several_steps)]
    ordered: bool = True
    window_hours: float | None = Field(default=None, gt=0)
    by: tuple[Name, ...] = ()


SIGNUP = Funnel(
    name="signup", steps=("Signup Started", "Email Verified", "Profile Completed", "First Purchase"), ordered=True
)


class ModelsSettings(Settings):
    """The models of an environment: whose events they are about, and the names that they ask for.

    ``events_from``: hub (what the hub received) or heap_connect (what Heap has); without it, Heap's where Heap Connect
    is configured. ``conversion_events`` make a session a converting one; without any, the last step of each funnel.
    ``feature_prefix`` begins the names of the events that are uses of a feature. ``plan_property`` and
    ``account_property`` are user properties. ``memory_mb``: what building them in a DuckDB file may take; what
    doesn't fit waits on disk, which takes far longer.
    """

    enabled: bool = True
    events_from: Literal["hub", "heap_connect"] | None = None
    every: Cadence = "daily"
    session_minutes: int = Field(default=30, gt=0)
    funnels: tuple[Funnel, ...] = (SIGNUP,)
    conversion_events: tuple[Name, ...] = ()
    feature_prefix: Name = "Feature:"
    plan_property: Name = "plan"
    account_property: Name = "account_id"
    memory_mb: int = Field(default=2000, ge=100)
