"""Proves an environment's settings, credentials and connections without writing anything."""

from __future__ import annotations

import hmac
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from httpx import codes
from sqlalchemy import Engine, create_engine, inspect, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from heap_integration.connecting import ConnectFailed, prove
from heap_integration.delivery.records import BatchRejected, NotAuthorised, RetryLater
from heap_integration.destinations.userflow import VERSION
from heap_integration.environment import (
    FILE_NAME,
    IN_STORE,
    Environment,
    EnvironmentProblems,
    FileSource,
    Problem,
    Secret,
    TableSource,
    clashes,
    destination_field,
    load_environment,
    missing_variables,
    read_variables,
)
from heap_integration.environment_yaml import Location
from heap_integration.events.mapping import MappingError, load_mapping
from heap_integration.heap_connect.settings import DumpsSettings, TablesSettings
from heap_integration.hub import Hub
from heap_integration.pulled import UNREADABLE_ERRORS, PulledFiles, PulledTable
from heap_integration.store import Store, StoreError
from heap_integration.syncs import audience_of
from heap_integration.warehouse import Warehouse, WarehouseError
from heap_integration.warehouse.systems.duckdb import DuckDBSettings
from heap_integration.warehouse.systems.system import QueryError, Surroundings, WarehouseSettings

TIMEOUT = httpx.Timeout(15, connect=10)
# Userflow's topics are prefixes: any of these brings every tracked event.
EVENT_TOPICS = frozenset({"*", "event", "event.tracked"})

HEAP_KEY_ADVICE = (
    "Heap > Account > Manage > Privacy & Security makes api keys; they work only with the app id of the "
    "account's Main Production environment"
)
USERFLOW_KEY_ADVICE = "Userflow > Settings > API has each environment's key; a personal API key is another thing"
USERFLOW_SIGNING_ADVICE = "take the signing secret of the webhook in Userflow > Settings > Webhooks"
FOLDER_ADVICE = "let this user write there, or name another place in the environment's YAML"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: whose it is, what it is, how it stands, and what to do where it fails."""

    environment: str
    what: str
    ok: bool
    message: str
    advice: str = ""


class Failed(Exception):
    """Something doesn't work: what, and what to do about it."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


def offline_checks(root: Path, names: Sequence[str], environ: Mapping[str, str]) -> list[Finding]:
    """Check the files of the named environments, or of all: settings, mappings, variables.

    What they must not share is held against all the others; of those, other mistakes don't matter here.
    """
    folders = {file.parent.name: file.parent for file in sorted(root.glob(f"environments/*/{FILE_NAME}"))}
    wanted = list(names) or list(folders)
    if not wanted:
        return [Finding("", "environments", False, f"there is no environments/*/{FILE_NAME} under {root}")]
    findings = [
        Finding(name, FILE_NAME, False, f"there is no environments/{name}/{FILE_NAME}", f"known: {', '.join(folders)}")
        for name in wanted
        if name not in folders
    ]
    loaded: list[Environment] = []
    # The named ones come last: what two have in common is reported at the later one.
    for name in sorted(folders, key=lambda name: (name in wanted, name)):
        try:
            loaded.append(load_environment(folders[name]))
        except EnvironmentProblems as error:
            findings.extend(_found(name, error.problems) if name in wanted else ())
    common = clashes(loaded)
    for environment in loaded:
        if environment.name not in wanted:
            continue
        missing = missing_variables(environment, read_variables(environment, environ))
        problems = [*_mapping_problems(environment), *_definition_problems(environment), *missing]
        problems += [problem for problem in common if problem.file == environment.file]
        findings.extend(_found(environment.name, problems))
        if not problems:
            findings.append(Finding(environment.name, "settings", True, f"{FILE_NAME} and its variables are in order"))
    return findings


def online_checks(environment: Environment, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what works and what doesn't, one after the other as it is tried.

    A credential whose variable isn't set is left out: the offline checks tell of it.
    """
    variables = read_variables(environment, environ)
    with httpx.Client(timeout=TIMEOUT) as client:
        for what, prove in _probes(environment, variables, client):
            try:
                yield Finding(environment.name, what, True, prove())
            except Failed as failed:
                yield Finding(environment.name, what, False, failed.message, failed.advice)


def _found(name: str, problems: Sequence[Problem]) -> list[Finding]:
    return [Finding(name, problem.field or FILE_NAME, False, str(problem)) for problem in problems]


def _mapping_problems(environment: Environment) -> Iterator[Problem]:
    sources = environment.sources
    mapped: list[tuple[Location, FileSource | TableSource]] = [
        *((("sources", "files", index), each) for index, each in enumerate(sources.files)),
        *((("sources", "tables", index), each) for index, each in enumerate(sources.tables)),
    ]
    for place, source in mapped:
        if source.mapping and source.enabled:
            try:
                load_mapping(Path(source.mapping))
            except MappingError as error:
                yield environment.problem((*place, "mapping"), str(error))


def _definition_problems(environment: Environment) -> Iterator[Problem]:
    for segment in environment.segments:
        if segment.kind == "audience" and segment.enabled:
            try:
                audience_of(environment, segment)
            except EnvironmentProblems as error:
                yield from error.problems


def _probes(
    environment: Environment, variables: Mapping[str, str], client: httpx.Client
) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield what can be tried: its name, and what tries it and says how it went."""

    def value(secret: Secret | None) -> str | None:
        return variables.get(secret.env) if secret else None

    heap = environment.heap
    yield "Heap", partial(_reach, client, heap.url)
    if api_key := value(heap.api_key):
        yield "Heap api key", partial(_heap_key, client, environment, api_key)
    if heap.segment_sync and value(heap.segment_sync.webhook_secret):
        yield "Heap Segment Sync secret", _heap_secret
    if (
        heap.segment_sync
        and (oauth := heap.segment_sync.oauth)
        and value(oauth.client_secret)
        and value(oauth.token_key)
    ):
        yield "Heap connection", partial(_connection, environment, variables)
    yield from _userflow_source(environment, value, client)
    yield from _destinations(environment, variables)
    store = environment.store if isinstance(environment.store, str) else value(environment.store)
    if store:
        yield "store", partial(_store, store)
    yield from _homes(environment, variables)
    if environment.landing != IN_STORE:
        yield "landing", partial(_landing, Path(environment.landing))
    for pulled in Hub(environment, store or "", variables).pulled():
        if isinstance(pulled, PulledFiles):
            yield f"files {pulled.name}", partial(_files, pulled)
        else:
            yield f"table {pulled.name}", partial(_table, pulled, environment.own_tables)


def _userflow_source(
    environment: Environment, value: Callable[[Secret | None], str | None], client: httpx.Client
) -> Iterator[tuple[str, Callable[[], str]]]:
    destination, source = environment.destinations.userflow, environment.sources.userflow
    key = value(destination.api_key) if destination and destination.enabled else None
    secret = value(source.signing_secret) if source and source.stream_events else None
    if secret and destination and key:
        yield "Userflow webhook secret", partial(_userflow_secret, client, destination.url, key, secret)
    elif secret:
        yield "Userflow webhook secret", lambda: "is set; only a notification from Userflow proves it"


def _destinations(environment: Environment, variables: Mapping[str, str]) -> Iterator[tuple[str, Callable[[], str]]]:
    missing = {problem.field for problem in missing_variables(environment, variables)}
    for name, settings in environment.destinations.named().items():
        place = destination_field(environment, name)
        if settings.enabled and not any(field.startswith(f"{place}.") for field in missing):
            yield f"destination {name}", partial(_destination, environment, variables, name)


def _destination(environment: Environment, variables: Mapping[str, str], name: str) -> str:
    """Let a destination prove its credentials; what the store has of it counts, if there is a store."""
    with tempfile.TemporaryDirectory() as folder:
        store = _used_store(environment, variables) or f"sqlite:///{folder}/check.db"
        with Hub(environment, store, variables) as hub:
            try:
                with closing(hub.destination(name)) as destination:
                    return destination.check()
            except RetryLater as error:
                advice = "try again later; check this machine's way out and the destination's address"
                raise Failed(error.reason, advice) from None
            except BatchRejected as error:
                raise Failed(error.reason, "check the destination's address in the environment's YAML") from None
            except (NotAuthorised, ValueError) as error:
                raise Failed(str(error), "check the destination's credentials") from None


def _connection(environment: Environment, variables: Mapping[str, str]) -> str:
    """Prove the token of the connection to Heap."""
    url = _used_store(environment, variables)
    if url is None:
        raise Failed("is not connected yet", f"run heap-integration connect {environment.name}")
    try:
        with closing(Store(url)) as store:
            return prove(environment, store, variables)
    except (ConnectFailed, ValueError) as error:
        raise Failed(str(error), f"run heap-integration connect {environment.name}") from None


def _used_store(environment: Environment, variables: Mapping[str, str]) -> str | None:
    """Return the address of the store if it has been used already: to look must not make one."""
    store = environment.store
    url = store if isinstance(store, str) else variables.get(store.env)
    if url is None or (url.startswith("sqlite") and not Path(url.partition(":///")[2]).exists()):
        return None
    try:
        engine = _engine(url)
        used = inspect(engine).has_table("meta")
        engine.dispose()
    except (ModuleNotFoundError, StoreError, SQLAlchemyError):  # the store's own check tells of it
        return None
    return url if used else None


def _engine(url: str) -> Engine:
    try:
        return create_engine(make_url(url), hide_parameters=True)
    except ValueError:
        # Its words repeat what stands in the place of a port, which may be a part of a password.
        raise StoreError("the address can't be read") from None


def _reach(client: httpx.Client, url: str) -> str:
    answer = _ask(client, "GET", url)
    if answer.status_code >= codes.INTERNAL_SERVER_ERROR:
        raise Failed(f"{url} answers {answer.status_code}", "try again later; see Heap's status page")
    return f"{url} can be reached"


def _heap_key(client: httpx.Client, environment: Environment, api_key: str) -> str:
    heap = environment.heap
    url = f"{heap.account_url}/api/public/v0/auth_token"
    answer = _ask(client, "POST", url, auth=(heap.app_id, api_key))
    name = heap.api_key.env if heap.api_key else ""
    if answer.status_code in (codes.UNAUTHORIZED, codes.FORBIDDEN):
        raise Failed(f"Heap refuses {name} for app id {heap.app_id} ({answer.status_code})", HEAP_KEY_ADVICE)
    if answer.status_code != codes.OK:
        raise Failed(f"{url} answers {answer.status_code}", "try again later; check heap.base_url if it is set")
    return f"Heap takes {name} for app id {heap.app_id}"


def _heap_secret() -> str:
    return "is set; only a page from Heap proves it"


def _userflow_secret(client: httpx.Client, url: str, key: str, secret: str) -> str:
    subscriptions = _userflow_list(client, f"{url}/webhook_subscriptions", key)
    secrets = [str(each["secret"]).encode() for each in subscriptions if each.get("secret")]
    if subscriptions and not secrets:
        return "is set; only a notification from Userflow proves it"
    ours = [each for each in subscriptions if hmac.compare_digest(str(each.get("secret")).encode(), secret.encode())]
    if not ours:
        raise Failed("no webhook of this Userflow environment has that signing secret", USERFLOW_SIGNING_ADVICE)
    if all(each.get("disabled") for each in ours):
        raise Failed("the webhook is disabled in Userflow", "enable it in Userflow > Settings > Webhooks")
    topics = {topic for each in ours for topic in each.get("topics") or ()}
    if not topics & EVENT_TOPICS and not any(topic.startswith("event.tracked.") for topic in topics):
        raise Failed("the webhook sends no events", "add the topic event.tracked in Userflow > Settings > Webhooks")
    return f"is that of the webhook to {ours[0].get('url')}"


def _userflow_list(client: httpx.Client, url: str, key: str) -> list[dict[str, Any]]:
    headers = {"authorization": f"Bearer {key}", "userflow-version": VERSION}
    answer = _ask(client, "GET", url, headers=headers, params={"limit": 100})
    if answer.status_code in (codes.UNAUTHORIZED, codes.FORBIDDEN):
        raise Failed(f"Userflow refuses the key ({answer.status_code})", USERFLOW_KEY_ADVICE)
    try:
        found = answer.raise_for_status().json()["data"]
    except (httpx.HTTPStatusError, ValueError, KeyError, TypeError):
        raise Failed(
            f"{url} answers {answer.status_code}, but not as Userflow does",
            "check destinations.userflow.base_url if it is set; else try again later",
        ) from None
    return list(found)


def _ask(client: httpx.Client, method: str, url: str, **options: Any) -> httpx.Response:
    try:
        return client.request(method, url, **options)
    except httpx.TimeoutException:
        raise Failed(f"{url} gives no answer in time", _way_to(url)) from None
    except (httpx.LocalProtocolError, UnicodeEncodeError):  # the first one's text repeats the key
        raise Failed("the key holds characters that no key has", "copy it again, without spaces") from None
    except httpx.RequestError as error:
        raise Failed(f"{url} can't be reached: {error}", _way_to(url)) from None


def _way_to(url: str) -> str:
    if httpx.URL(url).host in ("127.0.0.1", "localhost", "::1"):
        return "start the stand-in: heap-integration sandbox"
    return "check this machine's way out (DNS, firewall, HTTPS_PROXY) and the region in the environment's YAML"


def _store(url: str) -> str:
    file = url.partition(":///")[2] if url.startswith("sqlite") else None
    try:
        if file is None:
            engine = _engine(url)
            with engine.connect() as connection:
                connection.execute(text("select 1"))
            engine.dispose()
            return "PostgreSQL answers"
        if not Path(file).exists():
            return _will_be_made(Path(file))
        store = Store(url)
        with store.read() as connection:
            connection.execute(text("select 1"))
        store.close()
    except ModuleNotFoundError as error:
        raise Failed(f"{error.name} is not installed", "pip install 'heap-integration[postgres]'") from None
    except (StoreError, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0]
        raise Failed(f"can't be opened: {reason}", "check the address, and that its server runs") from None
    return f"{file} opens"


def _homes(environment: Environment, variables: Mapping[str, str]) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield what there is to try of the places where Heap's data comes from and lives."""
    warehouse, connect = environment.warehouse, environment.heap_connect
    if isinstance(warehouse, DuckDBSettings):
        yield "warehouse", partial(_warehouse, warehouse.url)
    else:
        yield "hub tables", partial(_warehouse, environment.own_tables)
        if _has(variables, warehouse.secrets().values()):
            yield "warehouse", partial(_remote_warehouse, environment, warehouse, variables)
    for export in environment.exports:
        if export.enabled and export.to and _has(variables, export.to.secrets().values()):
            yield f"export {export.name}", partial(_remote_warehouse, environment, export.to, variables)
    dumps = connect.s3
    if dumps and dumps.enabled and _has(variables, [dumps.credentials] if dumps.credentials else []):
        yield "Heap Connect bucket", partial(_bucket, dumps, variables)
    if connect.tables and _has(variables, warehouse.secrets().values()):
        yield "Heap Connect tables", partial(_heap_tables, environment, connect.tables, variables)


def _has(variables: Mapping[str, str], secrets: Iterable[Secret]) -> bool:
    return all(variables.get(secret.env) for secret in secrets)


def _surroundings(environment: Environment, variables: Mapping[str, str]) -> Surroundings:
    return Hub(environment, "", variables).warehouse_surroundings()


def _remote_warehouse(environment: Environment, warehouse: WarehouseSettings, variables: Mapping[str, str]) -> str:
    try:
        with warehouse.connect(_surroundings(environment, variables)) as connection:
            for _ in connection.batches("select 1 as one"):
                pass
    except (WarehouseError, QueryError, ImportError) as error:
        advice = f"see docs/warehouses.md on {warehouse.title}: address, user, rights and the extra to install"
        raise Failed(f"{warehouse.title} can't be used: {error}", advice) from None
    return f"{warehouse.title} answers"


def _heap_tables(environment: Environment, tables: TablesSettings, variables: Mapping[str, str]) -> str:
    from heap_integration.heap_connect.tables_in_place import TablesInPlace

    warehouse = environment.warehouse
    try:
        with warehouse.connect(_surroundings(environment, variables)) as connection:
            found = TablesInPlace(tables, connection, warehouse.dialect).tables()
    except (WarehouseError, QueryError, ImportError) as error:
        raise Failed(str(error), "heap_connect.tables.schema is the schema that Heap Connect writes to") from None
    return f"{len(found)} tables of Heap are there"


def _bucket(dumps: DumpsSettings, variables: Mapping[str, str]) -> str:
    from heap_integration.events.sources.storage import StorageError
    from heap_integration.heap_connect.importer import dumps_in, manifests_of

    try:
        found = len(dumps_in(dumps, variables))
    except (StorageError, OSError) as error:
        raise Failed(f"can't be listed: {error}", "grant s3:ListBucket and s3:GetObject on Heap's bucket") from None
    if not found:
        advice = "check heap_connect.s3.bucket; Heap writes the first dump within a day of being connected"
        raise Failed(f"no manifest of a dump is in {manifests_of(dumps)}", advice)
    return f"{found} dumps are complete"


def _warehouse(url: str) -> str:
    file = Path(url.partition(":///")[2])
    if not file.exists():
        return _will_be_made(file)
    try:
        with Warehouse(url).read() as connection:
            connection.execute("select 1")
    except (WarehouseError, OSError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise Failed(f"can't be opened: {reason}", "see who else has the file open") from None
    return f"{file} opens"


def _landing(folder: Path) -> str:
    if folder.is_dir():
        _prove_writable(folder)
        return f"{folder} takes files"
    return _will_be_made(folder)


def _will_be_made(place: Path) -> str:
    _prove_writable(next(parent for parent in place.parents if parent.exists()))
    return f"{place} will be made on first use"


def _prove_writable(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise Failed(f"{folder} takes no files: {error.strerror}", FOLDER_ADVICE) from None


def _files(source: PulledFiles) -> str:
    try:
        found = len(source.listed())
    except UNREADABLE_ERRORS as error:
        raise Failed(f"can't be listed: {error}", f"check {source.source.path} and its credentials") from None
    if not found:
        raise Failed(f"no file at {source.source.path}", "put one there, or set enabled: false under sources.files")
    return f"{source.source.path}: {found} found"


def _table(source: PulledTable, warehouse: str) -> str:
    if not Path(warehouse.partition(":///")[2]).exists():
        return f"{source.source.table} is looked for once there is a warehouse"
    try:
        waiting = source.waiting(Warehouse(warehouse))
    except UNREADABLE_ERRORS as error:
        raise Failed(f"can't be read: {error}", "check its name and its cursor under sources.tables") from None
    return f"{source.source.table} can be read; {'new rows wait' if waiting else 'nothing waits'}"
