"""The ``heap-integration`` command."""

from __future__ import annotations

from heap_integration.cli import (
    audiences,
    connect,
    environments,
    events,
    exports,
    heap_connect,
    models,
    query,
    services,
    syncs,
)
from heap_integration.cli.terminal import USAGE, app, end
from heap_integration.environment import EnvironmentProblems, MissingSecret

__all__ = [
    "app",
    "audiences",
    "connect",
    "environments",
    "events",
    "exports",
    "heap_connect",
    "main",
    "models",
    "query",
    "services",
    "syncs",
]


def main() -> None:
    """Run the command; a user's mistake ends with exit code 2, a failure with 1, neither with a traceback."""
    try:
        app()
    except EnvironmentProblems as problems:
        end(USAGE, *(str(problem) for problem in problems.problems))
    except MissingSecret as missing:
        end(USAGE, f"{missing}: set it in environments/<name>/.env or in the process's environment")
    except (ValueError, OSError) as mistake:
        end(USAGE, str(mistake))
    except KeyboardInterrupt:
        end(130, "stopped")
