"""Turns stored identify, group and alias calls into what Heap is told of people and accounts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from heap_integration.events.flatten import Scalar
from heap_integration.events.prepare import (
    PreparedRow,
    Preparer,
    Refused,
    Unsent,
    is_heap_user_id,
    json_object,
)
from heap_integration.events.property_keys import LONGEST_TEXT
from heap_integration.identities import PLACEHOLDERS
from heap_integration.warehouse.profiles import Kind

# Heap uses this key itself, and refuses it however it is capitalised.
RESERVED = "id"

Properties = dict[str, Scalar]
Target = tuple[Kind, str]


class ProfileUpdate(NamedTuple):
    """What one call tells Heap: properties of a person, of an account, and whose anonymous past is whose.

    ``merge`` is the Heap user id that becomes the user with ``identity``; ``timestamp`` is ISO 8601 in UTC.
    ``notes`` name what was changed on the way, as for events; also ``dropped:reserved id``.
    """

    timestamp: str
    identity: str | None
    properties: Properties
    account_id: str | None
    account_properties: Properties
    merge: int | None
    notes: tuple[str, ...]

    def targets(self) -> Iterator[tuple[Target, Properties]]:
        """Yield who and what gets properties."""
        if self.identity is not None and self.properties:
            yield ("user", self.identity), self.properties
        if self.account_id is not None and self.account_properties:
            yield ("account", self.account_id), self.account_properties

    def is_empty(self) -> bool:
        """Say whether there is nothing to tell."""
        return self.merge is None and not self.properties and not self.account_properties

    def size(self) -> int:
        """Return the bytes that this takes in requests, about."""
        return sum(len(orjson.dumps(properties)) + len(name) for (_, name), properties in self.targets())


class ProfilePreparer:
    """Prepares calls one by one, by the rules of an environment's events.

    ``account_id_property`` is the user property in which Heap looks for a user's account, if there is one:
    a group call sets it.
    """

    def __init__(self, preparer: Preparer, account_id_property: str | None = None) -> None:
        self.settings = preparer.settings
        self._preparer = preparer
        self._account_id_property = account_id_property

    def prepare(self, row: PreparedRow) -> ProfileUpdate | Refused:
        """Return what to tell Heap for ``row``, or why nothing is told; no content makes it fail."""
        _, _, kind, _, user_id, anonymous_id, timestamp, _, traits, context, received_at = row
        try:
            told, around = json_object(traits, "traits"), json_object(context, "context")
            self._preparer.check_consent(told, around)
            when, notes = self._preparer.when(timestamp, received_at)
            if kind == "identify":
                update = self._identified(user_id, anonymous_id, told)
            elif kind == "group":
                update = self._grouped(user_id, around.get("groupId"), told)
            elif kind == "alias":
                update = self._aliased(user_id, around.get("previousId"))
            else:
                raise Unsent("rejected", f"profiles take identify, group and alias calls; got {kind}")
            self._check_size(update)
        except Unsent as unsent:
            return unsent.refused
        except (TypeError, UnicodeError):
            return Refused("rejected", "the call holds text that is not UTF-8")
        if update.is_empty():
            return Refused("suppressed", "nothing to send: the call holds no properties")
        return update._replace(timestamp=when, notes=notes + update.notes)

    def _identified(self, user_id: str | None, anonymous_id: str | None, traits: dict[str, Any]) -> ProfileUpdate:
        identity, notes = self._person("identify", user_id)
        merge = None
        if anonymous_id and self.settings.anonymous_ids == "heap_user_id":
            merge = _heap_user_id(anonymous_id)
            notes = notes if merge is not None else (*notes, "anonymous id is no Heap user id")
        if anonymous_id and self.settings.preset == "segment":
            # as that connector does, and a trait of the same name wins
            traits = {"anonymous_id": anonymous_id} | traits
        flat, changes = self._preparer.flat(traits)
        properties = {key: value for key, value in flat.items() if key.casefold() != RESERVED}
        reserved = ("dropped:reserved id",) * (len(flat) - len(properties))
        return ProfileUpdate("", identity, properties, None, {}, merge, (*notes, *changes, *reserved))

    def _grouped(self, user_id: str | None, group_id: Any, traits: dict[str, Any]) -> ProfileUpdate:
        account = self._account(group_id)
        flat, changes = self._preparer.flat(traits)
        if self._account_id_property is None or not user_id:
            return ProfileUpdate("", None, {}, account, flat, None, tuple(changes))
        identity, notes = self._person("group", user_id)
        belongs: Properties = {self._account_id_property: account}
        return ProfileUpdate("", identity, belongs, account, flat, None, (*notes, *changes))

    def _aliased(self, user_id: str | None, previous_id: Any) -> ProfileUpdate:
        identity, notes = self._person("alias", user_id)
        if self.settings.anonymous_ids != "heap_user_id":
            raise Unsent(
                "rejected", "alias: Heap merges only its own user ids, and this environment's are other anonymous ids"
            )
        merge = _heap_user_id(previous_id)
        if merge is None:
            raise Unsent("rejected", "alias: Heap merges only its own user ids, and the previous id is none")
        return ProfileUpdate("", identity, {}, None, {}, merge, notes)

    def _person(self, kind: str, user_id: str | None) -> tuple[str, tuple[str, ...]]:
        if not user_id or not user_id.strip():
            raise Unsent("rejected", f"{kind}: no user id, and Heap keeps properties of identified users only")
        found = self._preparer.who(user_id, None)
        return found.value, found.notes

    def _account(self, group_id: Any) -> str:
        account = str(group_id).strip() if type(group_id) in (str, int) else ""
        if not account:
            raise Unsent("rejected", "group: no group id")
        if self.settings.refuse_placeholder_identities and account.casefold() in PLACEHOLDERS:
            raise Unsent("rejected", f"group: the group id {account!r} stands for none")
        if len(account) > LONGEST_TEXT:
            raise Unsent("rejected", f"group: the group id is longer than the {LONGEST_TEXT} characters Heap takes")
        return account

    def _check_size(self, update: ProfileUpdate) -> None:
        size, largest = update.size(), self.settings.largest_event_bytes
        if size > largest:
            raise Unsent("rejected", f"the properties have {size:,} bytes, more than the {largest:,} that are let out")


def _heap_user_id(given: Any) -> int | None:
    text = str(given).strip() if type(given) in (str, int) else ""
    return int(text) if is_heap_user_id(text) else None
