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


def in_scope_of_segment(case: dict[str, Any]) -> bool:
    """Say whether a case is about an event: what is left out here is not sent by this flow.

    User properties (identify calls, and traits beside an event), events told by an e-mail address or by
    Heap's own user id, other forms of nesting, group calls, and the connector's demands for a message id
    and for traits with an identity.
    """
    given, expected = case["input"] or {}, case.get("expected_request", {}).get("json", {})
    error = case.get("expected_error", {}).get("message", "")
    identified = [event.get("user_identifier", {}) for event in expected.get("events", [])]
    return (
        case["action"] in ("sendEvent", "trackEvent")
        and given.get("type") in ("track", "page", "screen")
        and "expected_calls" not in case
        and not any(key in ("nested_properties_mode", "user_id") for key in case.get("mapping") or {})
        and not any(word in error for word in ("message_id", "Email must", "User Properties"))
        # the two actions disagree; the newer one refuses an event without a name
        and not (case["peer"] == "segment/heap (classic cloud)" and "event" not in given and given["type"] == "track")
        and all("identity" in user or "anonymous_id" in user for user in identified)
    )


def test_events_are_those_of_segments_connector(shared: Shared, tmp_path: Path) -> None:
    cases = [case for case in vectors(shared("vectors/segment_heap.json")) if in_scope_of_segment(case)]
    assert len(cases) >= 30
    for case in cases:
        call = dict(case["input"])
        classic = case["peer"] == "segment/heap (classic cloud)"
        if classic and "identity" not in (case.get("mapping") or {}):
            # that action does not map the user id unless told to
            call.pop("userId", None)
        settings = PrepareSettings(preset="segment", refuse_placeholder_identities=classic)
        shown = outcome(tmp_path, call, None, settings)
        if "expected_error" in case:
            assert "rejected" in shown, case["name"]
            continue
        (event,) = shown["json"]["events"]
        (expected,) = case["expected_request"]["json"]["events"]
        identifier = expected["user_identifier"]
        assert event["event"] == expected["event"], case["name"]
        assert event["identity"] == identifier.get("identity", identifier.get("anonymous_id")), case["name"]
        assert event["properties"] == expected["custom_properties"], case["name"]
        assert event["idempotency_key"] == expected["idempotency_key"], case["name"]
        if "timestamp" in expected:
            assert moment(event["timestamp"]) == moment(expected["timestamp"]), case["name"]


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
        (bytes(16), "", "track", "e", "u", None, NOW.isoformat(), '{"a.b":"first","a":{"b":"second"}}', "{}", "{}")
    )
    assert isinstance(prepared, Prepared)
    assert orjson.loads(prepared.payload)["properties"]["a.b"] == "second"
    assert prepared.notes == ("key collision",)


def moment(value: str | int) -> datetime:
    if isinstance(value, int):
        return datetime.fromtimestamp(value / 1000, NOW.tzinfo)
    return datetime.fromisoformat(value)
