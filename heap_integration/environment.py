"""An environment: one Heap environment and all that is connected to it, as its YAML describes it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    BaseModel,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from ruamel.yaml import YAML

from heap_integration.environment_rules import disagreements
from heap_integration.environment_settings import (
    DaysPerRun,
    Destinations,
    DuckDBAddress,
    EnvironmentName,
    EventSettings,
    FileSource,
    HeapSettings,
    Privacy,
    SegmentSyncSettings,
    Sources,
    StoreAddress,
    TableSource,
)
from heap_integration.environment_yaml import (
    EnvironmentProblems,
    Lines,
    Location,
    Problem,
    field_path,
    nearest,
    problems_of,
    read_yaml,
)
from heap_integration.exports.settings import Export
from heap_integration.heap_connect.settings import HeapConnectSettings
from heap_integration.models.settings import ModelsSettings
from heap_integration.segments.audiences.settings import AudienceSettings
from heap_integration.settings import MissingSecret, Name, Secret, Settings
from heap_integration.sync_settings import ProfileSync, SegmentSync, SyncSettings
from heap_integration.warehouse.systems.choice import WarehouseChoice
from heap_integration.warehouse.systems.duckdb import DuckDBSettings
from heap_integration.warehouse.systems.system import ServerSettings, WarehouseSettings

__all__ = [
    "Destinations",
    "Environment",
    "EnvironmentProblems",
    "EventSettings",
    "FileSource",
    "HeapSettings",
    "MissingSecret",
    "Privacy",
    "Problem",
    "ProfileSync",
    "Secret",
    "SegmentSync",
    "SegmentSyncSettings",
    "Sources",
    "SyncSettings",
    "TableSource",
    "clashes",
    "destination_field",
    "load_environment",
    "load_environments",
    "missing_variables",
    "read_variables",
]

FILE_NAME = "environment.yaml"
# A landing that is no folder: what arrives lies in the store, where receivers on several machines reach it.
IN_STORE = "store"
# Two environments with one of these in common would mix what they hold.
OWN_SECRETS: dict[Location, str] = {
    ("heap", "api_key"): "Heap api key",
    ("heap_connect", "api", "key"): "Heap Connect key",
    ("destinations", "userflow", "api_key"): "Userflow key",
    ("destinations", "userpilot", "api_key"): "Userpilot key",
    ("destinations", "customerio", "api_key"): "Customer.io key",
    ("destinations", "customerio", "app_api_key"): "Customer.io App API key",
    ("destinations", "webhooks", "secret"): "webhook secret",
    ("destinations", "webhooks", "previous_secret"): "webhook secret",
    ("heap", "segment_sync", "oauth", "token_key"): "token key",
    ("sources", "clients", "write_key"): "write key",
    ("store",): "store",
}


class Environment(Settings):
    """One Heap environment, what flows into it and out of it, and where its own state lies.

    ``{name}`` in ``warehouse``, ``store`` and ``landing`` stands for the environment's name.
    Relative paths count from the project's root once ``anchored``, those of audience definitions from the folder
    that holds the YAML.
    """

    name: EnvironmentName
    heap: HeapSettings
    warehouse: WarehouseChoice = DuckDBSettings(url="duckdb:///data/{name}.duckdb")
    hub_tables: DuckDBAddress = Field(
        "duckdb:///data/{name}.duckdb", description="the hub's own tables, where the warehouse is no DuckDB file"
    )
    warehouse_memory_mb: int = Field(default=600, ge=100)
    store: StoreAddress = "sqlite:///data/{name}.db"
    landing: Name = "data/{name}/landing"
    automation: bool = False
    days_per_run: DaysPerRun = Field(1, description="daily partitions that one run of a backfill takes")
    start_date: date = Field(date(2024, 1, 1), description="the first daily partition")
    sources: Sources = Sources()
    privacy: Privacy = Privacy()
    events: EventSettings = EventSettings()
    segments: tuple[SegmentSync, ...] = ()
    profiles: tuple[ProfileSync, ...] = ()
    audiences: AudienceSettings = AudienceSettings()
    heap_connect: HeapConnectSettings = HeapConnectSettings()
    models: ModelsSettings = ModelsSettings()
    exports: tuple[Export, ...] = ()
    destinations: Destinations = Destinations()
    owners: dict[str, str] = Field(default_factory=dict)

    _file: Path = PrivateAttr(default=Path(FILE_NAME))
    _lines: Lines = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _agrees_with_itself(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Report what several fields get wrong together beside what each gets wrong alone."""
        try:
            environment = handler(data)
        except ValidationError as error:
            alone: list[InitErrorDetails] = [
                {"type": PydanticCustomError(each["type"], each["msg"]), "loc": each["loc"], "input": None}
                for each in error.errors(include_url=False, include_input=False)
            ]
            raise _validation_error([*alone, *disagreements(data)]) from None
        together = list(disagreements(environment.model_dump(by_alias=True)))
        if together:
            raise _validation_error(together)
        return environment

    @property
    def file(self) -> Path:
        """The file that describes the environment; relative where it has none of its own, as a Component."""
        return self._file

    @property
    def own_tables(self) -> str:
        """The address of the DuckDB file that holds the hub's own tables: the warehouse, if it is one."""
        return self.warehouse.url if isinstance(self.warehouse, DuckDBSettings) else self.hub_tables

    def anchored(self, root: Path) -> Self:
        """Return the same environment with its name filled in and every path absolute, under ``root``."""
        base = root.resolve()

        def place(path: str) -> str:
            named = path.replace("{name}", self.name)
            return named if "://" in named else str(base / named)

        def address(url: str) -> str:
            scheme, slashes, path = url.partition(":///")
            embedded = scheme in ("duckdb", "sqlite")
            return f"{scheme}{slashes}{place(path)}" if embedded else url.replace("{name}", self.name)

        def warehouse(settings: WarehouseSettings) -> WarehouseSettings:
            if isinstance(settings, DuckDBSettings):
                return settings.model_copy(update={"url": address(settings.url)})
            return settings.named(self.name) if isinstance(settings, ServerSettings) else settings

        def bucket(connect: HeapConnectSettings) -> HeapConnectSettings:
            dumps = connect.s3 and connect.s3.model_copy(update={"bucket": place(connect.s3.bucket)})
            return connect.model_copy(update={"s3": dumps})

        files = tuple(
            each.model_copy(update={"path": place(each.path), "mapping": each.mapping and place(each.mapping)})
            for each in self.sources.files
        )
        tables = tuple(each.model_copy(update={"mapping": place(each.mapping)}) for each in self.sources.tables)
        folder = self._file.parent if self._file.is_absolute() else base
        segments = tuple(
            each.model_copy(update={"source": str(folder / str(each.source))}) if each.kind == "audience" else each
            for each in self.segments
        )
        return self.model_copy(
            update={
                "warehouse": warehouse(self.warehouse),
                "hub_tables": address(self.hub_tables),
                "heap_connect": bucket(self.heap_connect),
                "exports": tuple(
                    each.model_copy(update={"to": each.to and warehouse(each.to)}) for each in self.exports
                ),
                "store": address(self.store) if isinstance(self.store, str) else self.store,
                "landing": self.landing if self.landing == IN_STORE else place(self.landing),
                "sources": self.sources.model_copy(update={"files": files, "tables": tables}),
                "segments": segments,
            }
        )

    def syncs(self) -> tuple[SegmentSync | ProfileSync, ...]:
        """Return what goes to destinations: segments before profiles."""
        return (*self.segments, *self.profiles)

    def secrets(self) -> dict[str, Secret]:
        """Return every secret by the path of its field, such as ``heap.api_key``."""
        return {field_path(location): secret for location, secret in _secrets_in(self, ())}

    def problem(self, location: Location, message: str) -> Problem:
        """Return a mistake at a field of this environment."""
        line = self._lines.get(nearest(self._lines, location))
        return Problem(self._file, line, field_path(location), message)


def find_root() -> Path:
    """Return the project's root: the working folder if it has ``environments``, else the package's parent."""
    here = Path.cwd()
    return here if (here / "environments").is_dir() else Path(__file__).resolve().parent.parent


def active_environments(root: Path) -> list[str]:
    """Return the environments that ``workspace.yaml`` lists as code locations; none where there is no such file."""
    file = root / "workspace.yaml"
    workspace = YAML(typ="safe").load(file) if file.is_file() else None
    entries = [next(iter(entry.values())) for entry in (workspace or {}).get("load_from") or []]
    ours = [entry for entry in entries if entry.get("module_name") == "heap_integration.definitions"]
    return [str(entry["attribute"]) for entry in ours if entry.get("attribute")]


def load_environment(folder: Path) -> Environment:
    """Read ``folder/environment.yaml``; relative paths count from the folder that holds ``environments``.

    Raises:
        EnvironmentProblems: everything that is wrong with it.
    """
    file = folder.resolve() / FILE_NAME
    data, lines = read_yaml(file)
    name = file.parent.name
    problems = []
    if data.get("name") not in (None, name):
        message = f"must be {name}, the name of the folder; or leave it out"
        problems.append(Problem(file, lines[("name",)], "name", message))
    data["name"] = name
    lines.setdefault(("name",), 1)
    try:
        environment = Environment.model_validate(data)
    except ValidationError as error:
        raise EnvironmentProblems([*problems, *problems_of(error, file, lines, Environment)]) from None
    if problems:
        raise EnvironmentProblems(problems)
    environment._file, environment._lines = file, lines
    return environment.anchored(file.parents[2])


def load_environments(root: Path, *, compare_keys: bool = True) -> list[Environment]:
    """Read every ``environments/*/environment.yaml`` under ``root`` and check that none shares anything.

    ``compare_keys`` is as in ``clashes``.

    Raises:
        EnvironmentProblems: everything that is wrong with any of them.
    """
    environments: list[Environment] = []
    problems: list[Problem] = []
    for file in sorted(root.glob(f"environments/*/{FILE_NAME}")):
        try:
            environments.append(load_environment(file.parent))
        except EnvironmentProblems as error:
            problems.extend(error.problems)
    problems.extend(clashes(environments, compare_keys=compare_keys))
    if problems:
        raise EnvironmentProblems(problems)
    return environments


def clashes(environments: Iterable[Environment], *, compare_keys: bool = True) -> list[Problem]:
    """Return what two environments have in common and must not, at the later one of them.

    ``compare_keys`` also compares the keys in the environments' ``.env`` files, by digest; a process
    that must not see another environment's secrets leaves it out.
    """
    found = []
    owners: dict[tuple[str, str], Environment] = {}
    for environment in environments:
        for location, what, value in _claims(environment, compare_keys):
            owner = owners.setdefault((what, value), environment)
            if owner is not environment:
                message = f"environment {owner.name} has the same {what}: each needs its own"
                found.append(environment.problem(location, message))
    return found


def read_variables(environment: Environment, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the environment names: its own ``.env`` before the process's."""
    own = _own_variables(environment)
    names = {secret.env for secret in environment.secrets().values()}
    found = {name: own.get(name) or environ.get(name) for name in names}
    return {name: value for name, value in found.items() if value}


def missing_variables(environment: Environment, environ: Mapping[str, str]) -> list[Problem]:
    """Return the variables that ``environ`` lacks; what is switched off needs none."""
    return [
        environment.problem(
            (*location, "env"),
            f"the variable {secret.env} is not set: set it in environments/{environment.name}/.env "
            "or in the process's environment",
        )
        for location, secret in _secrets_in(environment, ())
        if not environ.get(secret.env) and not _switched_off(environment, location)
    ]


def destination_field(environment: Environment, name: str) -> str:
    """Return the path of a destination's settings, such as ``destinations.webhooks[0]``."""
    hooks = [webhook.name for webhook in environment.destinations.webhooks]
    return f"destinations.webhooks[{hooks.index(name)}]" if name in hooks else f"destinations.{name}"


def _own_variables(environment: Environment) -> dict[str, str | None]:
    file = environment.file
    return dotenv_values(file.parent / ".env", interpolate=False) if file.is_absolute() else {}


def _switched_off(environment: Environment, location: Location) -> bool:
    if location[0] != "destinations":
        return False
    destinations = environment.destinations
    place = destinations.webhooks[int(location[2])] if location[1] == "webhooks" else None
    settings = place or getattr(destinations, str(location[1]))
    return not settings.enabled


def _secrets_in(model: BaseModel, location: Location) -> Iterator[tuple[Location, Secret]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, Secret):
            yield (*location, name), value
        elif isinstance(value, BaseModel):
            yield from _secrets_in(value, (*location, name))
        elif isinstance(value, tuple):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from _secrets_in(item, (*location, name, index))


def _validation_error(details: list[InitErrorDetails]) -> ValidationError:
    return ValidationError.from_exception_data(Environment.__name__, details, hide_input=True)


def _claims(environment: Environment, compare_keys: bool) -> Iterator[tuple[Location, str, str]]:
    """Yield what must be one environment's alone: its field, what it is, and a text to compare."""
    yield ("heap", "app_id"), "app id", environment.heap.app_id
    is_own = isinstance(environment.warehouse, DuckDBSettings)
    place = _same_place(environment.own_tables)
    yield ("warehouse",), "warehouse", place if is_own else environment.warehouse.place()
    if not is_own:
        yield ("hub_tables",), "warehouse", place
    yield from _heap_data(environment)
    for index, export in enumerate(environment.exports):
        target = (export.to or environment.warehouse).place()
        yield ("exports", index), "exported table", f"{target}/{export.table}"
    if environment.landing != IN_STORE:
        yield ("landing",), "landing folder", _same_place(environment.landing)
    if isinstance(environment.store, str):
        yield ("store",), "store", _same_place(environment.store)
    if not compare_keys:
        return
    own = _own_variables(environment)
    for location, secret in _secrets_in(environment, ()):
        value = own.get(secret.env)
        what = OWN_SECRETS.get(tuple(step for step in location if isinstance(step, str)))
        if value and what:
            digest = hashlib.sha256(value.encode()).hexdigest()
            yield (*location, "env"), what, digest


def _heap_data(environment: Environment) -> Iterator[tuple[Location, str, str]]:
    dumps, tables = environment.heap_connect.s3, environment.heap_connect.tables
    if dumps:
        bucket = dumps.bucket if "://" in dumps.bucket else _same_place(dumps.bucket)
        yield ("heap_connect", "s3", "bucket"), "bucket of Heap Connect", bucket.rstrip("/")
    if tables:
        schema = f"{environment.warehouse.place()}/{tables.database or ''}.{tables.db_schema}"
        yield ("heap_connect", "tables", "schema"), "schema of Heap Connect", schema


def _same_place(address: str) -> str:
    """Return the same text for every way to write an address."""
    if address.startswith("postgresql"):
        parts = urlsplit(address)
        return f"{parts.hostname}:{parts.port or 5432}{parts.path}"
    return str(Path(address.partition(":///")[2] or address).resolve())
