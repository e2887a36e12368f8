"""Events through Dagster: everything received goes out once, by day, and every count adds up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import dagster as dg
import pytest
import stamina
from hypothesis import given
from hypothesis import strategies as st

from heap_integration.assets.events import SendConfig
from heap_integration.events.days import day_ranges
from heap_integration.status import read_status
from heap_integration_tests.assets.project import START, Project, flow_started, key, numbers, track

PARTS = ("sent", "unchanged", "rejected", "suppressed", "pending")
RECEIVED, SENT = key("events", "product_events"), key("events", "outbound_event_batches")


def day(number: int) -> date:
    return START + timedelta(days=number)


def parts(result: dg.ExecuteInProcessResult) -> dict[str | None, list[int]]:
    """Return sent, unchanged, rejected, suppressed and pending by partition, after adding them up."""
    found = numbers(result, SENT)
    for partition in found.values():
        assert partition["read"] == partition["row_count"] == sum(partition[part] for part in PARTS)
    return {name: [partition[part] for part in PARTS] for name, partition in found.items()}


def tick(
    project: Project, cursor: str | None = None, name: str = "pending_events"
) -> tuple[list[tuple[str, str]], str | None]:
    """Evaluate a sensor and return the days it asks for, first and last of each run, and its cursor."""
    sensor = project.definitions.resolve_sensor_def(name)
    resources = project.definitions.resources
    context = dg.build_sensor_context(project.instance, cursor, definitions=project.definitions, resources=resources)
    ticked = sensor.evaluate_tick(context)
    return [asked_for(request) for request in ticked.run_requests or ()], ticked.cursor


def asked_for(request: dg.RunRequest) -> tuple[str, str]:
    assert request.tags["environment"] == "lab"
    if request.partition_key:
        return request.partition_key, request.partition_key
    return (
        request.tags["dagster/asset_partition_range_start"],
        request.tags["dagster/asset_partition_range_end"],
    )


def evaluation(result: dg.ExecuteInProcessResult, check: str) -> dg.AssetCheckEvaluation:
    (found,) = (each for each in result.get_asset_check_evaluations() if each.check_name == check)
    return found


def refusal(project: Project) -> dg.Failure:
    """Deliver the first day outside of a run, where nobody tries it again, and return why it fails."""
    with project.hub() as hub:
        hub.load()
    asset = project.definitions.get_assets_def(SENT)
    resources = project.definitions.resources or {}
    context = dg.build_asset_context(partition_key=START.isoformat())
    with stamina.set_testing(True, attempts=3), pytest.raises(dg.Failure) as caught:
        asset(context, SendConfig(), heap=resources["heap"], store=resources["store"])
    with project.hub() as hub:
        assert hub.balance().faults == []
        assert hub.balance().numbers["pending"] == hub.balance().numbers["events"] > 0
    return caught.value


def test_what_files_and_webhooks_brought_is_sent_once_by_day(project: Project) -> None:
    project.settings["privacy"] = {"consent_property": "consent"}
    project.write()
    refused_by_consent = track("eve", day(1), properties={"consent": False})
    project.lay(
        "one.ndjson",
        *(track("ada", day(0), second) for second in range(3)),
        track("null", day(0)),
        refused_by_consent,
        {"type": "track", "event": "nobody"},
    )
    project.land(flow_started("n1", "ada", day(2)), flow_started("n2", "bob", day(2)))

    first = project.send(day(0), day(3))

    assert first.success
    assert parts(first) == {
        "2026-01-01": [3, 0, 1, 0, 0],
        "2026-01-02": [0, 0, 0, 1, 0],
        "2026-01-03": [2, 0, 0, 0, 0],
        "2026-01-04": [0, 0, 0, 0, 0],
    }
    assert {name: found["read"] for name, found in numbers(first, RECEIVED).items()} == {
        "2026-01-01": 4,
        "2026-01-02": 1,
        "2026-01-03": 2,
        "2026-01-04": 0,
    }
    arrived = project.sandbox.events()
    assert [(event["identity"], event["event"]) for event in arrived if event["event"] != "Order Completed"] == [
        ("ada", "Flow Started"),
        ("bob", "Flow Started"),
    ]
    requests = project.sandbox.counts()["requests"]

    second = project.send(day(0), day(3))

    assert parts(second)["2026-01-01"] == [0, 3, 1, 0, 0]
    assert (project.sandbox.counts()["requests"], project.sandbox.counts()["duplicates"]) == (requests, 0)

    again = project.send(day(0), day(1), resend=True)

    assert parts(again)["2026-01-01"] == [0, 3, 1, 0, 0]
    assert numbers(again, SENT)["2026-01-01"]["resent_in_this_run"] == 3
    assert (project.sandbox.counts()["events"], project.sandbox.counts()["duplicates"]) == (5, 3)


def test_a_late_event_makes_its_day_pending_and_the_sensor_asks_for_that_day_alone(project: Project) -> None:
    project.lay("one.ndjson", *(track("ada", day(number)) for number in range(4)))
    project.send(day(0), day(3))
    _, cursor = tick(project)
    project.land(flow_started("late", "bob", day(1)))

    today = datetime.now(UTC).date()
    arrived, cursor = tick(project, cursor)
    project.send(today)
    late, cursor = tick(project, cursor)
    asked_twice, cursor = tick(project, cursor)
    result = project.send(day(1))
    settled, _ = tick(project, cursor)

    assert arrived == [(str(today), str(today))]
    assert late == [("2026-01-02", "2026-01-02")]
    assert asked_twice == settled == []
    assert parts(result) == {"2026-01-02": [1, 1, 0, 0, 0]}


def test_an_event_of_tomorrow_waits_for_its_day_and_stops_nobody_else(project: Project) -> None:
    today = datetime.now(UTC).date()
    project.lay("one.ndjson", track("ada", today + timedelta(days=2)), track("ada", day(1)), track("ada", day(-1)))
    with project.hub() as hub:
        hub.load()

    asked, cursor = tick(project)

    assert asked == [("2026-01-02", "2026-01-02")]
    project.send(day(1))
    project.send(today)
    assert tick(project, cursor)[0] == []


def test_the_hourly_request_is_of_its_hour_and_holds_every_pending_day(project: Project) -> None:
    project.lay("one.ndjson", track("ada", day(1)), track("ada", day(2)), track("ada", day(9)))
    with project.hub() as hub:
        hub.load()
    schedule = project.definitions.resolve_schedule_def("hourly_events")
    ticks = [
        schedule.evaluate_tick(
            dg.build_schedule_context(
                project.instance,
                datetime(2026, 1, 10, hour, tzinfo=UTC),
                repository_def=project.definitions.get_repository_def(),
                resources=project.definitions.resources,
            )
        )
        for hour in (4, 5)
    ]

    assert [[asked_for(request) for request in ticked.run_requests or ()] for ticked in ticks] == [
        [("2026-01-02", "2026-01-03"), ("2026-01-10", "2026-01-10")]
    ] * 2
    keys = [request.run_key for ticked in ticks for request in ticked.run_requests or ()]
    assert len(set(keys)) == 4
    assert all("T04:00" in str(run_key) for run_key in keys[:2])


@given(
    numbers=st.sets(st.integers(-5, 40), max_size=25),
    most=st.one_of(st.just("all"), st.integers(1, 10)),
)
def test_day_ranges_cover_each_day_once_with_neighbours_only(numbers: set[int], most: int | str) -> None:
    days = {day(number) for number in numbers}
    ranges = day_ranges(days, most)
    covered = [first + timedelta(days=number) for first, last in ranges for number in range((last - first).days + 1)]

    assert covered == sorted(days)
    assert most == "all" or all((last - first).days < int(most) for first, last in ranges)
    # no more runs than needed: two that meet could not have been one
    assert all(
        (after - before).days > 1 or (most != "all" and (before - first).days + 1 == int(most))
        for (first, before), (after, _) in pairwise(ranges)
    )


def test_a_row_that_vanishes_from_the_warehouse_fails_the_check(project: Project) -> None:
    project.lay("one.ndjson", *(track("ada", day(0), second) for second in range(3)))
    good = project.send(day(0))
    with project.hub() as hub, hub.warehouse.write() as con:
        con.execute("delete from product_events where line = 2")

    bad = project.send(day(0))

    passed, failed = evaluation(good, "counts_add_up"), evaluation(bad, "counts_add_up")
    assert (passed.passed, failed.passed, failed.blocking) == (True, False, True)
    assert "3 are not the 2 accounted for" in str(failed.metadata["faults"].value)
    assert not bad.success


def test_a_heap_out_of_reach_fails_the_run_which_may_be_tried_again(project: Project) -> None:
    project.sandbox.fault(kind="503", path="/api/track")
    project.lay("one.ndjson", track("ada", day(0)))

    failure = refusal(project)

    assert failure.allow_retries
    assert "503" in str(failure.description)
    assert project.sandbox.counts()["events"] == 0


@pytest.mark.parametrize("wrong", [{"app_id": "77"}, {"base_url": "{url}/elsewhere"}], ids=["app id", "address"])
def test_what_heap_refuses_whatever_it_is_sent_is_not_tried_again(project: Project, wrong: dict[str, str]) -> None:
    project.settings["heap"] |= {name: value.format(url=project.sandbox.url) for name, value in wrong.items()}
    project.write()
    project.lay("one.ndjson", *(track("ada", day(0), second) for second in range(20)))

    assert not refusal(project).allow_retries


def test_a_source_that_cannot_be_read_is_told_and_keeps_no_other_waiting(project: Project) -> None:
    (project.root / "shop.yaml").write_text("event: name\nuser_id: customer\n")
    (project.root / "shop.csv").write_text("name,user\nOrder Completed,ada\n")
    project.settings["sources"]["files"] = [
        {"name": "shop", "path": "shop.csv", "mapping": "shop.yaml"},
        {"name": "backend", "path": "incoming/*.ndjson"},
    ]
    project.write()
    project.lay("one.ndjson", track("ada", day(0)))

    result = project.send(day(0))

    found = evaluation(result, "sources_can_be_read")
    assert (result.success, found.passed, found.severity) == (True, False, dg.AssetCheckSeverity.WARN)
    assert "shop.csv: user_id: no column 'customer'" in str(found.metadata["problems"].value)
    assert parts(result) == {"2026-01-01": [1, 0, 0, 0, 0]}


def test_new_and_changed_files_and_new_rows_are_noticed(project: Project) -> None:
    (project.root / "orders.yaml").write_text("event_name: Order Completed\nuser_id: customer\ntimestamp: at\n")
    project.settings["sources"]["tables"] = [
        {"name": "orders", "table": "main.orders", "cursor": "at", "mapping": "orders.yaml"}
    ]
    project.write()
    with project.hub() as hub, hub.warehouse.write() as con:
        con.execute("create table orders as select 'ada' as customer, timestamp '2026-01-01 10:00:00' as at")
    today = str(datetime.now(UTC).date())

    rows, cursor = tick(project, None, "new_inputs")
    project.send(day(0))
    nothing, cursor = tick(project, cursor, "new_inputs")
    project.lay("one.ndjson", track("ada", day(0)))
    files, cursor = tick(project, cursor, "new_inputs")
    asked_twice, cursor = tick(project, cursor, "new_inputs")
    result = project.send(day(0))

    assert (rows, nothing, files, asked_twice) == ([(today, today)], [], [(today, today)], [])
    assert parts(result) == {"2026-01-01": [1, 1, 0, 0, 0]}


def test_people_and_accounts_have_an_asset_of_their_own(project: Project) -> None:
    moment = f"{day(0)}T10:00:00Z"
    ada = {
        "type": "identify",
        "userId": "ada",
        "messageId": "message-1",
        "timestamp": moment,
        "traits": {"plan": "pro"},
    }
    acme = {"type": "group", "userId": "ada", "groupId": "acme", "messageId": "message-2", "timestamp": moment}
    project.lay("one.ndjson", track("ada", day(0)), ada, acme | {"traits": {"size": 7}})

    result = project.send(day(0))

    told = numbers(result, key("events", "outbound_profile_updates"))["2026-01-01"]
    assert [told[part] for part in PARTS] == [2, 0, 0, 0, 0]
    assert parts(result) == {"2026-01-01": [1, 0, 0, 0, 0]}
    (user,) = (user for user in project.sandbox.state("users", app_id=project.sandbox.app_id)["users"])
    assert user["properties"] == {"plan": "pro"}


def test_a_run_that_was_asked_for_and_has_not_begun_is_not_asked_for_again(project: Project) -> None:
    project.land(flow_started("one", "ada", day(1)))
    asked, cursor = tick(project)
    tags = {"environment": "lab", "asked_by": "pending_events"}
    run = project.instance.create_run_for_job(project.definitions.resolve_job_def("send_events"), tags=tags)
    project.land(flow_started("two", "ada", day(1)))
    assert tick(project, cursor)[0] == []
    project.instance.delete_run(run.run_id)
    assert tick(project, cursor)[0] == asked


SWITCHES: dict[str, Callable[[Project], None]] = {
    "stream_events": lambda project: project.settings["sources"]["userflow"].update(stream_events=False),
    "enabled": lambda project: project.settings["sources"]["files"][0].update(enabled=False),
    "folder": lambda project: project.settings.clear(),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_source_switched_off_during_a_delivery_stops_before_the_next_batch(project: Project, switch: str) -> None:
    """The rest is pending, and goes out once the source is switched on again."""
    count = 3000
    if switch == "stream_events":
        project.land(*(flow_started(f"n{number}", f"user-{number}", day(0)) for number in range(count)))
    else:
        project.lay("one.ndjson", *(track(f"user-{number}", day(0), number) for number in range(count)))
    project.sandbox.fault(kind="latency", path="/api/track", seconds=0.2)
    running = project.definitions
    before = project.file.read_text()

    def switch_off() -> None:
        while not project.sandbox.counts()["events"]:
            time.sleep(0.02)
        SWITCHES[switch](project)
        if project.settings:
            project.write()
        else:
            project.file.unlink()

    thread = threading.Thread(target=switch_off)
    thread.start()
    stopped = project.send(day(0), definitions=running)
    thread.join()
    sent = project.sandbox.counts()["events"]
    still_off = project.send(day(0), definitions=running)

    assert stopped.success
    assert 0 < sent < count
    assert numbers(stopped, SENT)["2026-01-01"]["stopped"] == "switched off"
    assert parts(stopped) == {"2026-01-01": [sent, 0, 0, 0, count - sent]}
    assert parts(still_off) == {"2026-01-01": [0, sent, 0, 0, count - sent]}
    assert project.sandbox.counts()["events"] == sent

    project.sandbox.client.delete("/_faults")
    project.file.write_text(before)
    assert parts(project.send(day(0), definitions=running)) == {"2026-01-01": [count - sent, sent, 0, 0, 0]}
    assert project.sandbox.counts()["duplicates"] == 0


def test_the_status_the_metadata_and_the_sync_log_tell_the_same(project: Project) -> None:
    project.settings["privacy"] = {"consent_property": "consent"}
    project.write()
    refused = track("bob", day(0), 1, properties={"text": "x" * 2_000})
    silent = track("eve", day(0), 2, properties={"consent": False})
    project.lay("one.ndjson", track("ada", day(0)), refused, silent, track("late", day(40)))

    told = numbers(project.send(day(0), day(1)), SENT)["2026-01-01"]

    with project.hub() as hub:
        status = read_status(hub)["events"]
        with hub.warehouse.read() as con:
            rows = con.execute("select outcome, count(*) from sync_log.event_deliveries group by all").fetchall()
    assert dict(rows) == {"accepted": 1, "rejected": 1, "suppressed": 1, "pending": 1}
    assert {name: status[name] for name, _ in rows} == dict(rows)
    assert (told["sent"], told["rejected"], told["suppressed"], told["pending"]) == (1, 1, 1, 0)
