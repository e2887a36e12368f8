"""Turns stored events into what Heap takes, or says why it can't be: checked, flat, masked, keyed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import orjson

from heap_integration.events.flatten import FORMS, Flattener, Preset, TooLong, Unfit
from heap_integration.events.keys import idempotency_key
from heap_integration.events.mask import MaskAction, Masker, MaskKind

# the columns of EVENT_SCHEMA, in this order; the time as ISO 8601 text
ROW_COLUMNS = (
    "event_key",
    "message_id",
    "type",
    "name",
    "user_id",
    "anonymous_id",
    "timestamp",
    "properties",
    "traits",
    "context",
)
PreparedRow = tuple[bytes, str, str, str, str | None, str | None, str, str, str, str]

LONGEST_NAME = 1024
LONGEST_IDENTITY = 255

# What broken code sends for "nobody". Heap would merge all of them into one person, for good.
PLACEHOLDERS = frozenset(
    [
        "undefined",
        "null",
        "none",
        "nil",
        "nan",
        "0",
        "-1",
        "false",
        "true",
        "user",
        "unknown",
        "[object object]",
        "00000000-0000-0000-0000-000000000000",
    ]
)
FALSE_WORDS = frozenset(
    [
        "false",
        "f",
        "no",
        "n",
        "0",
        "off",
        "denied",
        "declined",
        "revoked",
        "withdrawn",
        "opted_out",
        "opt_out",
    ]
)

_VIEWS = {"page": "Page viewed", "screen": "Screen viewed"}
# Segment's connector adds this to every event, and an event's own property of that name wins
_SEGMENT_CONSTANTS = {"segment_library": "cloud-mode-destination"}
_TRACK_ONLY: Collection[Preset] = ("rudder", "airbyte")
_MILLISECONDS = len("2026-01-02T03:04:05.678")
_REMEMBERED = 4_096
_REMEMBERED_LENGTH = 2_000


@dataclass(frozen=True)
class PrepareSettings:
    """The rules of one environment.

    ``salt`` keeps hashes of this environment apart from everybody else's. ``deny_properties`` are keys,
    at any depth and in any case, or dotted paths. An event whose ``consent_property`` (in properties,
    traits or context; a key or a dotted path) says no is suppressed.
    """

    preset: Preset = "hub"
    too_long: TooLong = "reject"
    refuse_placeholder_identities: bool = True
    mask: tuple[MaskKind, ...] = ()
    action: MaskAction = "redact"
    salt: str = ""
    deny_properties: tuple[str, ...] = ()
    consent_property: str | None = None


class Prepared(NamedTuple):
    """An event as Heap takes it.

    ``payload`` is the JSON object that goes into ``events[]``; ``notes`` name what was changed on the
    way, once for each time (see ``Flattener``; also ``cut:name`` and ``placeholder user id``).
    """

    identity: str
    payload: bytes
    notes: tuple[str, ...] = ()


class Refused(NamedTuple):
    """An event that doesn't go out, and why."""

    status: Literal["rejected", "suppressed"]
    reason: str


class _Body(NamedTuple):
    """Properties in their final form."""

    text: bytes
    notes: tuple[str, ...]


class _Unsent(Exception):
    """Carries a refusal out of the depth."""

    def __init__(self, status: Literal["rejected", "suppressed"], reason: str) -> None:
        super().__init__(reason)
        self.refused = Refused(status, reason)


class Preparer:
    """Prepares events one by one; safe to keep for any number of them."""

    def __init__(self, settings: PrepareSettings) -> None:
        self.settings = settings
        self._masker = Masker(settings.mask, settings.action, settings.salt)
        self._flattener = Flattener(
            FORMS[settings.preset],
            too_long=settings.too_long,
            masker=self._masker,
            denied=settings.deny_properties,
        )
        # the same properties give the same body, and clickstreams repeat themselves
        self._bodies: dict[str, _Body] = {}
        # so do people, and the names of events
        self._who = lru_cache(_REMEMBERED)(self._identity)
        self._quoted = lru_cache(_REMEMBERED)(orjson.dumps)

    def prepare(self, row: PreparedRow) -> Prepared | Refused:
        """Return what to send for ``row``, or why nothing is sent; no content makes it fail."""
        key, message_id, kind, name, user_id, anonymous_id, timestamp, properties, traits, context = row
        try:
            if kind == "track":
                body = self._bodies.get(properties)
                if body is None:
                    body = self._remember(properties)
            else:
                body = self._body(_viewed(properties, kind, name, self.settings.preset))
                name = _VIEWS[kind]
            identity, quoted, notes = self._who(user_id, anonymous_id)
            if self.settings.consent_property:
                self._check_consent(_object(traits, "traits"))
                self._check_consent(_object(context, "context"))
            if not 0 < len(name) <= LONGEST_NAME:
                name, notes = self._shorter_name(name), (*notes, "cut:name")
            payload = b'{"event":%b,"identity":%b,"timestamp":"%b","properties":%b,"idempotency_key":%b}' % (
                self._quoted(name),
                quoted,
                _milliseconds(timestamp),
                body.text,
                orjson.dumps(idempotency_key(message_id, key)),
            )
        except _Unsent as unsent:
            return unsent.refused
        except (TypeError, UnicodeError):
            return Refused("rejected", "the event holds text that is not UTF-8")
        return Prepared(identity, payload, notes + body.notes)

    def _remember(self, properties: str) -> _Body:
        body = self._body(_object(properties, "properties"), properties)
        if len(properties) <= _REMEMBERED_LENGTH:
            if len(self._bodies) >= _REMEMBERED:
                self._bodies.clear()
            self._bodies[properties] = body
        return body

    def _body(self, properties: dict[str, Any], text: str | None = None) -> _Body:
        if self.settings.consent_property:
            self._check_consent(properties)
        if self.settings.preset == "segment":
            properties = _SEGMENT_CONSTANTS | properties
        scan = self._masker.may_hold(text) if text is not None else True
        try:
            flat, notes = self._flattener.flatten(properties, scan=scan)
        except Unfit as unfit:
            raise _Unsent("rejected", str(unfit)) from unfit
        return _Body(orjson.dumps(flat), tuple(notes))

    def _identity(self, user_id: str | None, anonymous_id: str | None) -> tuple[str, bytes, tuple[str, ...]]:
        placeholder = None
        for given in (user_id, anonymous_id):
            identity = given.strip() if given else ""
            if not identity:
                continue
            if self.settings.refuse_placeholder_identities and identity.casefold() in PLACEHOLDERS:
                placeholder = identity
                continue
            if len(identity) > LONGEST_IDENTITY:
                raise _Unsent("rejected", f"the identity is longer than the {LONGEST_IDENTITY} characters Heap takes")
            return identity, orjson.dumps(identity), ("placeholder user id",) if placeholder else ()
        if placeholder:
            raise _Unsent("rejected", f"the identity {placeholder!r} stands for nobody")
        raise _Unsent("rejected", "no user: neither a user id nor an anonymous id")

    def _check_consent(self, fields: dict[str, Any]) -> None:
        name = self.settings.consent_property or ""
        answer = fields.get(name)
        if answer is None and "." in name:
            answer = fields
            for step in name.split("."):
                answer = answer.get(step) if isinstance(answer, dict) else None
        if answer is False or (isinstance(answer, int | float | str) and _says_no(answer)):
            raise _Unsent("suppressed", f"no consent: {name} is {str(answer)[:80]}")

    def _shorter_name(self, name: str) -> str:
        if not name:
            raise _Unsent("rejected", "no event name")
        if self.settings.too_long == "reject":
            raise _Unsent("rejected", f"the event name is longer than the {LONGEST_NAME} characters Heap takes")
        return name[:LONGEST_NAME]


def _viewed(text: str, kind: str, name: str, preset: Preset) -> dict[str, Any]:
    """Return the properties of a page or screen call: its name is one of them."""
    if kind not in _VIEWS:
        raise _Unsent("rejected", f"Heap events take track, page and screen calls; got {kind}")
    if preset in _TRACK_ONLY:
        raise _Unsent("rejected", f"the {preset} preset takes track calls alone; got {kind}")
    properties = _object(text, "properties")
    return properties | {"name": name} if name else properties


def _object(text: str, field: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _Unsent("rejected", f"{field} is not JSON: {error.msg}") from error
    if not isinstance(value, dict):
        raise _Unsent("rejected", f"{field} is not a JSON object")
    return value


def _says_no(answer: str | float) -> bool:
    return answer.strip().casefold() in FALSE_WORDS if isinstance(answer, str) else answer == 0


def _milliseconds(text: str) -> bytes:
    """Return a moment in UTC as Heap's examples write it: 2026-01-02T03:04:05.678Z."""
    try:
        moment = datetime.fromisoformat(text)
        if len(text) == _MILLISECONDS + 1 and text[7] + text[10] + text[19] + text[-1] == "-T.Z":
            return text.encode()
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _Unsent("rejected", f"timestamp {text[:80]!r} can't be read") from None
    return moment.isoformat(timespec="milliseconds")[:_MILLISECONDS].encode() + b"Z"
