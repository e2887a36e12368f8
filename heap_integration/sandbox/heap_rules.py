"""What Heap's write endpoints accept, and what they say of the rest.

Heap checks a request's whole body against a JSON schema, with the single form read as a list of one,
and answers 400 with the first violation, such as ``postBody.events[0].properties should be object``.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import orjson

MAX_TEXT = 1024
MAX_IDENTITY = 255
MAX_ITEMS = 1000
MAX_USER_ID = 2**53 - 1


class Refused(Exception):
    """A request that is answered with an error: its status and text."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


class TrackedEvent(NamedTuple):
    """One valid event; ``user_id`` is given exactly where ``identity`` is not."""

    identity: str | None
    user_id: int | None
    event: str
    timestamp: str | None
    session_id: str | None
    idempotency_key: str | None
    properties: bytes


class PropertyRules(NamedTuple):
    """The choices the documentation leaves open; see ``SandboxSettings``."""

    booleans: Literal["reject", "accept"]
    long_values: Literal["reject", "cut"]


@lru_cache(maxsize=100_000)
def user_id_of(app_id: str, identity: str) -> int:
    """Return the user id of an identified user: a hash of the identity, 53 bits wide."""
    hashed = hashlib.blake2b(f"{app_id}\0{identity}".encode(), digest_size=8).digest()
    return int.from_bytes(hashed) & MAX_USER_ID


def text_field(item: dict[str, Any], name: str, where: str, longest: int | None) -> str:
    """Return a required, non-empty text."""
    if name not in item:
        raise Refused(f"{where} should have required property '{name}'")
    value = item[name]
    if type(value) is not str:
        raise Refused(f"{where}.{name} should be string")
    if not value:
        raise Refused(f"{where}.{name} should NOT be shorter than 1 characters")
    if longest is not None and len(value) > longest:
        raise Refused(f"{where}.{name} should NOT be longer than {longest} characters")
    return value


def app_id_field(payload: dict[str, Any], *, number_allowed: bool = False) -> str:
    """Return the app id as text; the account endpoint's specification calls it a number."""
    if number_allowed and type(payload.get("app_id")) is int:
        return str(payload["app_id"])
    return text_field(payload, "app_id", "postBody", None)


def user_id_field(item: dict[str, Any], where: str) -> int:
    """Return a user id that is written as the digits of a number below 2**53."""
    text = text_field(item, "user_id", where, None)
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_USER_ID):
        raise Refused(f'{where}.user_id should match pattern "^[0-9]+$" and be at most {MAX_USER_ID}')
    return int(text)


def items_of(payload: dict[str, Any], name: str, longest: int = MAX_ITEMS) -> list[dict[str, Any]]:
    """Return the bulk form's items, or the single form as a list of one."""
    if name not in payload:
        return [payload]
    items = payload[name]
    if type(items) is not list:
        raise Refused(f"postBody.{name} should be array")
    if len(items) > longest:
        raise Refused(f"postBody.{name} should NOT have more than {longest} items")
    for position, item in enumerate(items):
        if type(item) is not dict:
            raise Refused(f"postBody.{name}[{position}] should be object")
    return items


def properties_field(item: dict[str, Any], where: str, rules: PropertyRules) -> dict[str, Any]:
    """Return the properties as stored: arrays joined with ``||`` and cut at 1024 characters."""
    where = f"{where}.properties"
    properties = item["properties"]
    if type(properties) is not dict:
        raise Refused(f"{where} should be object")
    changed: dict[str, Any] = {}
    for key, value in properties.items():
        if len(key) > MAX_TEXT:
            raise Refused(f"{where} property name '{key[:40]}…' should NOT be longer than {MAX_TEXT} characters")
        kind = type(value)
        if kind is str:
            if len(value) > MAX_TEXT:
                if rules.long_values == "reject":
                    raise Refused(f"{_member(where, key)} should NOT be longer than {MAX_TEXT} characters")
                changed[key] = value[:MAX_TEXT]
        elif kind is list:
            changed[key] = _joined(value, _member(where, key))
        elif kind is not int and kind is not float and not (kind is bool and rules.booleans == "accept"):
            raise Refused(f"{_member(where, key)} should be string,number")
    return {**properties, **changed} if changed else properties


def timestamp_field(item: dict[str, Any], where: str) -> str | None:
    """Return the timestamp in UTC with milliseconds, or None where there is none."""
    value = item.get("timestamp")
    if value is None and "timestamp" not in item:
        return None
    if type(value) is not str:
        raise Refused(f"{where}.timestamp should be string")
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise Refused(f'{where}.timestamp should match format "date-time"') from None
    return stored_time(moment)


def stored_time(moment: datetime) -> str:
    """Write a moment as the sandbox keeps it: UTC, milliseconds, Z; without a zone it is UTC."""
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def tracked_events(payload: dict[str, Any], rules: PropertyRules) -> list[TrackedEvent]:
    """Check every event of a track request.

    Raises:
        Refused: for the first that breaks a rule; nothing of the request counts then.
    """
    items = items_of(payload, "events")
    return [_tracked_event(item, f"postBody.events[{position}]", rules) for position, item in enumerate(items)]


def _tracked_event(item: dict[str, Any], where: str, rules: PropertyRules) -> TrackedEvent:
    event = text_field(item, "event", where, MAX_TEXT)
    if ("identity" in item) == ("user_id" in item):
        raise Refused(f"{where} should match exactly one schema in oneOf: identity or user_id")
    known = "identity" in item
    return TrackedEvent(
        identity=text_field(item, "identity", where, MAX_IDENTITY) if known else None,
        user_id=None if known else user_id_field(item, where),
        event=event,
        timestamp=timestamp_field(item, where),
        session_id=text_field(item, "session_id", where, None) if "session_id" in item else None,
        idempotency_key=text_field(item, "idempotency_key", where, None) if "idempotency_key" in item else None,
        properties=orjson.dumps(properties_field(item, where, rules)) if "properties" in item else b"{}",
    )


def _joined(values: list[Any], where: str) -> str:
    for position, value in enumerate(values):
        if type(value) not in (str, int, float):
            raise Refused(f"{where}[{position}] should be string,number")
    return "||".join(value if type(value) is str else orjson.dumps(value).decode() for value in values)[:MAX_TEXT]


def _member(where: str, key: str) -> str:
    return f"{where}.{key}" if key.isascii() and key.isidentifier() else f"{where}['{key}']"
