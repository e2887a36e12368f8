"""Heap itself, where membership and profiles become properties of users and accounts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from heap_integration.delivery.records import (
    BatchRejected,
    Limits,
    MemberChange,
    NotAuthorised,
    Outcome,
    ProfileChange,
    Record,
    RetryLater,
    Status,
    Unfit,
)
from heap_integration.destinations.destination import (
    Audience,
    DestinationSettings,
    Kind,
    ProfileSet,
    Surroundings,
)

if TYPE_CHECKING:
    from heap_integration.heap.profiles_api import ProfilesApi

MEMBER_PROPERTY = "segment_{}"
BATCH_RECORDS = 1_000
LONGEST_IDENTITY = 255
# "Fewer than 1024 characters", for names and values alike.
LONGEST_TEXT = 1_023
# What JSON can hold of whole numbers.
LEAST_INTEGER, PAST_INTEGERS = -(2**63), 2**64
# Heap has no way to take a property away.
CLEARED = ""
WORDS = {True: "true", False: "false"}


class HeapPropertiesSettings(DestinationSettings):
    """The environment's own Heap, where membership and profiles become properties of users and accounts."""

    title: ClassVar[str] = "Heap"
    profile_kinds: ClassVar[frozenset[Kind]] = frozenset({"users", "accounts"})
    creates_always: ClassVar[bool] = True

    def connect(self, surroundings: Surroundings) -> HeapProperties:
        """Open Heap's property API; it has no credentials but the app id."""
        # Listing the assets of an environment needs no HTTP.
        from heap_integration.heap.profiles_api import ProfilesApi

        return HeapProperties(ProfilesApi(surroundings.heap_url, surroundings.heap_app_id))


@dataclass(frozen=True)
class HeapProperties:
    """The users and accounts of one Heap environment."""

    api: ProfilesApi

    def check(self) -> str:
        """Say where properties go; Heap has no request that only asks, so nothing is sent."""
        return f"properties go to app id {self.api.app_id} at {self.api.url}; Heap proves nothing before the first ones"

    def members(self, audience: Audience) -> PropertySender:
        """Return what writes membership as the user property ``segment_<slug>``, ``true`` or ``false``.

        An identity that Heap doesn't know becomes a user: ``audience.create`` can't keep it from that.
        """
        name = MEMBER_PROPERTY.format(audience.slug)
        return PropertySender(self.api, "users", lambda change: _membership(name, change))

    def profiles(self, profiles: ProfileSet) -> PropertySender:
        """Return what writes properties of users or accounts."""
        return PropertySender(self.api, profiles.of, _profile)

    def existing(self, audience: Audience) -> Iterator[str] | None:  # noqa: ARG002 - there is nothing to ask
        """Heap can't be asked who has a property."""
        return None

    def close(self) -> None:
        """Close the connections."""
        self.api.close()


@dataclass(frozen=True, slots=True)
class Told:
    """What one record tells: properties by name."""

    identity: str
    properties: dict[str, Any]


class PropertySender:
    """Writes properties of users or accounts, up to 1,000 of them a request.

    The last value wins, so to send a batch again changes nothing. No window limits the pace: Heap's 30 requests
    in 30 seconds count for each identity, and a delivery holds each once. Its 429 is waited for.
    """

    limits = Limits(batch_records=BATCH_RECORDS)

    def __init__(self, api: ProfilesApi, of: Kind, told: Callable[[Any], Told]) -> None:
        self._of = of
        self._told = told
        self._send = api.add_user_properties if of == "users" else api.add_account_properties
        self._id_name = "identity" if of == "users" else "account_id"

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """Send a batch; see ``Sender.send``. What breaks a limit of Heap's is rejected without being sent."""
        refused: dict[bytes, str] = {}
        items: list[dict[str, Any]] = []
        places: list[int] = []
        for place, record in enumerate(batch):
            try:
                told = self._told(record.payload)
                if told.properties:
                    items.append(self._item(told))
                    places.append(place)
            except Unfit as reason:
                refused[record.key] = str(reason)
        if items:
            self._call(items, places)
        return [_outcome(record.key, refused.get(record.key)) for record in batch]

    def _item(self, told: Told) -> dict[str, Any]:
        if not told.identity:
            raise Unfit("the id is empty")
        return {
            self._id_name: _text("the id", told.identity, LONGEST_IDENTITY if self._of == "users" else LONGEST_TEXT),
            "properties": {self._name(name): _value(name, value) for name, value in told.properties.items()},
        }

    def _name(self, name: str) -> str:
        if not name or (self._of == "users" and name.lower() == "id"):
            raise Unfit(f"Heap takes no property with the name {name!r}")
        return _text("a property's name", name, LONGEST_TEXT)

    def _call(self, items: list[dict[str, Any]], places: Sequence[int]) -> None:
        """Send the items and put a failure in the engine's words; ``places`` are theirs in the batch."""
        from heap_integration.heap.answers import HeapBusy, HeapRefused, HeapRejected, HeapUnavailable

        try:
            self._send(items)
        except HeapBusy as error:
            raise RetryLater(str(error), after=error.after, busy=True) from error
        except HeapUnavailable as error:
            raise RetryLater(str(error)) from error
        except HeapRejected as error:
            named = error.position is not None and error.position < len(places)
            raise BatchRejected(str(error), culprit=places[error.position or 0] if named else None) from error
        except HeapRefused as error:
            raise NotAuthorised(str(error)) from error


def _membership(name: str, change: MemberChange) -> Told:
    return Told(change.identity, {name: change.member})


def _profile(profile: ProfileChange) -> Told:
    properties: dict[str, Any] = {}
    for change in profile.changes:
        if change.operation not in ("set", "clear"):
            raise Unfit(f"Heap can't {change.operation}, it can only set a property")
        properties[change.name] = change.value if change.operation == "set" else None
    return Told(profile.identity, properties)


def _value(name: str, value: Any) -> str | float:
    """Return a value in the two types that Heap documents, text and numbers."""
    if isinstance(value, bool):
        return WORDS[value]
    if isinstance(value, int) and LEAST_INTEGER <= value < PAST_INTEGERS:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if value is None:
        return CLEARED
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if not isinstance(value, str):
        raise Unfit(f"{name[:80]!r} is neither text nor a number, and Heap takes nothing else")
    return _text(repr(name[:80]), value, LONGEST_TEXT)


def _text(what: str, text: str, longest: int) -> str:
    if len(text) > longest:
        raise Unfit(f"{what} is longer than the {longest:,} characters that Heap takes")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unfit(f"{what} is no Unicode text") from None
    return text


def _outcome(key: bytes, refused: str | None) -> Outcome:
    return Outcome(key, Status.ACCEPTED) if refused is None else Outcome(key, Status.REJECTED, refused)
