"""A customer's own endpoint that takes Standard Webhooks: it believes what is signed, and keeps what it is told."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

import orjson
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from heap_integration.sandbox.settings import SandboxEnvironment, SandboxSettings
from heap_integration.sandbox.state import State
from heap_integration.sandbox.vendor import Shown

# https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
TOLERANCE_SECONDS = 300
SAMPLE = 10

_SCHEMA = """
CREATE TABLE IF NOT EXISTS webhook_calls (
  app_id TEXT NOT NULL, id TEXT NOT NULL, path TEXT NOT NULL, type TEXT NOT NULL, at REAL NOT NULL,
  records INTEGER NOT NULL, answer BLOB NOT NULL, PRIMARY KEY (app_id, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS webhook_records (
  app_id TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (app_id, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS webhook_audiences (
  app_id TEXT NOT NULL, slug TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (app_id, slug)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS webhook_members (
  app_id TEXT NOT NULL, slug TEXT NOT NULL, identity TEXT NOT NULL, PRIMARY KEY (app_id, slug, identity)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS webhook_profiles (
  app_id TEXT NOT NULL, kind TEXT NOT NULL, identity TEXT NOT NULL, attributes BLOB NOT NULL,
  PRIMARY KEY (app_id, kind, identity)
) WITHOUT ROWID;
"""

Object = dict[str, Any]


class WebhookSink:
    """The endpoint, at any path below /webhook; the secret that a call is signed with chooses the environment.

    With ``?unknown=<prefix>`` in its address it knows nobody whose identity begins so, and says it of each such record.
    """

    name = "webhook"
    title = "Webhook"

    def __init__(self, settings: SandboxSettings, state: State, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.state = state
        self._clock = clock
        state.con.executescript(_SCHEMA)

    def routes(self) -> list[BaseRoute]:
        """Return the one route."""
        return [Route("/webhook/{path:path}", self.take, methods=["POST"])]

    async def take(self, request: Request) -> Response:
        """POST /webhook/{path}: apply a call once; a repeated one gets the answer of the first."""
        body = await request.body()
        environment, wrong = self._signed_by(request, body)
        if environment is None:
            return self._refused(request, 401, wrong)
        call = request.headers["webhook-id"]
        known = self.state.row("SELECT answer FROM webhook_calls WHERE app_id = ? AND id = ?", environment.app_id, call)
        if known is not None:
            with self.state.write():
                self.state.count(environment.app_id, webhook_requests=1, webhook_repeated=1)
            return Response(known["answer"], media_type="application/json")
        try:
            payload = orjson.loads(body)
            with self.state.write():
                answer = self._apply(environment.app_id, payload, request.query_params.get("unknown"))
                self._keep(environment.app_id, call, request.path_params["path"], payload, answer)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return self._refused(request, 400, f"not a call that is documented: {error!r}", environment.app_id)
        return Response(answer, media_type="application/json")

    def shown(self, app_id: str) -> Shown:
        """Return the audiences, the accounts and some users that the calls have made."""
        audiences = self.state.rows("SELECT * FROM webhook_audiences WHERE app_id = ? ORDER BY slug", app_id)
        users = self.state.rows(
            "SELECT identity, attributes FROM webhook_profiles WHERE app_id = ? AND kind = 'users'"
            " ORDER BY identity LIMIT ?",
            app_id,
            SAMPLE,
        )
        return {
            "counts": {name: self._count(app_id, name) for name in ("calls", "members", "profiles")},
            "audiences": [
                {"name": each["name"], "members": len(members), "sample": members[:SAMPLE], "mark": "Heap"}
                for each in audiences
                for members in [self.members(app_id, each["slug"])]
            ],
            "users": [{"id": row["identity"], **orjson.loads(row["attributes"])} for row in users],
        }

    def members(self, app_id: str, slug: str) -> list[str]:
        """Return who is in an audience, in order."""
        rows = self.state.rows(
            "SELECT identity FROM webhook_members WHERE app_id = ? AND slug = ? ORDER BY identity", app_id, slug
        )
        return [row["identity"] for row in rows]

    def attributes(self, app_id: str, kind: str, identity: str) -> Object:
        """Return what is known of a user or an account."""
        row = self.state.row(
            "SELECT attributes FROM webhook_profiles WHERE app_id = ? AND kind = ? AND identity = ?",
            app_id,
            kind,
            identity,
        )
        return {} if row is None else orjson.loads(row["attributes"])

    def _count(self, app_id: str, table: str) -> int:
        return int(self.state.one(f"SELECT count(*) AS n FROM webhook_{table} WHERE app_id = ?", app_id)["n"])

    def _refused(self, request: Request, status: int, reason: str, app_id: str = "") -> Response:
        self.state.refuse(app_id, request.url.path, status, reason)
        return JSONResponse({"error": reason}, status)

    def _signed_by(self, request: Request, body: bytes) -> tuple[SandboxEnvironment | None, str]:
        """Return the environment whose secret a call is signed with, else what is wrong."""
        name, stamp, given = (request.headers.get(f"webhook-{part}", "") for part in ("id", "timestamp", "signature"))
        if not name or not stamp.isdecimal() or not given:
            return None, "webhook-id, webhook-timestamp or webhook-signature is missing"
        if abs(self._clock() - int(stamp)) > TOLERANCE_SECONDS:
            return None, "the timestamp is too far from now"
        signed = f"{name}.{stamp}.".encode() + body
        signatures = [each.removeprefix("v1,").encode() for each in given.split(" ") if each.startswith("v1,")]
        for environment in self.settings.environments:
            expected = _signature(environment.webhook_secret, signed)
            if expected and any(hmac.compare_digest(expected, each) for each in signatures):
                return environment, ""
        return None, "no signature matches"

    def _keep(self, app_id: str, call: str, path: str, payload: Object, answer: bytes) -> None:
        self.state.con.execute(
            "INSERT INTO webhook_calls VALUES (?, ?, ?, ?, ?, ?, ?)",
            (app_id, call, path, payload["type"], self._clock(), len(payload["records"]), answer),
        )
        self.state.count(app_id, webhook_requests=1)

    def _apply(self, app_id: str, payload: Object, unknown: str | None) -> bytes:
        take = {"segment.members.changed": self._member, "profiles.changed": self._profile}[payload["type"]]
        if payload["type"] == "segment.members.changed":
            self.state.con.execute(
                "INSERT OR REPLACE INTO webhook_audiences VALUES (?, ?, ?)",
                (app_id, payload["audience"]["slug"], payload["audience"]["name"]),
            )
        rejected = []
        for place, record in enumerate(payload["records"]):
            if unknown and record["identity"].startswith(unknown):
                rejected.append({"index": place, "unknown": True, "reason": "nobody has this identity"})
            elif self._is_new(app_id, record["id"]):
                take(app_id, payload, record)
        return orjson.dumps({"rejected": rejected})

    def _is_new(self, app_id: str, record: str) -> bool:
        # added twice, a number would grow twice
        kept = self.state.con.execute("INSERT OR IGNORE INTO webhook_records VALUES (?, ?)", (app_id, record))
        return kept.rowcount == 1

    def _member(self, app_id: str, payload: Object, record: Object) -> None:
        where = (app_id, payload["audience"]["slug"], record["identity"])
        if record["member"]:
            self.state.con.execute("INSERT OR IGNORE INTO webhook_members VALUES (?, ?, ?)", where)
        else:
            self.state.con.execute("DELETE FROM webhook_members WHERE app_id = ? AND slug = ? AND identity = ?", where)

    def _profile(self, app_id: str, payload: Object, record: Object) -> None:
        attributes = self.attributes(app_id, payload["of"], record["identity"])
        for change in record["changes"]:
            _change(attributes, change["name"], change["operation"], change["value"])
        self.state.con.execute(
            "INSERT OR REPLACE INTO webhook_profiles VALUES (?, ?, ?, ?)",
            (app_id, payload["of"], record["identity"], orjson.dumps(attributes)),
        )


def _change(attributes: Object, name: str, operation: str, value: Any) -> None:
    match operation:
        case "set":
            attributes[name] = value
        case "set_once":
            attributes.setdefault(name, value)
        case "add":
            attributes[name] = attributes.get(name, 0) + value
        case "append":
            attributes[name] = [*attributes.get(name, []), *value]
        case "remove":
            attributes[name] = [entry for entry in attributes.get(name, []) if entry not in value]
        case "clear":
            attributes.pop(name, None)
        case _:
            raise ValueError(f"unknown operation {operation}")


def _signature(secret: SecretStr | None, signed: bytes) -> bytes:
    """Return the signature in base64, empty where there is no secret or it can't be one."""
    try:
        key = base64.b64decode((secret.get_secret_value() if secret else "").removeprefix("whsec_"), validate=True)
    except binascii.Error:
        return b""
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()) if key else b""
