"""What tap-heap reads from a bucket, as a warehouse of its users would come to hold it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heap_integration_tests.support.s3 import HeapBucket

PROGRAM = Path(__file__).parents[1] / "heap_connect/run_tap_heap.py"
LEFT_OUT = "_event_metadata"

Row = dict[str, Any]


class TapHeap:
    """A user of the tap: runs it after each dump, and keeps its state and the rows of each table by their keys."""

    def __init__(self, python: Path, bucket: HeapBucket, folder: Path) -> None:
        self._python = python
        self._bucket = bucket
        self._folder = folder
        self._state: dict[str, Any] = {}
        self._keys: dict[str, str] = {}
        self._rows: dict[str, dict[Any, tuple[int, Row]]] = {}

    def read(self) -> dict[str, int]:
        """Take what is new, and return how many rows of each table came."""
        came: dict[str, int] = {}
        for line in self._output().splitlines():
            message = json.loads(line)
            if message["type"] == "STATE":
                self._state = message["value"]
            elif message["type"] == "RECORD":
                came[message["stream"]] = came.get(message["stream"], 0) + 1
                self._keep(message)
            else:
                self._follow(message)
        return came

    def tables(self) -> Mapping[str, list[Row]]:
        """Return the rows of each table as they stand, in the order of their keys."""
        return {name: [rows[key][1] for key in sorted(rows)] for name, rows in self._rows.items()}

    def _keep(self, message: dict[str, Any]) -> None:
        name, row = message["stream"], message["record"]
        self._rows.setdefault(name, {})[row[self._keys[name]]] = (message["version"], row)

    def _follow(self, message: dict[str, Any]) -> None:
        name = message["stream"]
        if message["type"] == "SCHEMA":
            (self._keys[name],) = message["key_properties"]
        elif message["type"] == "ACTIVATE_VERSION":
            # What an older version left has no place in a table that came whole.
            kept = self._rows.get(name, {}).items()
            self._rows[name] = {key: entry for key, entry in kept if entry[0] == message["version"]}

    def _output(self) -> str:
        command = [str(self._python), str(PROGRAM), self._bucket.name, LEFT_OUT, json.dumps(self._state)]
        done = subprocess.run(
            command,
            check=False,
            env=self._bucket.variables,
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-2_000:]
        return done.stdout
