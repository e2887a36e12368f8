"""What an environment's YAML says now, asked again and again while something runs."""

from __future__ import annotations

from collections.abc import Callable, Collection

from heap_integration.environment import (
    Environment,
    EnvironmentProblems,
    ProfileSync,
    SyncSettings,
    load_environment,
)
from heap_integration.receiver.settings import Switch, SwitchState

# What stands for the switches of an environment that can't be read any more: nothing is on.
EVERYTHING_OFF = frozenset({"*"})
# Sources that need no name of their own: one that was taken out of the YAML is off.
STREAMS = frozenset({"userflow", "userpilot", "heap_webhooks"})


def switch(environment: Environment) -> Switch:
    """Return a question for each call that arrives: is its source's stream on, and else are its events kept?"""
    current = _watched(environment)

    def state(source: str) -> SwitchState:
        now = current()
        found = now.sources.streams().get(source) if now else None
        if found is None:
            return "keep"
        return "on" if found.stream_events else found.while_off

    return state


def switched_off(environment: Environment) -> Callable[[], Collection[str]]:
    """Return a question to ask again and again: which sources' events are held back now?"""
    current = _watched(environment)

    def withheld() -> Collection[str]:
        now = current()
        if now is None:
            return EVERYTHING_OFF
        sources = now.sources
        gone = STREAMS - sources.streams().keys()
        off = {name for name, source in sources.streams().items() if not source.stream_events}
        return gone | off | {source.name for source in sources.pulled() if not source.enabled}

    return withheld


def sync_goes_on(environment: Environment, sync: SyncSettings, destination: str) -> Callable[[], bool]:
    """Return a question to ask before each request: is the sync to that destination still switched on?"""
    current = _watched(environment)

    def goes_on() -> bool:
        now = current()
        if now is None:
            return False
        to = now.destinations.named().get(destination)
        syncs = now.profiles if isinstance(sync, ProfileSync) else now.segments
        return bool(
            to
            and to.enabled
            and any(other.slug == sync.slug and other.enabled and destination in other.sync_to for other in syncs)
        )

    return goes_on


def export_goes_on(environment: Environment, name: str) -> Callable[[], bool]:
    """Return a question to ask before each step: is the export of that name still switched on?"""
    current = _watched(environment)

    def goes_on() -> bool:
        now = current()
        return now is not None and any(each.name == name and each.enabled for each in now.exports)

    return goes_on


def _watched(environment: Environment) -> Callable[[], Environment | None]:
    """Return the environment as its file says now; ``None`` once the file is gone or wrong."""
    path = environment.file
    if not path.is_absolute():
        # The environment was written into somebody's definitions: it changes when they are loaded again.
        return lambda: environment
    seen: tuple[float, Environment | None] = (0.0, environment)

    def current() -> Environment | None:
        nonlocal seen
        try:
            changed = path.stat().st_mtime
        except FileNotFoundError:
            return None
        if changed != seen[0]:
            try:
                seen = (changed, load_environment(path.parent))
            except EnvironmentProblems:
                seen = (changed, None)
        return seen[1]

    return current
