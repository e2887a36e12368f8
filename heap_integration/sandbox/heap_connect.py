"""Heap Connect's side of the sandbox: dumps into a bucket, and the endpoint that takes SQL."""

from __future__ import annotations

import asyncio
import hmac
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from heap_integration.sandbox.connect_tables import METADATA, MIGRATIONS, ConnectTable, Kind, Row, connect_tables
from heap_integration.sandbox.dumps import NUMBERED, PREFIXED, AvroType, DumpBucket, DumpTable
from heap_integration.sandbox.settings import SandboxSettings
from heap_integration.sandbox.state import State

if TYPE_CHECKING:
    import duckdb

TimeEncoding = Literal["text", "milliseconds", "microseconds"]

SCHEMA = "main_production"
_FIRST_DUMP = 852
_QUERY_SECONDS = 60.0


class DumpOptions(BaseModel):
    """Where a dump goes, and how it departs from the ordinary one.

    ``address`` is the bucket or a folder, ``options`` are fsspec's for it. The tables of ``full``, or all of them, come
    whole; ``leave_out`` aren't in the dump. ``lost_columns`` of a table are in the dump no more. ``repeat`` has every
    event twice, in two files; ``restate`` every user again, changed or not. Without ``manifest`` the dump stays
    incomplete, as if Heap were still writing it. ``prefixed_names`` names the files of users and user_migrations as
    some consumers expect.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    address: str = Field(min_length=1)
    options: dict[str, Any] = {}
    dump_id: int | None = Field(default=None, ge=1)
    full: bool | list[str] = False
    leave_out: list[str] = []
    lost_columns: dict[str, list[str]] = {}
    repeat: bool = False
    restate: bool = False
    manifest: bool = True
    prefixed_names: bool = False
    user_times: TimeEncoding = "microseconds"
    event_times: TimeEncoding = "text"
    rows_per_file: int = Field(default=200_000, ge=1)


class ConnectQuery(BaseModel):
    """The body of a query."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    query: str = Field(min_length=1)


class HeapConnect:
    """The dumps of the sandbox's app ids, and queries over their tables."""

    def __init__(self, settings: SandboxSettings, state: State) -> None:
        self.settings = settings
        self.state = state
        self._dumping = asyncio.Lock()

    def routes(self) -> list[Route]:
        """Return the routes: one of Heap's, and one that stands in for the passing of a day."""
        return [
            Route("/api/connect/query", self.query, methods=["POST"]),
            Route("/_heap/{app_id}/dumps", self.dump, methods=["POST"]),
        ]

    async def dump(self, request: Request) -> Response:
        """POST /_heap/{app_id}/dumps: write now what Heap would write within a day; answers the manifest."""
        app_id = request.path_params["app_id"]
        if self.settings.environment(app_id) is None:
            return JSONResponse({"error": "no such environment"}, 404)
        try:
            options = DumpOptions.model_validate_json(await request.body())
        except ValidationError as error:
            return JSONResponse({"error": str(error)}, 400)
        async with self._dumping:
            covered = self._covered(app_id, options.address)
            try:
                manifest, marks = await asyncio.to_thread(self._write, app_id, options, covered)
            except (OSError, ImportError, ValueError) as error:
                return JSONResponse({"error": f"the dump can't be written: {error}"}, 502)
            if options.manifest:
                values = (app_id, options.address, manifest["dump_id"], orjson.dumps(marks))
                with self.state.write() as con:
                    con.execute("INSERT OR REPLACE INTO heap_dumps VALUES (?, ?, ?, ?)", values)
        return JSONResponse(manifest, 201)

    def _covered(self, app_id: str, address: str) -> _Covered:
        earlier = self.state.rows(
            "SELECT dump_id, marks FROM heap_dumps WHERE app_id = ? AND address = ? ORDER BY dump_id", app_id, address
        )
        marks: dict[str, float] = {}
        for row in earlier:
            marks |= orjson.loads(row["marks"])
        return _Covered(marks, earlier[-1]["dump_id"] + 1 if earlier else _FIRST_DUMP)

    def _write(self, app_id: str, options: DumpOptions, covered: _Covered) -> tuple[dict[str, Any], dict[str, float]]:
        with self.state.reader() as con:
            found = connect_tables(con, app_id)
        wanted = {name: table for name, table in found.items() if name not in options.leave_out}
        tables = [_dumped(name, table, options, covered.marks.get(name)) for name, table in wanted.items()]
        bucket = DumpBucket(options.address, options.options)
        manifest = bucket.write(options.dump_id or covered.next_dump, tables, manifest=options.manifest)
        return manifest, {name: max(table.came, default=0) for name, table in wanted.items()}

    async def query(self, request: Request) -> Response:
        """POST /api/connect/query: the rows of one SELECT over the tables of the app id whose key it bears.

        Nothing is published of this endpoint: its form is the one in which people write of it.
        """
        app_id = self._app_id(request.headers.get("authorization", ""))
        if app_id is None:
            self.state.refuse("", request.url.path, 401, "Unauthorized")
            return JSONResponse({"error": "Unauthorized"}, 401)
        try:
            asked = ConnectQuery.model_validate_json(await request.body())
            answer = await asyncio.to_thread(self._answer, app_id, asked.query)
        except ValueError as error:
            self.state.refuse(app_id, request.url.path, 400, str(error))
            return JSONResponse({"error": str(error)}, 400)
        with self.state.write():
            self.state.count(app_id, requests=1)
        return Response(orjson.dumps(answer, default=str), media_type="application/json")

    def _app_id(self, header: str) -> str | None:
        scheme, _, key = header.partition(" ")
        for each in self.settings.environments if scheme.lower() == "bearer" else ():
            if hmac.compare_digest(key.strip().encode(), each.heap_api_key.get_secret_value().encode()):
                return each.app_id
        return None

    def _answer(self, app_id: str, sql: str) -> dict[str, Any]:
        import duckdb

        with self.state.reader() as read:
            tables = connect_tables(read, app_id)
        with duckdb.connect() as con:
            _fill(con, tables)
            con.execute("set enable_external_access = false; set lock_configuration = true")
            limit = threading.Timer(_QUERY_SECONDS, con.interrupt)
            limit.start()
            try:
                statements = con.extract_statements(sql)
                if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                    raise ValueError("a query is one SELECT")
                found = con.execute(statements[0])
                names = [name for name, *_ in found.description or ()]
                return {"columns": names, "rows": found.fetchall()}
            except duckdb.Error as error:
                raise ValueError(str(error)) from error
            finally:
                limit.cancel()


@dataclass(frozen=True)
class _Covered:
    """Up to where each table is in a bucket's dumps, and the number of the next dump."""

    marks: dict[str, float]
    next_dump: int


def _dumped(name: str, table: ConnectTable, options: DumpOptions, mark: float | None) -> DumpTable:
    named = options.full if isinstance(options.full, bool) else name in options.full
    full = named or mark is None or name in (MIGRATIONS, METADATA)
    rows = table.rows if full or (name == "users" and options.restate) else table.since(mark or 0)
    people = name in ("users", MIGRATIONS)
    lost = options.lost_columns.get(name, [])
    encoding = options.user_times if name == "users" else options.event_times
    kinds = {column: kind for column, kind in table.columns.items() if column not in lost}
    again = options.repeat and not people
    return DumpTable(
        name,
        {column: _avro_type(kind, encoding) for column, kind in kinds.items()},
        [_encoded(row, kinds, encoding) for row in rows] * (2 if again else 1),
        incremental=not full,
        required=frozenset({"event_id", "user_id"} & set(kinds)),
        # Each row's second copy lies in another file, and some of them in the same one.
        rows_per_file=max(1, len(rows) * 3 // 2 - 1) if again else options.rows_per_file,
        file_name=PREFIXED if people and options.prefixed_names else NUMBERED,
    )


def _avro_type(kind: Kind, encoding: TimeEncoding) -> AvroType:
    if kind == "time":
        return "string" if encoding == "text" else "long"
    return kind


def _encoded(row: Row, kinds: Mapping[str, Kind], encoding: TimeEncoding) -> Row:
    encoded = {name: value for name, value in row.items() if name in kinds}
    for name, value in encoded.items():
        if kinds[name] == "time":
            encoded[name] = _time(value, encoding)
    return encoded


def _time(moment: datetime, encoding: TimeEncoding) -> str | int:
    if encoding == "text":
        return f"{moment:%Y-%m-%d %H:%M:%S.%f}"[:-3]
    return round(moment.timestamp() * (1_000 if encoding == "milliseconds" else 1_000_000))


def _fill(con: duckdb.DuckDBPyConnection, tables: Mapping[str, ConnectTable]) -> None:
    """Make the tables as a warehouse of Heap's has them, with all_events over those of single events."""
    import pyarrow as pa

    types = {
        "long": pa.int64(),
        "double": pa.float64(),
        "boolean": pa.bool_(),
        "string": pa.string(),
        "time": pa.timestamp("us"),
    }
    con.execute(f"create schema {SCHEMA}; set schema = '{SCHEMA}'")
    ids = []
    for name, table in tables.items():
        columns = pa.schema([(column, types[kind]) for column, kind in table.columns.items()])
        con.register("rows_to_come", pa.Table.from_pylist(table.rows, schema=columns))
        con.execute(f'create table "{name}" as from rows_to_come')
        if name not in ("users", MIGRATIONS, METADATA):
            ids.append(f"select event_id, time, user_id, session_id, '{name}' as event_table_name from \"{name}\"")
    con.execute(f"create view all_events as {' union all '.join(ids)}")
