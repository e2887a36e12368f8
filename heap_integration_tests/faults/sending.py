"""``heap-integration send-events`` in processes that start fast enough to be killed often, and what came of it."""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
import sqlite3
import sys
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import date
from multiprocessing.process import BaseProcess
from pathlib import Path

from heap_integration.delivery.engine import Patience, Tally
from heap_integration.environment import load_environment
from heap_integration.heap.events_api import EventsApi
from heap_integration.hub import Hub, open_hub
from heap_integration_tests.support.sandbox import RunningSandbox

# Each process is forked from one that has imported these, instead of importing them for two seconds.
PRELOADED = ["heap_integration.cli", "heap_integration.hub", "heap_integration.heap.events_api"]
QUICK = Patience(attempts=4, seconds=20, first_wait=0.01, longest_wait=0.02)
FIRST, LAST = date(2026, 1, 1), date(2026, 1, 5)


def start(folder: Path, file: Path, rows_at_once: int = 40_960, largest_file: int | None = None) -> BaseProcess:
    """Start the command in a process of its own; what it prints goes to ``folder/answer.json`` and ``errors.txt``.

    Where there is a ``largest_file`` no file of the process grows beyond so many bytes, as on a full disk.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_send, args=(folder, file, rows_at_once, largest_file))
    process.start()
    return process


def _send(folder: Path, file: Path, rows_at_once: int, largest_file: int | None) -> None:
    from heap_integration.cli import main
    from heap_integration.events import loading

    os.chdir(folder)
    vars(loading)["PACKED_ROWS"] = rows_at_once
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    sys.argv = ["heap-integration", "send-events", str(file), "-e", "test", "--json"]
    answer, errors = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(answer), redirect_stderr(errors):
            main()
    finally:
        (folder / "answer.json").write_text(answer.getvalue())
        (folder / "errors.txt").write_text(errors.getvalue())


def hub_of(project: Path) -> Hub:
    """Return the hub of a project's environment."""
    return open_hub(load_environment(project / "environments/test"), {})


def keys_in(sandbox_state: Path) -> list[str]:
    """Return the idempotency keys that a sandbox has taken."""
    with closing(sqlite3.connect(f"file:{sandbox_state}?mode=ro", uri=True)) as con:
        return [key for (key,) in con.execute("select idempotency_key from heap_events")]


@dataclass
class Delivery:
    """The events of a file on their way to a sandbox, in this process and through the real send path."""

    project: Path
    sandbox: RunningSandbox
    hub: Hub

    def load(self, file: Path) -> None:
        """Bring a file into the warehouse."""
        self.hub.load_file(file, None)

    def send(self, api: EventsApi | None = None, patience: Patience = QUICK) -> Tally:
        """Send what is pending."""
        with closing(api or EventsApi(self.sandbox.url, self.sandbox.app_id)) as heap:
            return self.hub.outbound(heap).send(FIRST, LAST, patience=patience)

    def hits(self) -> list[int]:
        """Return how many requests met each fault."""
        return [fault["hits"] for fault in self.sandbox.state()["faults"]]

    def check(self, *, accepted: int, rejected: int = 0, pending: int = 0) -> None:
        """Hold what Heap has against what the warehouse says: each event once, and every one accounted for."""
        keys = keys_in(self.project / "sandbox/sandbox.db")
        assert len(keys) == len(set(keys))
        balance = self.hub.balance()
        assert balance.faults == []
        found = tuple(balance.numbers[name] for name in ("accepted", "rejected", "pending"))
        assert found == (accepted, rejected, pending)

    def arrived(self) -> int:
        """Return how many events the sandbox has, each counted once."""
        return len(set(keys_in(self.project / "sandbox/sandbox.db")))
