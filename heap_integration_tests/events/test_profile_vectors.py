"""The presets write user and account properties as the connectors do that teams move from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heap_integration.environment_settings import HeapSettings
from heap_integration.events.flatten import Preset
from heap_integration.events.prepare import ROW_COLUMNS, Preparer, PrepareSettings, Refused
from heap_integration.events.profiles import ProfilePreparer, ProfileUpdate
from heap_integration.heap.profiles_api import ACCOUNT_PROPERTIES_PATH, USER_PROPERTIES_PATH
from heap_integration_tests.events.conftest import NOW, events, read

Shared = Callable[[str], Path]

NEWER = "the newer action calls another endpoint, without the anonymous id and with types; the preset is the classic"
BESIDE = "traits beside an event are not sent: the identify call before it has told them"
BROWSER = "runs in a browser, on heap.js"
EXCLUDED = {
    "identify updates user properties only": NEWER,
    "identify keeps number, boolean and null user property types": NEWER,
    "identify, nested traits stringified in stringify mode": "that mode is no preset",
    "identified track sends profile update first, then the event; email trait becomes an extra identifier": BESIDE,
    "EU region routes both calls to the EU host": BESIDE,
    "identified user (identity mapped to userId): add_user_properties carries anonymous_id + traits; "
    "event uses identity only": BESIDE,
    "EU region with identity": BESIDE,
    "identify without userId never calls identify, but traits are added unchanged (types kept)": BROWSER,
    "identify with userId and no traits": BROWSER,
    "anonymousId and traits go to addUserProperties": BROWSER,
}


def concerns_profiles(case: dict[str, Any]) -> bool:
    """Say whether a case is about what is told of people and accounts."""
    told = json.dumps([case.get(key) for key in ("expected_request", "expected_requests", "expected_calls")])
    given = case["input"] if isinstance(case["input"], dict) else {}
    return (
        given.get("type") == "identify"
        or case.get("action") == "identifyUser"
        or case["settings"].get("api", {}).get("api_type", "track") != "track"
        or any(word in told for word in ("add_user_properties", "addUserProperties", "add_account_properties"))
    )


def cases(path: Path, least: int) -> list[dict[str, Any]]:
    found = [case for case in json.loads(path.read_text())["vectors"] if concerns_profiles(case)]
    chosen = [case for case in found if case["name"] not in EXCLUDED]
    assert len(chosen) >= least
    return chosen


def prepared(preset: Preset, row: dict[str, Any]) -> ProfileUpdate | Refused:
    values = {name: row[name] for name in ROW_COLUMNS}
    values |= {name: row[name].isoformat() for name in ("timestamp", "received_at")}
    return ProfilePreparer(Preparer(PrepareSettings(preset=preset))).prepare(tuple(values.values()))  # type: ignore[arg-type]


def expected(case: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    if "expected_error" in case:
        return None
    request = case["expected_request"]
    return request["url"], {key: value for key, value in request["json"].items() if key != "app_id"}


def outcome(case: dict[str, Any], found: ProfileUpdate | Refused) -> tuple[str, dict[str, Any]] | None:
    if isinstance(found, Refused):
        assert found.reason
        return None
    region = case["settings"].get("region", "US").lower()
    url = HeapSettings.model_validate({"app_id": "11", "region": region}).url
    if found.account_id is not None:
        account = {"account_id": found.account_id, "properties": found.account_properties}
        return url + ACCOUNT_PROPERTIES_PATH, account
    return url + USER_PROPERTIES_PATH, {"identity": found.identity, "properties": found.properties}


def test_every_exclusion_is_a_case(shared: Shared) -> None:
    all_cases = json.loads(shared("vectors/segment_heap.json").read_text())["vectors"]

    assert set(EXCLUDED) <= {case["name"] for case in all_cases if concerns_profiles(case)}


def test_user_properties_are_those_of_segments_connector(shared: Shared, tmp_path: Path) -> None:
    for case in cases(shared("vectors/segment_heap.json"), least=5):
        path = tmp_path / "call.ndjson"
        path.write_text(json.dumps(case["input"]))
        (row,) = events(read(path))

        assert outcome(case, prepared("segment", row)) == expected(case), case["name"]


def test_user_and_account_properties_are_those_of_airbytes_connector(shared: Shared) -> None:
    for case in cases(shared("vectors/airbyte_heap.json"), least=5):
        api, given = case["settings"]["api"], case["input"]
        columns = list(given) if api["property_columns"] == "*" else api["property_columns"].split(",")
        of_user = api["api_type"] == "add_user_properties"
        row = {
            **dict.fromkeys(ROW_COLUMNS, ""),
            "type": "identify" if of_user else "group",
            "user_id": given.get(api["identity_column"]) if of_user else None,
            "context": json.dumps({} if of_user else {"groupId": given.get(api["account_id_column"])}),
            "traits": json.dumps({column: given[column] for column in columns}),
            "timestamp": NOW,
            "received_at": NOW,
        }

        assert outcome(case, prepared("airbyte", row)) == expected(case), case["name"]
