"""The people and objects of Customer.io's workspaces, and the operations that change them."""

from __future__ import annotations

from typing import Any

import orjson

from heap_integration.sandbox.state import State

ID_BYTES = NAME_BYTES = 150
VALUE_BYTES, MOST_ATTRIBUTES, EVENT_NAME_BYTES = 1000, 300, 100
EVENTS = ("event", "page", "screen")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS customerio_people (
  number INTEGER PRIMARY KEY AUTOINCREMENT, app_id TEXT NOT NULL, id TEXT, email TEXT COLLATE NOCASE,
  attributes BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS customerio_people_id ON customerio_people (app_id, id) WHERE id IS NOT NULL;
CREATE UNIQUE INDEX IF NOT EXISTS customerio_people_email ON customerio_people (app_id, email)
  WHERE email IS NOT NULL;
CREATE TABLE IF NOT EXISTS customerio_objects (
  app_id TEXT NOT NULL, type TEXT NOT NULL, id TEXT NOT NULL, attributes BLOB NOT NULL, PRIMARY KEY (app_id, type, id)
) WITHOUT ROWID;
"""

Object = dict[str, Any]


class Failed(Exception):
    """An operation that Customer.io refuses: why, in which field, and in words."""

    def __init__(self, reason: str, field: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field
        self.message = message


class People:
    """People by ``id``, ``email`` or ``cio_id``, and objects by their type and id."""

    def __init__(self, state: State) -> None:
        self.state = state
        state.con.executescript(_SCHEMA)

    def find(self, app_id: str, id_type: str, value: str) -> Object | None:
        """Return a person; addresses are compared without regard to case."""
        if id_type == "cio_id":
            number = _number(value)
            row = self.state.row("SELECT * FROM customerio_people WHERE app_id = ? AND number = ?", app_id, number)
        else:
            column = "email" if id_type == "email" else "id"
            row = self.state.row(f"SELECT * FROM customerio_people WHERE app_id = ? AND {column} = ?", app_id, value)
        return None if row is None else _person(row)

    def object(self, app_id: str, kind: str, object_id: str) -> Object | None:
        """Return an object's identifiers and attributes."""
        row = self.state.row(
            "SELECT attributes FROM customerio_objects WHERE app_id = ? AND type = ? AND id = ?",
            app_id,
            kind,
            object_id,
        )
        if row is None:
            return None
        who = {"object_type_id": kind, "object_id": object_id, "cio_object_id": f"ob{kind}{object_id}"}
        return {"identifiers": who, "attributes": orjson.loads(row["attributes"]), "timestamps": {}}

    def members(self, app_id: str, segment: int) -> list[Object]:
        """Return who is in a manual segment."""
        rows = self.state.rows(
            "SELECT p.* FROM customerio_members m JOIN customerio_people p ON p.number = m.person"
            " WHERE m.app_id = ? AND m.segment_id = ? ORDER BY p.number",
            app_id,
            segment,
        )
        return [_person(row) for row in rows]

    def everybody(self, app_id: str) -> list[Object]:
        """Return all people of a workspace."""
        rows = self.state.rows("SELECT * FROM customerio_people WHERE app_id = ? ORDER BY number", app_id)
        return [_person(row) for row in rows]

    def first(self, app_id: str, count: int) -> list[Object]:
        """Return some people with their attributes."""
        rows = self.state.rows(
            "SELECT * FROM customerio_people WHERE app_id = ? ORDER BY number LIMIT ?", app_id, count
        )
        return [{"id": row["id"] or row["email"], "attributes": _person(row)["attributes"]} for row in rows]

    def count(self, app_id: str, table: str = "people") -> int:
        """Return how many people, or objects, a workspace has."""
        number: int = self.state.one(f"SELECT count(*) AS n FROM customerio_{table} WHERE app_id = ?", app_id)["n"]
        return number

    def texts(self, person: Object) -> dict[str, str]:
        """Return a person's attributes as the App API tells them: all of them texts."""
        known = {"id": person["id"], "email": person["email"], "cio_id": person["cio_id"], **person["attributes"]}
        return {
            name: value if isinstance(value, str) else orjson.dumps(value).decode()
            for name, value in known.items()
            if value is not None
        }

    def apply(self, app_id: str, item: Object) -> int | None:
        """Apply one operation within a transaction; return the number of a person who is gone, if one is.

        Raises:
            Failed: the operation is refused, and changes nothing.
        """
        kind, action = item.get("type"), item.get("action")
        if kind == "object":
            self._object(app_id, item)
            return None
        if kind != "person":
            raise Failed("invalid", "type", "type must be person or object")
        id_type, value = _who(item)
        if action == "identify":
            self._identify(app_id, id_type, value, item.get("attributes"))
        elif action in EVENTS:
            self._event(app_id, id_type, value, item)
        elif action == "delete":
            person = self.find(app_id, id_type, value)
            if person is not None:
                self.state.con.execute("DELETE FROM customerio_people WHERE number = ?", (person["number"],))
                number: int = person["number"]
                return number
        else:
            raise Failed("invalid", "action", f"the sandbox knows no action {action!r} of people")
        return None

    def _identify(self, app_id: str, id_type: str, value: str, given: Any) -> None:
        attributes = _attributes(given)
        only_update = attributes.pop("_update", False)
        if type(only_update) is not bool:
            raise Failed("invalid", "attributes._update", "must be true or false")
        person = self.find(app_id, id_type, value)
        if person is None:
            # What names nobody is dropped without a word.
            if only_update or id_type == "cio_id":
                return
            person = self._joined(app_id, id_type, attributes) or self._new(app_id)
            person[id_type] = value
        for name in ("id", "email"):
            wanted = attributes.pop(name, None)
            # An identifier that somebody else has isn't given to two; the answer doesn't say so.
            if isinstance(wanted, str) and wanted and self.find(app_id, name, wanted) is None:
                person[name] = person[name] or wanted
        after = {**person["attributes"], **attributes}
        kept = {name: value for name, value in after.items() if value not in (None, "")}
        self.state.con.execute(
            "UPDATE customerio_people SET id = ?, email = ?, attributes = ? WHERE number = ?",
            (person["id"], person["email"], orjson.dumps(kept), person["number"]),
        )

    def _joined(self, app_id: str, id_type: str, attributes: Object) -> Object | None:
        """Return who has the address already, and gets the new id."""
        email = attributes.get("email")
        if id_type != "id" or not isinstance(email, str):
            return None
        person = self.find(app_id, "email", email)
        return person if person is not None and person["id"] is None else None

    def _new(self, app_id: str) -> Object:
        cursor = self.state.con.execute(
            "INSERT INTO customerio_people (app_id, attributes) VALUES (?, ?)", (app_id, b"{}")
        )
        return {"number": cursor.lastrowid, "id": None, "email": None, "attributes": {}}

    def _event(self, app_id: str, id_type: str, value: str, item: Object) -> None:
        name = item.get("name")
        if type(name) is not str or not 1 <= len(name.encode()) <= EVENT_NAME_BYTES:
            raise Failed("required", "name", f"an event needs a name of at most {EVENT_NAME_BYTES} bytes")
        if self.find(app_id, id_type, value) is None:
            self._identify(app_id, id_type, value, {})
        self.state.count(app_id, customerio_events=1)

    def _object(self, app_id: str, item: Object) -> None:
        who = item.get("identifiers")
        if type(who) is not dict or set(who) != {"object_type_id", "object_id"}:
            raise Failed("required", "identifiers", "an object needs object_type_id and object_id")
        kind, object_id = (_text(who[name], f"identifiers.{name}") for name in ("object_type_id", "object_id"))
        if item.get("action") == "delete":
            self.state.con.execute(
                "DELETE FROM customerio_objects WHERE app_id = ? AND type = ? AND id = ?", (app_id, kind, object_id)
            )
            return
        if item.get("action") != "identify":
            raise Failed("invalid", "action", f"the sandbox knows no action {item.get('action')!r} of objects")
        before = self.object(app_id, kind, object_id)
        after = {**(before["attributes"] if before else {}), **_attributes(item.get("attributes"))}
        kept = {name: value for name, value in after.items() if value not in (None, "")}
        self.state.con.execute(
            "INSERT OR REPLACE INTO customerio_objects VALUES (?, ?, ?, ?)",
            (app_id, kind, object_id, orjson.dumps(kept)),
        )


def _person(row: Any) -> Object:
    return {
        "number": row["number"],
        "cio_id": f"a{row['number']:07d}",
        "id": row["id"],
        "email": row["email"],
        "attributes": orjson.loads(row["attributes"]),
    }


def _number(cio_id: str) -> int:
    digits = cio_id.removeprefix("a")
    return int(digits) if digits.isdigit() else 0


def _who(item: Object) -> tuple[str, str]:
    who = item.get("identifiers")
    if type(who) is not dict or len(who) != 1 or not set(who) <= {"id", "email", "cio_id"}:
        raise Failed("required", "identifiers", "a person needs exactly one of id, email and cio_id")
    [(id_type, value)] = who.items()
    value = _text(value, f"identifiers.{id_type}")
    if id_type == "email" and "@" not in value:
        raise Failed("invalid", "identifiers.email", "is not an e-mail address")
    return id_type, value


def _text(value: Any, field: str) -> str:
    if type(value) is not str or not value:
        raise Failed("required", field, "must be a text that isn't empty")
    if len(value.encode()) > ID_BYTES:
        raise Failed("invalid", field, f"must be at most {ID_BYTES} bytes")
    return value


def _attributes(given: Any) -> Object:
    if given is None:
        return {}
    if type(given) is not dict:
        raise Failed("invalid", "attributes", "must be an object")
    if len(given) > MOST_ATTRIBUTES:
        raise Failed("invalid", "attributes", f"at most {MOST_ATTRIBUTES} attributes are allowed")
    for name, value in given.items():
        if len(name.encode()) > NAME_BYTES:
            raise Failed("invalid", "attributes", f"an attribute's name must be at most {NAME_BYTES} bytes")
        text = value.encode() if isinstance(value, str) else orjson.dumps(value)
        if len(text) > VALUE_BYTES:
            raise Failed("invalid", f"attributes.{name}", f"must be at most {VALUE_BYTES} bytes")
    return dict(given)
