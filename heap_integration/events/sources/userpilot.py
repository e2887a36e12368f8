"""Userpilot's signed webhooks and its exported rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson

from heap_integration.events.event import Event, EventType, Refusal
from heap_integration.events.sources.landed import Landed
from heap_integration.events.sources.paths import Found, find, without
from heap_integration.events.sources.signatures import BadSignature, verify_stamped
from heap_integration.events.sources.values import Unreadable, as_text, parse_time, shown

__all__ = ["FORM_SUBMISSIONS", "BadSignature", "event_from_row", "read_landed", "verify"]

# Userpilot documents what is signed and that it is an HMAC; the hash and the age are what its peers use.
ALGORITHM = "sha256"
TOLERANCE_SECONDS = 300

# Its list of what goes to Heap has no name for a form's event but this heading.
FORM_SUBMISSIONS = "Form Submissions"

_ENTITIES = {
    "experience": "Experience",
    "experiences": "Experience",
    "flow": "Experience",
    "flows": "Experience",
    "checklist": "Checklist",
    "checklists": "Checklist",
    "nps": "NPS",
    "form": "Form",
    "forms": "Form",
}
# The list of statuses isn't published: these are the words of its webhooks, its browser library and its
# two examples (checklist:2:SEEN, experience:448:DISMISSED), and their other forms.
_STATUSES: dict[str, dict[str, tuple[str, ...]]] = {
    "Experience": {
        "started": ("started", "start", "seen", "shown", "viewed"),
        "step": ("step", "step seen", "step shown", "step viewed", "step completed"),
        "dismissed": ("dismissed", "dismiss", "closed"),
        "completed": ("completed", "complete", "finished"),
    },
    "Checklist": {
        "started": ("started", "start", "seen", "shown", "viewed"),
        "task completed": ("task completed", "task complete", "item completed", "step completed"),
        "completed": ("completed", "complete", "finished"),
        "dismissed": ("dismissed", "dismiss", "closed"),
    },
    "NPS": {
        # its webhooks say "dismissed" where its integration with Heap says "ask later"
        "ask later": ("ask later", "asked later", "ask me later", "later", "dismissed", "dismiss", "closed"),
        "score": ("score", "scored", "score submitted", "rated"),
        "feedback": ("feedback", "feedback submitted"),
    },
    "Form": {"submitted": ("submitted", "submit", "submission", "completed", "complete")},
}
_WORDS = {entity: {word: name for name, words in of.items() for word in words} for entity, of in _STATUSES.items()}

_INTERACTION = re.compile(r"([^:]+):([^:]+):([^:]+)\Z")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NO_WORD = re.compile(r"[\W_]+")

# what an exported row's event_type is for Heap: a session is nothing that somebody did
_ROW_TYPES: dict[str, EventType | None] = {
    "interaction": "track",
    "track": "track",
    "track_feature": "track",
    "page_view": "page",
    "identify_user": "identify",
    "identify_company": "group",
    "session_start": None,
}

# columns of an exported row that say something about the event, not about the browser
_PLACE = ("hostname", "pathname")
_SURROUNDINGS = (
    "source",
    "screen_width",
    "screen_height",
    "device_type",
    "user_agent",
    "operating_system",
    "browser",
    "browser_language",
    "session",
    "country_code",
)

# A webhook's payload isn't published: where its parts may stand, the likeliest first.
_NAMES = (
    "event_name",
    "event",
    "eventName",
    "event.name",
    "event.type",
    "data.event_name",
    "data.event",
    "event_type",
    "name",
    "type",
)
_USERS = ("user_id", "userId", "user.user_id", "user.userId", "user.id", "data.user_id", "user")
_COMPANIES = ("company_id", "companyId", "company.company_id", "company.id", "data.company_id", "company")
_TIMES = ("inserted_at", "timestamp", "occurred_at", "created_at", "time", "event_time", "data.timestamp")
_DETAILS = ("metadata", "properties", "attributes", "event_properties", "data", "payload")


def verify(secret: str, header: str, body: bytes, now: float) -> None:
    """Check ``X-Signature: t=<time>,v1=<signature>``: an HMAC of the raw body, a dot and the moment.

    Raises:
        BadSignature: malformed, older or newer than 300 s, or signed with another secret.
    """
    verify_stamped(
        "X-Signature",
        header,
        secret,
        lambda stamp: body + b"." + stamp,
        now,
        tolerance=TOLERANCE_SECONDS,
        algorithm=ALGORITHM,
    )


def read_landed(landed: Landed) -> Iterator[Event | Refusal | None]:
    """Read a landed webhook; the whole payload is kept in the event's context."""
    event = event_from_webhook(landed.body)
    if isinstance(event, Event) and not event.message_id and event.timestamp is None:
        landed.tell_apart(event)
    yield event


def event_from_row(row: dict[str, Any]) -> Event | Refusal | None:
    """Read an exported row, of NDJSON or CSV; ``None`` for the start of a session, which isn't an event of Heap's."""
    try:
        return _from_row(row)
    except Unreadable as error:
        return Refusal(str(error))


def event_from_webhook(payload: dict[str, Any]) -> Event | Refusal | None:
    """Read a webhook's payload: an exported row's columns, or whatever names an event and a user."""
    try:
        event = _from_row(payload) if _is_row(payload) else _from_payload(payload)
    except Unreadable as error:
        return Refusal(str(error))
    if isinstance(event, Event):
        event.context = event.context | {"webhook": payload}
    return event


def _is_row(payload: dict[str, Any]) -> bool:
    told, name = payload.get("event_type"), payload.get("event_name")
    if told == "interaction":
        return isinstance(name, str) and _INTERACTION.match(name) is not None
    return isinstance(told, str) and told in _ROW_TYPES


def _from_row(row: dict[str, Any]) -> Event | None:
    told = as_text(row.get("event_type")) or ""
    if told not in _ROW_TYPES:
        raise Unreadable(f"event_type {shown(told)} is none of {', '.join(_ROW_TYPES)}" if told else "no event_type")
    kind = _ROW_TYPES[told]
    if kind is None:
        return None
    user_id, company_id = as_text(row.get("user_id")), as_text(row.get("company_id"))
    if kind == "group" and company_id is None:
        raise Unreadable("no company: company_id is empty")
    if kind != "group" and user_id is None:
        raise Unreadable("no user: user_id is empty")
    name, details = _name_of_row(told, as_text(row.get("event_name")))
    if kind == "track" and not name:
        raise Unreadable("no event name: event_name is empty")
    metadata = _metadata(row.get("metadata"))
    of_profile = kind in ("identify", "group")
    identifier = as_text(row.get("internal_event_id"))
    return Event(
        type=kind,
        name=name,
        user_id=user_id,
        anonymous_id=None,
        timestamp=parse_time(row.get("inserted_at")),
        message_id=f"userpilot-{identifier}" if identifier else "",
        properties={} if of_profile else _filled(row, _PLACE) | metadata | details,
        traits=metadata if of_profile else {},
        context=_filled(row, _SURROUNDINGS) | ({"groupId": company_id} if company_id else {}),
        source="userpilot",
    )


def _name_of_row(told: str, name: str | None) -> tuple[str, dict[str, Any]]:
    """Return the event's name for Heap, and what else its name in the row says."""
    if name is None or told in ("page_view", "identify_user", "identify_company"):
        return "", {}
    if told == "track_feature":
        return "Userpilot Feature Tag", {"feature_id": name}
    if told == "track":
        return name, {}
    parts = _INTERACTION.match(name)
    if parts is None:
        raise Unreadable(f"event_name {shown(name)} is not <entity>:<id>:<status>")
    entity, identifier, status = parts.groups()
    details = {"entity_type": entity, "entity_id": identifier, "interaction_status": status}
    return _known(_words(entity), _words(status)) or _unknown(_words(entity), _words(status)), details


def _from_payload(payload: dict[str, Any]) -> Event | Refusal:
    told, user, company, time = (find(payload, paths) for paths in (_NAMES, _USERS, _COMPANIES, _TIMES))
    if not told.path:
        return Refusal(f"Userpilot's webhook names no event: none of {', '.join(_NAMES)} is there")
    if not user.path:
        return Refusal(f"no user: none of {', '.join(_USERS)} is there")
    name, details = _name_of_webhook(told.text or "")
    identifier = as_text(payload.get("internal_event_id"))
    return Event(
        type="track",
        name=name,
        user_id=user.text,
        anonymous_id=None,
        timestamp=parse_time(time.value),
        message_id=f"userpilot-{identifier}" if identifier else "",
        properties=_details(payload, told, user, company, time) | details,
        context={"groupId": company.text} if company.path else {},
        source="userpilot",
    )


def _name_of_webhook(told: str) -> tuple[str, dict[str, Any]]:
    if _INTERACTION.match(told):
        return _name_of_row("interaction", told)
    words = _words(told).removeprefix("userpilot ")
    entity, _, status = words.partition(" ")
    if entity == "feature" and status.startswith("tag"):
        return _unknown("feature tag", status.removeprefix("tags").removeprefix("tag").strip()), {}
    # a name that only begins like one of Userpilot's own is somebody's tracked event
    return _known(entity, status) or told, {}


def _known(entity: str, status: str) -> str | None:
    """Return the documented name of an interaction."""
    shown_entity = _ENTITIES.get(entity, "")
    shown_status = _WORDS.get(shown_entity, {}).get(status)
    if shown_status is None:
        return None
    return FORM_SUBMISSIONS if shown_entity == "Form" else f"Userpilot {shown_entity} ({shown_status})"


def _unknown(entity: str, status: str) -> str:
    """Return a name in the manner of the documented ones."""
    name = f"Userpilot {_ENTITIES.get(entity, entity.title())}"
    return f"{name} ({status})" if status else name


def _words(text: str) -> str:
    """Return ``TASK_COMPLETED``, ``taskCompleted`` and ``Task completed`` as the same words."""
    return _NO_WORD.sub(" ", _HUMP.sub(" ", text)).strip().lower()


def _metadata(value: Any) -> dict[str, Any]:
    # in CSV it is JSON text
    if isinstance(value, str) and value.strip():
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise Unreadable(f"metadata is not JSON: {error.msg}") from error
    if value is None or isinstance(value, str):
        return {}
    if not isinstance(value, dict):
        raise Unreadable(f"metadata is not an object: {shown(value)}")
    return value


def _details(payload: dict[str, Any], *found: Found) -> dict[str, Any]:
    """Return the object that describes the event, or all that has no meaning of its own."""
    for name in _DETAILS:
        details = payload.get(name)
        if isinstance(details, dict) and details:
            inner = [Found(each.path.removeprefix(f"{name}."), each.value) for each in found]
            return without(details, *inner)
    return without(payload, *found)


def _filled(row: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in columns if (value := row.get(name)) not in (None, "")}
