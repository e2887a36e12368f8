"""The parts of an environment: what each section of its YAML may say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, parse_qs, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

NAME_WANTED = "a secret is the name of a variable: {env: NAME}"
APP_ID = (
    "must be the digits of Heap's app id, or Heap's address while that environment is open "
    "(https://heapanalytics.com/app/env/<id>/...)"
)
HEAP_HOSTS = {"us": "https://heapanalytics.com", "eu": "https://c.eu.heap-api.com"}
USERFLOW_HOSTS = {"us": "https://api.userflow.com", "eu": "https://api.eu.userflow.com"}
CADENCES = {
    "15 minutes": "*/15 * * * *",
    "30 minutes": "*/30 * * * *",
    "hourly": "0 * * * *",
    "daily": "0 0 * * *",
}

Region = Literal["us", "eu"]
PersonalData = Literal["email", "phone", "payment_card", "ssn", "ip_address", "iban", "secret"]


class MissingSecret(LookupError):
    """A variable that should hold a secret is not set."""


def _parts(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:  # its message repeats the address
        return SplitResult("", "", "", "", "")


def _read_app_id(given: str | int) -> str:
    text = str(given).strip()
    if re.fullmatch(r"\d{1,20}", text):
        return text
    address = _parts(text)
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


def _web_address(given: str) -> str:
    address = _parts(given)
    if address.scheme not in ("http", "https") or not address.hostname or "@" in address.netloc:
        raise PydanticCustomError("address", "must be like https://host, without a user or a password")
    return given.rstrip("/")


def _warehouse_address(given: str) -> str:
    if not re.fullmatch(r"duckdb:///.+", given):
        raise PydanticCustomError("warehouse", "must be duckdb:///path/to/file.duckdb")
    return given


def _store_address(given: str) -> str:
    address = _parts(given)
    if address.password is not None or "password" in parse_qs(address.query):
        raise PydanticCustomError("store", "has a password in it: put the whole address into a variable: {env: NAME}")
    if not re.fullmatch(r"sqlite:///.+|postgresql(\+psycopg2)?://.+", given):
        raise PydanticCustomError(
            "store", "must be sqlite:///path/to/file.db, postgresql://host/database or {env: NAME}"
        )
    return given


def _source_name(given: str) -> str:
    # it becomes a part of an asset's key
    if not re.fullmatch(r"[A-Za-z0-9_]+", given):
        raise PydanticCustomError("source_name", "must hold letters, digits and underscores only")
    return given


def segment_slug(name: str) -> str:
    """Return a segment's name in small letters and digits, everything else an underscore."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


AppId = Annotated[str, BeforeValidator(_read_app_id, json_schema_input_type=str | int)]
EnvironmentName = Annotated[str, AfterValidator(_environment_name)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
WarehouseAddress = Annotated[str, AfterValidator(_warehouse_address)]
Name = Annotated[str, Field(min_length=1)]
SourceName = Annotated[str, AfterValidator(_source_name)]
DaysPerRun = Annotated[int, Field(ge=1)] | Literal["all"]


class Settings(BaseModel):
    """What every part of an environment has in common: unknown keys are refused, nothing changes later."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, data: Any) -> Any:
        # In YAML a key whose lines are all commented out has the value null.
        if not isinstance(data, dict):
            return data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: value for key, value in data.items() if value is not None or key not in known}


class Secret(BaseModel):
    """The name of the variable that holds a secret; the secret itself is never here."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    env: str = Field(description="the variable's name, in capitals")

    @model_validator(mode="before")
    @classmethod
    def _only_a_name(cls, data: Any) -> Any:
        if isinstance(data, Secret):
            return data
        name = data.get("env") if isinstance(data, dict) and len(data) == 1 else None
        if not isinstance(name, str) or not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
            raise PydanticCustomError("secret", NAME_WANTED)
        return data

    def value(self, environ: Mapping[str, str]) -> str:
        """Return the secret.

        Raises:
            MissingSecret: the variable isn't set, or is empty.
        """
        value = environ.get(self.env)
        if not value:
            raise MissingSecret(f"the variable {self.env} is not set")
        return value


class SegmentSyncSettings(Settings):
    """Heap's Segment Sync: what proves that a page comes from Heap, and the customer it names."""

    webhook_secret: Secret
    id_token: str | None = None


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

    name: SourceName
    write_key: Secret
    dialect: Literal["segment", "customerio"] = "segment"
    largest_call_kb: int = Field(32, gt=0, le=4_000)
    largest_batch_kb: int = Field(500, gt=0, le=4_000)


class FileSource(Settings):
    """Files of events in a folder or in object storage.

    ``path`` may hold wildcards; ``mapping`` names the columns' meaning, without it ``format`` says who
    wrote the rows; ``credentials`` is the variable that holds the object storage's options as JSON.
    """

    name: SourceName
    path: Name
    mapping: str | None = None
    format: Literal["segment", "customerio", "userpilot"] = "segment"
    credentials: Secret | None = None
    enabled: bool = True


class TableSource(Settings):
    """A table or view of the warehouse with a column that grows, read again from ``look_back_hours`` before its end."""

    name: SourceName
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


class SegmentSync(Settings):
    """A segment and the destinations that follow it; ``name`` is Heap's unless ``segment_id`` is given."""

    name: Name
    source: Literal["heap"] = Field(alias="from")
    segment_id: int | None = None
    map_users_by: Literal["identity"] = "identity"
    sync_to: tuple[str, ...] = Field(min_length=1)
    every: Literal["15 minutes", "30 minutes", "hourly", "daily"] = "hourly"
    enabled: bool = True
    mode: Literal["mirror", "add_only"] = "mirror"

    @property
    def slug(self) -> str:
        """The name in small letters and digits, everything else an underscore."""
        return segment_slug(self.name)

    @property
    def cron(self) -> str:
        """How often the segment is brought up to date, in cron's words."""
        return CADENCES[self.every]


class UserflowDestination(Settings):
    """Userflow, where membership is a user attribute of its own for each segment, or one list of them."""

    api_key: Secret
    base_url: WebAddress | None = None
    region: Region = "us"
    membership: Literal["boolean", "list"] = "boolean"
    create_users: bool = False
    concurrency: int = Field(4, ge=1, le=32)
    enabled: bool = True

    @property
    def url(self) -> str:
        """The address of Userflow's API."""
        return self.base_url or USERFLOW_HOSTS[self.region]


class Destinations(Settings):
    """Where segments go."""

    userflow: UserflowDestination | None = None


StoreAddress = Annotated[
    Annotated[str, AfterValidator(_store_address), Tag("address")] | Annotated[Secret, Tag("secret")],
    Discriminator(lambda given: "address" if isinstance(given, str) else "secret"),
]
