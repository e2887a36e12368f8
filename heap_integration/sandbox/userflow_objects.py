"""Userflow's objects in the state: kept as JSON, listed in pages, expanded on request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import orjson

from heap_integration.sandbox.state import State, utc_text
from heap_integration.sandbox.userflow_attributes import Problem

Object = dict[str, Any]

EXPANDABLE: dict[str, tuple[str, ...]] = {
    "user": ("groups", "memberships", "memberships.group"),
    "group": ("users", "memberships", "memberships.user"),
    "event": ("user", "group"),
    "content": ("draft_version", "published_version"),
    "content_version": ("tasks", "questions"),
    "content_session": ("answers", "content", "group", "version", "user"),
}
SORTABLE: dict[str, tuple[str, ...]] = {
    "user": ("created_at", "id"),
    "group": ("created_at", "id"),
    "content": ("created_at", "name"),
    "content_version": ("number", "created_at"),
    "content_session": ("created_at", "last_activity_at"),
    "event_definition": ("created_at", "display_name", "name"),
    "attribute_definition": ("created_at", "display_name", "name"),
    "webhook_subscription": ("created_at", "url"),
}
_COLUMNS = ("user_id", "group_id", "content_id", "name")
_DEFAULT_LIMIT, _MOST = 20, 100


def now_text() -> str:
    """Return the current moment as Userflow writes it."""
    return utc_text(datetime.now(UTC))


class Objects:
    """Reads and writes objects; writing belongs in a transaction of the state."""

    def __init__(self, state: State) -> None:
        self.state = state

    def get(self, app_id: str, kind: str, object_id: str) -> Object | None:
        """Return an object as stored, if there is one."""
        row = self.state.row(
            "SELECT data FROM userflow_objects WHERE app_id = ? AND kind = ? AND id = ?",
            app_id,
            kind,
            object_id,
        )
        return None if row is None else orjson.loads(row["data"])

    def require(self, app_id: str, kind: str, object_id: str) -> Object:
        """Return an object as stored.

        Raises:
            Problem: 404, there is none.
        """
        found = self.get(app_id, kind, object_id)
        if found is None:
            raise Problem(f"No such {kind}: {object_id!r}", status=404, code="not_found")
        return found

    def put(self, app_id: str, thing: Object) -> None:
        """Create an object or replace it."""
        columns = [thing.get(column) for column in _COLUMNS]
        self.state.con.execute(
            "INSERT INTO userflow_objects"
            " (app_id, kind, id, created_at, user_id, group_id, content_id, name, data)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (app_id, kind, id) DO UPDATE SET"
            " user_id = excluded.user_id, group_id = excluded.group_id, content_id = excluded.content_id,"
            " name = excluded.name, data = excluded.data",
            (
                app_id,
                thing["object"],
                thing["id"],
                thing["created_at"],
                *columns,
                orjson.dumps(thing).decode(),
            ),
        )

    def find(self, app_id: str, kind: str, **columns: str) -> list[Object]:
        """Return the objects whose columns (user_id, group_id, content_id, name) have these values."""
        where = "".join(f" AND {column} = ?" for column in columns)
        rows = self.state.rows(
            f"SELECT data FROM userflow_objects WHERE app_id = ? AND kind = ?{where} ORDER BY seq",
            app_id,
            kind,
            *columns.values(),
        )
        return [orjson.loads(row["data"]) for row in rows]

    def size(self, app_id: str, kind: str) -> int:
        """Return how many objects of a kind there are."""
        found = self.state.one("SELECT count(*) AS n FROM userflow_objects WHERE app_id = ? AND kind = ?", app_id, kind)
        return int(found["n"])

    def delete(self, app_id: str, kind: str, **columns: str) -> int:
        """Delete the objects whose columns have these values; return how many."""
        where = "".join(f" AND {column} = ?" for column in columns)
        cursor = self.state.con.execute(
            f"DELETE FROM userflow_objects WHERE app_id = ? AND kind = ?{where}",
            (app_id, kind, *columns.values()),
        )
        return cursor.rowcount

    def next_number(self) -> int:
        """Return a number no object has been created with."""
        row = self.state.row("SELECT seq FROM sqlite_sequence WHERE name = 'userflow_objects'")
        return (0 if row is None else int(row["seq"])) + 1

    def page(
        self,
        app_id: str,
        kind: str,
        query: Sequence[tuple[str, str]],
        filters: Sequence[tuple[str, str]] = (),
    ) -> Object:
        """Return one page of a list, as ``limit``, ``starting_after``, ``order_by`` and ``expand`` ask.

        Filters are pairs of an SQL condition with one place and its value.
        """
        given = dict(query)
        limit = _limit(given.get("limit"))
        orders = _orders(kind, query)
        sort = [("seq", False)] if not orders else [*orders, ("seq", False)]
        conditions, values = ["app_id = ?", "kind = ?"], [app_id, kind]
        for condition, value in filters:
            conditions.append(condition)
            values.append(value)
        if cursor := given.get("starting_after"):
            condition, more = self._after(app_id, kind, cursor, sort)
            conditions.append(condition)
            values += more
        order = ", ".join(f"{_null_last(key)}{key} {'DESC' if down else 'ASC'}" for key, down in sort)
        rows = self.state.rows(
            f"SELECT data FROM userflow_objects WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT ?",
            *values,
            limit + 1,
        )
        expand = expansions(kind, query)
        data = [self.shown(app_id, orjson.loads(row["data"]), expand) for row in rows[:limit]]
        has_more = len(rows) > limit
        path = _path_of(kind)
        rest = [(name, value) for name, value in query if name not in ("limit", "starting_after")]
        # a client in the wild reads starting_after with parse_qs from the whole text, path included,
        # so it must not be the first parameter
        following = urlencode([("limit", str(limit)), ("starting_after", data[-1]["id"]), *rest]) if has_more else ""
        return {
            "object": "list",
            "data": data,
            "has_more": has_more,
            "url": path,
            "next_page_url": f"{path}?{following}" if has_more else None,
        }

    def _after(self, app_id: str, kind: str, cursor: str, sort: list[tuple[str, bool]]) -> tuple[str, list[Any]]:
        keys = ", ".join(key for key, _ in sort)
        row = self.state.row(
            f"SELECT {keys} FROM userflow_objects WHERE app_id = ? AND kind = ? AND id = ?",
            app_id,
            kind,
            cursor,
        )
        if row is None:
            raise Problem(f"starting_after: no such {kind}: {cursor!r}", code="invalid_starting_after")
        if any(value is None for value in row):
            raise Problem("Internal server error", status=500, code="internal_error")
        alternatives, values = [], []
        for position, (key, down) in enumerate(sort):
            equal = [f"{earlier} = ?" for earlier, _ in sort[:position]]
            beyond = f"({key} {'<' if down else '>'} ? OR {key} IS NULL)"
            alternatives.append(f"({' AND '.join([*equal, beyond])})")
            values += list(row)[: position + 1]
        return f"({' OR '.join(alternatives)})", values

    def shown(self, app_id: str, thing: Object, expand: frozenset[str] = frozenset()) -> Object:
        """Return an object as the API shows it: parts that were not asked for are null."""
        kind = thing["object"]
        shown = {name: value for name, value in thing.items() if not name.startswith("_")}
        for part in EXPANDABLE.get(kind, ()):
            if "." not in part:
                wanted = part in expand or any(each.startswith(f"{part}.") for each in expand)
                shown[part] = self._part(app_id, thing, part, expand) if wanted else None
        return shown

    def _part(self, app_id: str, thing: Object, part: str, expand: frozenset[str]) -> Any:
        kind = thing["object"]
        if part in ("answers", "tasks", "questions"):
            return thing.get(f"_{part}", [])
        if part == "memberships":
            own, other = ("user_id", "group") if kind == "user" else ("group_id", "user")
            memberships = self.find(app_id, "group_membership", **{own: thing["id"]})
            nested = f"memberships.{other}" in expand
            return [self._membership(app_id, each, other if nested else None) for each in memberships]
        if part in ("groups", "users"):
            own, other = ("user_id", "group") if part == "groups" else ("group_id", "user")
            linked = self.find(app_id, "group_membership", **{own: thing["id"]})
            return [self._single(app_id, other, each[f"{other}_id"]) for each in linked]
        target = "content_version" if part.endswith("version") else part
        return self._single(app_id, target, thing.get(f"{part}_id"))

    def _membership(self, app_id: str, membership: Object, part: str | None) -> Object:
        parts: Object = {"group": None, "user": None}
        if part is not None:
            parts[part] = self._single(app_id, part, membership[f"{part}_id"])
        return membership | parts

    def _single(self, app_id: str, kind: str, object_id: str | None) -> Object | None:
        found = None if object_id is None else self.get(app_id, kind, object_id)
        return None if found is None else self.shown(app_id, found)


def expansions(kind: str, query: Sequence[tuple[str, str]]) -> frozenset[str]:
    """Return what ``expand=a``, ``expand[]=a&expand[]=b`` or ``expand=a,b`` asks for.

    Raises:
        Problem: something that this kind of object can't expand.
    """
    asked = frozenset(
        part for name, value in query if name in ("expand", "expand[]") for part in value.split(",") if part
    )
    if unknown := asked - set(EXPANDABLE.get(kind, ())):
        raise Problem(f"{kind} can't expand {', '.join(sorted(unknown))}")
    return asked


def plural(kind: str) -> str:
    """Return the path part of a kind: content has no plural."""
    return kind if kind == "content" else f"{kind}s"


def _path_of(kind: str) -> str:
    return f"/{plural(kind)}"


def _limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT_LIMIT
    if not text.isdigit() or not 1 <= int(text) <= _MOST:
        raise Problem(f"limit must be between 1 and {_MOST}")
    return int(text)


def _orders(kind: str, query: Sequence[tuple[str, str]]) -> list[tuple[str, bool]]:
    asked = [value for name, value in query if name in ("order_by", "order_by[]")]
    return [_order(kind, value) for value in asked] or [("created_at", False)]


def _order(kind: str, value: str) -> tuple[str, bool]:
    key, down = value.removeprefix("-"), value.startswith("-")
    if kind in ("user", "group") and key.startswith("attributes."):
        name = key.removeprefix("attributes.")
        if '"' in name or "'" in name:
            raise Problem(f"can't order by {key!r}")
        return f"json_extract(data, '$.attributes.\"{name}\"')", down
    if key not in SORTABLE.get(kind, ()):
        raise Problem(f"{plural(kind)} can't be ordered by {key!r}")
    if key in ("created_at", "id", "name"):
        return key, down
    return f"json_extract(data, '$.{key}')", down


def _null_last(key: str) -> str:
    return "" if key in ("seq", "created_at", "id") else f"({key} IS NULL), "
