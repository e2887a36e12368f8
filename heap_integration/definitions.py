"""One entry a code location: this module has an attribute for each folder of ``environments``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg


def __getattr__(name: str) -> dg.Definitions:
    from heap_integration.environment import FILE_NAME, find_root, load_environment, read_variables

    folder = find_root() / "environments" / name
    if name.startswith("__") or not (folder / FILE_NAME).is_file():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: there is no {folder / FILE_NAME}")
    from heap_integration.build import build_environment

    environment = load_environment(folder)
    # A code location is a process of its own, and this one is this environment's.
    os.environ.update(read_variables(environment, os.environ))
    return build_environment(environment)
