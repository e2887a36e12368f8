"""The ``heap-integration`` command inside this process."""

from __future__ import annotations

import json
import os
import warnings
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    # typer uses names that click has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from typer.testing import CliRunner

    from heap_integration.cli import app


@dataclass(frozen=True)
class Answer:
    """What a command printed and how it ended; ``error`` is what it left to ``main`` to explain."""

    code: int
    out: str
    err: str
    error: BaseException | None

    @property
    def json(self) -> Any:
        """The JSON document that was printed."""
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        """The JSON documents that were printed, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


def run(project: Path, *arguments: str | Path, given: bytes = b"", **variables: str) -> Answer:
    """Run the command in a project folder; ``given`` is its standard input."""
    with chdir(project):
        result = CliRunner().invoke(app, [os.fspath(part) for part in arguments], input=given, env=variables)
    return Answer(result.exit_code, result.stdout, result.stderr, result.exception)
