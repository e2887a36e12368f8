"""What a test or the console page may ask the sandbox about itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from heap_integration.sandbox.faults import Fault, Faults
from heap_integration.sandbox.heap import HeapApi
from heap_integration.sandbox.segment_sync import SegmentSync
from heap_integration.sandbox.settings import SandboxSettings
from heap_integration.sandbox.state import State
from heap_integration.sandbox.userflow import UserflowApi
from heap_integration.sandbox.userflow_segments import PREFIX
from heap_integration.sandbox.vendor import Vendor

_MOST_ROWS = 10_000
_COUNTED = (
    "events",
    "duplicates",
    "requests",
    "rejected_requests",
    "rate_limited",
    "identifies_dropped",
    "users_deleted",
    "userflow_requests",
    "userflow_rejected_requests",
    "userflow_rate_limited",
    "userflow_events",
    "userflow_webhooks_delivered",
    "userflow_webhooks_failed",
)


class Inspection:
    """The pages under /_state, /_faults, /_limits and /_reset."""

    def __init__(
        self,
        settings: SandboxSettings,
        state: State,
        *,
        heap: HeapApi,
        segments: SegmentSync,
        userflow: UserflowApi,
        vendors: Sequence[Vendor],
        faults: Faults,
    ) -> None:
        self.settings = settings
        self.state = state
        self.heap = heap
        self.segments = segments
        self.userflow = userflow
        self.vendors = vendors
        self.faults = faults
        self.started_at = time.time()

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/_state", self.overview),
            Route("/_state/events", self.events),
            Route("/_state/events/count", self.event_count),
            Route("/_state/users", self.users),
            Route("/_state/accounts", self.accounts),
            Route("/_state/segments", self.heap_segments),
            Route("/_state/refusals", self.refusals),
            Route("/_state/vendors", self.shown),
            Route("/_state/userflow/segments", self.userflow_segments),
            Route("/_state/userflow/{kind}", self.userflow_objects),
            Route("/_faults", self.fault_rules, methods=["GET", "POST", "DELETE"]),
            Route("/_faults/{fault_id:int}", self.lift_fault, methods=["DELETE"]),
            Route("/_limits", self.limits, methods=["GET", "POST"]),
            Route("/_reset", self.reset, methods=["POST"]),
        ]

    async def overview(self, _request: Request) -> Response:
        """GET /_state: the counts of every app id; the app id "" stands for requests that named none."""
        self.heap.complete_deletions()
        return JSONResponse(
            {
                "started_at": self.started_at,
                "limits": self.heap.limits_on,
                "faults": [rule.model_dump() for rule in self.faults.rules],
                "apps": {app_id: self._counts(app_id) for app_id in [*self._app_ids(), ""]},
            }
        )

    def _app_ids(self) -> list[str]:
        return [environment.app_id for environment in self.settings.environments]

    def _counts(self, app_id: str) -> dict[str, int]:
        kept = self.state.counters(app_id)
        tables = {"users": "heap_users", "accounts": "heap_accounts", "segments": "heap_segments"}
        sizes = {name: self._size(f"{table} WHERE app_id = ?", app_id) for name, table in tables.items()}
        kinds = {
            f"userflow_{kind}s": self._size("userflow_objects WHERE app_id = ? AND kind = ?", app_id, kind)
            for kind in ("user", "group")
        }
        waiting = self._size("userflow_deliveries WHERE app_id = ? AND status = 'pending'", app_id)
        counted = {name: kept.get(name, 0) for name in _COUNTED}
        prefixes = tuple(f"{vendor.name}_" for vendor in self.vendors)
        theirs = {name: value for name, value in kept.items() if name.startswith(prefixes)}
        return {**theirs, **counted, **sizes, **kinds, "userflow_webhooks_waiting": waiting}

    def _size(self, what: str, *values: str) -> int:
        return int(self.state.one(f"SELECT count(*) AS n FROM {what}", *values)["n"])

    async def events(self, request: Request) -> Response:
        """GET /_state/events?app_id=&after=&limit=&order=asc|desc&identity=&event=: Heap's events.

        ``after`` is the ``seq`` of the last one seen; ``next`` of the answer is what to ask for next.
        """
        newest_first = request.query_params.get("order") == "desc"
        where, values = _filters(request, ("app_id", "identity", "event", "idempotency_key"))
        after = _whole(request, "after", 0)
        if after:
            where.append("seq < ?" if newest_first else "seq > ?")
            values.append(after)
        limit = min(_whole(request, "limit", 100), _MOST_ROWS)
        rows = self.state.rows(
            f"SELECT * FROM heap_events {_clause(where)} ORDER BY seq {'DESC' if newest_first else 'ASC'} LIMIT ?",
            *values,
            limit,
        )
        events = [{**dict(row), "properties": orjson.loads(row["properties"])} for row in rows]
        return JSONResponse({"events": events, "next": events[-1]["seq"] if len(events) == limit else None})

    async def event_count(self, request: Request) -> Response:
        """GET /_state/events/count?app_id=&identity=&event=&since=&until=: counted from the rows.

        ``since`` (included) and ``until`` (not included) compare with the event's UTC timestamp as text.
        """
        self.heap.complete_deletions()
        where, values = _filters(request, ("app_id", "identity", "event"))
        for name, comparison in (("since", ">="), ("until", "<")):
            if name in request.query_params:
                where.append(f"timestamp {comparison} ?")
                values.append(request.query_params[name])
        row = self.state.one(
            "SELECT count(*) AS count, count(DISTINCT user_id) AS users, count(idempotency_key) AS keys"
            f" FROM heap_events {_clause(where)}",
            *values,
        )
        return JSONResponse(dict(row))

    async def users(self, request: Request) -> Response:
        """GET /_state/users?app_id=&identity=&limit=: Heap's users with their properties."""
        self.heap.complete_deletions()
        where, values = _filters(request, ("app_id", "identity"))
        rows = self.state.rows(
            "SELECT u.*, (SELECT count(*) FROM heap_events e"
            " WHERE e.app_id = u.app_id AND e.user_id = u.user_id)"
            f" AS events FROM heap_users u {_clause(where)} ORDER BY last_seen DESC, identity LIMIT ?",
            *values,
            min(_whole(request, "limit", 100), _MOST_ROWS),
        )
        return JSONResponse({"users": [_with_properties(dict(row)) for row in rows]})

    async def accounts(self, request: Request) -> Response:
        """GET /_state/accounts?app_id=: Heap's accounts with their properties."""
        where, values = _filters(request, ("app_id",))
        rows = self.state.rows(f"SELECT * FROM heap_accounts {_clause(where)} LIMIT {_MOST_ROWS}", *values)
        return JSONResponse({"accounts": [_with_properties(dict(row)) for row in rows]})

    async def heap_segments(self, request: Request) -> Response:
        """GET /_state/segments?app_id=&members=0|1: Heap's segments, members and what was acknowledged."""
        where, values = _filters(request, ("app_id",))
        rows = self.state.rows(f"SELECT app_id, id FROM heap_segments {_clause(where)} ORDER BY id", *values)
        members = request.query_params.get("members") != "0"
        segments = [
            {"app_id": row["app_id"], **self.segments.describe(row["app_id"], row["id"], members=members)}
            for row in rows
        ]
        return JSONResponse({"segments": segments})

    async def refusals(self, request: Request) -> Response:
        """GET /_state/refusals?app_id=&limit=: the latest refused requests and why, newest first."""
        where, values = _filters(request, ("app_id",))
        rows = self.state.rows(
            f"SELECT * FROM refusals {_clause(where)} ORDER BY id DESC LIMIT ?",
            *values,
            min(_whole(request, "limit", 100), _MOST_ROWS),
        )
        return JSONResponse({"refusals": [dict(row) for row in rows]})

    async def shown(self, request: Request) -> Response:
        """GET /_state/vendors?app_id=&name=: what each vendor beside Heap would show, or the one of that name."""
        app_id, name = (request.query_params.get(field, "") for field in ("app_id", "name"))
        shown = [
            {"name": vendor.name, "title": vendor.title, **vendor.shown(app_id)}
            for vendor in self.vendors
            if name in ("", vendor.name)
        ]
        return JSONResponse({"vendors": shown})

    async def userflow_segments(self, request: Request) -> Response:
        """GET /_state/userflow/segments?app_id=&prefix=heap_segment: users by attribute of that prefix."""
        app_id = request.query_params.get("app_id", "")
        segments = self.userflow.segments.all(app_id, request.query_params.get("prefix", PREFIX))
        return JSONResponse({"segments": segments})

    async def userflow_objects(self, request: Request) -> Response:
        """GET /_state/userflow/{users|groups|events|...}?app_id=&id=&attribute=&limit=&order=asc|desc."""
        kind = request.path_params["kind"].removesuffix("s")
        where, values = _filters(request, ("app_id", "id", "user_id", "name"))
        where.append("kind = ?")
        values.append(kind)
        if attribute := request.query_params.get("attribute"):
            where.append("EXISTS (SELECT 1 FROM json_each(data, '$.attributes') WHERE key = ?)")
            values.append(attribute)
        order = "DESC" if request.query_params.get("order") == "desc" else "ASC"
        rows = self.state.rows(
            f"SELECT app_id, data FROM userflow_objects {_clause(where)} ORDER BY seq {order} LIMIT ?",
            *values,
            min(_whole(request, "limit", 100), _MOST_ROWS),
        )
        found = [{"app_id": row["app_id"], **orjson.loads(row["data"])} for row in rows]
        return JSONResponse({request.path_params["kind"]: found})

    async def fault_rules(self, request: Request) -> Response:
        """GET, POST, DELETE /_faults: list the rules, add one, lift all."""
        if request.method == "POST":
            try:
                fault = self.faults.add(Fault.model_validate_json(await request.body()))
            except ValidationError as error:
                return JSONResponse({"error": str(error)}, 400)
            return JSONResponse(fault.model_dump(), 201)
        if request.method == "DELETE":
            self.faults.remove()
        return JSONResponse({"faults": [rule.model_dump() for rule in self.faults.rules]})

    async def lift_fault(self, request: Request) -> Response:
        """DELETE /_faults/{id}: lift one rule."""
        self.faults.remove(request.path_params["fault_id"])
        return Response(status_code=204)

    async def limits(self, request: Request) -> Response:
        """GET, POST /_limits: Heap's rate limits on or off, Userflow's requests a minute and at once (null: none)."""
        userflow = self.userflow
        if request.method == "POST":
            change = orjson.loads(await request.body())
            self.heap.limits_on = bool(change.get("enabled", self.heap.limits_on))
            if "userflow_requests_per_minute" in change:
                userflow.set_pace(change["userflow_requests_per_minute"])
            userflow.at_once = change.get("userflow_requests_at_once", userflow.at_once)
            userflow.request_seconds = change.get("userflow_request_seconds", userflow.request_seconds)
            self.heap.empty_buckets()
        return JSONResponse(
            {
                "enabled": self.heap.limits_on,
                "userflow_requests_per_minute": userflow.pace,
                "userflow_requests_at_once": userflow.at_once,
                "userflow_request_seconds": userflow.request_seconds,
            }
        )

    async def reset(self, _request: Request) -> Response:
        """POST /_reset: forget everything, lift every fault."""
        self.state.reset()
        self.faults.remove()
        self.heap.empty_buckets()
        self.userflow.seed()
        return JSONResponse({})


def _filters(request: Request, names: tuple[str, ...]) -> tuple[list[str], list[Any]]:
    given = [name for name in names if name in request.query_params]
    return [f"{name} = ?" for name in given], [request.query_params[name] for name in given]


def _clause(where: list[str]) -> str:
    return f"WHERE {' AND '.join(where)}" if where else ""


def _whole(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isdigit() else default


def _with_properties(row: dict[str, Any]) -> dict[str, Any]:
    properties = orjson.loads(row.pop("properties"))
    return {**row, "properties": properties}
