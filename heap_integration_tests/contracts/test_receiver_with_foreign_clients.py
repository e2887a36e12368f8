"""The receiver through clients that others wrote for Segment and Customer.io: each call arrives once, as told."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from heap_integration.events.sources.received import read_landing
from heap_integration.landing import LandingUnavailable, LandingWriter, waiting
from heap_integration_tests.receiver.serving import PIPELINES_KEY, WEB_KEY, receiver

HERE = Path(__file__).parent
HAPPENED = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
PROPERTIES = {"foo": {"bar": {"cheese": "american", "prop": [1, 2, 3], "products": [{"A": "Jello"}]}}, "größe": 1.5}

pytestmark = pytest.mark.slow


def calls() -> list[dict[str, Any]]:
    """Return calls of all types, as the Python clients name their arguments; far more than a batch holds."""
    tracks = [
        {
            "type": "track",
            "user_id": f"u{number % 7}",
            "event": "Order Completed",
            "properties": PROPERTIES | {"number": number},
            "timestamp": (HAPPENED + timedelta(seconds=number)).isoformat(),
            "message_id": f"order-{number:06d}",
        }
        for number in range(230)
    ]
    alike = [{"type": "track", "user_id": "u1", "event": "Alike"} for _ in range(5)]
    return [
        *tracks,
        *alike,
        {"type": "track", "anonymous_id": "a1", "event": "Seen", "integrations": {"Heap": False}},
        {"type": "identify", "user_id": "u1", "anonymous_id": "a1", "traits": {"plan": "pro", "address": {"zip": "1"}}},
        {"type": "page", "user_id": "u1", "name": "Home", "properties": {"path": "/"}},
        {"type": "screen", "anonymous_id": "a1", "name": "Start", "properties": {"dark": True}},
        {"type": "group", "user_id": "u1", "group_id": "acme", "traits": {"seats": 3}},
        {"type": "alias", "user_id": "u2", "previous_id": "a1"},
    ]


def landed(folder: Path) -> list[dict[str, Any]]:
    events = []
    for path in waiting(folder / "landing"):
        with path.open("rb") as lines:
            for chunk in read_landing(lines, path.name):
                assert chunk.refused.to_pylist() == []
                events += chunk.events.to_pylist()
    return events


def told(event: dict[str, Any]) -> dict[str, Any]:
    """Return what a client was told of an event, in the form of ``calls``."""
    context = json.loads(event["context"])
    found = {
        "type": event["type"],
        "user_id": event["user_id"],
        "anonymous_id": event["anonymous_id"],
        "event" if event["type"] == "track" else "name": event["name"],
        "group_id": context.get("groupId"),
        "previous_id": context.get("previousId"),
        "properties": json.loads(event["properties"]),
        "traits": json.loads(event["traits"]),
        "integrations": {"Heap": False} if event["suppressed"] else None,
    }
    if event["message_id"].startswith("order-"):
        found |= {"message_id": event["message_id"], "timestamp": event["timestamp"].replace(tzinfo=UTC).isoformat()}
    return {name: value for name, value in found.items() if value not in (None, "", {})}


def everyone(events: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(event, sort_keys=True) for event in events)


def make_calls(command: list[str]) -> datetime:
    started = datetime.now(UTC).replace(tzinfo=None)
    ran = subprocess.run(command, input=json.dumps(calls()), capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert json.loads(ran.stdout) == []
    return started


def check(events: list[dict[str, Any]], source: str, started: datetime) -> None:
    assert everyone([told(event) for event in events]) == everyone(calls())
    assert len({event["event_key"] for event in events}) == len(events)
    assert {event["source"] for event in events} == {source}
    now = datetime.now(UTC).replace(tzinfo=None)
    moments = [event["timestamp"] for event in events if not event["message_id"].startswith("order-")]
    # clients cut a moment to milliseconds
    assert all(started - timedelta(milliseconds=1) <= moment <= now for moment in moments)


@pytest.mark.parametrize(
    ("client", "module", "key", "source"),
    [
        ("segment-analytics", "segment.analytics", WEB_KEY, "web"),
        ("customerio-cdp", "customerio.analytics", PIPELINES_KEY, "pipelines"),
    ],
)
def test_what_a_python_client_is_told_arrives_once(
    python_with: Callable[[str], Path], tmp_path: Path, client: str, module: str, key: str, source: str
) -> None:
    python = python_with(client)
    with receiver(tmp_path) as server:
        started = make_calls([str(python), str(HERE / "make_calls.py"), module, str(server.base_url).rstrip("/"), key])
    check(landed(tmp_path), source, started)


class Forgetful(LandingWriter):
    """A landing whose first answer gets lost: what is durable already is sent again."""

    lost = 0

    async def append(self, line: bytes) -> None:
        await super().append(line)
        if not self.lost:
            self.lost += 1
            raise LandingUnavailable("the answer got lost")


def test_what_a_client_sends_again_because_an_answer_was_lost_is_the_same(
    python_with: Callable[[str], Path], tmp_path: Path
) -> None:
    python, landing = python_with("segment-analytics"), Forgetful(tmp_path / "landing")
    with receiver(tmp_path, landing=landing) as server:
        url = str(server.base_url).rstrip("/")
        started = make_calls([str(python), str(HERE / "make_calls.py"), "segment.analytics", url, WEB_KEY])
    arrived = landed(tmp_path)
    assert len(arrived) > len(calls())
    check(list({event["event_key"]: event for event in arrived}.values()), "web", started)


def test_what_the_node_client_is_told_arrives_once(node_modules: Path, tmp_path: Path) -> None:
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").partition(".")[0]) < 20:
        pytest.skip(f"@segment/analytics-node needs Node 20, this is {version.strip()}")
    with receiver(tmp_path) as server:
        url = str(server.base_url).rstrip("/")
        started = make_calls(["node", str(HERE / "make_calls.cjs"), url, WEB_KEY, str(node_modules)])
    check(landed(tmp_path), "web", started)
