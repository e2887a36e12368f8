"""A destination with an audience behind a real socket, and a sync to it in processes that can be killed."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.process import BaseProcess
from pathlib import Path

from heap_integration.delivery.records import Limits, Outcome, Record, Status
from heap_integration.segments.sync import Sync
from heap_integration.segments.wanted import Wanted
from heap_integration.store import Store
from heap_integration.sync_settings import Guards
from heap_integration.warehouse import Warehouse

NAME = "sink/members"
SEGMENT = 1
BATCH, CONCURRENCY = 100, 2
ANSWER_SECONDS = 0.002


class Audience(ThreadingHTTPServer):
    """Serves: a POST is a JSON list of ``[identity, member]``; ``told`` is what came, in order."""

    daemon_threads = True

    def __init__(self, members: set[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.members = members
        self.told: list[tuple[str, bool]] = []

    def take(self, changes: Sequence[tuple[str, bool]]) -> None:
        """Let members in and out."""
        with self.lock:
            for identity, member in changes:
                (self.members.add if member else self.members.discard)(identity)
                self.told.append((identity, member))

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: whoever was killed has no ear for an answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Audience

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        body = self.rfile.read(length)
        if len(body) < length:
            return
        self.server.take(json.loads(body))
        # Time to die between the change and its answer.
        time.sleep(ANSWER_SECONDS)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextmanager
def audience(members: set[str]) -> Iterator[Audience]:
    """Serve an audience that has these members already."""
    with Audience(members) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Posting:
    """Sends members to an audience, each thread over a connection of its own."""

    def __init__(self, port: int) -> None:
        self.limits = Limits(batch_records=BATCH, concurrency=CONCURRENCY)
        self._port = port
        self._local = threading.local()

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection("127.0.0.1", self._port)
        body = json.dumps([[record.payload.identity, record.payload.member] for record in batch])
        connection.request("POST", "/", body)
        connection.getresponse().read()
        return [Outcome(record.key, Status.ACCEPTED) for record in batch]


def store_of(folder: Path) -> Store:
    """Return the store of a sync."""
    return Store(f"sqlite:///{folder}/store.db")


def warehouse_of(folder: Path) -> Warehouse:
    """Return the warehouse of a sync."""
    return Warehouse(f"duckdb:///{folder}/warehouse.duckdb")


def sync_of(folder: Path, port: int) -> Sync:
    """Return the sync of the segment to an audience."""
    sql = "select identity, null::varchar as properties from segment_members where segment_id = $segment"
    wanted = Wanted(sql, {"segment": SEGMENT})
    guards = Guards(largest_removal_percent=100)
    return Sync(NAME, wanted, warehouse_of(folder), store_of(folder), Posting(port), guards=guards)


def start(folder: Path, port: int) -> BaseProcess:
    """Start the sync in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["heap_integration_tests.faults.audience", "duckdb", "pyarrow"])
    process = context.Process(target=_run, args=(folder, port))
    process.start()
    return process


def _run(folder: Path, port: int) -> None:
    sync_of(folder, port).run()
