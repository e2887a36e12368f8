"""The parts of an environment: what each section of its YAML may say."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import parse_qs

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from heap_integration.destinations.customerio import CustomerioSettings
from heap_integration.destinations.destination import DestinationSettings
from heap_integration.destinations.heap import HeapPropertiesSettings
from heap_integration.destinations.userflow import UserflowSettings
from heap_integration.destinations.userpilot import UserpilotSettings
from heap_integration.destinations.webhook import WebhookSettings
from heap_integration.settings import (
    KeyPart,
    Name,
    Secret,
    Settings,
    WebAddress,
    address_parts,
    is_web_address,
)

APP_ID = (
    "must be the digits of Heap's app id, or Heap's address while that environment is open "
    "(https://heapanalytics.com/app/env/<id>/...)"
)
HEAP_HOSTS = {"us": "https://heapanalytics.com", "eu": "https://c.eu.heap-api.com"}
Region = Literal["us", "eu"]
PersonalData = Literal["email", "phone", "payment_card", "ssn", "ip_address", "iban", "secret"]


def _read_app_id(given: str | int) -> str:
    text = str(given).strip()
    if re.fullmatch(r"\d{1,20}", text):
        return text
    address = address_parts(text)
    host = address.hostname or ""
    found = re.match(r"/app/env/(\d{1,20})(?:/|$)", address.path)
    known = any(host == site or host.endswith(f".{site}") for site in ("heapanalytics.com", "heap.io"))
    if not (found and known and address.scheme == "https"):
        raise PydanticCustomError("app_id", APP_ID)
    return found[1]


def _environment_name(given: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", given):
        raise PydanticCustomError(
            "environment_name",
            "must begin with a small letter and hold small letters, digits and underscores only",
        )
    return given


def _duckdb_address(given: str) -> str:
    if not re.fullmatch(r"duckdb:///.+", given):
        raise PydanticCustomError("warehouse", "must be duckdb:///path/to/file.duckdb")
    return given


def _store_address(given: str) -> str:
    address = address_parts(given)
    if address.password is not None or "password" in parse_qs(address.query):
        raise PydanticCustomError("store", "has a password in it: put the whole address into a variable: {env: NAME}")
    if not re.fullmatch(r"sqlite:///.+|postgresql(\+psycopg2)?://.+", given):
        raise PydanticCustomError(
            "store", "must be sqlite:///path/to/file.db, postgresql://host/database or {env: NAME}"
        )
    return given


def _redirect_address(given: str) -> str:
    address = address_parts(given)
    if not is_web_address(address) or "?" in given or "#" in given:
        message = "must be like http://localhost:8475/callback, without a user, a password, a ? or a #"
        raise PydanticCustomError("address", message)
    return given


AppId = Annotated[str, BeforeValidator(_read_app_id, json_schema_input_type=str | int)]
EnvironmentName = Annotated[str, AfterValidator(_environment_name)]
DuckDBAddress = Annotated[str, AfterValidator(_duckdb_address)]
DaysPerRun = Annotated[int, Field(ge=1)] | Literal["all"]


class OAuthSettings(Settings):
    """The hub as a partner that a Heap customer connects; the token is kept under ``token_key``, encrypted.

    ``redirect_port`` is the port of 127.0.0.1 to which Heap's redirect address leads; ``redirect_address`` is that
    address as it is registered in Heap, where it is another one than ``http://127.0.0.1:<redirect_port>/callback``.
    """

    client_id: Name
    client_secret: Secret
    token_key: Secret
    redirect_port: int = Field(8475, gt=0, lt=65536)
    redirect_address: Annotated[str, AfterValidator(_redirect_address)] | None = None

    @property
    def redirect_uri(self) -> str:
        """Where Heap sends the browser back, letter by letter as it is registered."""
        return self.redirect_address or f"http://127.0.0.1:{self.redirect_port}/callback"


class SegmentSyncSettings(Settings):
    """Heap's Segment Sync: what proves that a page comes from Heap, and the customer it names.

    Without ``id_token`` the customer is the connected one, else any.
    """

    webhook_secret: Secret
    id_token: str | None = None
    oauth: OAuthSettings | None = None


class HeapSettings(Settings):
    """One Heap environment, what its plan allows, and how fast it takes events."""

    app_id: AppId
    api_key: Secret | None = None
    region: Region = "us"
    plan: Literal["growth", "pro", "premier"] = "growth"
    base_url: WebAddress | None = None
    segment_sync: SegmentSyncSettings | None = None
    events_per_minute: int = Field(15_000, gt=0)
    events_per_minute_per_identity: int = Field(1_000, gt=0)
    live_share: float = Field(0.05, ge=0, lt=1)
    account_id_property: str | None = None

    @property
    def url(self) -> str:
        """The address of the API that takes events."""
        return self.base_url or HEAP_HOSTS[self.region]

    @property
    def account_url(self) -> str:
        """The address of the API that the api key opens: one host for both regions."""
        return self.base_url or HEAP_HOSTS["us"]


class StreamSource(Settings):
    """A source that pushes events to the receiver, and the switch that holds them back from Heap."""

    stream_events: bool = True
    while_off: Literal["keep", "drop"] = "keep"


class UserflowSource(StreamSource):
    """Userflow's signed webhooks; ``profiles`` also takes what they tell of users and groups."""

    signing_secret: Secret
    profiles: bool = True


class UserpilotSource(StreamSource):
    """Userpilot's signed webhooks."""

    webhook_secret: Secret


class HeapWebhooksSource(StreamSource):
    """Heap's own event webhooks (beta), which prove themselves by a user and a password."""

    username: Name
    password: Secret


class ClientSource(StreamSource):
    """Clients that speak Segment's HTTP API, told apart by their write key.

    Sizes are in units of 1024 bytes: a single call, and a whole batch.
    """

    name: KeyPart
    write_key: Secret
    dialect: Literal["segment", "customerio"] = "segment"
    largest_call_kb: int = Field(32, gt=0, le=4_000)
    largest_batch_kb: int = Field(500, gt=0, le=4_000)


class FileSource(Settings):
    """Files of events in a folder or in object storage.

    ``path`` may hold wildcards; ``mapping`` names the columns' meaning, without it ``format`` says who
    wrote the rows; ``credentials`` is the variable that holds the object storage's options as JSON.
    """

    name: KeyPart
    path: Name
    mapping: str | None = None
    format: Literal["segment", "customerio", "userpilot"] = "segment"
    credentials: Secret | None = None
    enabled: bool = True


class TableSource(Settings):
    """A table or view of the warehouse with a column that grows, read again from ``look_back_hours`` before its end."""

    name: KeyPart
    table: Name
    cursor: Name
    mapping: Name
    look_back_hours: float = Field(24, ge=0)
    enabled: bool = True


class Sources(Settings):
    """Where events come from."""

    userflow: UserflowSource | None = None
    userpilot: UserpilotSource | None = None
    heap_webhooks: HeapWebhooksSource | None = None
    clients: tuple[ClientSource, ...] = ()
    files: tuple[FileSource, ...] = ()
    tables: tuple[TableSource, ...] = ()

    def streams(self) -> dict[str, StreamSource]:
        """Return the sources that push, by the name their events bear."""
        named = {"userflow": self.userflow, "userpilot": self.userpilot, "heap_webhooks": self.heap_webhooks}
        return {name: source for name, source in named.items() if source} | {each.name: each for each in self.clients}

    def pulled(self) -> tuple[FileSource | TableSource, ...]:
        """Return the sources that are read."""
        return (*self.files, *self.tables)


class EventPrivacy(Settings):
    """Which properties of one event may go out: only those of ``allow``, none of ``deny``."""

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()


class Privacy(Settings):
    """What must not leave: personal data to mask, properties and events to leave out, the signs of consent.

    ``mask`` finds by a value's form, ``mask_properties`` by a property's name or dotted path.
    """

    mask: tuple[PersonalData, ...] = ()
    mask_properties: tuple[str, ...] = ()
    action: Literal["redact", "hash", "drop"] = "redact"
    salt: Secret | None = None
    deny_properties: tuple[str, ...] = ()
    deny_events: tuple[str, ...] = ()
    events: dict[str, EventPrivacy] = Field(default_factory=dict)
    consent_property: str | None = None
    opt_out_property: str | None = None


class EventSettings(Settings):
    """The form in which events go to Heap."""

    preset: Literal["hub", "segment", "rudder", "airbyte"] = "hub"
    too_long: Literal["cut", "reject"] = "reject"
    refuse_placeholder_identities: bool = True
    anonymous_ids: Literal["identity", "heap_user_id"] = "identity"
    future_timestamps: Literal["flag", "reject"] = "flag"
    largest_event_kb: int = Field(default=1_000, gt=0, le=4_000)


class Destinations(Settings):
    """Where segments and profiles go."""

    userflow: UserflowSettings | None = None
    userpilot: UserpilotSettings | None = None
    customerio: CustomerioSettings | None = None
    heap: HeapPropertiesSettings | None = None
    webhooks: tuple[WebhookSettings, ...] = ()

    def named(self) -> dict[str, DestinationSettings]:
        """Return the configured destinations by the names that ``sync_to`` uses."""
        single = {
            "userflow": self.userflow,
            "userpilot": self.userpilot,
            "customerio": self.customerio,
            "heap": self.heap,
        }
        named = {name: settings for name, settings in single.items() if settings}
        return named | {webhook.name: webhook for webhook in self.webhooks}


StoreAddress = Annotated[
    Annotated[str, AfterValidator(_store_address), Tag("address")] | Annotated[Secret, Tag("secret")],
    Discriminator(lambda given: "address" if isinstance(given, str) else "secret"),
]
