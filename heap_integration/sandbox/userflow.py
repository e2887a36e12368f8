"""Userflow's HTTP API: users, groups, events, definitions, content and webhook subscriptions."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from heap_integration.sandbox.limits import LeakyBuckets
from heap_integration.sandbox.settings import SandboxSettings
from heap_integration.sandbox.state import State, utc_text
from heap_integration.sandbox.userflow_attributes import Problem, applied, event_attributes
from heap_integration.sandbox.userflow_content import Content, attribute_definition, event_definition
from heap_integration.sandbox.userflow_objects import Object, Objects, expansions, now_text
from heap_integration.sandbox.userflow_segments import Segments
from heap_integration.sandbox.userflow_webhooks import API_VERSION, UserflowWebhooks
from heap_integration.sandbox.vendor import Shown, ShownAudience

_EVENT_NAME = re.compile(r"[A-Za-z0-9_\-. ]+")
_TOPIC = re.compile(r"\*|event(\.tracked(\.[A-Za-z0-9_\-. ]+)?)?|(user|group)(\.(created|updated))?")

SHOWN_USERS = 10

Handler = Callable[[Request, str], Awaitable[Object]]


class UserflowApi:
    """The endpoints, over the state of one sandbox; the API key chooses the environment.

    ``request_seconds`` is how long each request takes; at most ``at_once`` of an environment are under way, more
    wait, and after ``userflow_queue_seconds`` they are answered 503.
    """

    name = "userflow"
    title = "Userflow"

    def __init__(self, settings: SandboxSettings, state: State, webhooks: UserflowWebhooks) -> None:
        self.settings = settings
        self.state = state
        self.webhooks = webhooks
        self.objects = Objects(state)
        self.content = Content(state)
        self.segments = Segments(state)
        self.pace: int | None = None
        self.at_once = settings.userflow_requests_at_once
        self.request_seconds = settings.userflow_request_seconds
        self._under_way: Counter[str] = Counter()
        self._one_less = asyncio.Condition()
        self._requests = LeakyBuckets(1, 60)
        self._defined: set[tuple[str, str, str]] = set()
        self.set_pace(settings.userflow_requests_per_minute)
        self.seed()

    def set_pace(self, requests_per_minute: int | None) -> None:
        """Limit each environment's requests a minute, or lift the limit."""
        self.pace = requests_per_minute
        self._requests = LeakyBuckets(requests_per_minute or 1, 60)

    def seed(self) -> None:
        """Give every environment the content and definitions it starts with."""
        self._defined.clear()
        for environment in self.settings.environments:
            self.content.seed(environment.app_id)

    def shown(self, app_id: str) -> Shown:
        """Return the list of segments, which begins with everybody, and the newest users."""
        kinds = {"users": "user", "groups": "group", "events": "event"}
        newest = self.state.rows(
            "SELECT data FROM userflow_objects WHERE app_id = ? AND kind = 'user' ORDER BY seq DESC LIMIT ?",
            app_id,
            SHOWN_USERS,
        )
        users = [orjson.loads(row["data"]) for row in newest]
        counts = {label: self.objects.size(app_id, kind) for label, kind in kinds.items()}
        everybody = ShownAudience(
            name="All users", members=counts["users"], sample=self.segments.sample(app_id), mark=""
        )
        fed = [
            ShownAudience(name=each["name"], members=each["users"], sample=each["sample"], mark="Heap")
            for each in self.segments.all(app_id)
        ]
        return {
            "counts": counts,
            "audiences": [everybody, *fed],
            "users": [{"id": user["id"], "attributes": user["attributes"]} for user in users],
        }

    def routes(self) -> list[BaseRoute]:
        """Return the routes, all under /userflow."""
        table: list[tuple[str, str, Handler]] = [
            ("POST", "/users", self.upsert_user),
            ("GET", "/users", self.list_users),
            ("GET", "/users/find", self.find_user),
            ("GET", "/users/{id:path}", self.one("user")),
            ("DELETE", "/users/{id:path}", self.delete_user),
            ("POST", "/groups", self.upsert_group),
            ("GET", "/groups", self.listing("group")),
            ("GET", "/groups/{id:path}", self.one("group")),
            ("DELETE", "/groups/{id:path}", self.delete_group),
            ("DELETE", "/group_memberships", self.delete_membership),
            ("POST", "/events", self.track),
            ("GET", "/event_definitions", self.listing("event_definition")),
            ("GET", "/attribute_definitions", self.listing("attribute_definition", "scope")),
            ("GET", "/content", self.listing("content", "type")),
            ("GET", "/content/{id}", self.one("content")),
            ("GET", "/content_versions", self.listing("content_version", "content_id")),
            ("GET", "/content_versions/{id}", self.one("content_version")),
            ("GET", "/content_sessions", self.listing("content_session", "content_id", "user_id")),
            ("GET", "/content_sessions/{id}", self.one("content_session")),
            ("DELETE", "/content_sessions/{id}", self.deletion("content_session")),
            ("POST", "/webhook_subscriptions", self.subscribe),
            ("GET", "/webhook_subscriptions", self.list_subscriptions),
            ("GET", "/webhook_subscriptions/{id}", self.get_subscription),
            ("PATCH", "/webhook_subscriptions/{id}", self.change_subscription),
            ("DELETE", "/webhook_subscriptions/{id}", self.deletion("webhook_subscription")),
        ]
        routes = [Route(f"/userflow{path}", self._guarded(handler), methods=[way]) for way, path, handler in table]
        return [*routes, Route("/userflow/{path:path}", self._guarded(_unknown))]

    def _guarded(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            app_id = ""
            try:
                app_id = self._authorised(request)
                self._paced(app_id)
                async with self._place(app_id):
                    answer = await handler(request, app_id)
                self.state.count(app_id, userflow_requests=1)
                return JSONResponse(answer)
            except Problem as problem:
                self.state.refuse(app_id, request.url.path, problem.status, problem.message)
                return JSONResponse({"error": {"code": problem.code, "message": problem.message}}, problem.status)

        return endpoint

    def _authorised(self, request: Request) -> str:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        found = ""
        for environment in self.settings.environments:
            expected = environment.userflow_api_key.get_secret_value()
            if scheme.lower() == "bearer" and hmac.compare_digest(key.strip().encode(), expected.encode()):
                found = environment.app_id
        if not found:
            raise Problem("Invalid API key", status=401, code="unauthorized")
        if request.headers.get("userflow-version", API_VERSION) != API_VERSION:
            raise Problem(f"Unknown Userflow-Version, the only one is {API_VERSION}", code="invalid_version")
        return found

    def _paced(self, app_id: str) -> None:
        if self.pace is not None:
            if not self._requests.fits({app_id: 1}):
                raise Problem("Too many requests", status=429, code="rate_limited")
            self._requests.take({app_id: 1})

    @contextlib.asynccontextmanager
    async def _place(self, app_id: str) -> AsyncIterator[None]:
        """Let a request in once there is room for it."""
        async with self._one_less:
            room = self._one_less.wait_for(lambda: self.at_once is None or self._under_way[app_id] < self.at_once)
            try:
                async with asyncio.timeout(self.settings.userflow_queue_seconds):
                    await room
            except TimeoutError:
                raise Problem("Too many concurrent requests", status=503, code="overloaded") from None
            self._under_way[app_id] += 1
        try:
            if self.request_seconds:
                await asyncio.sleep(self.request_seconds)
            yield
        finally:
            async with self._one_less:
                self._under_way[app_id] -= 1
                self._one_less.notify_all()

    # any kind of object

    def one(self, kind: str) -> Handler:
        """Return the handler of GET /<kind>s/{id}."""

        async def get(request: Request, app_id: str) -> Object:
            expand = expansions(kind, request.query_params.multi_items())
            thing = self.objects.require(app_id, kind, request.path_params["id"])
            return self.objects.shown(app_id, thing, expand)

        return get

    def listing(self, kind: str, *filters: str) -> Handler:
        """Return the handler of GET /<kind>s with equality filters on its fields."""

        async def get(request: Request, app_id: str) -> Object:
            given = [
                (f"json_extract(data, '$.{name}') = ?" if name in ("scope", "type") else f"{name} = ?", value)
                for name, value in request.query_params.items()
                if name in filters
            ]
            return self.objects.page(app_id, kind, request.query_params.multi_items(), given)

        return get

    def deletion(self, kind: str) -> Handler:
        """Return the handler of DELETE /<kind>s/{id}."""

        async def delete(request: Request, app_id: str) -> Object:
            thing = self.objects.require(app_id, kind, request.path_params["id"])
            with self.state.write():
                self._remove(app_id, thing)
            return _deleted(thing)

        return delete

    def _remove(self, app_id: str, thing: Object) -> None:
        self.state.con.execute(
            "DELETE FROM userflow_objects WHERE app_id = ? AND kind = ? AND id = ?",
            (app_id, thing["object"], thing["id"]),
        )

    # users and groups

    async def upsert_user(self, request: Request, app_id: str) -> Object:
        """POST /users: create or change a user, its groups and its memberships of them."""
        body = await _body(request, {"id", "attributes", "groups", "memberships", "prune_memberships"})
        user_id = _text(body, "id")
        if "groups" in body and "memberships" in body:
            raise Problem("give either groups or memberships, not both")
        links = _links(body)
        expand = expansions("user", request.query_params.multi_items())
        with self.state.write():
            user = self._upsert(app_id, "user", user_id, body.get("attributes"))
            for group_id, group_attributes, membership_attributes in links:
                self._upsert(app_id, "group", group_id, group_attributes)
                self._link(app_id, user_id, group_id, membership_attributes)
            if body.get("prune_memberships") is True:
                self._prune(app_id, user_id, {group_id for group_id, _, _ in links})
        return self.objects.shown(app_id, user, expand)

    async def upsert_group(self, request: Request, app_id: str) -> Object:
        """POST /groups: create or change a group."""
        body = await _body(request, {"id", "attributes"})
        group_id = _text(body, "id")
        with self.state.write():
            group = self._upsert(app_id, "group", group_id, body.get("attributes"))
        return self.objects.shown(app_id, group, expansions("group", request.query_params.multi_items()))

    def _upsert(self, app_id: str, kind: str, object_id: str, changes: Any) -> Object:
        before = self.objects.get(app_id, kind, object_id)
        thing = before or {"id": object_id, "object": kind, "attributes": {}, "created_at": now_text()}
        old = thing["attributes"]
        new, types = applied(old, {} if changes is None else changes, append=self.settings.userflow_append)
        if before is not None and new == old:
            return before
        thing = {**thing, "attributes": new}
        self.objects.put(app_id, thing)
        self._define(app_id, kind, types)
        shown = self.objects.shown(app_id, thing)
        if before is None:
            self.webhooks.notify(app_id, f"{kind}.created", shown)
        else:
            names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
            self.webhooks.notify(
                app_id,
                f"{kind}.updated",
                shown,
                previous_attributes={name: old.get(name) for name in names},
                updated_attributes={name: new.get(name) for name in names},
            )
        return thing

    def _define(self, app_id: str, scope: str, types: dict[str, str]) -> None:
        for name, data_type in types.items():
            if (app_id, scope, name) not in self._defined:
                definition = attribute_definition(app_id, scope, name, data_type, now_text())
                if self.objects.get(app_id, "attribute_definition", definition["id"]) is None:
                    self.objects.put(app_id, definition)
                self._defined.add((app_id, scope, name))

    def _link(self, app_id: str, user_id: str, group_id: str, attributes: Any) -> None:
        found = self.objects.find(app_id, "group_membership", user_id=user_id, group_id=group_id)
        membership = (
            found[0]
            if found
            else {
                "id": str(uuid.uuid4()),
                "object": "group_membership",
                "attributes": {},
                "created_at": now_text(),
                "group_id": group_id,
                "user_id": user_id,
            }
        )
        if attributes is not None:
            changed, types = applied(membership["attributes"], attributes, append=self.settings.userflow_append)
            membership["attributes"] = changed
            self._define(app_id, "group_membership", types)
        self.objects.put(app_id, membership)

    def _prune(self, app_id: str, user_id: str, keep: set[str]) -> None:
        for membership in self.objects.find(app_id, "group_membership", user_id=user_id):
            if membership["group_id"] not in keep:
                self._remove(app_id, membership)

    async def list_users(self, request: Request, app_id: str) -> Object:
        """GET /users, filtered by ``email`` or ``group_id``."""
        return self.objects.page(app_id, "user", request.query_params.multi_items(), _user_filters(request))

    async def find_user(self, request: Request, app_id: str) -> Object:
        """GET /users/find: the first user with this id, email or group."""
        filters = _user_filters(request)
        if user_id := request.query_params.get("id"):
            filters.append(("id = ?", user_id))
        if not filters:
            raise Problem("give id, email or group_id")
        expand = [(name, value) for name, value in request.query_params.multi_items() if name.startswith("expand")]
        found = self.objects.page(app_id, "user", [("limit", "1"), *expand], filters)["data"]
        if not found:
            raise Problem("No such user", status=404, code="not_found")
        first: Object = found[0]
        return first

    async def delete_user(self, request: Request, app_id: str) -> Object:
        """DELETE /users/{id}: with memberships, events and history; groups stay."""
        user = self.objects.require(app_id, "user", request.path_params["id"])
        with self.state.write():
            for kind in ("group_membership", "event", "content_session"):
                self.objects.delete(app_id, kind, user_id=user["id"])
            self._remove(app_id, user)
        return _deleted(user)

    async def delete_group(self, request: Request, app_id: str) -> Object:
        """DELETE /groups/{id}: with its memberships; users stay."""
        group = self.objects.require(app_id, "group", request.path_params["id"])
        with self.state.write():
            self.objects.delete(app_id, "group_membership", group_id=group["id"])
            self._remove(app_id, group)
        return _deleted(group)

    async def delete_membership(self, request: Request, app_id: str) -> Object:
        """DELETE /group_memberships?user_id=&group_id=: the link, nothing else."""
        user_id, group_id = (request.query_params.get(name, "") for name in ("user_id", "group_id"))
        found = self.objects.find(app_id, "group_membership", user_id=user_id, group_id=group_id)
        if not found:
            raise Problem("No such group_membership", status=404, code="not_found")
        with self.state.write():
            self._remove(app_id, found[0])
        return _deleted(found[0])

    # events

    async def track(self, request: Request, app_id: str) -> Object:
        """POST /events: an event of a known user or group; its name and attributes become known."""
        body = await _body(request, {"name", "user_id", "group_id", "attributes", "time"})
        name = _text(body, "name")
        if not _EVENT_NAME.fullmatch(name):
            raise Problem("an event's name may contain only a-z, A-Z, 0-9, _, -, . and space")
        who = {kind: _text(body, f"{kind}_id") for kind in ("user", "group") if body.get(f"{kind}_id") is not None}
        if not who:
            raise Problem("give user_id, group_id or both")
        for kind, object_id in who.items():
            self.objects.require(app_id, kind, object_id)
        given = {} if body.get("attributes") is None else body["attributes"]
        attributes, types = event_attributes(given)
        created = now_text()
        with self.state.write():
            event: Object = {
                "id": str(4_000_000 + self.objects.next_number()),
                "object": "event",
                "attributes": attributes,
                "created_at": created,
                "name": name,
                "time": created if body.get("time") is None else _time(body["time"]),
                "user_id": who.get("user"),
                "group_id": who.get("group"),
            }
            self.objects.put(app_id, event)
            self._define(app_id, "event", types)
            if not self.objects.find(app_id, "event_definition", name=name):
                self.objects.put(app_id, event_definition(app_id, name, created))
            self.content.follow(app_id, event)
            shown = self.objects.shown(app_id, event)
            self.webhooks.notify(app_id, "event.tracked", shown, family=f"event.tracked.{name}")
            self.state.count(app_id, userflow_events=1)
        return shown

    # webhook subscriptions

    async def subscribe(self, request: Request, app_id: str) -> Object:
        """POST /webhook_subscriptions: the answer holds the secret that signs the notifications."""
        body = await _body(request, {"url", "topics", "api_version"})
        if body.get("api_version", API_VERSION) != API_VERSION:
            raise Problem(f"api_version must be {API_VERSION}")
        subscription: Object = {
            "id": str(uuid.uuid4()),
            "object": "webhook_subscription",
            "api_version": API_VERSION,
            "created_at": now_text(),
            "disabled": False,
            "topics": _topics(body.get("topics")),
            "url": _url(_text(body, "url")),
        }
        with self.state.write():
            self.objects.put(app_id, subscription)
        return self._with_secret(app_id, subscription)

    async def list_subscriptions(self, request: Request, app_id: str) -> Object:
        """GET /webhook_subscriptions."""
        page = self.objects.page(app_id, "webhook_subscription", request.query_params.multi_items())
        page["data"] = [self._with_secret(app_id, each) for each in page["data"]]
        return page

    async def get_subscription(self, request: Request, app_id: str) -> Object:
        """GET /webhook_subscriptions/{id}."""
        found = self.objects.require(app_id, "webhook_subscription", request.path_params["id"])
        return self._with_secret(app_id, found)

    async def change_subscription(self, request: Request, app_id: str) -> Object:
        """PATCH /webhook_subscriptions/{id}: disabled, topics, url."""
        subscription = self.objects.require(app_id, "webhook_subscription", request.path_params["id"])
        body = await _body(request, {"disabled", "topics", "url"})
        if "disabled" in body:
            if type(body["disabled"]) is not bool:
                raise Problem("disabled must be a boolean")
            subscription["disabled"] = body["disabled"]
        if "topics" in body:
            subscription["topics"] = _topics(body["topics"])
        if "url" in body:
            subscription["url"] = _url(_text(body, "url"))
        with self.state.write():
            self.objects.put(app_id, subscription)
        return self._with_secret(app_id, subscription)

    def _with_secret(self, app_id: str, subscription: Object) -> Object:
        return {
            **subscription,
            "secret": self.settings.known(app_id).userflow_signing_secret.get_secret_value(),
        }


async def _unknown(_request: Request, _app_id: str) -> Object:
    raise Problem("No such endpoint", status=404, code="not_found")


async def _body(request: Request, known: set[str]) -> Object:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise Problem("the body is not JSON") from None
    if type(body) is not dict:
        raise Problem("the body must be an object")
    if unknown := set(body) - known:
        raise Problem(f"unknown parameter: {', '.join(sorted(unknown))}")
    return body


def _text(body: Object, name: str) -> str:
    value = body.get(name)
    if type(value) is not str or not value:
        raise Problem(f"{name} must be a non-empty string")
    return value


def _time(value: Any) -> str:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise Problem("time must be an ISO 8601 text") from None
    return utc_text(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise Problem("url must be an http or https address")
    return url


def _topics(topics: Any) -> list[str]:
    if type(topics) is not list or not topics:
        raise Problem("topics must be a non-empty list")
    for topic in topics:
        if type(topic) is not str or not _TOPIC.fullmatch(topic):
            raise Problem(f"unknown topic: {topic!r}")
    return topics


def _links(body: Object) -> list[tuple[str, Any, Any]]:
    """Return (group id, group's attributes, membership's attributes) of ``groups`` or ``memberships``."""
    links = []
    for name in ("groups", "memberships"):
        items = body.get(name) or []
        if type(items) is not list or not all(type(item) is dict for item in items):
            raise Problem(f"{name} must be a list of objects")
        for item in items:
            group = item if name == "groups" else item.get("group")
            if type(group) is not dict:
                raise Problem("a membership needs its group")
            links.append(
                (
                    _text(group, "id"),
                    group.get("attributes"),
                    None if group is item else item.get("attributes"),
                )
            )
    return links


def _user_filters(request: Request) -> list[tuple[str, str]]:
    filters = []
    if email := request.query_params.get("email"):
        filters.append(("json_extract(data, '$.attributes.email') = ?", email))
    if group_id := request.query_params.get("group_id"):
        member = (
            "id IN (SELECT m.user_id FROM userflow_objects m WHERE m.app_id = userflow_objects.app_id"
            " AND m.kind = 'group_membership' AND m.group_id = ?)"
        )
        filters.append((member, group_id))
    return filters


def _deleted(thing: Object) -> Object:
    return {"id": thing["id"], "object": thing["object"], "deleted": True}
