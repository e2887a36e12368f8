"""The presets write properties as the connectors do that teams move from."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from heap_integration.events.flatten import FORMS, Flattener
from heap_integration.events.mapping import Mapping
from heap_integration.events.prepare import Prepared, Preparer, PrepareSettings
from heap_integration.events.preview import preview
from heap_integration_tests.events.conftest import NOW

Shared = Callable[[str], Path]
URL = "https://heapanalytics.com"


def vectors(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text())["vectors"])


def outcome(tmp_path: Path, line: dict[str, Any], mapping: Mapping | None, settings: PrepareSettings) -> dict[str, Any]:
    path = tmp_path / "line.ndjson"
    path.write_text(json.dumps(line))
    (shown,) = preview(path, mapping, Preparer(settings), url=URL, app_id="11", received_at=NOW)
    return shown


def test_flattening_is_that_of_the_connectors(shared: Shared) -> None:
    for name, preset in (("segment", "segment"), ("airbyte", "airbyte")):
        cases = [
            case
            for case in vectors(shared(f"vectors/{name}_heap.json"))
            # properties are objects: what a flat() makes of bare values never occurs
            if "expected_flat" in case and isinstance(case["input"], dict)
        ]
        assert len(cases) >= 6
        for case in cases:
            flat, _ = Flattener(FORMS[preset]).flatten(case["input"])  # type: ignore[index]
            assert flat == case["expected_flat"], case["name"]


def events_of_segment(path: Path) -> list[dict[str, Any]]:
    """Return the cases of requests for events.

    The rest are the connector's inner functions, its calls of a browser's SDK, and what the hub takes for
    profiles: identify calls, and a group call that the connector makes an event named "track".
    """
    return [
        case
        for case in vectors(path)
        if case["action"] in ("sendEvent", "trackEvent")
        and "expected_calls" not in case
        and case["input"]["type"] in ("track", "page", "screen")
    ]


OTHERWISE = {
    # a setting of the connector: the preset stands for its default
    "nested mode stringify: each top-level object/array becomes one JSON string",
    "nested mode drop: objects and arrays are removed",
    # the connector demands a message id, where the hub makes one
    "observed: missing messageId is rejected (required field)",
    "observed: empty messageId",
    # the connector refuses an event because of the traits beside it, which the hub does not send with events
    "traits without identity on a track are rejected",
    # its two actions disagree; the newer one refuses an event without a name, as the hub does
    'observed: track without event name becomes "track"',
}


def test_events_are_those_of_segments_connector(shared: Shared, tmp_path: Path) -> None:
    cases = events_of_segment(shared("vectors/segment_heap.json"))
    assert {case["name"] for case in cases} > OTHERWISE
    for case in cases:
        if case["name"] in OTHERWISE:
            continue
        shown = outcome(tmp_path, *as_the_hub_takes_it(case))
        if "expected_error" in case:
            assert "rejected" in shown, case["name"]
            continue
        (event,) = shown["json"]["events"]
        (expected,) = case["expected_request"]["json"]["events"]
        assert event["event"] == expected["event"], case["name"]
        assert {key: event[key] for key in ("identity", "user_id") if key in event} == person(expected), case["name"]
        assert event["properties"] == expected["custom_properties"], case["name"]
        assert event["idempotency_key"] == expected["idempotency_key"], case["name"]
        if "timestamp" in expected:
            assert moment(event["timestamp"]) == moment(expected["timestamp"]), case["name"]


def person(event: dict[str, Any]) -> dict[str, str]:
    """Return whom Heap's public API is told of where the connector names people in several ways at once."""
    named = event["user_identifier"]
    if "user_id" in named:
        return {"user_id": named["user_id"]}
    return {"identity": named.get("identity", named.get("anonymous_id"))}


def as_the_hub_takes_it(case: dict[str, Any]) -> tuple[dict[str, Any], None, PrepareSettings]:
    """Return a case's call and what the hub's settings are when the connector is set as in the case."""
    call, mapped = dict(case["input"]), case.get("mapping") or {}
    classic = case["peer"] == "segment/heap (classic cloud)"
    if classic and "identity" not in mapped:
        # that action does not map the user id unless told to
        call.pop("userId", None)
    if "user_id" in mapped:
        call["anonymousId"] = mapped["user_id"]
    settings = PrepareSettings(
        preset="segment",
        refuse_placeholder_identities=classic,
        anonymous_ids="heap_user_id" if "user_id" in mapped else "identity",
    )
    return call, None, settings


def test_events_are_those_of_airbytes_connector(shared: Shared, tmp_path: Path) -> None:
    cases = [
        case
        for case in vectors(shared("vectors/airbyte_heap.json"))
        # user and account properties have flows of their own; the check of a connection has no input
        if case["input"] and case["settings"].get("api", {}).get("api_type") == "track"
    ]
    assert len(cases) >= 6
    for case in cases:
        api = case["settings"]["api"]
        columns = list(case["input"]) if api["property_columns"] == "*" else api["property_columns"].split(",")
        mapping = Mapping(
            event=api["event_column"],
            user_id=api["identity_column"],
            timestamp=api["timestamp_column"],
            properties=tuple(columns),
        )
        shown = outcome(tmp_path, case["input"], mapping, PrepareSettings(preset="airbyte"))
        if "expected_error" in case:
            assert "rejected" in shown, case["name"]
            continue
        (event,) = shown["json"]["events"]
        expected = case["expected_request"]["json"]
        assert shown["url"] == case["expected_request"]["url"]
        assert {key: event[key] for key in ("event", "identity", "properties")} == {
            key: expected[key] for key in ("event", "identity", "properties")
        }, case["name"]
        if "now" not in expected["timestamp"]:
            assert moment(event["timestamp"]) == moment(expected["timestamp"])
        else:
            assert moment(event["timestamp"]) == NOW


def test_a_key_that_collides_goes_out_as_the_later_one(shared: Shared) -> None:
    prepared = Preparer(PrepareSettings(preset="segment")).prepare(
        (
            bytes(16),
            "",
            "track",
            "e",
            "u",
            None,
            NOW.isoformat(),
            '{"a.b":"first","a":{"b":"second"}}',
            "{}",
            "{}",
            NOW.isoformat(),
        )
    )
    assert isinstance(prepared, Prepared)
    assert orjson.loads(prepared.payload)["properties"]["a.b"] == "second"
    assert prepared.notes == ("key collision",)


def moment(value: str | int) -> datetime:
    if isinstance(value, int):
        return datetime.fromtimestamp(value / 1000, NOW.tzinfo)
    return datetime.fromisoformat(value)
