"""``heap-integration send-events`` in processes that start fast enough to be killed often."""

from __future__ import annotations

import io
import multiprocessing
import os
from contextlib import redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path

# Each process is forked from one that has imported these, instead of importing them for two seconds.
PRELOADED = ["heap_integration.cli", "heap_integration.hub", "heap_integration.heap.events_api"]


def start(folder: Path, file: Path, rows_at_once: int) -> BaseProcess:
    """Start the command in a process of its own; what it prints goes to ``folder/answer.json``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_send, args=(folder, file, rows_at_once))
    process.start()
    return process


def _send(folder: Path, file: Path, rows_at_once: int) -> None:
    from heap_integration.cli import app
    from heap_integration.events import loading

    os.chdir(folder)
    loading.PACKED_ROWS = rows_at_once
    answer = io.StringIO()
    with redirect_stdout(answer):
        app(["send-events", str(file), "-e", "test", "--json"], standalone_mode=False)
    (folder / "answer.json").write_text(answer.getvalue())
