"""Shows what would be sent to Heap for a file, and sends nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import orjson
import pyarrow as pa

from heap_integration.delivery.records import Record
from heap_integration.events.mapping import Mapping
from heap_integration.events.outbound_profiles import ProfileSender
from heap_integration.events.prepare import ROW_COLUMNS, Preparer, Refused
from heap_integration.events.profiles import ProfilePreparer, ProfileUpdate
from heap_integration.events.sources.files import Chunk, read_file, read_stream
from heap_integration.heap.events_api import BATCH_EVENTS, TRACK_PATH, bulk_track_body
from heap_integration.heap.profiles_api import BATCH_PROFILES, ProfilesApi
from heap_integration.warehouse.events import PROFILES

_REPEATED = Refused("rejected", "the same event as an earlier line")


def preview(
    source: Path | BinaryIO,
    mapping: Mapping | None,
    preparer: Preparer,
    profiles: ProfilePreparer | None = None,
    *,
    url: str,
    app_id: str,
    received_at: datetime | None = None,
    batch_records: int = BATCH_EVENTS,
) -> Iterator[dict[str, Any]]:
    """Yield each request as {"method", "url", "json"} and each line not sent as {"line", "rejected"}.

    ``source`` is a file or a stream of lines such as standard input; ``url`` is Heap's address
    without a path; ``received_at``, now if not given, stands for missing times. An event that an
    earlier line holds already is sent once. ``profiles``, by the same rules where it isn't given, prepares
    what is told of people and accounts; which of it Heap knows already is not looked up.

    Raises:
        MappingError, OSError: see ``read_file``.
    """
    seen: set[bytes] = set()
    payloads: list[bytes] = []
    told = _Profiles(url, app_id, profiles or ProfilePreparer(preparer))
    for chunk in _chunks(source, mapping, received_at or datetime.now(UTC)):
        for refused in chunk.refused.select(["line", "reason"]).to_pylist():
            yield {"line": refused["line"], "rejected": refused["reason"]}
        for line, row in _rows(chunk.events):
            known = row[0] in seen
            seen.add(row[0])
            prepare = told.prepare if row[2] in PROFILES else preparer.prepare
            outcome = _REPEATED if known else prepare(row)
            if isinstance(outcome, Refused):
                yield {"line": line, outcome.status: outcome.reason}
            elif isinstance(outcome, ProfileUpdate):
                yield from told.add(outcome)
            else:
                payloads.append(outcome.payload)
            if len(payloads) == batch_records:
                yield _request(url, app_id, payloads)
                payloads = []
    if payloads:
        yield _request(url, app_id, payloads)
    yield from told.rest()


class _Profiles:
    """What is told of people and accounts, in the requests that the real sender makes of it."""

    def __init__(self, url: str, app_id: str, preparer: ProfilePreparer) -> None:
        self.prepare = preparer.prepare
        self._requests: list[dict[str, Any]] = []
        self._updates: list[ProfileUpdate] = []
        client = httpx.Client(transport=httpx.MockTransport(self._note))
        self._sender = ProfileSender(ProfilesApi(url, app_id, client), _NoMerges(), sleep=lambda _: None)

    def add(self, update: ProfileUpdate) -> Iterator[dict[str, Any]]:
        """Take an update, and yield requests once there are enough for them."""
        self._updates.append(update)
        if len(self._updates) == BATCH_PROFILES:
            yield from self.rest()

    def rest(self) -> Iterator[dict[str, Any]]:
        """Yield the requests of what was taken, in the order of time."""
        ordered = sorted(self._updates, key=lambda update: update.timestamp)
        self._updates = []
        self._sender.send([Record(bytes(16), update, update.identity) for update in ordered])
        yield from self._requests
        self._requests.clear()

    def _note(self, request: httpx.Request) -> httpx.Response:
        body = orjson.loads(request.content)
        self._requests.append({"method": request.method, "url": str(request.url), "json": body})
        return httpx.Response(200)


class _NoMerges:
    """Nothing is known of merges that went out before."""

    def is_known(self, user_id: int, identity: str) -> bool:  # noqa: ARG002
        return False

    def keep(self, user_id: int, identity: str) -> None:
        pass


def _chunks(source: Path | BinaryIO, mapping: Mapping | None, received_at: datetime) -> Iterator[Chunk]:
    if isinstance(source, Path):
        return read_file(source, mapping, received_at=received_at)
    return read_stream(source, "standard input", mapping, received_at=received_at)


def _rows(events: pa.Table) -> Iterator[tuple[int, Any]]:
    columns = {name: events.column(name).to_pylist() for name in ("line", *ROW_COLUMNS)}
    for name in ("timestamp", "received_at"):
        columns[name] = [f"{moment.isoformat()}Z" for moment in columns[name]]
    yield from zip(columns["line"], zip(*(columns[name] for name in ROW_COLUMNS), strict=True), strict=True)


def _request(url: str, app_id: str, payloads: list[bytes]) -> dict[str, Any]:
    body = orjson.loads(bulk_track_body(app_id, payloads))
    return {"method": "POST", "url": url.rstrip("/") + TRACK_PATH, "json": body}
