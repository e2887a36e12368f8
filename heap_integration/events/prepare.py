"""Turns stored events into what Heap takes, or says why it can't be: checked, flat, masked, keyed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import orjson

from heap_integration.events.flatten import FORMS, Flattener, Preset, Scalar, TooLong, Unfit
from heap_integration.events.keys import idempotency_key
from heap_integration.events.mask import MaskAction, Masker, MaskKind
from heap_integration.identities import PLACEHOLDERS

# columns of EVENT_SCHEMA, in this order; the times as ISO 8601 text in UTC
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
    "received_at",
)
PreparedRow = tuple[bytes, str, str, str, str | None, str | None, str, str, str, str, str]

LONGEST_NAME = 1024
LONGEST_IDENTITY = 255
LARGEST_HEAP_USER_ID = 2**53 - 1
# A clock may be so far ahead of ours before its events count as coming from the future.
CLOCK_TOLERANCE = timedelta(minutes=10)

# words of consent and of opting out, their blanks and hyphens as underscores
_OPTED_OUT = ("opted_out", "opt_out")
FALSE_WORDS = frozenset(
    [
        *("false", "f", "no", "n", "0", "off", "disabled", *_OPTED_OUT),
        *("denied", "declined", "refused", "rejected", "revoked", "withdrawn", "not_granted"),
    ]
)
TRUE_WORDS = frozenset(["true", "t", "yes", "y", "1", "on", "enabled", *_OPTED_OUT])

_VIEWS = {"page": "Page viewed", "screen": "Screen viewed"}
# Segment's connector adds this to every event, and an event's own property of that name wins
_CONSTANTS: dict[Preset, dict[str, Scalar]] = {"segment": {"segment_library": "cloud-mode-destination"}}
_TRACK_ONLY: Collection[Preset] = ("rudder", "airbyte")
_HEAP_USER_ID = re.compile("0|[1-9][0-9]{0,15}", re.ASCII)
_MILLISECONDS = len("2026-01-02T03:04:05.678")
_REMEMBERED = 4_096
# Long properties hardly repeat: to remember them costs more than it saves.
_REMEMBERED_LENGTH = 500

Answer = str | int | float | bool


@dataclass(frozen=True)
class PropertyLists:
    """The properties of one event that go out: keys or dotted paths, in any case.

    ``allow`` lets out these and what is below them and nothing else; ``deny`` keeps back, as well as
    what is denied for all events.
    """

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()


@dataclass(frozen=True)
class PrepareSettings:
    """The rules of one environment.

    ``mask`` finds personal data by its form; ``mask_properties`` (keys at any depth or dotted paths, in
    any case, as in ``deny_properties``) masks whole values, whatever they are. ``salt`` keeps hashes of
    this environment apart from everybody else's. Identities and event names are never masked: without
    its identity an event is nobody's.

    ``deny_events`` and ``event_properties`` go by the name an event bears in Heap, in any case.

    An event whose ``consent_property`` says no, or whose ``opt_out_property`` says yes (keys or dotted
    paths in properties, traits or context), is suppressed before anything else is looked at.

    With ``anonymous_ids`` ``heap_user_id``, anonymous ids are the user ids of Heap's own SDK.
    """

    preset: Preset = "hub"
    too_long: TooLong = "reject"
    refuse_placeholder_identities: bool = True
    mask: tuple[MaskKind, ...] = ()
    mask_properties: tuple[str, ...] = ()
    action: MaskAction = "redact"
    salt: str = ""
    deny_properties: tuple[str, ...] = ()
    deny_events: tuple[str, ...] = ()
    event_properties: Mapping[str, PropertyLists] = field(default_factory=dict)
    consent_property: str | None = None
    opt_out_property: str | None = None
    anonymous_ids: Literal["identity", "heap_user_id"] = "identity"
    future_timestamps: Literal["flag", "reject"] = "flag"
    largest_event_bytes: int = 1_000_000


class Prepared(NamedTuple):
    """An event as Heap takes it.

    ``identity`` is what Heap's limit per person goes by (see ``Identity.key``); ``payload`` is the JSON
    object that goes into ``events[]``; ``notes`` name what was changed on the way, once for each time
    (see ``Flattener``; also ``cut:name``, ``placeholder user id``, ``anonymous id is no Heap user id`` and
    ``future timestamp``).
    """

    identity: str
    payload: bytes
    notes: tuple[str, ...] = ()


class Refused(NamedTuple):
    """An event that doesn't go out, and why."""

    status: Literal["rejected", "suppressed"]
    reason: str


class Identity(NamedTuple):
    """Whose an event is: Heap takes exactly one of ``identity`` and its own SDK's ``user_id``."""

    field: Literal["identity", "user_id"]
    value: str
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What Heap's limit per person goes by; no identity begins with a blank."""
        return self.value if self.field == "identity" else f" user_id:{self.value}"


class Unsent(Exception):
    """What is asked for does not go out; ``refused`` says why."""

    def __init__(self, status: Literal["rejected", "suppressed"], reason: str) -> None:
        super().__init__(reason)
        self.refused = Refused(status, reason)


class _Body(NamedTuple):
    """Properties in their final form."""

    text: bytes
    notes: tuple[str, ...]


class Preparer:
    """Prepares events one by one; safe to keep for any number of them.

    Raises:
        ValueError: masking by hash without a salt (see ``Masker``).
    """

    def __init__(self, settings: PrepareSettings) -> None:
        if settings.action == "hash" and settings.mask_properties and not settings.salt:
            raise ValueError("masking by hash needs a salt")
        self.settings = settings
        self._masker = Masker(settings.mask, settings.action, settings.salt)
        self._flattener = self._by_lists(PropertyLists())
        self._flatteners = {name.casefold(): self._by_lists(lists) for name, lists in settings.event_properties.items()}
        self._constants = _CONSTANTS.get(settings.preset, {})
        self._denied_events = frozenset(map(str.casefold, settings.deny_events))
        self._asked = [name for name in (settings.consent_property, settings.opt_out_property) if name]
        self._marks = [orjson.dumps(name.rsplit(".", 1)[-1])[1:-1].decode() for name in self._asked]
        # The same properties give the same body, and clickstreams repeat themselves; so do people and
        # the names of events.
        self._bodies: dict[str, _Body] = {}
        self._address = lru_cache(_REMEMBERED)(self._addressed)
        self._title = lru_cache(_REMEMBERED)(self._titled)

    def prepare(self, row: PreparedRow) -> Prepared | Refused:
        """Return what to send for ``row``, or why nothing is sent; no content makes it fail."""
        key, message_id, kind, name, user_id, anonymous_id, timestamp, properties, traits, context, received = row
        try:
            fields = self._heard(properties, traits, context) if self._asked else None
            if kind != "track":
                fields, name = self._viewed(fields or json_object(properties, "properties"), kind, name)
            if self._denied_events and name.casefold() in self._denied_events:
                raise Unsent("suppressed", f"the event {name[:80]!r} is on the deny list")
            person, address, notes = self._address(user_id, anonymous_id)
            title, cut = self._title(name)
            when, early = self.when(timestamp, received)
            body = self._bodies.get(properties) if kind == "track" else None
            if body is None:
                body = self._body(kind, name, properties, fields)
            payload = b'{"event":%b,%b,"timestamp":"%b","properties":%b,"idempotency_key":%b}' % (
                title,
                address,
                when.encode(),
                body.text,
                orjson.dumps(idempotency_key(message_id, key)),
            )
            if len(payload) > self.settings.largest_event_bytes:
                raise self._oversized(len(payload))
        except Unsent as unsent:
            return unsent.refused
        except (TypeError, UnicodeError):
            return Refused("rejected", "the event holds text that is not UTF-8")
        return Prepared(person, payload, notes + cut + early + body.notes)

    def who(self, user_id: str | None, anonymous_id: str | None) -> Identity:
        """Return whose an event is: the user's, else the device's.

        Raises:
            Unsent: nobody is left, or the id is longer than Heap takes.
        """
        placeholder = None
        for given, is_users in ((user_id, True), (anonymous_id, False)):
            identity = given.strip() if given else ""
            if not identity:
                continue
            if self.settings.refuse_placeholder_identities and identity.casefold() in PLACEHOLDERS:
                placeholder = identity
                continue
            if len(identity) > LONGEST_IDENTITY:
                raise Unsent("rejected", f"the identity is longer than the {LONGEST_IDENTITY} characters Heap takes")
            notes = ("placeholder user id",) if placeholder else ()
            if is_users or self.settings.anonymous_ids == "identity":
                return Identity("identity", identity, notes)
            if is_heap_user_id(identity):
                return Identity("user_id", identity, notes)
            return Identity("identity", identity, (*notes, "anonymous id is no Heap user id"))
        if placeholder:
            raise Unsent("rejected", f"the identity {placeholder!r} stands for nobody")
        raise Unsent("rejected", "no user: neither a user id nor an anonymous id")

    def when(self, timestamp: str, received_at: str) -> tuple[str, tuple[str, ...]]:
        """Return a moment in UTC with milliseconds, as Heap's examples write it, and the notes.

        Raises:
            Unsent: it can't be read, or it lies in the future of its receipt and is not to go out.
        """
        when = _milliseconds(timestamp)
        if when <= received_at or _between(received_at, when) <= CLOCK_TOLERANCE:
            return when, ()
        if self.settings.future_timestamps == "reject":
            raise Unsent("rejected", f"timestamp {when} lies in the future: it was received at {received_at[:80]}")
        return when, ("future timestamp",)

    def check_consent(self, *objects: dict[str, Any]) -> None:
        """Let pass what nobody has objected to in any of ``objects`` (properties, traits, context).

        Raises:
            Unsent: the property of consent says no, or that of opting out says yes.
        """
        consent, opt_out = self.settings.consent_property, self.settings.opt_out_property
        for fields in objects:
            answer = _found(fields, consent) if consent else None
            if answer is not None and _says(answer, FALSE_WORDS, yes=False):
                raise Unsent("suppressed", f"no consent: {consent} is {str(answer)[:80]}")
            answer = _found(fields, opt_out) if opt_out else None
            if answer is not None and _says(answer, TRUE_WORDS, yes=True):
                raise Unsent("suppressed", f"opted out: {opt_out} is {str(answer)[:80]}")

    def flat(self, properties: dict[str, Any]) -> tuple[dict[str, Scalar], list[str]]:
        """Return properties flat, masked and without what is denied for all events, and the notes.

        Raises:
            Unsent: they don't fit (see ``Flattener``).
        """
        try:
            return self._flattener.flatten(properties)
        except Unfit as unfit:
            raise Unsent("rejected", str(unfit)) from unfit

    def _by_lists(self, lists: PropertyLists) -> Flattener:
        return Flattener(
            FORMS[self.settings.preset],
            too_long=self.settings.too_long,
            masker=self._masker,
            denied=(*self.settings.deny_properties, *lists.deny),
            covered=self.settings.mask_properties,
            allowed=lists.allow,
        )

    def _heard(self, properties: str, traits: str, context: str) -> dict[str, Any] | None:
        """Check what a person has said; return the properties if they had to be read for it."""
        for text, field_name in ((traits, "traits"), (context, "context")):
            if self._may_answer(text):
                self.check_consent(json_object(text, field_name))
        if not self._may_answer(properties):
            return None
        fields = json_object(properties, "properties")
        self.check_consent(fields)
        return fields

    def _may_answer(self, text: str) -> bool:
        return "\\" in text or any(map(text.__contains__, self._marks))

    def _viewed(self, properties: dict[str, Any], kind: str, name: str) -> tuple[dict[str, Any], str]:
        """Return the properties of a page or screen call, its name one of them, and the event's name."""
        preset = self.settings.preset
        if kind not in _VIEWS:
            raise Unsent("rejected", f"Heap events take track, page and screen calls; got {kind}")
        if preset in _TRACK_ONLY:
            raise Unsent("rejected", f"the {preset} preset takes track calls alone; got {kind}")
        return (properties | {"name": name} if name else properties), _VIEWS[kind]

    def _body(self, kind: str, name: str, text: str, fields: dict[str, Any] | None) -> _Body:
        own = self._flatteners.get(name.casefold()) if self._flatteners else None
        try:
            flat, notes = (own or self._flattener).flatten(
                json_object(text, "properties") if fields is None else fields
            )
        except Unfit as unfit:
            raise Unsent("rejected", str(unfit)) from unfit
        body = _Body(orjson.dumps(self._constants | flat if self._constants else flat), tuple(notes))
        if kind == "track" and not self._flatteners and len(text) <= _REMEMBERED_LENGTH:
            if len(self._bodies) >= _REMEMBERED:
                self._bodies.clear()
            self._bodies[text] = body
        return body

    def _addressed(self, user_id: str | None, anonymous_id: str | None) -> tuple[str, bytes, tuple[str, ...]]:
        identity = self.who(user_id, anonymous_id)
        return identity.key, b'"%b":%b' % (identity.field.encode(), orjson.dumps(identity.value)), identity.notes

    def _titled(self, name: str) -> tuple[bytes, tuple[str, ...]]:
        if not name.strip():
            raise Unsent("rejected", "no event name")
        if len(name) <= LONGEST_NAME:
            return orjson.dumps(name), ()
        if self.settings.too_long == "reject":
            raise Unsent("rejected", f"the event name is longer than the {LONGEST_NAME} characters Heap takes")
        return orjson.dumps(name[:LONGEST_NAME]), ("cut:name",)

    def _oversized(self, size: int) -> Unsent:
        largest = self.settings.largest_event_bytes
        return Unsent("rejected", f"the event has {size:,} bytes, more than the {largest:,} that are let out")


def is_heap_user_id(text: str) -> bool:
    """Say whether ``text`` is a user id as Heap's SDK makes them: a number from 0 to 2^53 - 1."""
    return _HEAP_USER_ID.fullmatch(text) is not None and int(text) <= LARGEST_HEAP_USER_ID


def json_object(text: str, field_name: str) -> dict[str, Any]:
    """Return the JSON object that a field holds.

    Raises:
        Unsent: it isn't one.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Unsent("rejected", f"{field_name} is not JSON: {error.msg}") from error
    if not isinstance(value, dict):
        raise Unsent("rejected", f"{field_name} is not a JSON object")
    return value


def _found(fields: dict[str, Any], name: str) -> Answer | None:
    """Return a simple value under a key or a dotted path."""
    answer: Any = fields.get(name)
    if answer is None and "." in name:
        answer = fields
        for step in name.split("."):
            answer = answer.get(step) if isinstance(answer, dict) else None
    return answer if isinstance(answer, Answer) else None


def _says(answer: Answer, words: Collection[str], *, yes: bool) -> bool:
    if isinstance(answer, str):
        return answer.strip().casefold().replace(" ", "_").replace("-", "_") in words
    return bool(answer) is yes


def _milliseconds(text: str) -> str:
    """Return a moment in UTC as Heap's examples write it: 2026-01-02T03:04:05.678Z."""
    try:
        moment = datetime.fromisoformat(text)
        if len(text) == _MILLISECONDS + 1 and text[7] + text[10] + text[19] + text[-1] == "-T.Z":
            return text
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Unsent("rejected", f"timestamp {text[:80]!r} can't be read") from None
    return f"{moment.isoformat(timespec='milliseconds')[:_MILLISECONDS]}Z"


def _between(earlier: str, later: str) -> timedelta:
    return datetime.fromisoformat(later) - datetime.fromisoformat(_milliseconds(earlier))
