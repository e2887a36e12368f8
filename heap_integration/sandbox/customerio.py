"""Customer.io's Track and App APIs: people, objects and segments of one workspace for each environment."""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

import orjson
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from heap_integration.sandbox.customerio_people import Failed, Object, People
from heap_integration.sandbox.limits import LeakyBuckets
from heap_integration.sandbox.settings import SandboxEnvironment, SandboxSettings
from heap_integration.sandbox.state import State
from heap_integration.sandbox.vendor import Shown

TRACK_PER_SECOND, APP_PER_SECOND = 1000, 10
MOST_IDS, MOST_LOOKED_UP = 1000, 100
MOST_MEMBERS, USUAL_MEMBERS = 30_000, 1000
BATCH_BYTES, ITEM_BYTES = 500_000, 32_000
DYNAMIC = {"id": 1, "name": "Signed up", "type": "dynamic"}
SAMPLE = 10

_SCHEMA = """
CREATE TABLE IF NOT EXISTS customerio_segments (
  app_id TEXT NOT NULL, id INTEGER NOT NULL, name TEXT NOT NULL, description TEXT NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY (app_id, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS customerio_members (
  app_id TEXT NOT NULL, segment_id INTEGER NOT NULL, person INTEGER NOT NULL, PRIMARY KEY (app_id, segment_id, person)
) WITHOUT ROWID;
"""

Surface = Literal["track", "app"]
Answer = Object | tuple[int, Object | None]
Handler = Callable[[Request, str], Awaitable[Answer]]


class Problem(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, errors: list[Object] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = errors


class CustomerioApi:
    """The endpoints, over the state of one sandbox; the keys choose the environment.

    Identifiers and errors are as in the vendor's description of its Track API. Every workspace begins with one dynamic
    segment, of everybody; manual ones are made through the App API.
    """

    name = "customerio"
    title = "Customer.io"

    def __init__(self, settings: SandboxSettings, state: State) -> None:
        self.settings = settings
        self.state = state
        state.con.executescript(_SCHEMA)
        self.people = People(state)
        self._limits: dict[Surface, LeakyBuckets] = {
            "track": LeakyBuckets(TRACK_PER_SECOND, 1),
            "app": LeakyBuckets(APP_PER_SECOND, 1),
        }

    def routes(self) -> list[BaseRoute]:
        """Return the routes, all under /customerio/track and /customerio/app."""
        track: list[tuple[str, str, Handler]] = [
            ("GET", "/api/v1/accounts/region", self.region),
            ("PUT", "/api/v1/customers/{identifier:path}", self.identify),
            ("DELETE", "/api/v1/customers/{identifier:path}", self.delete_person),
            ("POST", "/api/v1/customers/{identifier:path}/events", self.event),
            ("POST", "/api/v1/segments/{id}/add_customers", self.add_customers),
            ("POST", "/api/v1/segments/{id}/remove_customers", self.remove_customers),
            ("POST", "/api/v2/entity", self.entity),
            ("POST", "/api/v2/batch", self.batch),
        ]
        app: list[tuple[str, str, Handler]] = [
            ("GET", "/v1/segments", self.list_segments),
            ("POST", "/v1/segments", self.create_segment),
            ("GET", "/v1/segments/{id:int}", self.get_segment),
            ("DELETE", "/v1/segments/{id:int}", self.delete_segment),
            ("GET", "/v1/segments/{id:int}/customer_count", self.customer_count),
            ("GET", "/v1/segments/{id:int}/membership", self.membership),
            ("GET", "/v1/customers", self.by_email),
            ("POST", "/v1/customers/attributes", self.look_up),
            ("GET", "/v1/objects/{type}/{id:path}/attributes", self.object_attributes),
        ]
        return [*self._surface("track", track), *self._surface("app", app)]

    def shown(self, app_id: str) -> Shown:
        """Return the manual segments and some people of a workspace."""
        segments = self.state.rows("SELECT * FROM customerio_segments WHERE app_id = ? ORDER BY id", app_id)
        return {
            "counts": {
                "people": self.people.count(app_id),
                "objects": self.people.count(app_id, "objects"),
                "segments": len(segments),
            },
            "audiences": [
                {
                    "name": segment["name"],
                    "members": len(people),
                    "sample": [str(person["id"] or person["email"]) for person in people[:SAMPLE]],
                    "mark": "Heap" if "Heap" in segment["description"] else "",
                }
                for segment in segments
                for people in [self._members(app_id, segment["id"])]
            ],
            "users": self.people.first(app_id, SAMPLE),
        }

    def _surface(self, surface: Surface, table: list[tuple[str, str, Handler]]) -> Iterable[BaseRoute]:
        base = f"/customerio/{surface}"
        for method, path, handler in table:
            yield Route(base + path, self._guarded(surface, handler), methods=[method])
        yield Route(base + "/{path:path}", self._guarded(surface, _unknown))

    def _guarded(self, surface: Surface, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            app_id = ""
            try:
                app_id = self._authorised(surface, request)
                self._paced(surface, app_id)
                answer = await handler(request, app_id)
            except Problem as problem:
                self.state.refuse(app_id, request.url.path, problem.status, problem.message)
                return JSONResponse(_told(surface, request, problem), problem.status)
            self.state.count(app_id, customerio_requests=1)
            status, body = answer if isinstance(answer, tuple) else (200, answer)
            return Response(status_code=status) if body is None else JSONResponse(body, status)

        return endpoint

    def _authorised(self, surface: Surface, request: Request) -> str:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        for environment in self.settings.environments:
            expected = _value(environment.customerio_app_api_key) if surface == "app" else _basic(environment)
            if expected and scheme.lower() == ("bearer" if surface == "app" else "basic"):
                known = given.strip() if surface == "app" else _decoded(given)
                if hmac.compare_digest(known.encode(), expected.encode()):
                    return environment.app_id
        raise Problem(401, "Unauthorized request" if surface == "track" else "unauthorized")

    def _paced(self, surface: Surface, app_id: str) -> None:
        if not self.settings.limits:
            return
        if not self._limits[surface].fits({app_id: 1}):
            raise Problem(429, "too many requests")
        self._limits[surface].take({app_id: 1})

    # Track API: people

    async def region(self, _request: Request, app_id: str) -> Answer:
        """GET /api/v1/accounts/region: the region and the workspace that the keys are for."""
        number = [environment.app_id for environment in self.settings.environments].index(app_id) + 1
        return {"url": "https://track.customer.io", "region": "us", "environment_id": number}

    async def identify(self, request: Request, app_id: str) -> Answer:
        """PUT /api/v1/customers/{identifier}: add or update a person."""
        item = _person(request.path_params["identifier"], "identify") | {"attributes": await _body(request)}
        return self._one(app_id, item)

    async def delete_person(self, request: Request, app_id: str) -> Answer:
        """DELETE /api/v1/customers/{identifier}: with memberships; nothing happens where there is nobody."""
        return self._one(app_id, _person(request.path_params["identifier"], "delete"))

    async def event(self, request: Request, app_id: str) -> Answer:
        """POST /api/v1/customers/{identifier}/events: an event, which makes an unknown person known."""
        body = await _body(request)
        item = _person(request.path_params["identifier"], "event") | {"name": body.get("name")}
        return self._one(app_id, item)

    async def entity(self, request: Request, app_id: str) -> Answer:
        """POST /api/v2/entity: one operation."""
        return self._one(app_id, await _body(request, ITEM_BYTES))

    async def batch(self, request: Request, app_id: str) -> Answer:
        """POST /api/v2/batch: many operations; 207 names those that are wrong, all others are applied."""
        body = await _body(request, BATCH_BYTES)
        items = body.get("batch")
        if set(body) != {"batch"} or type(items) is not list or not items:
            raise Problem(400, "batch: a list is required", [_error("required", "batch", "a list is required")])
        errors = []
        with self.state.write():
            for place, item in enumerate(items):
                try:
                    self._apply(app_id, item)
                except Failed as failed:
                    errors.append({"batch_index": place, **_error(failed.reason, failed.field, failed.message)})
            self.state.count(app_id, customerio_operations=len(items) - len(errors))
        return (207, {"errors": errors}) if errors else {}

    def _one(self, app_id: str, item: Any) -> Answer:
        try:
            with self.state.write():
                self._apply(app_id, item)
                self.state.count(app_id, customerio_operations=1)
        except Failed as failed:
            raise Problem(400, failed.message, [_error(failed.reason, failed.field, failed.message)]) from None
        return {}

    def _apply(self, app_id: str, item: Any) -> None:
        if type(item) is not dict:
            raise Failed("invalid", "", "an operation must be an object")
        if len(orjson.dumps(item)) > ITEM_BYTES:
            raise Failed("invalid", "", "an operation must be 32kb or smaller")
        gone = self.people.apply(app_id, item)
        if gone is not None:
            self.state.con.execute("DELETE FROM customerio_members WHERE app_id = ? AND person = ?", (app_id, gone))

    # Track API: manual segments

    async def add_customers(self, request: Request, app_id: str) -> Answer:
        """POST /api/v1/segments/{id}/add_customers: ids that match nobody are ignored."""
        segment, people = await self._named(request, app_id)
        with self.state.write() as con:
            con.executemany(
                "INSERT OR IGNORE INTO customerio_members VALUES (?, ?, ?)",
                [(app_id, segment, person["number"]) for person in people],
            )
        return {}

    async def remove_customers(self, request: Request, app_id: str) -> Answer:
        """POST /api/v1/segments/{id}/remove_customers: only of people who have an id."""
        segment, people = await self._named(request, app_id)
        with self.state.write() as con:
            con.executemany(
                "DELETE FROM customerio_members WHERE app_id = ? AND segment_id = ? AND person = ?",
                [(app_id, segment, person["number"]) for person in people if person["id"] is not None],
            )
        return {}

    async def _named(self, request: Request, app_id: str) -> tuple[int, list[Object]]:
        body = await _body(request)
        number, id_type = request.path_params["id"], request.query_params.get("id_type", "id")
        segment = int(number) if number.isdecimal() else 0
        if id_type not in ("id", "email", "cio_id"):
            raise Problem(400, "id_type must be id, email or cio_id")
        ids = _ids(body, MOST_IDS)
        if segment == DYNAMIC["id"]:
            raise Problem(400, "you cannot add or remove people of a data-driven segment")
        if self._segment(app_id, segment) is None:
            raise Problem(400, f"segment {segment} does not exist")
        found = (self.people.find(app_id, id_type, each) for each in ids)
        return segment, [person for person in found if person is not None]

    # App API

    async def list_segments(self, _request: Request, app_id: str) -> Answer:
        """GET /v1/segments: all of them."""
        rows = self.state.rows("SELECT * FROM customerio_segments WHERE app_id = ? ORDER BY id", app_id)
        return {"segments": [_segment(DYNAMIC), *(_segment(dict(row)) for row in rows)]}

    async def create_segment(self, request: Request, app_id: str) -> Answer:
        """POST /v1/segments: an empty manual one; two may have the same name."""
        given = (await _body(request)).get("segment")
        if type(given) is not dict or type(given.get("name")) is not str or not given["name"].strip():
            raise Problem(400, "segment.name is required")
        with self.state.write() as con:
            # Counted, not read from the table: the number of a deleted segment is not given out again.
            self.state.count(app_id, customerio_segments_made=1)
            number = self.state.counters(app_id)["customerio_segments_made"] + 1
            made = (app_id, number, given["name"], str(given.get("description") or ""), int(time.time()))
            con.execute("INSERT INTO customerio_segments VALUES (?, ?, ?, ?, ?)", made)
        return {"segment": self._found(app_id, number)}

    async def get_segment(self, request: Request, app_id: str) -> Answer:
        """GET /v1/segments/{id}."""
        return {"segment": self._found(app_id, request.path_params["id"])}

    async def delete_segment(self, request: Request, app_id: str) -> Answer:
        """DELETE /v1/segments/{id}: the people stay."""
        segment = self._found(app_id, request.path_params["id"])
        with self.state.write() as con:
            for table, column in (("customerio_segments", "id"), ("customerio_members", "segment_id")):
                con.execute(f"DELETE FROM {table} WHERE app_id = ? AND {column} = ?", (app_id, segment["id"]))
        return 204, None

    async def customer_count(self, request: Request, app_id: str) -> Answer:
        """GET /v1/segments/{id}/customer_count."""
        segment = self._found(app_id, request.path_params["id"])
        return {"segment_id": segment["id"], "count": len(self._members(app_id, segment["id"]))}

    async def membership(self, request: Request, app_id: str) -> Answer:
        """GET /v1/segments/{id}/membership, in pages; an empty segment has null for its lists."""
        segment = self._found(app_id, request.path_params["id"])
        limit, start = _number(request, "limit", USUAL_MEMBERS), _number(request, "start", 0)
        if not 1 <= limit <= MOST_MEMBERS:
            raise Problem(400, f"limit must be from 1 to {MOST_MEMBERS}")
        members = self._members(app_id, segment["id"])
        page = members[start : start + limit]
        return {
            "segment_id": segment["id"],
            "ids": [person["id"] or "" for person in page] or None,
            "identifiers": [_identifiers(person) for person in page] or None,
            "next": str(start + limit) if start + limit < len(members) else "",
        }

    async def by_email(self, request: Request, app_id: str) -> Answer:
        """GET /v1/customers?email=: whoever has that address."""
        email = request.query_params.get("email")
        if not email:
            raise Problem(400, "email is required")
        person = self.people.find(app_id, "email", email)
        return {"results": [_identifiers(person)] if person else []}

    async def look_up(self, request: Request, app_id: str) -> Answer:
        """POST /v1/customers/attributes: up to 100 people; whom nobody knows is left out."""
        ids = _ids(await _body(request), MOST_LOOKED_UP)
        id_type = request.query_params.get("id_type", "id")
        if id_type not in ("id", "email", "cio_id"):
            raise Problem(400, "id_type must be id, email or cio_id")
        found = [(each, self.people.find(app_id, id_type, each)) for each in dict.fromkeys(ids)]
        return {
            "customers": [
                {
                    "id": person["id"] or person["email"],
                    "identifiers": _identifiers(person),
                    "attributes": self.people.texts(person),
                    "timestamps": {},
                    "unsubscribed": False,
                    "devices": [],
                }
                for _, person in found
                if person is not None
            ]
        }

    async def object_attributes(self, request: Request, app_id: str) -> Answer:
        """GET /v1/objects/{type}/{id}/attributes."""
        found = self.people.object(app_id, request.path_params["type"], request.path_params["id"])
        if found is None:
            raise Problem(404, "not found")
        return {"object": found}

    def _segment(self, app_id: str, number: int) -> Object | None:
        if number == DYNAMIC["id"]:
            return _segment(DYNAMIC)
        row = self.state.row("SELECT * FROM customerio_segments WHERE app_id = ? AND id = ?", app_id, number)
        return None if row is None else _segment(dict(row))

    def _found(self, app_id: str, number: int) -> Object:
        segment = self._segment(app_id, number)
        if segment is None:
            raise Problem(404, "not found")
        return segment

    def _members(self, app_id: str, segment: int) -> list[Object]:
        return self.people.everybody(app_id) if segment == DYNAMIC["id"] else self.people.members(app_id, segment)


def _told(surface: Surface, request: Request, problem: Problem) -> Object:
    """Return an error as the API that was called writes it."""
    if surface == "app":
        return {"errors": [{"detail": problem.message, "status": str(problem.status)}]}
    if "/v2/" in request.url.path and problem.status == 400:
        return {"errors": problem.errors or [_error("invalid", "", problem.message)]}
    return {"meta": {"errors": [problem.message]}}


def _error(reason: str, field: str, message: str) -> Object:
    return {"reason": reason, "field": field, "message": message}


def _value(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def _basic(environment: SandboxEnvironment) -> str:
    site_id, api_key = _value(environment.customerio_site_id), _value(environment.customerio_api_key)
    return f"{site_id}:{api_key}" if site_id and api_key else ""


def _decoded(given: str) -> str:
    try:
        return base64.b64decode(given, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _segment(given: Object) -> Object:
    at = given.get("at", 1_700_000_000)
    return {
        "id": given["id"],
        "deduplicate_id": f"{given['id']}:{at}",
        "name": given["name"],
        "description": given.get("description", ""),
        "state": "finished",
        "progress": None,
        "type": given.get("type", "manual"),
        "tags": None,
        "created_at": at,
        "updated_at": at,
    }


def _identifiers(person: Object) -> Object:
    return {"email": person["email"], "id": person["id"], "cio_id": person["cio_id"]}


def _person(identifier: str, action: str) -> Object:
    """Return an operation for whom an address of the first version names: an id, an e-mail address or cio_..."""
    if identifier.startswith("cio_"):
        who = {"cio_id": identifier.removeprefix("cio_")}
    else:
        who = {"email" if "@" in identifier else "id": identifier}
    return {"type": "person", "action": action, "identifiers": who}


def _ids(body: Object, most: int) -> list[str]:
    ids = body.get("ids")
    if set(body) != {"ids"} or type(ids) is not list or not all(type(each) is str for each in ids):
        raise Problem(400, "ids must be a list of texts, and nothing else")
    if not 1 <= len(ids) <= most:
        raise Problem(400, f"ids must have 1 to {most} entries, not {len(ids)}")
    return ids


def _number(request: Request, name: str, otherwise: int) -> int:
    given = request.query_params.get(name, "")
    if given and not given.isdigit():
        raise Problem(400, f"{name} can't be read")
    return int(given) if given else otherwise


async def _body(request: Request, most: int | None = None) -> Object:
    text = await request.body()
    if most is not None and len(text) > most:
        raise Problem(400, f"the request must be smaller than {most} bytes, not {len(text)}")
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Problem(400, "the body is not JSON") from None
    if type(body) is not dict:
        raise Problem(400, "the body must be an object")
    return body


async def _unknown(_request: Request, _app_id: str) -> Answer:
    raise Problem(404, "not found")
