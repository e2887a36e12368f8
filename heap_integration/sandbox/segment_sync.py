"""Heap's side of Segment Sync: segments, and the signed pages that carry their changes to a webhook."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import random
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import httpx
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from heap_integration.sandbox.heap import id_token_of
from heap_integration.sandbox.heap_rules import stored_time
from heap_integration.sandbox.settings import SandboxSettings
from heap_integration.sandbox.state import State

Member = tuple[str, bool]
"""An identity, and whether it enters (or leaves) the segment."""


class SegmentRule(BaseModel):
    """Membership by behaviour: those who did an event so many times, in the last so many days."""

    model_config = ConfigDict(extra="forbid")

    event: str
    at_least: int = Field(default=1, ge=1)
    within_days: float | None = Field(default=None, gt=0)


class SegmentDefinition(BaseModel):
    """A segment to create or replace: fixed members, or a rule that is evaluated at each sync.

    ``webhook_url`` is the "Segment Sync" toggle: none means off.
    """

    model_config = ConfigDict(extra="forbid")

    id: int = Field(ge=1, lt=2**63)
    name: str = Field(min_length=1)
    members: list[str] = []
    rule: SegmentRule | None = None
    webhook_url: str | None = Field(default=None, pattern="^https?://")
    page_size: int = Field(default=1000, ge=1)


class MemberChange(BaseModel):
    """Identities that enter and leave."""

    model_config = ConfigDict(extra="forbid")

    add: list[str] = []
    remove: list[str] = []


class SyncOptions(BaseModel):
    """How a sync departs from the ordinary one.

    ``full`` sends every member again; ``sample`` sends two made-up users and ``drain`` the old
    ``segment.users.drain`` action, neither of which changes what counts as acknowledged.
    ``duplicate`` sends every page twice, ``shuffle`` sends the pages in another order. ``signature``
    spoils the header: wrong secret, 2 minutes old, 5 seconds ahead, seconds for milliseconds, malformed.
    """

    model_config = ConfigDict(extra="forbid")

    url: str | None = Field(default=None, pattern="^https?://")
    page_size: int | None = Field(default=None, ge=1)
    full: bool = False
    sample: bool = False
    drain: bool = False
    duplicate: bool = False
    shuffle: bool = False
    signature: Literal["good", "wrong", "stale", "ahead", "seconds", "malformed"] = "good"
    attempts: int = Field(default=4, ge=1)


def signature_header(secret: str, body: bytes, milliseconds: int) -> str:
    """Return the value of ``Heap-Hash`` for a body sent at that moment."""
    mac = hmac.new(secret.encode(), str(milliseconds).encode() + body, hashlib.sha256).digest()
    return f"ts:{milliseconds},hmac:{base64.b64encode(mac).decode()}"


class SegmentSync:
    """Keeps segments and sends their changes."""

    def __init__(self, settings: SandboxSettings, state: State, client: Callable[[], httpx.AsyncClient]) -> None:
        self.settings = settings
        self.state = state
        self._client = client
        self._locks: dict[tuple[str, int], asyncio.Lock] = {}

    def routes(self) -> list[Route]:
        """Return the routes that stand in for Heap's pages rather than for its API."""
        one = "/_heap/{app_id}/segments/{segment_id:int}"
        return [
            Route("/_heap/{app_id}/segments", self.define, methods=["POST"]),
            Route(one, self.remove, methods=["DELETE"]),
            Route(f"{one}/members", self.change, methods=["POST"]),
            Route(f"{one}/sync", self.sync, methods=["POST"]),
        ]

    async def define(self, request: Request) -> Response:
        """POST /_heap/{app_id}/segments: create a segment, or replace it with its members."""
        app_id = request.path_params["app_id"]
        if self.settings.environment(app_id) is None:
            return _problem("no such environment", 404)
        try:
            segment = SegmentDefinition.model_validate_json(await request.body())
        except ValidationError as error:
            return _problem(str(error), 400)
        rule = None if segment.rule is None else segment.rule.model_dump_json()
        with self.state.write() as con:
            con.execute(
                "INSERT INTO heap_segments VALUES (?, ?, ?, ?, ?, ?, NULL)"
                " ON CONFLICT (app_id, id) DO UPDATE SET"
                " name = excluded.name, webhook_url = excluded.webhook_url, page_size = excluded.page_size,"
                " rule = excluded.rule",
                (app_id, segment.id, segment.name, segment.webhook_url, segment.page_size, rule),
            )
            self._set_members(app_id, segment.id, segment.members)
            self._evaluate(app_id, segment.id)
        return JSONResponse(self.describe(app_id, segment.id), 201)

    async def remove(self, request: Request) -> Response:
        """DELETE /_heap/{app_id}/segments/{id}: forget the segment and what was acknowledged of it."""
        key = (request.path_params["app_id"], request.path_params["segment_id"])
        with self.state.write() as con:
            con.execute("DELETE FROM heap_segment_members WHERE app_id = ? AND segment_id = ?", key)
            con.execute("DELETE FROM heap_segments WHERE app_id = ? AND id = ?", key)
        return Response(status_code=204)

    async def change(self, request: Request) -> Response:
        """POST /_heap/{app_id}/segments/{id}/members: let identities enter and leave."""
        app_id, segment_id = request.path_params["app_id"], request.path_params["segment_id"]
        if self._segment(app_id, segment_id) is None:
            return _problem("no such segment", 404)
        try:
            change = MemberChange.model_validate_json(await request.body())
        except ValidationError as error:
            return _problem(str(error), 400)
        with self.state.write() as con:
            self._enter(app_id, segment_id, change.add)
            con.executemany(
                "UPDATE heap_segment_members SET present = 0 WHERE app_id = ? AND segment_id = ? AND member = ?",
                [(app_id, segment_id, member) for member in change.remove],
            )
        return JSONResponse(self.describe(app_id, segment_id))

    async def sync(self, request: Request) -> Response:
        """POST /_heap/{app_id}/segments/{id}/sync: send now what Heap would send within four hours.

        Answers what was sent and how each page was received. Nothing is sent where nothing changed.
        """
        app_id, segment_id = request.path_params["app_id"], request.path_params["segment_id"]
        try:
            options = SyncOptions.model_validate_json(await request.body() or b"{}")
        except ValidationError as error:
            return _problem(str(error), 400)
        async with self._locks.setdefault((app_id, segment_id), asyncio.Lock()):
            segment = self._segment(app_id, segment_id)
            if segment is None:
                return _problem("no such segment", 404)
            url = options.url or segment["webhook_url"]
            if url is None:
                return _problem("Segment Sync is off: the segment has no webhook_url", 409)
            with self.state.write():
                self._evaluate(app_id, segment_id)
            size = options.page_size or segment["page_size"]
            return JSONResponse(await self._send_pages(app_id, segment, url, size, options))

    async def _send_pages(
        self, app_id: str, segment: dict[str, Any], url: str, size: int, options: SyncOptions
    ) -> dict[str, Any]:
        members = self._to_send(app_id, segment["id"], options)
        pages = [members[start : start + size] for start in range(0, len(members), size)]
        if options.drain:
            pages = [[]]
        task_id = str(uuid.uuid4())
        order = [number for number in range(len(pages)) for _ in range(2 if options.duplicate else 1)]
        if options.shuffle:
            random.shuffle(order)
        sent = []
        for index in order:
            body = self._body(app_id, segment, pages[index], (index + 1, len(pages), task_id), options)
            status, attempts = await self._post(app_id, url, body, options)
            if status == 200 and not options.sample and not options.drain:
                self._acknowledge(app_id, segment["id"], pages[index])
            entering = sum(enters for _, enters in pages[index])
            counts = {"add": entering, "remove": len(pages[index]) - entering}
            sent.append({"page_number": index + 1, "status": status, "attempts": attempts, **counts})
        received = all(page["status"] == 200 for page in sent)
        if sent and received and not options.sample and not options.drain:
            with self.state.write() as con:
                con.execute(
                    "UPDATE heap_segments SET synced_at = ? WHERE app_id = ? AND id = ?",
                    (time.time(), app_id, segment["id"]),
                )
        return {
            "sync_task_id": task_id,
            "added": sum(enters for _, enters in members),
            "removed": sum(not enters for _, enters in members),
            "acknowledged": received,
            "pages": sent,
        }

    def _to_send(self, app_id: str, segment_id: int, options: SyncOptions) -> list[Member]:
        if options.drain:
            return []
        if options.sample:
            return [("sample-user-1@example.com", True), ("sample-user-2@example.com", True)]
        condition = "present OR acknowledged" if options.full else "present <> acknowledged"
        rows = self.state.rows(
            f"SELECT member, present FROM heap_segment_members WHERE app_id = ? AND segment_id = ?"
            f" AND ({condition}) ORDER BY present DESC, member",
            app_id,
            segment_id,
        )
        return [(row["member"], bool(row["present"])) for row in rows]

    def _body(
        self,
        app_id: str,
        segment: dict[str, Any],
        page: Sequence[Member],
        position: tuple[int, int, str],
        options: SyncOptions,
    ) -> bytes:
        data: dict[str, Any] = {"segment": {"id": segment["id"], "name": segment["name"]}}
        if not options.drain:
            number, total, task_id = position
            data["sync_info"] = {"page_number": number, "total_pages": total, "sync_task_id": task_id}
            add = [{"id": member} for member, enters in page if enters]
            remove = [{"id": member} for member, enters in page if not enters]
            data |= ({"add": add} if add else {}) | ({"remove": remove} if remove else {})
        # orjson writes what JavaScript's JSON.stringify would: compact, nothing escaped beyond need.
        # Heap's own reference receiver checks the signature over exactly that form.
        return orjson.dumps(
            {
                "id_token": id_token_of(app_id),
                "action_type": "segment.users.drain" if options.drain else "segment.users.sync",
                "customer_config": {"fields": []},
                "data": data,
            }
        )

    async def _post(self, app_id: str, url: str, body: bytes, options: SyncOptions) -> tuple[int | None, int]:
        """Send a page until it is received; return the last status (None without an answer) and attempts."""
        status = None
        for attempt in range(options.attempts):
            if attempt:
                await asyncio.sleep(self.settings.retry_seconds * 2 ** (attempt - 1))
            headers = {"Content-Type": "application/json", "Heap-Hash": self._header(app_id, body, options)}
            try:
                answer = await self._client().post(url, content=body, headers=headers)
            except (httpx.HTTPError, httpx.InvalidURL):
                status = None
                continue
            status = answer.status_code
            if answer.is_success:
                return 200, attempt + 1
        return status, options.attempts

    def _header(self, app_id: str, body: bytes, options: SyncOptions) -> str:
        secret = self.settings.known(app_id).heap_webhook_secret.get_secret_value()
        now = int(time.time() * 1000)
        match options.signature:
            case "wrong":
                return signature_header(f"not {secret}", body, now)
            case "stale":
                return signature_header(secret, body, now - 120_000)
            case "ahead":
                return signature_header(secret, body, now + 5_000)
            case "seconds":
                return signature_header(secret, body, now // 1000)
            case "malformed":
                return signature_header(secret, body, now).replace("hmac:", "")
            case _:
                return signature_header(secret, body, now)

    def _acknowledge(self, app_id: str, segment_id: int, page: Sequence[Member]) -> None:
        with self.state.write() as con:
            con.executemany(
                "UPDATE heap_segment_members SET acknowledged = ? WHERE app_id = ? AND segment_id = ? AND member = ?",
                [(int(enters), app_id, segment_id, member) for member, enters in page],
            )
            con.execute(
                "DELETE FROM heap_segment_members WHERE app_id = ? AND segment_id = ?"
                " AND NOT present AND NOT acknowledged",
                (app_id, segment_id),
            )

    # members

    def _segment(self, app_id: str, segment_id: int) -> dict[str, Any] | None:
        row = self.state.row("SELECT * FROM heap_segments WHERE app_id = ? AND id = ?", app_id, segment_id)
        return None if row is None else dict(row)

    def _set_members(self, app_id: str, segment_id: int, members: Sequence[str]) -> None:
        self.state.con.execute(
            "UPDATE heap_segment_members SET present = 0 WHERE app_id = ? AND segment_id = ?",
            (app_id, segment_id),
        )
        self._enter(app_id, segment_id, members)

    def _enter(self, app_id: str, segment_id: int, members: Sequence[str]) -> None:
        self.state.con.executemany(
            "INSERT INTO heap_segment_members VALUES (?, ?, ?, 1, 0)"
            " ON CONFLICT (app_id, segment_id, member) DO UPDATE SET present = 1",
            [(app_id, segment_id, member) for member in members],
        )

    def _evaluate(self, app_id: str, segment_id: int) -> None:
        segment = self._segment(app_id, segment_id)
        if segment is None or segment["rule"] is None:
            return
        rule = SegmentRule.model_validate_json(segment["rule"])
        days = rule.within_days
        since = "" if days is None else stored_time(datetime.now(UTC) - timedelta(days=days))
        members = self.state.rows(
            "SELECT identity FROM heap_events WHERE app_id = ? AND event = ? AND identity IS NOT NULL"
            " AND timestamp >= ? GROUP BY identity HAVING count(*) >= ?",
            app_id,
            rule.event,
            since,
            rule.at_least,
        )
        self._set_members(app_id, segment_id, [row["identity"] for row in members])

    def describe(self, app_id: str, segment_id: int, *, members: bool = True) -> dict[str, Any]:
        """Return a segment as it stands: its size, the changes to send, and, if wanted, its members."""
        segment = self.state.one("SELECT * FROM heap_segments WHERE app_id = ? AND id = ?", app_id, segment_id)
        counts = self.state.one(
            "SELECT coalesce(sum(present), 0) AS size, coalesce(sum(present <> acknowledged), 0) AS changes"
            " FROM heap_segment_members WHERE app_id = ? AND segment_id = ?",
            app_id,
            segment_id,
        )
        described = {
            "id": segment["id"],
            "name": segment["name"],
            "webhook_url": segment["webhook_url"],
            "page_size": segment["page_size"],
            "rule": orjson.loads(segment["rule"]) if segment["rule"] else None,
            "synced_at": segment["synced_at"],
            "size": counts["size"],
            "changes": counts["changes"],
        }
        return {**described, **self._members(app_id, segment_id)} if members else described

    def _members(self, app_id: str, segment_id: int) -> dict[str, list[str]]:
        rows = self.state.rows(
            "SELECT member, present, acknowledged FROM heap_segment_members"
            " WHERE app_id = ? AND segment_id = ? ORDER BY member",
            app_id,
            segment_id,
        )
        return {
            "members": [row["member"] for row in rows if row["present"]],
            "acknowledged": [row["member"] for row in rows if row["acknowledged"]],
        }


def _problem(message: str, status: int) -> Response:
    return JSONResponse({"error": message}, status)
