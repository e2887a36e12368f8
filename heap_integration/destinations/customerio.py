"""Customer.io, where membership is a manual segment."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from heap_integration.delivery.records import NotAuthorised
from heap_integration.destinations.customerio_client import AppTurns, CustomerioClient, IdType
from heap_integration.destinations.customerio_senders import (
    Dates,
    DeletionSender,
    MembershipSender,
    Profiles,
    ProfileSender,
)
from heap_integration.destinations.destination import Audience, DestinationSettings, Kind, ProfileSet, Surroundings
from heap_integration.destinations.http import Api
from heap_integration.settings import Name, Secret, WebAddress

if TYPE_CHECKING:
    from heap_integration.store import Store

TRACK_HOSTS = {"us": "https://track.customer.io", "eu": "https://track-eu.customer.io"}
APP_HOSTS = {"us": "https://api.customer.io", "eu": "https://api-eu.customer.io"}
TRACK_ADVICE = "Check site_id and api_key of Customer.io: those of the Track API, of one and the same workspace"
APP_ADVICE = "Check app_api_key of Customer.io: an App API key, which may read and make segments and read people"
DESCRIPTION = "Kept from Heap: people are added and removed automatically"
ID_TYPES: dict[str, IdType] = {"identity": "id", "email": "email"}


class CustomerioSettings(DestinationSettings):
    """Customer.io, where membership is a manual segment, made through the App API where it is missing.

    ``site_id`` and ``api_key`` are the Track API's, which writes; ``app_api_key`` is the App API's; all three are of
    one workspace. ``object_type`` is the number of the objects that accounts are. ``dates``: unix turns texts that are
    a moment into Unix seconds, which Customer.io's date conditions want. ``remove_by_email`` takes people out of
    segments by their address; Customer.io's reference says that only people who have an id can be removed.
    ``calls_per_second`` is the share of the Track API's limit to use.
    """

    title: ClassVar[str] = "Customer.io"
    profile_kinds: ClassVar[frozenset[Kind]] = frozenset({"users", "accounts"})
    identified_by: ClassVar[frozenset[str]] = frozenset({"identity", "email"})

    site_id: Secret
    api_key: Secret
    app_api_key: Secret
    track_url: WebAddress | None = None
    app_url: WebAddress | None = None
    region: Literal["us", "eu"] = "us"
    object_type: Name = "1"
    dates: Dates = "unix"
    remove_by_email: bool = False
    calls_per_second: int = Field(100, ge=1, le=1000)
    concurrency: int = Field(4, ge=1, le=32)

    def connect(self, surroundings: Surroundings) -> CustomerioDestination:
        """Open the workspace; see ``DestinationSettings.connect``."""
        variables = surroundings.variables
        site_id, api_key = self.site_id.value(variables), self.api_key.value(variables)
        app_api_key = self.app_api_key.value(variables)
        basic = base64.b64encode(f"{site_id}:{api_key}".encode()).decode()
        track = Api(
            self.title,
            self.track_url or TRACK_HOSTS[self.region],
            headers={"authorization": f"Basic {basic}"},
            secrets=(site_id, api_key, basic),
            key_advice=TRACK_ADVICE,
        )
        app = Api(
            self.title,
            self.app_url or APP_HOSTS[self.region],
            headers={"authorization": f"Bearer {app_api_key}"},
            secrets=(app_api_key,),
            key_advice=APP_ADVICE,
        )
        turns = AppTurns(surroundings.store, f"{surroundings.environment} customerio app")
        return CustomerioDestination(self, CustomerioClient(track, app, turns), surroundings)


class CustomerioDestination:
    """An opened workspace of Customer.io; see ``Destination``."""

    def __init__(self, settings: CustomerioSettings, client: CustomerioClient, surroundings: Surroundings) -> None:
        self.settings = settings
        self.client = client
        self._store = surroundings.store
        self._environment = surroundings.environment

    def check(self) -> str:
        """Prove both APIs' credentials, and tell of both what is wrong with them."""
        told: list[str] = []
        wrong: list[str] = []
        for ask in (self._check_track, self._check_app):
            try:
                told.append(ask())
            except NotAuthorised as error:
                wrong.append(str(error))
        if wrong:
            raise NotAuthorised("; ".join(wrong))
        return "; ".join(told)

    def members(self, audience: Audience) -> MembershipSender:
        """Return what puts people into the audience's manual segment, which is made when the first one enters."""
        return MembershipSender(
            self.client,
            self._segment(audience),
            ID_TYPES[audience.identified_by],
            create=audience.create,
            by_email=self.settings.remove_by_email,
            **self._pace(),
        )

    def profiles(self, profiles: ProfileSet) -> ProfileSender:
        """Return what sets attributes of people, or of objects for accounts."""
        object_type = self.settings.object_type if profiles.of == "accounts" else ""
        people = Profiles(ID_TYPES[profiles.identified_by], object_type)
        return ProfileSender(self.client, people, create=profiles.create, dates=self.settings.dates, **self._pace())

    def deletions(self, identified_by: Literal["identity", "email"] = "identity") -> DeletionSender:
        """Return what deletes people, with all that Customer.io has of them; a record's payload is an id."""
        return DeletionSender(self.client, ID_TYPES[identified_by], **self._pace())

    def existing(self, audience: Audience) -> Iterator[str]:
        """Yield who is in the segment; whoever lacks the kind of id that the audience goes by is left out."""
        number = self._segment(audience).find()
        id_type = ID_TYPES[audience.identified_by]
        for who in self.client.members(number) if number is not None else ():
            if identity := who.get(id_type):
                # Addresses differ in case at Customer.io, and nobody differs by that.
                yield identity.lower() if id_type == "email" else identity

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def _segment(self, audience: Audience) -> ManualSegment:
        return ManualSegment(self.client, self._store, self._environment, audience)

    def _pace(self) -> dict[str, Any]:
        return {"calls_a_second": self.settings.calls_per_second, "concurrency": self.settings.concurrency}

    def _check_track(self) -> str:
        workspace = self.client.workspace()
        region = workspace.get("region")
        if region != self.settings.region:
            raise NotAuthorised(f"Customer.io keeps this workspace in {region}: set region: {region}")
        return f"the Track API's keys open workspace {workspace.get('environment_id')} ({region})"

    def _check_app(self) -> str:
        segments = self.client.segments()
        manual = sum(segment.get("type") == "manual" for segment in segments)
        return f"the App API's key lists {len(segments)} segments, {manual} of them manual"


class ManualSegment:
    """The manual segment of an audience: found by its name once, then by its number, whatever it is called.

    A segment that was deleted at Customer.io is not made anew: campaigns went by it, and the sync's baseline says who
    is in it. Everything raises what ``Sender.send`` does, and ``NotAuthorised`` where there can't be a segment.
    """

    def __init__(self, client: CustomerioClient, store: Store, environment: str, audience: Audience) -> None:
        self._client = client
        self._store = store
        self._environment = environment
        self._audience = audience
        self._number: int | None = None
        self._lock = Lock()

    def find(self) -> int | None:
        """Return its number, ``None`` where it was never made."""
        with self._lock:
            return self._find()

    def make(self) -> int:
        """Return its number; it is made where it is missing."""
        with self._lock:
            number = self._find()
            if number is None:
                number = self._client.create_segment(self._audience.name, DESCRIPTION)
                self._remember(number)
            return number

    def require(self) -> None:
        """See ``Segment.require``."""
        with self._lock:
            if self._number is not None:
                self._present(self._number)

    def _find(self) -> int | None:
        if self._number is None:
            remembered = self._store.recall(self._key())
            if remembered is not None:
                self._number = self._present(int(remembered))
            elif (found := self._by_name()) is not None:
                self._remember(found)
        return self._number

    def _by_name(self) -> int | None:
        name = self._audience.name
        same = [segment for segment in self._client.segments() if segment.get("name") == name]
        manual = [int(segment["id"]) for segment in same if segment.get("type") == "manual"]
        if len(manual) > 1:
            raise NotAuthorised(
                f"Customer.io has {len(manual)} manual segments named {name!r}: rename all but one there"
            )
        if same and not manual:
            raise NotAuthorised(
                f"{name!r} is a data-driven segment in Customer.io, which nobody can be put into: rename it or the sync"
            )
        return manual[0] if manual else None

    def _present(self, number: int) -> int:
        if self._client.segment(number) is None:
            raise NotAuthorised(
                f"segment {number} of Customer.io, which {self._audience.name!r} went to, was deleted there and is not "
                "made anew by itself. Give the sync another key to put everybody into a new segment, or take it out"
            )
        return number

    def _remember(self, number: int) -> None:
        self._store.remember(self._key(), number)
        self._number = number

    def _key(self) -> str:
        workspace = self._client.workspace().get("environment_id")
        return f"customerio/{self._environment}/{workspace}/segments/{self._audience.slug}"
