"""What the fields of an environment must agree on, told beside what each gets wrong alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from pydantic_core import InitErrorDetails, PydanticCustomError

from heap_integration.destinations.destination import DestinationSettings
from heap_integration.environment_settings import Destinations, Sources
from heap_integration.heap.plans import FREQUENCIES, PLANS, plans_with
from heap_integration.settings import slug
from heap_integration.sync_settings import FROM_HEAP

DISAGREEMENT: Final = "disagreement"
SOURCE_LISTS = ("clients", "files", "tables")
# The flows that go to destinations, and what their keys are called there.
FLOWS = ("segments", "profiles")

Json = dict[Any, Any]


def disagreements(data: Any) -> Iterator[InitErrorDetails]:
    """Yield what is wrong between fields; ``data`` is as the file has it and may be of any shape."""
    whole = _mapping(data)
    destinations = _destinations(_mapping(whole.get("destinations")))
    for flow in FLOWS:
        for index, sync in _mappings(whole.get(flow)):
            yield from _unknown_destinations(flow, index, sync, destinations)
            yield from _impossible(flow, index, sync, destinations)
        yield from _repeated_keys(flow, _mappings(whole.get(flow)))
    yield from _added_twice(_mappings(whole.get("profiles")))
    for index, sync in _mappings(whole.get("profiles")):
        by = sync.get("map_users_by")
        if sync.get("of") == "accounts" and (by == "email" or "property" in _mapping(by)):
            message = "accounts have no e-mail address and no user property: map them by identity or by a table"
            yield _wrong(message, "profiles", index, "map_users_by")
    has_sync = bool(_mapping(whole.get("heap")).get("segment_sync"))
    for index, segment in _mappings(whole.get("segments")):
        if segment.get("from") == FROM_HEAP and not has_sync:
            yield _wrong("needs heap.segment_sync, which is missing", "segments", index, "from")
    for index, first, _ in _repeated(_mappings(_mapping(whole.get("models")).get("funnels")), str):
        yield _wrong(f"is the name of funnels[{first}]: each needs its own", "models", "funnels", index, "name")
    yield from _beyond_the_plan(whole)
    yield from _repeated_exports(whole)
    yield from _repeated_webhooks(_mapping(whole.get("destinations")))
    yield from _repeated_sources(_mapping(whole.get("sources")))
    yield from _two_origins(_mapping(whole.get("heap_connect")), _mapping(whole.get("models")))
    privacy = _mapping(whole.get("privacy"))
    if privacy.get("action") == "hash" and not privacy.get("salt"):
        yield _wrong("needs privacy.salt, a secret without which a hash is undone by trying", "privacy", "action")


def _destinations(given: Json) -> dict[str, type[DestinationSettings]]:
    """Return the kinds of the configured destinations by the names that ``sync_to`` uses."""
    kinds = destination_kinds()
    found = {name: kinds[name] for name, settings in given.items() if settings is not None and name in kinds}
    webhooks = {str(each.get("name")): kinds["webhooks"] for _, each in _mappings(given.get("webhooks"))}
    found.pop("webhooks", None)
    return webhooks | found


def destination_kinds() -> dict[str, type[DestinationSettings]]:
    """Return the settings of every kind of destination by their field under ``destinations``."""
    kinds: dict[str, type[DestinationSettings]] = {}
    for name, field in Destinations.model_fields.items():
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, DestinationSettings):
                kinds[name] = part
    return kinds


def _parts(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", ())
    return [annotation, *(part for each in inner for part in _parts(each))]


def _unknown_destinations(
    flow: str, index: int, sync: Json, destinations: dict[str, type[DestinationSettings]]
) -> Iterator[InitErrorDetails]:
    allowed = f"configured: {', '.join(destinations)}" if destinations else "none is configured"
    for position, name in _items(sync.get("sync_to")):
        if isinstance(name, str) and name not in destinations:
            yield _wrong(f"no such destination under destinations; {allowed}", flow, index, "sync_to", position)


def _impossible(
    flow: str, index: int, sync: Json, destinations: dict[str, type[DestinationSettings]]
) -> Iterator[InitErrorDetails]:
    """Yield what a destination can't do for a sync."""
    creates = bool(sync.get("create")) and sync.get("mode") != "update_only"
    for position, name in _items(sync.get("sync_to")):
        kind = destinations.get(name) if isinstance(name, str) else None
        if kind is None:
            continue
        place = (flow, index, "sync_to", position)
        if kind.creates_always and not creates and sync.get("mode") != "drain":
            way_out = "write create: true" + (" and another mode" if sync.get("mode") == "update_only" else "")
            message = f"{kind.title} makes a user of every id it is sent and can't be asked first: {way_out}"
            yield _wrong(message, *place)
        if sync.get("map_users_by") == "email" and "email" not in kind.identified_by:
            yield _wrong(f"{kind.title} finds users by its user id only: map_users_by can't be email", *place)
        if flow == "profiles":
            yield from _impossible_profiles(sync, kind, place)


def _impossible_profiles(
    sync: Json, kind: type[DestinationSettings], place: tuple[str | int, ...]
) -> Iterator[InitErrorDetails]:
    of = sync.get("of", "users")
    if of in ("users", "accounts") and of not in kind.profile_kinds:
        yield _wrong(f"{kind.title} takes no properties of {of}", *place)
    for field in _mapping(sync.get("fields")).values():
        operation = _mapping(field).get("operation", "set")
        if operation in ("set_once", "add", "append") and operation not in kind.operations:
            allowed = ", ".join(sorted(kind.operations))
            yield _wrong(f"{kind.title} knows no operation {operation}; allowed: {allowed}", *place)


def _repeated_keys(flow: str, syncs: list[tuple[int, Json]]) -> Iterator[InitErrorDetails]:
    named = [(index, {"name": sync.get("key") or sync.get("name", index)}) for index, sync in syncs]
    fields = {index: "key" if sync.get("key") else "name" for index, sync in syncs}
    for index, sync in named:
        if not slug(str(sync["name"])):
            yield _wrong("has neither a letter a-z nor a digit: give it a key that has", flow, index, fields[index])
    for index, first, key in _repeated(named, slug):
        yield _wrong(
            f"becomes {key}, as {flow}[{first}] does: each needs a name or key of its own", flow, index, fields[index]
        )


def _added_twice(syncs: list[tuple[int, Json]]) -> Iterator[InitErrorDetails]:
    """Yield fields that add to an attribute to which another sync adds: each counts only what it has added itself."""
    owners: dict[tuple[str, str, str], int] = {}
    for index, sync in syncs:
        adding = {
            column: str(_mapping(field).get("to"))
            for column, field in _mapping(sync.get("fields")).items()
            if _mapping(field).get("operation") == "add"
        }
        for column, to in adding.items():
            for _, name in _items(sync.get("sync_to")):
                owner = owners.setdefault((str(name), str(sync.get("of", "users")), to), index)
                if owner != index:
                    message = f"profiles[{owner}] adds to {to} at {name} too: one sync only may"
                    yield _wrong(message, "profiles", index, "fields", column)


def _repeated_webhooks(destinations: Json) -> Iterator[InitErrorDetails]:
    owners = {name: f"destinations.{name}" for name in Destinations.model_fields}
    for index, webhook in _mappings(destinations.get("webhooks")):
        name = str(webhook.get("name", index))
        owner = owners.setdefault(name, f"destinations.webhooks[{index}]")
        if owner != f"destinations.webhooks[{index}]":
            yield _wrong(f"is the name of {owner}: each needs its own", "destinations", "webhooks", index, "name")


def _repeated_sources(sources: Json) -> Iterator[InitErrorDetails]:
    """Yield the sources whose events would bear the name of another one's."""
    owners = {name: f"sources.{name}" for name in Sources.model_fields if name not in SOURCE_LISTS}
    for kind in SOURCE_LISTS:
        for index, source in _mappings(sources.get(kind)):
            name = str(source.get("name", f"{kind}{index}"))
            owner = owners.setdefault(name, f"sources.{kind}[{index}]")
            if owner != f"sources.{kind}[{index}]":
                yield _wrong(f"is the name of {owner}: each needs its own", "sources", kind, index, "name")


def _two_origins(connect: Json, models: Json) -> Iterator[InitErrorDetails]:
    """Yield what is wrong with where Heap's data comes from."""
    if connect.get("s3") and connect.get("tables"):
        message = "Heap's data comes by dumps (s3) or stands in the warehouse (tables): leave one of them out"
        yield _wrong(message, "heap_connect", "tables")
    if models.get("events_from") == "heap_connect" and not (connect.get("s3") or connect.get("tables")):
        yield _wrong("needs heap_connect.s3 or heap_connect.tables", "models", "events_from")


def _beyond_the_plan(whole: Json) -> Iterator[InitErrorDetails]:
    """Yield what Heap's plan doesn't allow of exports."""
    name = str(_mapping(whole.get("heap")).get("plan") or "growth")
    plan = PLANS.get(name)
    for index, export in _mappings(whole.get("exports")):
        mode, every = export.get("mode"), export.get("every")
        if mode == "continuous" and every not in (None, "real-time"):
            yield _wrong("a continuous export is real-time: leave every out", "exports", index, "every")
        elif every == "real-time" and mode != "continuous":
            yield _wrong("needs mode: continuous", "exports", index, "every")
        often = "real-time" if mode == "continuous" else every
        if plan and often in FREQUENCIES and often not in plan.frequencies:
            enough = " or ".join(plans_with(often))
            message = (
                f"{often} exports need plan {enough}; heap.plan is {name}, which allows {', '.join(plan.frequencies)}"
            )
            yield _wrong(message, "exports", index, "mode" if mode == "continuous" else "every")


def _repeated_exports(whole: Json) -> Iterator[InitErrorDetails]:
    """Yield exports that bear the name of another one or write to its table."""
    exports = _mappings(whole.get("exports"))
    for index, first, name in _repeated(exports, str.lower):
        yield _wrong(
            f"becomes {name}, as exports[{first}] does: each needs a name of its own", "exports", index, "name"
        )
    owners: dict[str, int] = {}
    for index, export in exports:
        place = json.dumps(export.get("to") or whole.get("warehouse"), sort_keys=True, default=str)
        owner = owners.setdefault(f"{place} {str(export.get('table', 'heap_events')).lower()}", index)
        if owner != index:
            yield _wrong(f"is the table of exports[{owner}]: each needs its own", "exports", index, "table")


def _wrong(message: str, *location: str | int) -> InitErrorDetails:
    return {"type": PydanticCustomError(DISAGREEMENT, message), "loc": location, "input": None}


def _mapping(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _items(value: Any) -> list[tuple[int, Any]]:
    return list(enumerate(value)) if isinstance(value, list | tuple) else []


def _mappings(value: Any) -> list[tuple[int, Json]]:
    return [(index, item) for index, item in _items(value) if isinstance(item, dict)]


def _repeated(items: list[tuple[int, Json]], key: Callable[[str], str]) -> Iterator[tuple[int, int, str]]:
    """Yield the place of each item whose name was there before, the first place of it, and the name."""
    first: dict[str, int] = {}
    for index, item in items:
        name = key(str(item.get("name", index)))
        if first.setdefault(name, index) != index:
            yield index, first[name], name
