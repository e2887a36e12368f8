"""What the sandbox knows, as the tables of Heap Connect."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from heap_integration.sandbox.heap_rules import MAX_USER_ID

Kind = Literal["long", "double", "boolean", "string", "time"]
Row = dict[str, Any]

MIGRATIONS = "user_migrations"
METADATA = "_event_metadata"
_VIEWS = ("Page viewed", "Pageview")
_SESSION_GAP = 1_800.0
# The ids of sessions' own events lie apart from those of the events that Heap was sent.
_SESSION_EVENTS = 1 << 52

_KEYS: dict[str, Kind] = {"event_id": "long", "user_id": "long", "session_id": "long", "time": "time"}
_WHERE = ("library", "platform", "device_type", "country", "region", "city", "ip")
_VISIT = (
    *(*_WHERE, "referrer", "landing_page", "landing_page_query", "landing_page_hash", "browser", "search_keyword"),
    *("utm_source", "utm_campaign", "utm_medium", "utm_term", "utm_content"),
    *("device", "carrier", "app_name", "app_version"),
)
_PAGE = ("domain", "path", "query", "hash", "title", "heap_previous_page", "view_controller")
_USERS: dict[str, Kind] = {
    "user_id": "long",
    "identity": "string",
    "handle": "string",
    "email": "string",
    "joindate": "time",
    "last_modified": "time",
}


@dataclass
class ConnectTable:
    """A table: its columns and rows, and when each row came: an event's number, a user's last change.

    A row lacks what is null.
    """

    columns: dict[str, Kind]
    rows: list[Row] = field(default_factory=list)
    came: list[float] = field(default_factory=list)

    def add(self, row: Row, came: float) -> None:
        """Add a row; a column that is new becomes one of text."""
        self.rows.append(row)
        self.came.append(came)
        for name in row:
            self.columns.setdefault(name, "string")

    def since(self, mark: float) -> list[Row]:
        """Return the rows that came after ``mark``."""
        return [row for row, came in zip(self.rows, self.came, strict=True) if came > mark]


@dataclass
class _Session:
    id: int
    last: float


def connect_tables(con: sqlite3.Connection, app_id: str) -> dict[str, ConnectTable]:
    """Return Heap Connect's tables of an app id: users, sessions, pageviews, each event's own, user_migrations.

    Where a visitor's browser would tell of the visit, properties of an event by the names of Heap's columns do, and
    events called ``Page viewed`` or ``Pageview`` are the pageviews, which have no table beside that. Sessions are those
    that the events name, else end after 30 minutes without an event.
    """
    tables = {
        "users": _users(con, app_id),
        "sessions": ConnectTable({**_KEYS, **dict.fromkeys(_VISIT, "string")}),
        "pageviews": ConnectTable({**_KEYS, **dict.fromkeys((*_VISIT, *_PAGE), "string")}),
    }
    names = _EventTables()
    for event in _events(con, app_id):
        row = event.row
        if event.opens:
            visit = {name: row[name] for name in ("user_id", "session_id", "time", *_VISIT) if name in row}
            tables["sessions"].add({"event_id": _SESSION_EVENTS + event.number, **visit}, event.number)
        if event.name in _VIEWS:
            tables["pageviews"].add(row, event.number)
            continue
        own = ConnectTable({**_KEYS, "type": "string", **dict.fromkeys(_WHERE, "string")})
        tables.setdefault(names.table(event.name), own).add(row, event.number)
    tables[MIGRATIONS] = _migrations(con, app_id)
    tables[METADATA] = ConnectTable({"event_table_name": "string", "event_name": "string"})
    for event_name, table in names.known.items():
        tables[METADATA].add({"event_table_name": table, "event_name": event_name}, 0)
    return tables


def column_name(property_name: str) -> str:
    """Return the name that Heap makes a table or column of: small letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", property_name.lower()).strip("_") or "_"


class _EventTables:
    """Which table each event has; two events whose names become the same one have tables of their own."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def table(self, event_name: str) -> str:
        if event_name not in self.known:
            taken = {"users", "sessions", "pageviews", MIGRATIONS, "all_events", *self.known.values()}
            name, number = column_name(event_name), 1
            while name in taken:
                number += 1
                name = f"{column_name(event_name)}_{number}"
            self.known[event_name] = name
        return self.known[event_name]


@dataclass(frozen=True)
class _Event:
    number: int
    name: str
    opens: bool
    row: Row


def _events(con: sqlite3.Connection, app_id: str) -> Iterator[_Event]:
    """Yield the events in the order of their arrival, so that a later one changes nobody's session."""
    named: set[int] = set()
    current: dict[int, _Session] = {}
    found = con.execute(
        "SELECT seq, user_id, event, timestamp, session_id, properties FROM heap_events WHERE app_id = ? ORDER BY seq",
        (app_id,),
    )
    for number, user_id, name, timestamp, session_id, properties in found:
        time = datetime.fromisoformat(timestamp).astimezone(UTC)
        if session_id:
            session = int(session_id) if session_id.isdigit() and int(session_id) <= MAX_USER_ID else _id(session_id)
            opens = session not in named
            named.add(session)
        else:
            session, opens = _by_gap(current, user_id, time.timestamp(), number)
        row: Row = {"event_id": number, "user_id": user_id, "session_id": session, "time": time, "library": "server"}
        row |= _texts(orjson.loads(properties), {*_KEYS, "type", "library"})
        yield _Event(number, name, opens, row)


def _by_gap(current: dict[int, _Session], user_id: int, moment: float, number: int) -> tuple[int, bool]:
    latest = current.get(user_id)
    if latest is not None and abs(moment - latest.last) <= _SESSION_GAP:
        latest.last = max(latest.last, moment)
        return latest.id, False
    opened = _Session(_id(f"{user_id}/{number}"), moment)
    if latest is None or moment > latest.last:
        current[user_id] = opened
    return opened.id, True


def _id(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) & MAX_USER_ID


def _texts(properties: Mapping[str, Any], taken: set[str]) -> Row:
    """Return properties as columns of text; one that has the name of a column of Heap's begins with an underscore."""
    row: Row = {}
    for name, value in properties.items():
        column = column_name(name)
        column = f"_{column}" if column in taken else column
        row[column] = value if isinstance(value, str) else orjson.dumps(value).decode()
    return row


def _users(con: sqlite3.Connection, app_id: str) -> ConnectTable:
    table = ConnectTable(dict(_USERS))
    found = con.execute("SELECT * FROM heap_users WHERE app_id = ? ORDER BY first_seen, user_id", (app_id,))
    people = []
    for row in found:
        properties = orjson.loads(row["properties"])
        people.append((row, {_user_column(name): value for name, value in properties.items()}))
    kinds = _kinds(properties for _, properties in people)
    table.columns |= kinds
    for row, properties in people:
        user = {
            "user_id": row["user_id"],
            "identity": row["identity"],
            "email": row["email"],
            "joindate": datetime.fromtimestamp(row["first_seen"], UTC),
            "last_modified": datetime.fromtimestamp(row["last_seen"], UTC),
        }
        for name, value in properties.items():
            as_text = kinds[name] == "string" and not isinstance(value, str)
            user[name] = orjson.dumps(value).decode() if as_text else value
        table.add({name: value for name, value in user.items() if value is not None}, row["last_seen"])
    return table


def _user_column(name: str) -> str:
    column = column_name(name)
    return f"_{column}" if column in _USERS else column


def _kinds(rows: Iterator[Mapping[str, Any]]) -> dict[str, Kind]:
    """Return what each property's values are: one kind of value, numbers of both kinds, else text."""
    seen: dict[str, set[type]] = {}
    for properties in rows:
        for name, value in properties.items():
            seen.setdefault(name, set()).add(type(value))
    return {name: _kind(types) for name, types in seen.items()}


def _kind(types: set[type]) -> Kind:
    if types == {bool}:
        return "boolean"
    if types == {int}:
        return "long"
    return "double" if types <= {int, float} else "string"


def _migrations(con: sqlite3.Connection, app_id: str) -> ConnectTable:
    table = ConnectTable({"from_user_id": "long", "to_user_id": "long", "time": "time"})
    found = con.execute(
        "SELECT i.user_id AS old, u.user_id AS new, i.at FROM heap_identifies AS i"
        " JOIN heap_users AS u ON u.app_id = i.app_id AND u.identity = i.identity"
        " WHERE i.app_id = ? AND i.user_id <> u.user_id ORDER BY i.at, i.user_id",
        (app_id,),
    )
    for old, new, at in found:
        moment = datetime.fromtimestamp(at, UTC)
        table.add({"from_user_id": old, "to_user_id": new, "time": moment}, at)
    return table
