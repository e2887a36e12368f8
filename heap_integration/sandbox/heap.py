"""Heap's HTTP API: events, properties, identities, deletion, and the OAuth steps of Segment Sync."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from heap_integration.sandbox.heap_rules import (
    MAX_IDENTITY,
    MAX_TEXT,
    PropertyRules,
    Refused,
    TrackedEvent,
    app_id_field,
    items_of,
    properties_field,
    stored_time,
    text_field,
    timestamp_field,
    tracked_events,
    user_id_field,
    user_id_of,
)
from heap_integration.sandbox.limits import LeakyBuckets
from heap_integration.sandbox.settings import SandboxEnvironment, SandboxSettings
from heap_integration.sandbox.state import State

MAX_BODY = 20_000_000
_MONTH = 30 * 86_400
_USER_IDS_A_MONTH = 10
_TOKEN_SECONDS = 300
_DELETIONS_A_REQUEST = 10_000
_ID_TOKENS = uuid.UUID("5b0c1ad5-8f3c-4d0f-9b54-0d3f1f6e2a77")

Handler = Callable[[dict[str, Any]], Response]


def id_token_of(app_id: str) -> str:
    """Return the UUID that names a customer's environment in OAuth answers and webhooks."""
    return str(uuid.uuid5(_ID_TOKENS, app_id))


class HeapApi:
    """The endpoints, over the state and the rate limits of one sandbox."""

    def __init__(self, settings: SandboxSettings, state: State) -> None:
        self.settings = settings
        self.state = state
        self.limits_on = settings.limits
        self._rules = PropertyRules(settings.booleans, settings.long_values)
        self._events = LeakyBuckets(settings.events_per_minute, 60)
        self._identities = LeakyBuckets(settings.events_per_minute_per_identity, 60)
        self._single_calls = LeakyBuckets(settings.single_calls_per_30_seconds, 30)

    def routes(self) -> list[Route]:
        """Return the routes below the server's root."""
        return [
            Route("/api/track", self._post(self.track), methods=["POST"]),
            Route("/api/v1/identify", self._post(self.identify), methods=["POST"]),
            Route("/api/add_user_properties", self._post(self.add_user_properties), methods=["POST"]),
            Route("/api/add_account_properties", self._post(self.add_account_properties), methods=["POST"]),
            Route("/api/public/v0/auth_token", self.auth_token, methods=["POST"]),
            Route("/api/public/v0/user_deletion", self.user_deletion, methods=["POST"]),
            Route("/api/public/v0/deletion_status/{deletion_id}", self.deletion_status, methods=["GET"]),
            Route("/api/partner/oauth/authorize", self.authorize, methods=["GET"]),
            Route("/api/partner/oauth/token", self.token, methods=["POST"]),
            Route("/api/partner/v1/metadata/{id_token}", self.metadata, methods=["GET"]),
        ]

    def empty_buckets(self) -> None:
        """Forget what the rate limits have seen."""
        for buckets in (self._events, self._identities, self._single_calls):
            buckets.clear()

    # writing

    def _post(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            app_id = ""
            try:
                payload = _json_object(await request.body())
                app_id = app_id_field(payload, number_allowed=handler == self.add_account_properties)
                if self.settings.environment(app_id) is None:
                    app_id = ""
                    raise Refused("app_id is not an environment of this sandbox")
                return handler(payload)
            except Refused as refused:
                self.state.refuse(app_id, request.url.path, refused.status, refused.text)
                return PlainTextResponse(refused.text, refused.status)

        return endpoint

    def track(self, payload: dict[str, Any]) -> Response:
        """POST /api/track, single or bulk: all of it is stored, or nothing."""
        app_id = str(payload["app_id"])
        events = tracked_events(payload, self._rules)
        self._pace(app_id, events, bulk="events" in payload)
        with self.state.write():
            stored = self._store(app_id, events)
            self.state.count(app_id, requests=1, events=stored, duplicates=len(events) - stored)
        return JSONResponse({})

    def _pace(self, app_id: str, events: list[TrackedEvent], *, bulk: bool) -> None:
        if not self.limits_on:
            return
        people = Counter(f"{app_id}\0{event.identity or event.user_id}" for event in events)
        if not bulk:
            self._take(self._single_calls, {f"track\0{key}": 1 for key in people})
            return
        total = {app_id: len(events)}
        if not self._identities.fits(people):
            raise Refused("Too Many Requests: events per minute of one identity", 429)
        self._take(self._events, total)
        self._identities.take(people)

    def _take(self, buckets: LeakyBuckets, amounts: dict[str, int]) -> None:
        if not buckets.fits(amounts):
            raise Refused("Too Many Requests", 429)
        buckets.take(amounts)

    def _store(self, app_id: str, events: list[TrackedEvent]) -> int:
        con, now = self.state.con, time.time()
        received = stored_time(datetime.fromtimestamp(now, UTC))
        migrated = self._migrated(app_id, [event.user_id for event in events if event.user_id is not None])
        users: dict[int, str | None] = {}
        rows = []
        for identity, given_id, event, timestamp, session_id, key, properties in events:
            who = identity if given_id is None else migrated.get(given_id)
            user_id = user_id_of(app_id, who) if who is not None else given_id or 0
            users[user_id] = who
            rows.append((app_id, user_id, who, event, timestamp or received, now, session_id, key, properties))
        before = con.total_changes
        con.executemany(
            "INSERT INTO heap_events (app_id, user_id, identity, event, timestamp, received_at, session_id,"
            " idempotency_key, properties) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            rows,
        )
        stored = con.total_changes - before
        self._see_users(app_id, users, now)
        return stored

    def _migrated(self, app_id: str, user_ids: list[int]) -> dict[int, str]:
        if not user_ids:
            return {}
        found = self.state.rows(
            "SELECT user_id, identity FROM heap_identifies WHERE app_id = ?"
            " AND user_id IN (SELECT value FROM json_each(?))",
            app_id,
            orjson.dumps(user_ids).decode(),
        )
        return {row["user_id"]: row["identity"] for row in found}

    def _see_users(self, app_id: str, users: dict[int, str | None], now: float) -> None:
        self.state.con.executemany(
            "INSERT INTO heap_users VALUES (?, ?, ?, NULL, '{}', ?, ?)"
            " ON CONFLICT (app_id, user_id) DO UPDATE SET last_seen = excluded.last_seen",
            [(app_id, user_id, identity, now, now) for user_id, identity in users.items()],
        )

    def identify(self, payload: dict[str, Any]) -> Response:
        """POST /api/v1/identify: the user id's events move to the identity's user."""
        app_id = str(payload["app_id"])
        user_id = user_id_field(payload, "postBody")
        identity = text_field(payload, "identity", "postBody", MAX_IDENTITY)
        timestamp_field(payload, "postBody")
        now = time.time()
        with self.state.write() as con:
            self.state.count(app_id, requests=1)
            if not self._may_identify(app_id, user_id, identity, now):
                self.state.count(app_id, identifies_dropped=1)
                return JSONResponse({})
            new_id = user_id_of(app_id, identity)
            con.execute("INSERT OR IGNORE INTO heap_identifies VALUES (?, ?, ?, ?)", (app_id, user_id, identity, now))
            self._see_users(app_id, {new_id: identity}, now)
            con.execute(
                "UPDATE heap_events SET user_id = ?, identity = ? WHERE app_id = ? AND user_id = ?",
                (new_id, identity, app_id, user_id),
            )
            con.execute(
                "DELETE FROM heap_users WHERE app_id = ? AND user_id = ? AND identity IS NULL",
                (app_id, user_id),
            )
        return JSONResponse({})

    def _may_identify(self, app_id: str, user_id: int, identity: str, now: float) -> bool:
        known = self.state.row("SELECT identity FROM heap_identifies WHERE app_id = ? AND user_id = ?", app_id, user_id)
        if known is not None:
            return bool(known["identity"] == identity)
        recent = self.state.row(
            "SELECT count(*) AS n FROM heap_identifies WHERE app_id = ? AND identity = ? AND at > ?",
            app_id,
            identity,
            now - _MONTH,
        )
        return recent is not None and recent["n"] < _USER_IDS_A_MONTH

    def add_user_properties(self, payload: dict[str, Any]) -> Response:
        """POST /api/add_user_properties, single or bulk; an unknown identity becomes a user."""
        app_id = str(payload["app_id"])
        users = []
        for position, item in enumerate(items_of(payload, "users")):
            where = f"postBody.users[{position}]"
            identity = text_field(item, "identity", where, MAX_IDENTITY)
            properties = properties_field(item, where, self._rules) if "properties" in item else {}
            for key in properties:
                if key.lower() == "id":
                    raise Refused(f"{where}.properties should NOT have a property '{key}'")
            users.append((identity, properties))
        if self.limits_on:
            # no rate of its own is documented for the bulk form: it counts as a request of each of its people
            self._take(self._single_calls, {f"properties\0{app_id}\0{identity}": 1 for identity, _ in users})
        now = time.time()
        with self.state.write():
            self.state.count(app_id, requests=1, user_property_updates=len(users))
            self._see_users(app_id, {user_id_of(app_id, identity): identity for identity, _ in users}, now)
            for identity, properties in users:
                self._merge_user(app_id, user_id_of(app_id, identity), properties)
        return JSONResponse({})

    def _merge_user(self, app_id: str, user_id: int, properties: dict[str, Any]) -> None:
        row = self.state.one("SELECT properties FROM heap_users WHERE app_id = ? AND user_id = ?", app_id, user_id)
        own = {key: value for key, value in properties.items() if key != "email"}
        merged = orjson.loads(row["properties"]) | own
        self.state.con.execute(
            "UPDATE heap_users SET properties = ?, email = coalesce(?, email) WHERE app_id = ? AND user_id = ?",
            (orjson.dumps(merged), properties.get("email"), app_id, user_id),
        )

    def add_account_properties(self, payload: dict[str, Any]) -> Response:
        """POST /api/add_account_properties, single or bulk; the answer is text."""
        app_id = str(payload["app_id"])
        accounts = []
        for position, item in enumerate(items_of(payload, "accounts")):
            where = f"postBody.accounts[{position}]"
            account = text_field(item, "account_id", where, MAX_TEXT)
            accounts.append((account, properties_field(item, where, self._rules) if "properties" in item else {}))
        with self.state.write() as con:
            self.state.count(app_id, requests=1, account_property_updates=len(accounts))
            for account, properties in accounts:
                con.execute(
                    "INSERT INTO heap_accounts VALUES (?, ?, ?) ON CONFLICT (app_id, account_id)"
                    " DO UPDATE SET properties = json_patch(properties, excluded.properties)",
                    (app_id, account, orjson.dumps(properties).decode()),
                )
        return PlainTextResponse("OK")

    # deletion

    async def auth_token(self, request: Request) -> Response:
        """POST /api/public/v0/auth_token: a token for five minutes, for app id and API key."""
        environment = self._basic(request.headers.get("authorization", ""))
        if environment is None:
            return self._unauthorized(request, {"err": {"message": "Unauthorized"}})
        token = secrets.token_urlsafe(32)
        with self.state.write():
            self.state.issue(token, "deletion", environment.app_id, seconds=_TOKEN_SECONDS)
            self.state.count(environment.app_id, requests=1)
        return JSONResponse({"access_token": token})

    def _basic(self, header: str) -> SandboxEnvironment | None:
        scheme, _, encoded = header.partition(" ")
        try:
            app_id, _, key = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        environment = self.settings.environment(app_id)
        if scheme.lower() != "basic" or environment is None:
            return None
        expected = environment.heap_api_key.get_secret_value()
        return environment if hmac.compare_digest(key.encode(), expected.encode()) else None

    def _bearer(self, request: Request, kind: str) -> str | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known = self.state.token(token.strip(), kind) if scheme.lower() == "bearer" else None
        return None if known is None else str(known["app_id"])

    def _unauthorized(self, request: Request, body: dict[str, Any]) -> Response:
        self.state.refuse("", request.url.path.split("/deletion_status/")[0], 401, "Unauthorized")
        return JSONResponse(body, 401)

    async def user_deletion(self, request: Request) -> Response:
        """POST /api/public/v0/user_deletion: at most 10,000 users, each named by user_id or identity."""
        app_id = self._bearer(request, "deletion")
        if app_id is None:
            return self._unauthorized(request, {"error": "Unauthorized", "message": "the token is not valid"})
        try:
            users = _deletions(_json_object(await request.body()))
        except Refused as refused:
            self.state.refuse(app_id, request.url.path, refused.status, refused.text)
            return JSONResponse({"error": "Bad Request", "message": refused.text}, refused.status)
        deletion_id = str(uuid.uuid4())
        with self.state.write() as con:
            due = time.time() + self.settings.deletion_seconds
            con.execute(
                "INSERT INTO heap_deletions VALUES (?, ?, ?, ?, 'pending')",
                (deletion_id, app_id, orjson.dumps(users), due),
            )
            self.state.count(app_id, requests=1, deletion_requests=1)
        location = f"{str(request.base_url).rstrip('/')}/api/public/v0/deletion_status/{deletion_id}"
        return JSONResponse(
            {"deletion_request_location": location, "deletion_request_id": deletion_id, "status": "pending"},
            201,
        )

    async def deletion_status(self, request: Request) -> Response:
        """GET /api/public/v0/deletion_status/{id}: pending, then complete."""
        app_id = self._bearer(request, "deletion")
        if app_id is None:
            return self._unauthorized(request, {"error": "Unauthorized", "message": "the token is not valid"})
        self.complete_deletions()
        deletion_id = request.path_params["deletion_id"]
        row = self.state.row("SELECT status FROM heap_deletions WHERE id = ? AND app_id = ?", deletion_id, app_id)
        if row is None:
            return JSONResponse({"error": "Not Found", "message": "no such deletion request"}, 404)
        return JSONResponse({"deletion_request_id": deletion_id, "status": row["status"]})

    def complete_deletions(self) -> None:
        """Carry out the user deletions whose time has come."""
        due = self.state.rows(
            "SELECT id, app_id, users FROM heap_deletions WHERE status = 'pending' AND complete_at <= ?",
            time.time(),
        )
        for row in due:
            with self.state.write() as con:
                for user in orjson.loads(row["users"]):
                    self._delete_user(row["app_id"], user)
                con.execute("UPDATE heap_deletions SET status = 'complete', users = '[]' WHERE id = ?", (row["id"],))

    def _delete_user(self, app_id: str, user: dict[str, Any]) -> None:
        con = self.state.con
        identity = user.get("identity")
        user_id = user["user_id"] if identity is None else user_id_of(app_id, identity)
        known = self.state.row(
            "SELECT identity FROM heap_users WHERE app_id = ? AND user_id = ?", app_id, user_id
        ) or self.state.row("SELECT identity FROM heap_identifies WHERE app_id = ? AND user_id = ?", app_id, user_id)
        if known is not None and known["identity"] is not None:
            identity = known["identity"]
            user_id = user_id_of(app_id, identity)
        events = con.execute("DELETE FROM heap_events WHERE app_id = ? AND user_id = ?", (app_id, user_id)).rowcount
        users = con.execute("DELETE FROM heap_users WHERE app_id = ? AND user_id = ?", (app_id, user_id)).rowcount
        con.execute("DELETE FROM heap_identifies WHERE app_id = ? AND identity = ?", (app_id, identity))
        con.execute("UPDATE heap_segment_members SET present = 0 WHERE app_id = ? AND member = ?", (app_id, identity))
        self.state.count(app_id, events=-events, users_deleted=users)

    # OAuth of Segment Sync

    async def authorize(self, request: Request) -> Response:
        """GET /api/partner/oauth/authorize: there is nobody to ask, so consent is given at once."""
        query = request.query_params
        redirect, client = query.get("redirect_uri", ""), query.get("client_id", "")
        environment = next((each for each in self.settings.environments if each.heap_client_id == client), None)
        usable = urlsplit(redirect).scheme in ("http", "https") and "?" not in redirect
        if environment is None or not usable or environment.heap_redirect_uri not in (None, redirect):
            # nobody is sent to an address that isn't registered
            return PlainTextResponse("unknown client_id, or a redirect_uri that can't be used", 400)
        answer = {"state": query["state"]} if "state" in query else {}
        if query.get("response_type") != "code":
            answer["error"] = "unsupported_response_type"
        elif query.get("scope") != "segment":
            answer["error"] = "invalid_scope"
        else:
            answer["code"] = secrets.token_urlsafe(24)
            with self.state.write():
                self.state.issue(
                    answer["code"],
                    "code",
                    environment.app_id,
                    seconds=self.settings.code_seconds,
                    redirect_uri=redirect,
                )
        return RedirectResponse(f"{redirect}?{urlencode(answer)}", 302)

    async def token(self, request: Request) -> Response:
        """POST /api/partner/oauth/token: a code, used once, for a token that does not expire."""
        form = _form_or_json(request, await request.body())
        environment = self._client(form)
        if environment is None:
            return JSONResponse({"error": "invalid_client"}, 401)
        if form.get("grant_type") != "authorization_code":
            return JSONResponse({"error": "unsupported_grant_type"}, 400)
        code = self.state.token(form.get("code", ""), "code")
        if code is None or (code["app_id"], code["redirect_uri"]) != (
            environment.app_id,
            form.get("redirect_uri"),
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        token = secrets.token_urlsafe(32)
        with self.state.write() as con:
            con.execute("DELETE FROM tokens WHERE digest = ?", (code["digest"],))
            self.state.issue(token, "partner", environment.app_id, seconds=None)
        return JSONResponse(
            {"access_token": token, "id_token": id_token_of(environment.app_id), "token_type": "bearer"}
        )

    def _client(self, form: dict[str, str]) -> SandboxEnvironment | None:
        client, secret = form.get("client_id", ""), form.get("client_secret", "").encode()
        for each in self.settings.environments:
            expected = each.heap_client_secret.get_secret_value().encode()
            if each.heap_client_id == client and hmac.compare_digest(expected, secret):
                return each
        return None

    async def metadata(self, request: Request) -> Response:
        """GET /api/partner/v1/metadata/{id_token}: which environment was connected, by whom, when."""
        app_id = self._bearer(request, "partner")
        if app_id is None or request.path_params["id_token"] != id_token_of(app_id):
            return JSONResponse({"error": "Unauthorized"}, 401)
        issued = self.state.one(
            "SELECT max(created_at) AS at FROM tokens WHERE kind = 'partner' AND app_id = ?", app_id
        )
        return JSONResponse(
            {
                "env_id": app_id,
                "partner_app_id": self.settings.known(app_id).heap_client_id,
                "authorized_by": "sandbox@example.com",
                "authorized_scope": "segment",
                "authorized_at_utc": stored_time(datetime.fromtimestamp(issued["at"], UTC)),
            }
        )


def _json_object(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BODY:
        raise Refused("request entity too large", 413)
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refused("the body is not JSON") from None
    if type(payload) is not dict:
        raise Refused("postBody should be object")
    return payload


def _form_or_json(request: Request, body: bytes) -> dict[str, str]:
    if "json" in request.headers.get("content-type", ""):
        try:
            return {name: str(value) for name, value in _json_object(body).items()}
        except Refused:
            return {}
    return dict(parse_qsl(body.decode("utf-8", "replace")))


def _deletions(payload: dict[str, Any]) -> list[dict[str, Any]]:
    if "users" not in payload:
        raise Refused("postBody should have required property 'users'")
    users = items_of(payload, "users", _DELETIONS_A_REQUEST)
    for position, user in enumerate(users):
        valid = type(user.get("user_id")) is int or type(user.get("identity")) is str
        if not valid or len(user) != 1:
            raise Refused(f"postBody.users[{position}] should have either a numeric user_id or an identity")
    return users
