"""The ``heap-integration`` command inside this process, from its arguments to its exit code."""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

with warnings.catch_warnings():
    # typer uses names that click has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from heap_integration.cli import main


@dataclass(frozen=True)
class Answer:
    """What a command printed and how it ended."""

    code: int
    out: bytes
    err: str

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
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code = 0
    with (
        chdir(project),
        patch.object(sys, "argv", ["heap-integration", *map(os.fspath, arguments)]),
        patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), "utf-8")),
        patch.dict(os.environ, variables),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Answer(code, _bytes_of(out), _bytes_of(err).decode())


def _bytes_of(written: io.TextIOWrapper) -> bytes:
    buffer: io.BytesIO = written.buffer  # type: ignore[assignment]
    return buffer.getvalue()
