"""The sandbox through clients and a contract that others wrote for the real services."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from heapapi import HeapAPIClient  # type: ignore[import-untyped]
from jsonschema import Draft202012Validator, FormatChecker
from ruamel.yaml import YAML

from heap_integration_tests.support.recorder import recorder
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

HERE = Path(__file__).parent
WEBHOOK_CONTRACT = HERE.parents[2] / "shared/contracts/heap/heap-partner-webhook_spec.yaml"


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    with running_sandbox(tmp_path) as running:
        yield running


def test_heapapi_tracks_and_sets_properties_one_by_one_and_in_bulk(sandbox: RunningSandbox) -> None:
    class Client(HeapAPIClient):  # type: ignore[misc]
        track_api = f"{sandbox.url}/api/track"
        props_api = f"{sandbox.url}/api/add_user_properties"

    client = Client(sandbox.app_id)
    client.track("ada", "Single", {"amount": 1})
    client.add_user_properties("ada", {"plan": "pro"})
    answers = client.bulk_track([{"identity": f"u{number}", "event": "Bulk"} for number in range(1001)])
    answers += client.bulk_add_user_properties(
        [{"identity": f"u{number}", "properties": {"rank": number}} for number in range(1001)]
    )

    assert [answer.json() for answer in answers] == [{}] * 4
    assert sandbox.state("events/count", app_id=sandbox.app_id) == {"count": 1002, "users": 1002, "keys": 0}
    assert sandbox.state("users", identity="u1000")["users"][0]["properties"] == {"rank": 1000}
    with pytest.raises(requests.HTTPError, match="400"):
        client.track("ada", "Nested", {"a": {"b": 1}})
    with pytest.raises(requests.HTTPError, match="400"):
        Client("123").track("ada", "Nobody's")


@pytest.mark.slow
def test_the_node_client_tracks_and_reads_refusals(sandbox: RunningSandbox, node_modules: Path) -> None:
    command = ["node", str(HERE / "track.cjs"), sandbox.url, sandbox.app_id, str(node_modules)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    assert "Heap API server error 400: app_id" in ran.stdout
    [event] = sandbox.events()
    assert (event["event"], event["properties"]) == ("Node Event", {"amount": 3, "plan": "pro"})
    assert sandbox.state("users")["users"][0]["properties"] == {"plan": "pro"}


@pytest.mark.slow
def test_the_singer_tap_reads_every_stream_of_userflow(
    sandbox: RunningSandbox, tap_python: Path, tmp_path: Path
) -> None:
    for number in range(230):
        user = {"id": f"u{number}", "attributes": {"rank": number}, "groups": [{"id": f"g{number % 3}"}]}
        sandbox.userflow("POST", "/users", json=user).raise_for_status()
    for number in range(120):
        attributes = {"flow_name": "Product tour", "flow_step_progress": 0.5}
        event = {"name": "flow_started", "user_id": f"u{number}", "attributes": attributes}
        sandbox.userflow("POST", "/events", json=event).raise_for_status()
    token = sandbox.environment.userflow_api_key.get_secret_value()
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auth_token": token}))

    script = str(HERE / "run_tap_userflow.py")
    command = [str(tap_python), script, sandbox.userflow_url, "--config", str(config)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert ran.returncode == 0, ran.stderr[-3000:]
    messages = [json.loads(line) for line in ran.stdout.splitlines()]
    records = [message for message in messages if message["type"] == "RECORD"]
    counts = Counter(record["stream"] for record in records)
    unique = Counter(stream for stream, _ in {(each["stream"], each["record"]["id"]) for each in records})
    assert counts == unique
    assert counts.pop("attribute_definitions") >= 6
    assert counts.pop("event_definitions") >= 28
    assert counts == {
        "users": 230,
        "groups": 3,
        "content": 7,
        "content_versions": 14,
        "content_sessions": 120,
    }
    schemas = {each["stream"]: each["schema"] for each in messages if each["type"] == "SCHEMA"}
    for record in records:
        Draft202012Validator(schemas[record["stream"]]).validate(record["record"])


def test_segment_sync_bodies_meet_heaps_own_contract(sandbox: RunningSandbox) -> None:
    if not WEBHOOK_CONTRACT.exists():
        pytest.skip("the vendor's contract is not beside this checkout (../shared/contracts/heap)")
    specification = YAML(typ="safe").load(WEBHOOK_CONTRACT.read_text())
    schemas = {name: _closed(schema) for name, schema in specification["components"]["schemas"].items()}
    contract = {"$ref": "#/components/schemas/WebhookSyncRequest", "components": {"schemas": schemas}}
    validator = Draft202012Validator(contract, format_checker=FormatChecker())
    segments = f"/_heap/{sandbox.app_id}/segments"
    with recorder() as receiver:
        segment = {"id": 7, "name": "Zoë’s", "members": ["a", "b", "c"], "webhook_url": receiver.url}
        sandbox.client.post(segments, json=segment).raise_for_status()
        sandbox.client.post(f"{segments}/7/sync", json={"page_size": 2}).raise_for_status()
        sandbox.client.post(f"{segments}/7/members", json={"add": ["d"], "remove": ["a"]}).raise_for_status()
        sandbox.client.post(f"{segments}/7/sync").raise_for_status()
        sandbox.client.post(f"{segments}/7/sync", json={"sample": True}).raise_for_status()

        assert len(receiver.requests) == 4
        for request in receiver.requests:
            validator.validate(json.loads(request.body))
            assert request.headers["heap-hash"].startswith("ts:")


def _closed(schema: Any) -> Any:
    """Return a schema that also refuses what it does not name."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(part) for name, part in schema.items()}
    return {**closed, "additionalProperties": False} if "properties" in schema else closed
