"""What Heap refuses is found, told apart from wrong credentials, and never takes a good event with it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from heap_integration.delivery.engine import DeliveryStopped
from heap_integration_tests.faults.sending import Delivery
from heap_integration_tests.support.commands import run
from heap_integration_tests.support.project import call, write_lines, write_project
from heap_integration_tests.support.sandbox import RunningSandbox

EVENTS = 3_000
ONE_IN_EVERY_BATCH = range(321, EVENTS, 1_000)


def load(delivery: Delivery, bad: Collection[int]) -> None:
    """Load events of which some pass our own checks and not Heap's."""
    calls = (call(number, event="Bad") if number in bad else call(number) for number in range(EVENTS))
    delivery.load(write_lines(delivery.project / "events.ndjson", calls))


def arrived_bad(delivery: Delivery) -> int:
    count: int = delivery.sandbox.state("events/count", app_id=delivery.sandbox.app_id, event="Bad")["count"]
    return count


@pytest.mark.parametrize(("bad", "requests"), [([777], 1), (ONE_IN_EVERY_BATCH, 3)])
def test_an_event_that_heap_names_costs_one_more_request(
    delivery: Delivery, bad: Collection[int], requests: int
) -> None:
    load(delivery, bad)
    delivery.sandbox.fault(kind="refuse", path="/api/track", event="Bad")
    tally = delivery.send()
    assert (tally.accepted, tally.rejected) == (EVENTS - len(bad), len(bad))
    assert delivery.hits() == [requests]
    assert delivery.sandbox.counts()["requests"] == 3
    delivery.check(accepted=EVENTS - len(bad), rejected=len(bad))
    assert (delivery.arrived(), arrived_bad(delivery)) == (EVENTS - len(bad), 0)


@pytest.mark.parametrize("bad", [[777], ONE_IN_EVERY_BATCH, range(2_400, 2_420)])
def test_an_event_that_heap_does_not_name_is_found_by_halving(delivery: Delivery, bad: Collection[int]) -> None:
    load(delivery, bad)
    delivery.sandbox.fault(kind="refuse", path="/api/track", event="Bad", names=False)
    tally = delivery.send()
    assert (tally.accepted, tally.rejected) == (EVENTS - len(bad), len(bad))
    assert tally.reasons == {"Heap answered 400: postBody.event sandbox fault refuse": len(bad)}
    delivery.check(accepted=EVENTS - len(bad), rejected=len(bad))
    assert (delivery.arrived(), arrived_bad(delivery)) == (EVENTS - len(bad), 0)
    assert delivery.sandbox.counts()["duplicates"] == 0


def test_a_rule_of_heaps_that_most_events_break_stops_before_all_are_used_up(delivery: Delivery) -> None:
    load(delivery, range(1_500, EVENTS))
    delivery.sandbox.fault(kind="refuse", path="/api/track", event="Bad")
    with pytest.raises(DeliveryStopped, match="100 records in a row were all refused"):
        delivery.send()
    numbers = delivery.hub.balance().numbers
    assert numbers["accepted"] == delivery.arrived() == 1_500
    assert 100 <= numbers["rejected"] < 200
    delivery.check(accepted=1_500, rejected=numbers["rejected"], pending=EVENTS - 1_500 - numbers["rejected"])
    assert delivery.hits()[0] < 400


@pytest.mark.parametrize("status", ["401", "403"])
def test_credentials_that_are_refused_halfway_stop_the_run_and_mark_nothing(delivery: Delivery, status: str) -> None:
    load(delivery, [])
    delivery.sandbox.fault(kind=status, path="/api/track", after=2)
    answer = run(delivery.project, "send-events", delivery.project / "events.ndjson", "-e", "test", "--json")
    assert (answer.code, answer.json["sent"], answer.json["pending"]) == (1, 2_000, 1_000)
    assert "Check the app id and the region of this environment" in answer.err
    delivery.check(accepted=2_000, pending=1_000)
    assert delivery.hits() == [1]
    delivery.sandbox.client.delete("/_faults")
    answer = run(delivery.project, "send-events", delivery.project / "events.ndjson", "-e", "test", "--json")
    assert (answer.code, answer.json["sent"]) == (0, 1_000)
    delivery.check(accepted=EVENTS)
    assert (delivery.arrived(), delivery.sandbox.counts()["duplicates"]) == (EVENTS, 0)


@pytest.mark.parametrize("events", [5, 1_500])
def test_a_wrong_app_id_marks_nothing_however_few_events_wait(
    tmp_path: Path, sandbox: RunningSandbox, events: int
) -> None:
    project = write_project(tmp_path, sandbox.url)
    settings = project / "environments/test/environment.yaml"
    right = settings.read_text()
    settings.write_text(right.replace(sandbox.app_id, "9999999999"))
    file = write_lines(tmp_path / "events.ndjson", map(call, range(events)))
    answer = run(project, "send-events", file, "-e", "test", "--json")
    assert (answer.code, answer.json["rejected"], answer.json["pending"]) == (1, 0, events)
    assert "app_id is not an environment of this sandbox" in answer.err
    settings.write_text(right)
    answer = run(project, "send-events", file, "-e", "test", "--json")
    assert (answer.code, answer.json["sent"], answer.json["pending"]) == (0, events, 0)
    assert sandbox.counts()["events"] == events
