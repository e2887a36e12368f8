"""What a destination is: settings that name it, and what those open."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from heap_integration.settings import Secret, Settings

if TYPE_CHECKING:
    from heap_integration.delivery.records import Sender
    from heap_integration.store import Store

Kind = Literal["users", "accounts"]
IdKind = Literal["identity", "email"]
Operation = Literal["set", "set_once", "add", "append"]


@dataclass(frozen=True)
class Surroundings:
    """What a destination may know of its environment; ``variables`` holds the values of its secrets."""

    environment: str
    store: Store
    heap_url: str
    heap_app_id: str
    variables: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Audience:
    """What a segment is at the destination: ``slug`` stays the same for ever, ``name`` is for people.

    ``identified_by`` is what the members' ids are: the destination's own user id, or an e-mail address.
    """

    slug: str
    name: str
    create: bool = False
    identified_by: IdKind = "identity"


@dataclass(frozen=True)
class ProfileSet:
    """Properties of users or accounts that follow to the destination; the rest is as in ``Audience``."""

    of: Kind
    slug: str = ""
    create: bool = False
    identified_by: IdKind = "identity"


class Destination(Protocol):
    """An opened destination; everything raises what ``Sender.send`` does."""

    def check(self) -> str:
        """Prove the credentials without writing anything, and say in words what they open."""

    def members(self, audience: Audience) -> Sender:
        """Return what sends ``MemberChange`` records of one audience."""

    def profiles(self, profiles: ProfileSet) -> Sender:
        """Return what sends ``ProfileChange`` records of one set."""

    def existing(self, audience: Audience) -> Iterator[str] | None:
        """Yield who is in the audience now; ``None`` where the destination can't be asked."""

    def close(self) -> None:
        """Close the connections."""


class DestinationSettings(Settings, ABC):
    """The settings of one destination; what it can do is known without opening it.

    ``creates_always`` says that the destination makes a user of every id it is sent, and can't be kept from it.
    """

    title: ClassVar[str]
    profile_kinds: ClassVar[frozenset[Kind]] = frozenset()
    operations: ClassVar[frozenset[Operation]] = frozenset({"set"})
    identified_by: ClassVar[frozenset[str]] = frozenset({"identity"})
    takes_members: ClassVar[bool] = True
    creates_always: ClassVar[bool] = False

    enabled: bool = True

    def secrets(self) -> dict[str, Secret]:
        """Return the credentials that are given, by their fields."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in values.items() if isinstance(value, Secret)}

    @abstractmethod
    def connect(self, surroundings: Surroundings) -> Destination:
        """Open the destination; nothing is sent yet.

        Raises:
            MissingSecret: the variable of a credential isn't set.
            ValueError: a credential can't be one.
        """
