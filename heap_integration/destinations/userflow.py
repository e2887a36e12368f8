"""Userflow, whose public API knows users, groups and their attributes but no segments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import quote

from pydantic import Field

from heap_integration.delivery.records import (
    AMBIGUOUS_THERE,
    UNKNOWN_THERE,
    AttributeChange,
    Limits,
    MemberChange,
    Outcome,
    ProfileChange,
    Record,
    RetryLater,
    Status,
)
from heap_integration.destinations.destination import (
    Audience,
    DestinationSettings,
    Kind,
    Operation,
    ProfileSet,
    Surroundings,
)
from heap_integration.destinations.http import Api, attempts
from heap_integration.settings import Secret, WebAddress

if TYPE_CHECKING:
    import httpx

HOSTS = {"us": "https://api.userflow.com", "eu": "https://api.eu.userflow.com"}
VERSION = "2020-01-03"
KEY_ADVICE = "Check the Userflow API key of this environment"
PATHS: dict[Kind, str] = {"users": "/users", "accounts": "/groups"}
PAGE = 100
LIST_ATTRIBUTE = "heap_segments"
# What the hub has added to a number in all stands beside it, so that nothing is added twice.
ADDED = "heap_added_to_"
# As a part of an address these lead somewhere else, so nobody can be found by them.
NOWHERE = {"", ".", ".."}

Attributes = dict[str, Any]
Found = dict[str, Any]
Membership = Literal["boolean", "list"]
IdentifiedBy = Literal["identity", "email"]
EventName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-. ]+$")]


class UserflowSettings(DestinationSettings):
    """Userflow, where membership is a user attribute of its own for each segment, or one list of them.

    ``entered_event`` and ``left_event`` name events that are tracked for a user who enters a segment or leaves it.
    """

    title: ClassVar[str] = "Userflow"
    profile_kinds: ClassVar[frozenset[Kind]] = frozenset({"users", "accounts"})
    operations: ClassVar[frozenset[Operation]] = frozenset({"set", "set_once", "add", "append"})
    identified_by: ClassVar[frozenset[str]] = frozenset({"identity", "email"})

    api_key: Secret
    base_url: WebAddress | None = None
    region: Literal["us", "eu"] = "us"
    membership: Membership = "boolean"
    concurrency: int = Field(default=4, ge=1, le=32)
    entered_event: EventName | None = None
    left_event: EventName | None = None

    @property
    def url(self) -> str:
        """The address of Userflow's API."""
        return self.base_url or HOSTS[self.region]

    def connect(self, surroundings: Surroundings) -> Userflow:
        """Open it; see ``DestinationSettings.connect``."""
        return Userflow(self, self.api_key.value(surroundings.variables))


class Userflow:
    """One Userflow environment, which the API key selects; see https://docs.userflow.com/docs/api.

    Raises:
        ValueError: the key can't be one; it isn't repeated.
    """

    def __init__(self, settings: UserflowSettings, api_key: str, client: httpx.Client | None = None) -> None:
        self._settings = settings
        headers = {"authorization": f"Bearer {api_key}", "userflow-version": VERSION}
        self._objects = Objects(
            Api(
                settings.title,
                settings.url,
                headers=headers,
                secrets=[api_key],
                key_advice=KEY_ADVICE,
                client=client,
            )
        )

    def check(self) -> str:
        """Prove the key by listing a user."""
        self._objects.page("/users", {"limit": 1})
        return "the key opens a Userflow environment, whose users it lists"

    def members(self, audience: Audience) -> MemberSender:
        """Return what writes membership of one audience."""
        return MemberSender(self._objects, audience, self._settings)

    def profiles(self, profiles: ProfileSet) -> ProfileSender:
        """Return what writes attributes of users, or of the groups that stand for accounts."""
        return ProfileSender(self._objects, profiles, self._settings.concurrency)

    def existing(self, audience: Audience) -> Iterator[str]:
        """Yield who carries the audience's mark.

        Userflow can't be asked for an attribute, so all users are read, unless no user ever had it.
        """
        mark = Mark(audience.slug, self._settings.membership)
        if not self._objects.knows_attribute(mark.attribute):
            return
        for user in self._objects.all("/users"):
            attributes = user.get("attributes") or {}
            if mark.is_on(attributes):
                identity = user["id"] if audience.identified_by == "identity" else attributes.get("email")
                if identity:
                    # Addresses differ in case at Userflow, and nobody differs by that.
                    yield identity if audience.identified_by == "identity" else str(identity).lower()

    def close(self) -> None:
        """Close the connections."""
        self._objects.api.close()


@dataclass(frozen=True)
class Objects:
    """Users and groups as Userflow's API has them; everything raises what ``Sender.send`` does."""

    api: Api

    def find(self, path: str, identity: str) -> Found | None:
        """Return a user or group, or ``None`` where Userflow knows none of that id."""
        if identity in NOWHERE:
            return None
        answer = self.api.ask("GET", f"{path}/{quote(identity, safe='')}")
        if self.api.is_unknown(answer):
            return None
        if not answer.is_success:
            raise self.api.failure(answer)
        found = self.api.object(answer)
        if not isinstance(found.get("id"), str):
            raise RetryLater(f"{self.api.vendor}'s answer is neither a user nor a group")
        return found

    def with_email(self, email: str) -> list[Found]:
        """Return the users with an e-mail address, whatever its capitals."""
        # The filter is known from clients only. Were it not understood, these would be other people.
        wanted = email.casefold()
        if not wanted:
            return []
        return [
            user
            for user in self.page("/users", {"limit": PAGE, "email": email})["data"]
            if str((user.get("attributes") or {}).get("email") or "").casefold() == wanted
        ]

    def meant(self, path: str, identity: str, by: IdentifiedBy, *, create: bool, reads: bool) -> list[Found]:
        """Return whom an identity means: nobody, one, or several users with the same address.

        Whom Userflow doesn't know may be created if ``create`` says so: they have no ``attributes`` here, and neither
        has anybody where nothing ``reads`` them.
        """
        if by == "email":
            return self.with_email(identity)
        create = create and identity not in NOWHERE
        found = self.find(path, identity) if reads or not create else None
        if found is None:
            return [{"id": identity}] if create else []
        return [found]

    def upsert(self, path: str, identity: str, attributes: Attributes) -> None:
        """Change attributes of a user or group; those not named stay, and who is unknown is created."""
        self.api.call("POST", path, json={"id": identity, "attributes": attributes})

    def track(self, user: str, event: str, attributes: Attributes) -> None:
        """Track an event of a known user."""
        self.api.call("POST", "/events", json={"name": event, "user_id": user, "attributes": attributes})

    def knows_attribute(self, name: str) -> bool:
        """Say whether any user ever had an attribute of that name."""
        return any(each.get("name") == name for each in self.all("/attribute_definitions", scope="user"))

    def all(self, path: str, **query: Any) -> Iterator[Found]:
        """Yield everything of a list, in the order of its creation; a page that fails is asked for again."""
        query |= {"limit": PAGE, "order_by": "created_at"}
        while True:
            for attempt in attempts():
                with attempt:
                    page = self.page(path, query)
            yield from page["data"]
            if not page.get("has_more") or not page["data"]:
                return
            query["starting_after"] = page["data"][-1]["id"]

    def page(self, path: str, query: Mapping[str, Any]) -> Found:
        """Return one page of a list."""
        found = self.api.object(self.api.call("GET", path, params=query))
        if not isinstance(found.get("data"), list):
            raise RetryLater(f"{self.api.vendor}'s answer is no list")
        return found


@dataclass(frozen=True)
class Mark:
    """What members of a segment carry: ``heap_segment_<slug>`` is true, or ``heap_segments`` includes the slug.

    The list holds the slug and not the name, because a name may change and would then stay in the list for ever.
    """

    slug: str
    membership: Membership

    @property
    def attribute(self) -> str:
        """The attribute's name."""
        return f"heap_segment_{self.slug}" if self.membership == "boolean" else LIST_ATTRIBUTE

    def is_on(self, attributes: Attributes) -> bool:
        """Say whether somebody with these attributes carries it."""
        value = attributes.get(self.attribute)
        return value is True if self.membership == "boolean" else self.slug in _listed(value)

    def change(self, known: Attributes, member: bool) -> Attributes:
        """Return what puts it on or takes it off; nothing where nothing is to do."""
        if self.membership == "boolean":
            return {self.attribute: member}
        if not member:
            return {self.attribute: {"remove": [self.slug]}}
        # Whether a repeated append doubles an entry isn't documented, so it isn't repeated.
        return {} if self.is_on(known) else {self.attribute: {"append": [self.slug]}}


@dataclass(frozen=True)
class MemberSender:
    """Writes membership of an audience as a user attribute, one user a call.

    A call that is repeated after a crash changes nothing more. An event may be tracked twice: it goes out before the
    attribute that says so, and not where that is as wanted already.
    """

    objects: Objects
    audience: Audience
    settings: UserflowSettings

    @property
    def limits(self) -> Limits:
        """One user a call; Userflow publishes no numbers, so the pace follows its 429 and 503."""
        return Limits(batch_records=1, concurrency=self.settings.concurrency)

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """Send changes one by one; see ``Sender.send``."""
        return [self._send(record.key, record.payload) for record in batch]

    def _send(self, key: bytes, change: MemberChange) -> Outcome:
        reads = self.settings.membership == "list" or self._event(change.member) is not None
        users = self.objects.meant(
            PATHS["users"],
            change.identity,
            self.audience.identified_by,
            create=self.audience.create and change.member,
            reads=reads,
        )
        if change.member and not users:
            return Outcome(key, Status.REJECTED, UNKNOWN_THERE)
        if change.member and len(users) > 1:
            return Outcome(key, Status.REJECTED, AMBIGUOUS_THERE)
        # Who isn't there is no member: a removal has reached its end. Nobody with a shared address stays.
        for user in users:
            self._write(user, change.member)
        return Outcome(key, Status.ACCEPTED)

    def _write(self, user: Found, member: bool) -> None:
        mark = Mark(self.audience.slug, self.settings.membership)
        known = user.get("attributes") or {}
        event = self._event(member)
        if event and mark.is_on(known) != member:
            if "attributes" not in user:
                # Userflow takes events of known users only.
                self.objects.upsert(PATHS["users"], user["id"], {})
            segment = {"segment": self.audience.slug, "segment_name": self.audience.name}
            self.objects.track(user["id"], event, segment)
        if attributes := mark.change(known, member):
            self.objects.upsert(PATHS["users"], user["id"], attributes)

    def _event(self, member: bool) -> str | None:
        return self.settings.entered_event if member else self.settings.left_event


@dataclass(frozen=True)
class ProfileSender:
    """Writes attributes of users or groups, one a call, each as Userflow's operation for it.

    A call that is repeated after a crash changes nothing more: lists are read before they are changed, and with a
    number that grows goes how much the hub has added to it in all, which is read first.
    """

    objects: Objects
    profiles: ProfileSet
    concurrency: int

    @property
    def limits(self) -> Limits:
        """One user or group a call; the pace follows Userflow's 429 and 503."""
        return Limits(batch_records=1, concurrency=self.concurrency)

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """Send changes one by one; see ``Sender.send``."""
        return [self._send(record.key, record.payload) for record in batch]

    def _send(self, key: bytes, change: ProfileChange) -> Outcome:
        reads = any(each.operation in ("add", "append", "remove") for each in change.changes)
        found = self.objects.meant(
            PATHS[self.profiles.of],
            change.identity,
            self.profiles.identified_by,
            create=self.profiles.create and not change.leaving,
            reads=reads,
        )
        if len(found) > 1:
            return Outcome(key, Status.REJECTED, AMBIGUOUS_THERE)
        if not found:
            return Outcome(key, Status.ACCEPTED) if change.leaving else Outcome(key, Status.REJECTED, UNKNOWN_THERE)
        known = found[0].get("attributes") or {}
        operations = [pair for each in change.changes for pair in _operations(each, known)]
        for attributes in _requests(operations):
            self.objects.upsert(PATHS[self.profiles.of], found[0]["id"], attributes)
        return Outcome(key, Status.ACCEPTED)


def _operations(change: AttributeChange, known: Attributes) -> list[tuple[str, Any]]:
    """Return the operations of a change by attribute, with what makes a repeated one harmless."""
    name, value = change.name, change.value
    match change.operation:
        case "add":
            return _addition(change, known)
        case "append":
            missing = [entry for entry in value if entry not in _listed(known.get(name))]
            return [(name, {"append": missing})] if missing else []
        case "remove":
            return [(name, {"remove": value})] if value else []
        case "set_once":
            return [] if value is None else [(name, {"set_once": value})]
        case _:
            mark = [] if change.total is None else [(f"{ADDED}{name}", {"set": change.total})]
            # A bare object would be taken for an operation; null takes the attribute away.
            return [(name, None if value is None else {"set": value}), *mark]


def _addition(change: AttributeChange, known: Attributes) -> list[tuple[str, Any]]:
    """Return what is left to add, counted from what Userflow says the hub has added already, if it says so."""
    mark = f"{ADDED}{change.name}"
    left, there = change.value, known.get(mark)
    if isinstance(there, int | float):
        # As Python subtracts them, 0.3 and 0.1 leave a bit less than 0.2.
        exact = Decimal(str(change.total)) - Decimal(str(there))
        if not exact:
            return []
        left = int(exact) if exact % 1 == 0 else float(exact)
    return [(change.name, {"add": left}), (mark, {"set": change.total})]


def _requests(operations: Sequence[tuple[str, Any]]) -> Iterator[Attributes]:
    """Yield the attributes of each request: an attribute takes one operation at a time."""
    while operations:
        attributes: Attributes = {}
        rest = []
        for name, operation in operations:
            if name in attributes:
                rest.append((name, operation))
            else:
                attributes[name] = operation
        yield attributes
        operations = rest


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
