"""Userpilot's HTTP API: identify, companies, events, bulk jobs and deletion."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from heap_integration.sandbox.limits import LeakyBuckets
from heap_integration.sandbox.settings import SandboxSettings
from heap_integration.sandbox.state import State
from heap_integration.sandbox.userpilot_jobs import Jobs, Kind
from heap_integration.sandbox.vendor import Shown, ShownAudience

VERSION = "2020-09-22"
MARKS = "heap_segment_"
ROWS_A_REQUEST, BYTES_A_REQUEST = 10_000, 50_000_000
MOST_PROPERTIES, LONGEST_NAME, EVENT_BYTES = 500, 255, 10_000
SHOWN_USERS, SHOWN_SAMPLE = 50, 5
# What a job tells once it is asked for, and not when it is handed in.
PROGRESS = ("elapsed_time", "completed_rows")
_TRUE = "property.type = 'true' OR property.value = 'true'"
_ID: Final[dict[Kind, str]] = {"users": "user_id", "companies": "company_id"}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS userpilot_users (
  app_id TEXT NOT NULL, id TEXT NOT NULL, company_id TEXT, properties TEXT NOT NULL, PRIMARY KEY (app_id, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS userpilot_companies (
  app_id TEXT NOT NULL, id TEXT NOT NULL, properties TEXT NOT NULL, PRIMARY KEY (app_id, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS userpilot_events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, app_id TEXT NOT NULL, user_id TEXT NOT NULL, company_id TEXT,
  name TEXT NOT NULL, metadata TEXT NOT NULL, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS userpilot_deletions (
  app_id TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, due_at REAL NOT NULL, PRIMARY KEY (app_id, kind, id)
) WITHOUT ROWID;
"""

Handler = Callable[[Request, str], Awaitable[Response]]


class Problem(Exception):
    """A request that is answered with Userpilot's error object."""

    def __init__(self, message: str, status: int = 400, error: str = "bad_request") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.error = error


class UserpilotApi:
    """The endpoints, over the state of one sandbox; the API key chooses the environment."""

    name = "userpilot"
    title = "Userpilot"

    def __init__(self, settings: SandboxSettings, state: State) -> None:
        self.settings = settings
        self.state = state
        self.limits_on = settings.limits
        state.con.executescript(_SCHEMA)
        self.jobs = Jobs(settings, state, self._apply)
        calls = settings.userpilot_calls_per_minute
        self._limits = {
            "identify": LeakyBuckets(calls, 60),
            "track": LeakyBuckets(calls, 60),
            "delete": LeakyBuckets(1, 2),
        }

    def routes(self) -> list[BaseRoute]:
        """Return the routes, all under /userpilot."""
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/v1/validate", self.validate),
            ("POST", "/v1/identify", self.identify),
            ("POST", "/v1/companies/identify", self.identify_company),
            ("POST", "/v1/track", self.track),
            ("POST", "/v1/users/bulk_identify", self.bulk("users")),
            ("POST", "/v1/companies/bulk_identify", self.bulk("companies")),
            ("GET", "/v1/background_jobs", self.list_jobs),
            ("GET", "/v1/background_jobs/{job_id}", self.get_job),
            ("DELETE", "/v1/users", self.deletion("users")),
            ("DELETE", "/v1/companies", self.deletion("companies")),
        ]
        routes = [Route(f"/userpilot{path}", self._guarded(handler), methods=[way]) for way, path, handler in table]
        return [*routes, Route("/userpilot/{path:path}", self._guarded(_unknown))]

    def _guarded(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            app_id = ""
            try:
                app_id = self._authorised(request)
                self._delete_due(app_id)
                answer = await handler(request, app_id)
                self.state.count(app_id, userpilot_requests=1)
                return answer
            except Problem as problem:
                self.state.refuse(app_id, request.url.path, problem.status, problem.message)
                told = {
                    "message": problem.message,
                    "error": problem.error,
                    "error_code": str(problem.status),
                    "details": problem.message,
                }
                return JSONResponse({"errors": [told]}, problem.status)

        return endpoint

    def _authorised(self, request: Request) -> str:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        found = ""
        for environment in self.settings.environments:
            expected = environment.userpilot_api_key
            if expected is None or scheme.lower() != "token":
                continue
            if hmac.compare_digest(key.strip().encode(), expected.get_secret_value().encode()):
                found = environment.app_id
        if not found:
            raise Problem("Invalid API key", 401, "unauthorized")
        return found

    def _pace(self, app_id: str, which: str) -> None:
        if not self.limits_on:
            return
        if not self._limits[which].fits({app_id: 1}):
            raise Problem("Too many requests", 429, "too_many_requests")
        self._limits[which].take({app_id: 1})

    # real time

    async def validate(self, _request: Request, _app_id: str) -> Response:
        """GET /v1/validate: the key is right."""
        return JSONResponse({})

    async def identify(self, request: Request, app_id: str) -> Response:
        """POST /v1/identify: create or change a user, and the company it belongs to."""
        _versioned(request)
        self._pace(app_id, "identify")
        body = _object(await request.body())
        if wrong := self._wrong(body, "users"):
            raise Problem(wrong)
        company = self._company(body)
        with self.state.write():
            if company is not None:
                self._apply(app_id, "companies", [company])
            self._apply(app_id, "users", [{**body, "company_id": company and company["company_id"]}])
        return _accepted()

    async def identify_company(self, request: Request, app_id: str) -> Response:
        """POST /v1/companies/identify: create or change a company."""
        self._pace(app_id, "identify")
        body = _object(await request.body())
        if wrong := self._wrong(body, "companies"):
            raise Problem(wrong)
        with self.state.write():
            self._apply(app_id, "companies", [body])
        return _accepted()

    async def track(self, request: Request, app_id: str) -> Response:
        """POST /v1/track: an event of a user that exists."""
        _versioned(request)
        self._pace(app_id, "track")
        body = _object(await request.body())
        wrong = self._wrong(body, "users")
        if not wrong and not (type(body.get("event_name")) is str and body["event_name"]):
            wrong = "event_name must be a non-empty string"
        metadata = orjson.dumps(body.get("metadata") or {})
        if not wrong and len(metadata) > EVENT_BYTES:
            wrong = f"metadata must not be larger than {EVENT_BYTES} bytes"
        if wrong:
            raise Problem(wrong)
        user = self.state.row(
            "SELECT * FROM userpilot_users WHERE app_id = ? AND id = ?",
            app_id,
            body["user_id"],
        )
        if user is None:
            raise Problem("user_id must be a user that was identified")
        with self.state.write() as con:
            con.execute(
                "INSERT INTO userpilot_events (app_id, user_id, company_id, name, metadata, at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (app_id, user["id"], user["company_id"], body["event_name"], metadata.decode(), time.time()),
            )
        return _accepted()

    # jobs

    def bulk(self, kind: Kind) -> Handler:
        """Return the handler of POST /v1/<kind>/bulk_identify, JSON form."""

        async def post(request: Request, app_id: str) -> Response:
            if int(request.headers.get("content-length", "0")) > BYTES_A_REQUEST:
                raise Problem("the file is too large", 413, "request_entity_too_large")
            content = await request.body()
            rows = _object(content).get(kind)
            if type(rows) is not list or not rows:
                raise Problem(f"{kind} must be a non-empty list")
            if len(rows) > ROWS_A_REQUEST:
                raise Problem(f"{kind} must not have more than {ROWS_A_REQUEST} rows")
            if self.jobs.is_running(app_id):
                raise Problem("a bulk job is already in progress", 409, "conflict")
            right = [row for row in rows if not self._wrong(row, kind)]
            job = self.jobs.start(app_id, kind, rows=right, wrong=len(rows) - len(right), size=len(content))
            return JSONResponse(
                {name: job[name] for name in job if name not in ("elapsed_time", "completed_rows")}, 202
            )

        return post

    async def list_jobs(self, _request: Request, app_id: str) -> Response:
        """GET /v1/background_jobs."""
        return JSONResponse(self.jobs.all(app_id))

    async def get_job(self, request: Request, app_id: str) -> Response:
        """GET /v1/background_jobs/{job_id}."""
        job = self.jobs.get(app_id, request.path_params["job_id"])
        if job is None:
            raise Problem("no such job", 404, "not_found")
        return JSONResponse(job)

    def _apply(self, app_id: str, kind: Kind, rows: list[dict[str, Any]]) -> None:
        """Merge rows that were checked; null takes a property away."""
        if kind == "companies":
            self.state.con.executemany(
                "INSERT INTO userpilot_companies VALUES (?, ?, json_patch('{}', ?)) ON CONFLICT (app_id, id)"
                " DO UPDATE SET properties = json_patch(properties, ?)",
                [(app_id, row["company_id"], *[_text(row.get("metadata"))] * 2) for row in rows],
            )
            return
        companies = [{"company_id": row["company_id"]} for row in rows if row.get("company_id")]
        self._apply(app_id, "companies", companies)
        self.state.con.executemany(
            "INSERT INTO userpilot_users VALUES (?, ?, ?, json_patch('{}', ?)) ON CONFLICT (app_id, id) DO UPDATE SET"
            " properties = json_patch(properties, ?), company_id = coalesce(excluded.company_id, company_id)",
            [(app_id, row["user_id"], row.get("company_id"), *[_text(row.get("metadata"))] * 2) for row in rows],
        )

    # deletion

    def deletion(self, kind: Kind) -> Handler:
        """Return the handler of DELETE /v1/<kind>: scheduled, and done a while later."""

        async def delete(request: Request, app_id: str) -> Response:
            _versioned(request)
            self._pace(app_id, "delete")
            ids = _object(await request.body()).get(kind)
            if type(ids) is not list or not ids or not all(type(each) is str and each for each in ids):
                raise Problem(f"{kind} must be a non-empty list of ids")
            due = time.time() + self.settings.deletion_seconds
            with self.state.write() as con:
                con.executemany(
                    "INSERT OR IGNORE INTO userpilot_deletions VALUES (?, ?, ?, ?)",
                    [(app_id, kind, each, due) for each in ids],
                )
            return JSONResponse({"message": f"{len(ids)} {kind} have been scheduled for deletion"}, 202)

        return delete

    def _delete_due(self, app_id: str) -> None:
        now = time.time()
        due = self.state.rows("SELECT kind, id FROM userpilot_deletions WHERE app_id = ? AND due_at <= ?", app_id, now)
        if not due:
            return
        with self.state.write() as con:
            for row in due:
                con.execute(f"DELETE FROM userpilot_{row['kind']} WHERE app_id = ? AND id = ?", (app_id, row["id"]))
                if row["kind"] == "users":
                    con.execute("DELETE FROM userpilot_events WHERE app_id = ? AND user_id = ?", (app_id, row["id"]))
            con.execute("DELETE FROM userpilot_deletions WHERE app_id = ? AND due_at <= ?", (app_id, now))

    # rules

    def _company(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """Return the company of a user as a row of companies; both spellings of its id are known."""
        company = body.get("company")
        if company is None:
            return None
        if type(company) is not dict:
            raise Problem("company must be an object")
        own = {name: value for name, value in company.items() if name not in ("id", "company_id")}
        row = {"company_id": company.get("company_id") or company.get("id"), "metadata": own}
        if wrong := self._wrong(row, "companies"):
            raise Problem(f"company: {wrong}")
        return row

    def _wrong(self, row: Any, kind: Kind) -> str:
        """Say what is wrong with a user or a company, nothing where all is well."""
        if type(row) is not dict:
            return f"{kind} must hold objects"
        for name in ("user_id", "company_id"):
            value = row.get(name)
            if (name == _ID[kind] or value is not None) and not (type(value) is str and value):
                return f"{name} must be a non-empty string"
        metadata = row.get("metadata")
        if metadata is not None and type(metadata) is not dict:
            return "metadata must be an object"
        return self._wrong_metadata(metadata or {})

    def _wrong_metadata(self, metadata: dict[str, Any]) -> str:
        if len(metadata) > MOST_PROPERTIES:
            return f"metadata must not have more than {MOST_PROPERTIES} properties"
        longest = self.settings.userpilot_longest_value
        for name, value in metadata.items():
            if not 0 < len(name) <= LONGEST_NAME:
                return f"a property's name must have 1 to {LONGEST_NAME} characters"
            if type(value) in (dict, list):
                return f"{name[:80]} must be a string, a number, a boolean or null"
            if type(value) is str and len(value) > longest:
                return f"{name[:80]} must not have more than {longest} characters"
        return ""

    # inspection

    def shown(self, app_id: str) -> Shown:
        """Return what the console shows: audiences are the users whose ``heap_segment_`` property is true."""
        self.jobs.advance(app_id)
        self._delete_due(app_id)
        tables = {"users": "users", "companies": "companies", "events": "events", "bulk jobs": "jobs"}
        counts = {
            label: int(self.state.one(f"SELECT count(*) AS n FROM userpilot_{table} WHERE app_id = ?", app_id)["n"])
            for label, table in tables.items()
        }
        return {"counts": counts, "audiences": self._audiences(app_id), "users": self._users(app_id)}

    def _users(self, app_id: str) -> list[dict[str, Any]]:
        rows = self.state.rows(
            "SELECT users.id, company_id, users.properties, companies.properties AS company"
            " FROM userpilot_users AS users LEFT JOIN userpilot_companies AS companies"
            " ON companies.app_id = users.app_id AND companies.id = company_id"
            " WHERE users.app_id = ? ORDER BY users.id LIMIT ?",
            app_id,
            SHOWN_USERS,
        )
        return [
            {
                "id": row["id"],
                "properties": orjson.loads(row["properties"]),
                "company": row["company_id"] and {"id": row["company_id"], **orjson.loads(row["company"] or "{}")},
            }
            for row in rows
        ]

    def _audiences(self, app_id: str) -> list[ShownAudience]:
        rows = self.state.rows(
            f"SELECT property.key AS name, count(*) FILTER (WHERE {_TRUE}) AS members,"
            f" json_group_array(users.id) FILTER (WHERE {_TRUE}) AS ids"
            " FROM userpilot_users AS users, json_each(properties) AS property"
            " WHERE app_id = ? AND substr(property.key, 1, ?) = ? GROUP BY 1 ORDER BY 1",
            app_id,
            len(MARKS),
            MARKS,
        )
        return [
            {
                "name": row["name"],
                "members": row["members"],
                "sample": orjson.loads(row["ids"])[:SHOWN_SAMPLE],
                "mark": "Heap",
            }
            for row in rows
        ]


async def _unknown(_request: Request, _app_id: str) -> Response:
    raise Problem("no such endpoint", 404, "not_found")


def _accepted() -> Response:
    return Response(status_code=202, media_type="application/json")


def _versioned(request: Request) -> None:
    if request.headers.get("x-api-version") != VERSION:
        raise Problem(f"X-API-Version must be {VERSION}")


def _object(content: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise Problem("the body is not JSON") from None
    if type(body) is not dict:
        raise Problem("the body must be an object")
    return body


def _text(metadata: dict[str, Any] | None) -> str:
    return orjson.dumps(metadata or {}).decode()
