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
PersonalData = Literal["email", "phone", "payment_card", "ssn"]


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


def segment_slug(name: str) -> str:
    """Return a segment's name in small letters and digits, everything else an underscore."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


AppId = Annotated[str, BeforeValidator(_read_app_id, json_schema_input_type=str | int)]
EnvironmentName = Annotated[str, AfterValidator(_environment_name)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
WarehouseAddress = Annotated[str, AfterValidator(_warehouse_address)]
Name = Annotated[str, Field(min_length=1)]


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

    @property
    def url(self) -> str:
        """The address of the API that takes events."""
        return self.base_url or HEAP_HOSTS[self.region]

    @property
    def account_url(self) -> str:
        """The address of the API that the api key opens: one host for both regions."""
        return self.base_url or HEAP_HOSTS["us"]


class UserflowSource(Settings):
    """Userflow's signed webhooks as a source of events."""

    signing_secret: Secret
    stream_events: bool = True


class FileSource(Settings):
    """Files of events; ``path`` may hold wildcards, ``mapping`` names the columns' meaning."""

    name: Name
    path: Name
    mapping: str | None = None
    enabled: bool = True


class Sources(Settings):
    """Where events come from."""

    userflow: UserflowSource | None = None
    files: tuple[FileSource, ...] = ()


class Privacy(Settings):
    """What must not leave: kinds of personal data to mask, properties to drop, the property of consent."""

    mask: tuple[PersonalData, ...] = ()
    deny_properties: tuple[str, ...] = ()
    consent_property: str | None = None
    action: Literal["redact", "hash", "drop"] = "redact"


class EventSettings(Settings):
    """The form in which events go to Heap."""

    preset: Literal["hub", "segment", "rudder", "airbyte"] = "hub"
    too_long: Literal["cut", "reject"] = "reject"
    refuse_placeholder_identities: bool = True


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
