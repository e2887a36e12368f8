"""What goes to Customer.io: memberships of manual segments, attributes, deletions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, Protocol, TypeVar

import orjson

from heap_integration.delivery.records import (
    UNKNOWN_THERE,
    AttributeChange,
    BatchRejected,
    Limits,
    MemberChange,
    Outcome,
    ProfileChange,
    Record,
    Status,
    Window,
)
from heap_integration.destinations.customerio_client import (
    ITEM_BYTES,
    LOOKED_UP_AT_ONCE,
    CustomerioClient,
    IdType,
    Person,
)

# https://docs.customer.io/integrations/api/track/, “Rate Limits” and the sizes below it.
MOST_IDS = 1000
ID_BYTES = NAME_BYTES = 150
VALUE_BYTES, MOST_ATTRIBUTES = 1000, 300
# A thousand records take a request or two of 500 kB, and at most two more for their membership.
CALLS_A_BATCH = 4
# Objects are looked up one by one: a hundred take ten seconds.
OBJECTS_AT_ONCE = 100

UNKNOWN = f"{UNKNOWN_THERE} (Customer.io), and create is off"
UNKNOWN_OBJECT = f"{UNKNOWN_THERE} (Customer.io has no such object), and create is off"
NOT_REMOVABLE = "Customer.io's API takes out of a segment only people who have an id: remove this one there by hand"

Dates = Literal["unix", "text"]
Found = TypeVar("Found")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)")


class Segment(Protocol):
    """The manual segment that an audience is."""

    def find(self) -> int | None:
        """Return its number, ``None`` where it was never made."""

    def make(self) -> int:
        """Return its number; it is made where it is missing."""

    def require(self) -> None:
        """Do nothing.

        Raises:
            NotAuthorised: it was there and is gone.
        """


@dataclass
class Known(Generic[Found]):
    """Who was looked up, for as long as a batch is tried.

    A batch that is tried again, as where somebody else has used up the App API's limit, keeps the answers it has.
    """

    look_up: Callable[[Sequence[str]], dict[str, Found]]
    at_once: int
    _answers: dict[str, Found | None] = field(default_factory=dict)

    def among(self, ids: Iterable[str]) -> dict[str, Found]:
        """Return those of ``ids`` that the other side knows."""
        asked = list(dict.fromkeys(ids))
        missing = [each for each in asked if each not in self._answers]
        for first in range(0, len(missing), self.at_once):
            part = missing[first : first + self.at_once]
            self._answers.update(dict.fromkeys(part) | self.look_up(part))
        return {each: found for each in asked if (found := self._answers[each]) is not None}

    def forget(self, ids: Iterable[str]) -> None:
        """Ask again the next time."""
        for each in ids:
            self._answers.pop(each, None)


def people(client: CustomerioClient, id_type: IdType) -> Known[Person]:
    """Return what looks people up, 100 a call."""
    return Known(lambda ids: client.people(ids, id_type), LOOKED_UP_AT_ONCE)


def objects(client: CustomerioClient, kind: str) -> Known[bool]:
    """Return what looks objects up, one a call."""
    return Known(lambda ids: {each: True for each in ids if client.has_object(kind, each)}, 1)


@dataclass
class MembershipSender:
    """Puts people into a manual segment and takes them out.

    Customer.io ignores ids it doesn't know, and doesn't say so. So who enters is looked up first, or with ``create``
    identified first. Who leaves is taken out before anybody is put in. ``by_email`` takes people out by their address;
    else they are looked up, and taken out by their id.
    """

    client: CustomerioClient
    segment: Segment
    id_type: IdType
    create: bool
    by_email: bool
    calls_a_second: int
    concurrency: int

    def __post_init__(self) -> None:
        self._known = people(self.client, self.id_type)

    @property
    def limits(self) -> Limits:
        """A thousand ids a call; without ``create`` the client's own pace for looking people up is narrower."""
        return _limits(MOST_IDS, self.calls_a_second, self.concurrency)

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """Send the changes of a batch; see ``Sender.send``."""
        changes: list[MemberChange] = [record.payload for record in batch]
        refused = {(change.identity, change.member): unfit_id(change.identity) for change in changes}
        fit = [who for who, reason in refused.items() if not reason]
        leaving = [identity for identity, member in fit if not member]
        entering = [identity for identity, member in fit if member]
        refused |= {(identity, False): reason for identity, reason in self._leave(leaving).items()}
        refused |= {(identity, True): reason for identity, reason in self._enter(entering).items()}
        self._known.forget(identity for identity, _ in fit)
        return [
            _outcome(record.key, refused[change.identity, change.member])
            for record, change in zip(batch, changes, strict=True)
        ]

    def _leave(self, ids: Sequence[str]) -> dict[str, str]:
        number = self.segment.find() if ids else None
        if number is None:
            return {}
        if self.id_type == "id" or self.by_email:
            self._change(number, ids, self.id_type, enter=False)
            return {}
        found = self._known.among(ids)
        self._change(number, [person.id for person in found.values() if person.id], "id", enter=False)
        return {each: NOT_REMOVABLE for each, person in found.items() if not person.id}

    def _enter(self, ids: Sequence[str]) -> dict[str, str]:
        if not ids:
            return {}
        number = self.segment.make()
        if self.create:
            operations = [orjson.dumps(person(self.id_type, each, "identify")) for each in ids]
            refused = {ids[place]: reason for place, reason in self.client.batch(operations).items()}
        else:
            found = self._known.among(ids)
            refused = {each: UNKNOWN for each in ids if each not in found}
        self._change(number, [each for each in ids if each not in refused], self.id_type, enter=True)
        return refused

    def _change(self, number: int, ids: Sequence[str], id_type: IdType, *, enter: bool) -> None:
        if not ids:
            return
        try:
            self.client.change_members(number, ids, id_type, enter=enter)
        except BatchRejected:
            # A segment that was deleted meanwhile is no fault of anybody in the batch.
            self.segment.require()
            raise


@dataclass(frozen=True)
class Profiles:
    """What profiles are at Customer.io: people by ``id_type``, or with ``object_type`` objects of that type."""

    id_type: IdType = "id"
    object_type: str = ""

    def identify(self, identity: str, attributes: dict[str, Any]) -> dict[str, Any]:
        """Return the operation that sets attributes; an empty text removes one."""
        if self.object_type:
            who = {"object_type_id": self.object_type, "object_id": identity}
            return {"type": "object", "identifiers": who, "action": "identify", "attributes": attributes}
        return person(self.id_type, identity, "identify") | {"attributes": attributes}


@dataclass
class ProfileSender:
    """Sets and clears attributes of people or objects.

    Without ``create`` they are looked up first, since Customer.io doesn't say whom it doesn't know. Nobody is made in
    order to leave. Sizes are checked before, so that one record too large doesn't cost the others.
    """

    client: CustomerioClient
    profiles: Profiles
    create: bool
    dates: Dates
    calls_a_second: int
    concurrency: int

    def __post_init__(self) -> None:
        kind = self.profiles.object_type
        self._known: Known[Any] = objects(self.client, kind) if kind else people(self.client, self.profiles.id_type)

    @property
    def limits(self) -> Limits:
        """A thousand records at a time, fewer where each has to be looked up by itself."""
        one_by_one = self.profiles.object_type and not self.create
        return _limits(OBJECTS_AT_ONCE if one_by_one else MOST_IDS, self.calls_a_second, self.concurrency)

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """Send the changes of a batch; see ``Sender.send``."""
        changes: list[ProfileChange] = [record.payload for record in batch]
        operations = [self._operation(change) for change in changes]
        reasons = [self._unfit(change, operation) for change, operation in zip(changes, operations, strict=True)]
        fit = [place for place, reason in enumerate(reasons) if not reason]
        asked = [changes[place].identity for place in fit if self._must_be_known(changes[place])]
        known = self._known.among(asked)
        going: list[int] = []
        for place in fit:
            change = changes[place]
            if change.identity in known or not self._must_be_known(change):
                going.append(place)
            elif not change.leaving:
                reasons[place] = UNKNOWN_OBJECT if self.profiles.object_type else UNKNOWN
        for sent, reason in self.client.batch([operations[place] for place in going]).items():
            reasons[going[sent]] = reason
        self._known.forget(asked)
        return [_outcome(record.key, reason) for record, reason in zip(batch, reasons, strict=True)]

    def _may_make(self, change: ProfileChange) -> bool:
        return self.create and not change.leaving

    def _must_be_known(self, change: ProfileChange) -> bool:
        """Say whether somebody has to be looked up; that a person leaves can be said so that nobody is made."""
        return not self._may_make(change) and not (change.leaving and not self.profiles.object_type)

    def _operation(self, change: ProfileChange) -> bytes:
        attributes = {each.name: self._value(each) for each in change.changes}
        if not self.profiles.object_type and not self._may_make(change):
            # Somebody who was deleted since they were looked up isn't made again either.
            attributes["_update"] = True
        return orjson.dumps(self.profiles.identify(change.identity, attributes))

    def _value(self, change: AttributeChange) -> Any:
        if change.operation == "clear":
            return ""
        if self.dates == "unix" and isinstance(change.value, str) and _MOMENT.fullmatch(change.value):
            return _seconds(change.value)
        return change.value

    def _unfit(self, change: ProfileChange, operation: bytes) -> str:
        """Return why Customer.io would refuse a record; nothing where it wouldn't."""
        if reason := unfit_id(change.identity):
            return reason
        # One place is kept for _update.
        if len(change.changes) >= MOST_ATTRIBUTES:
            return f"Customer.io takes fewer than {MOST_ATTRIBUTES} attributes at once, not {len(change.changes)}"
        for each in change.changes:
            if reason := _unfit_attribute(each):
                return reason
        if len(operation) > ITEM_BYTES:
            return f"Customer.io takes at most {ITEM_BYTES} bytes a profile, not {len(operation)}"
        return ""


@dataclass
class DeletionSender:
    """Deletes people, whose ids are the records' payloads; whoever isn't there is deleted."""

    client: CustomerioClient
    id_type: IdType
    calls_a_second: int
    concurrency: int

    @property
    def limits(self) -> Limits:
        """A thousand at a time."""
        return _limits(MOST_IDS, self.calls_a_second, self.concurrency)

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """Delete the people of a batch; see ``Sender.send``."""
        reasons = [unfit_id(record.payload) for record in batch]
        going = [place for place, reason in enumerate(reasons) if not reason]
        operations = [orjson.dumps(person(self.id_type, batch[place].payload, "delete")) for place in going]
        for sent, reason in self.client.batch(operations).items():
            reasons[going[sent]] = reason
        return [_outcome(record.key, reason) for record, reason in zip(batch, reasons, strict=True)]


def _limits(records: int, calls_a_second: int, concurrency: int) -> Limits:
    window = Window(MOST_IDS * calls_a_second // CALLS_A_BATCH, 1.0)
    return Limits(records, windows=(window,), concurrency=concurrency)


def person(id_type: IdType, identity: str, action: str) -> dict[str, Any]:
    """Return an operation on a person, as ``POST /api/v2/batch`` takes it."""
    return {"type": "person", "identifiers": {id_type: identity}, "action": action}


def unfit_id(identity: str) -> str:
    """Return why an id can't be one of Customer.io's; nothing where it can."""
    if not identity:
        return "an empty id is nobody's"
    length = len(identity.encode())
    return f"Customer.io's ids have at most {ID_BYTES} bytes, not {length}" if length > ID_BYTES else ""


def _unfit_attribute(change: AttributeChange) -> str:
    if change.operation not in ("set", "clear"):
        return f"Customer.io sets and clears attributes, and knows no {change.operation}"
    if change.name == "_update":
        return "Customer.io keeps the name _update for itself"
    if not 1 <= len(change.name.encode()) <= NAME_BYTES:
        return f"Customer.io's attributes have names of 1 to {NAME_BYTES} bytes: {change.name[:50]!r}"
    value = change.value
    length = len(value.encode() if isinstance(value, str) else orjson.dumps(value))
    if length > VALUE_BYTES:
        return f"Customer.io takes values of at most {VALUE_BYTES} bytes, and {change.name} has {length}"
    return ""


def _seconds(moment: str) -> int | str:
    try:
        return int(datetime.fromisoformat(moment).timestamp())
    except (ValueError, OverflowError):
        return moment


def _outcome(key: bytes, reason: str) -> Outcome:
    return Outcome(key, Status.REJECTED, reason) if reason else Outcome(key, Status.ACCEPTED)
