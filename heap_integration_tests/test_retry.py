"""What was rejected can be looked at, and goes out once a rule lets it; who opted out is left in peace."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from heap_integration.environment import load_environment
from heap_integration.events.opt_outs import count_opt_outs, follow_orders
from heap_integration.events.sources.received import ADAPTERS
from heap_integration.hub import Hub, open_hub
from heap_integration.warehouse.events import Chosen
from heap_integration_tests.support.commands import run
from heap_integration_tests.support.project import call, write_lines, write_project
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

LONG = "x" * 2_000
DAY = date(2026, 1, 2)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    with running_sandbox(tmp_path / "sandbox", limits=False) as running:
        yield running


def hub_of(root: Path) -> Hub:
    return open_hub(load_environment(root / "environments" / "test"), {})


def land(root: Path, *lines: dict[str, object]) -> None:
    folder = root / "data" / "test" / "landing"
    folder.mkdir(parents=True, exist_ok=True)
    written = [{"id": "1", "received_at": f"{DAY}T12:00:00Z", "source": "web", **line} for line in lines]
    write_lines(folder / f"{time.time_ns():019d}-1-00000000.ndjson", written)


def deliveries(root: Path) -> dict[tuple[str, str], int]:
    """Return how many rows of the table that users query have each outcome and reason."""
    with hub_of(root) as hub, hub.warehouse.read() as con:
        found = con.execute("select outcome, reason, count(*) from sync_log.event_deliveries group by all").fetchall()
    return {(outcome, reason): rows for outcome, reason, rows in found}


def test_rejected_events_go_out_once_the_rule_lets_them(tmp_path: Path, sandbox: RunningSandbox) -> None:
    project = write_project(tmp_path, sandbox.url)
    calls = [
        call(1),
        call(2, properties={"text": LONG}),
        call(3, properties={"text": LONG}, timestamp="2026-01-09T00:00:00Z"),
        call(4, userId="null"),
    ]
    file = write_lines(tmp_path / "calls.ndjson", calls)
    assert run(project, "send-events", file, "-e", "test", "--json").json["rejected"] == 3

    shown = run(project, "rejected", "-e", "test", "--reason", "LONGER than").json_lines
    assert [(row["outcome"], row["message_id"], row["line"]) for row in shown] == [
        ("rejected", "message-3", 3),
        ("rejected", "message-2", 2),
    ]
    assert all(LONG in row["properties"] for row in shown)

    again = run(project, "retry", "-e", "test", "--json").json
    assert (again["events"], again["sent"], again["rejected"]) == (3, 0, 3)

    write_project(tmp_path, sandbox.url, more="events: {too_long: cut}\n")
    one_day = run(project, "retry", "-e", "test", "--day", "2026-01-09", "--json").json
    assert (one_day["events"], one_day["sent"], one_day["notes"]) == (1, 1, {"cut:value": 1})
    rest = run(project, "retry", "-e", "test", "--json").json
    assert (rest["events"], rest["sent"], rest["rejected"], rest["pending"]) == (2, 1, 1, 0)
    assert sandbox.counts()["events"] == 3
    assert {outcome: rows for (outcome, _), rows in deliveries(tmp_path).items()} == {"accepted": 3, "rejected": 1}
    status = run(project, "status", "-e", "test", "--json").json
    assert status["faults"] == []
    assert (status["events"]["accepted"], status["events"]["rejected"]) == (3, 1)


def test_a_wrong_day_is_explained(tmp_path: Path) -> None:
    project = write_project(tmp_path, "http://127.0.0.1:1")
    answer = run(project, "retry", "-e", "test", "--day", "yesterday")
    assert answer.code == 2
    assert "--day is 'yesterday': allowed is a date such as 2026-01-02" in " ".join(answer.err.split())


def test_a_refused_call_is_read_again_and_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path, "http://127.0.0.1:1")
    land(
        tmp_path,
        {"adapter": "of tomorrow", "body": call(1, timestamp=f"{DAY}T01:00:00Z")},
        {"adapter": "segment", "body": {"type": "track", "event": "Nobody's", "messageId": "message-2"}},
    )
    with hub_of(tmp_path) as hub:
        hub.load_landed()
        assert (hub.balance().numbers["refused"], hub.balance().faults) == (2, [])

        monkeypatch.setitem(ADAPTERS, "of tomorrow", ADAPTERS["segment"])
        retried = hub.retry(Chosen())
        assert (retried.lines, retried.loaded.loaded, retried.days) == (2, 1, frozenset([DAY]))
        numbers = hub.balance().numbers
        assert (numbers["read"], numbers["events"], numbers["refused"], hub.balance().faults) == (2, 1, 1, [])


def test_nothing_of_who_opted_out_is_sent(tmp_path: Path, sandbox: RunningSandbox) -> None:
    project = write_project(tmp_path, sandbox.url)
    assert "2 put on the list; 2 are on it" in run(project, "opt-out", "user 1", "ann", "-e", "test").out.decode()
    traits = {"type": "identify", "event": None, "properties": None, "traits": {"plan": "pro"}}
    file = write_lines(tmp_path / "calls.ndjson", [call(1), call(2), call(3, userId="user 1", **traits), call(4)])
    counts = run(project, "send-events", file, "-e", "test", "--json").json
    assert (counts["sent"], counts["suppressed"]) == (2, 2)
    assert list(counts["reasons"]) == ["opted out: the person is on the opt-out list"]

    run(project, "opt-out", "user 1", "-e", "test", "--undo")
    assert run(project, "retry", "-e", "test", "--suppressed", "--json").json["sent"] == 2
    assert {event["identity"] for event in sandbox.events()} == {"user 1", "user 2", "user 4"}


def test_customer_ios_orders_are_followed_and_never_sent(tmp_path: Path, sandbox: RunningSandbox) -> None:
    write_project(tmp_path, sandbox.url)

    def order(name: str, number: int) -> dict[str, object]:
        return {"adapter": "customerio", "body": call(number, event=name, userId="ann")}

    land(tmp_path, order("User Suppressed", 1), {"adapter": "customerio", "body": call(2, userId="ann")})
    with hub_of(tmp_path) as hub:
        hub.load_landed()
        ways = hub.deliveries()
        assert count_opt_outs(hub.store) == 1
        assert ways.send(date(2026, 1, 1), date(2026, 1, 9)).suppressed == 1
        land(tmp_path, order("User Unsuppressed", 3), {"adapter": "customerio", "body": call(4, userId="ann")})
        hub.load_landed()
        assert (count_opt_outs(hub.store), follow_orders(hub.warehouse, hub.store)) == (0, 0)
        assert ways.send(date(2026, 1, 1), date(2026, 1, 9)).accepted == 1
        ways.close()
        assert hub.balance().numbers["suppressed"] == 3
    assert sandbox.counts()["events"] == 1


def test_what_was_received_while_the_stream_was_off_is_counted_and_never_sent(
    tmp_path: Path, sandbox: RunningSandbox
) -> None:
    write_project(tmp_path, sandbox.url)
    off = {"adapter": "segment", "suppressed": "received while the stream of web was off"}
    land(tmp_path, {**off, "body": call(1)}, {"adapter": "segment", "body": call(2)})
    with hub_of(tmp_path) as hub:
        hub.load_landed()
        ways = hub.deliveries()
        assert ways.send(date(2026, 1, 1), date(2026, 1, 9)).accepted == 1
        assert hub.retry(Chosen(suppressed=True)).events == 0
        assert ways.send(date(2026, 1, 1), date(2026, 1, 9), resend=True).accepted == 1
        ways.close()
        assert hub.balance().faults == []
    assert deliveries(tmp_path) == {("accepted", ""): 1, ("suppressed", off["suppressed"]): 1}
    assert json.dumps(sandbox.events()).count("message-2") == 1
