"""One entry a code location: this module has an attribute for each folder of ``environments``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import dagster as dg

    from heap_integration.environment import Environment


def __getattr__(name: str) -> dg.Definitions:
    from heap_integration.environment import FILE_NAME, find_root, load_environment, read_variables

    folder = find_root() / "environments" / name
    if name.startswith("__") or not (folder / FILE_NAME).is_file():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: there is no {folder / FILE_NAME}")
    from heap_integration.build import build_environment

    environment = load_environment(folder)
    _refuse_what_is_not_its_own(environment, folder.parent)
    # A code location is a process of its own, and this one is this environment's.
    os.environ.update(read_variables(environment, os.environ))
    return build_environment(environment)


def _refuse_what_is_not_its_own(environment: Environment, folders: Path) -> None:
    from heap_integration.environment import EnvironmentProblems, clashes

    # Keys are compared by `heap-integration check` alone: the others' have no place in this process.
    found = clashes([*_others(environment, folders), environment], compare_keys=False)
    if mine := [problem for problem in found if problem.file == environment.file]:
        raise EnvironmentProblems(mine)


def _others(environment: Environment, folders: Path) -> Iterator[Environment]:
    from heap_integration.environment import FILE_NAME, EnvironmentProblems, load_environment

    for file in sorted(folders.glob(f"*/{FILE_NAME}")):
        if file.resolve() != environment.file:
            try:
                yield load_environment(file.parent)
            except EnvironmentProblems:
                # What is wrong with it is its own location's to say.
                continue
