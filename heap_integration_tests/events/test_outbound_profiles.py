"""What is told of people and accounts reaches Heap in the order of time, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from heap_integration.delivery.engine import DeliveryStopped, Patience, Tally
from heap_integration.delivery.records import BatchRejected, NotAuthorised, Record
from heap_integration.events import outbound_profiles
from heap_integration.events.event import Event
from heap_integration.events.merges import Merges
from heap_integration.events.opt_outs import opt_out
from heap_integration.events.outbound_profiles import SUPERSEDED, OutboundProfiles, ProfileSender
from heap_integration.events.prepare import Preparer, PrepareSettings
from heap_integration.events.profiles import ProfilePreparer, ProfileUpdate
from heap_integration.events.sources.rows import event_rows
from heap_integration.heap.profiles_api import ProfilesApi
from heap_integration.store import Store
from heap_integration.store.tables import identified_users
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.events import load_chunk
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

START, ARRIVED = datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
FIRST, LAST = date(2026, 1, 1), date(2026, 1, 31)
AT_ONCE = Patience(first_wait=0.01)
ELSEWHERE = "Heap would drop the merge: the user id belongs to another identity already"
TOO_MANY = "Heap would drop the merge: 10 user ids became this identity within a month"


def identify(day: float, who: str | None, traits: dict[str, Any], anonymous_id: str | None = None) -> Event:
    return Event("identify", "", who, anonymous_id, START + timedelta(days=day), traits=traits, source="shop")


def group(day: float, who: str | None, account: str, traits: dict[str, Any]) -> Event:
    moment, context = START + timedelta(days=day), {"groupId": account}
    return Event("group", "", who, None, moment, traits=traits, context=context, source="shop")


def alias(day: float, who: str, previous: int) -> Event:
    moment, context = START + timedelta(days=day), {"previousId": str(previous)}
    return Event("alias", "", who, None, moment, context=context, source="shop")


@dataclass
class Project:
    """An environment whose Heap is a sandbox."""

    warehouse: Warehouse
    store: Store
    sandbox: RunningSandbox
    api: ProfilesApi
    waits: list[float] = field(default_factory=list)
    loads: int = 0

    def load(self, *calls: Event) -> None:
        self.loads += 1
        name = f"file {self.loads}"
        chunk = event_rows(enumerate(calls, start=1), name, ARRIVED)
        with self.warehouse.write() as con:
            load_chunk(
                con,
                chunk.events,
                chunk.refused,
                origin=name,
                fingerprint=name,
                last_line=chunk.last_line,
                read=chunk.lines,
                unused=chunk.unused,
                complete=True,
            )

    def outbound(self, **rules: Any) -> OutboundProfiles:
        preparer = ProfilePreparer(
            Preparer(PrepareSettings(**({"anonymous_ids": "heap_user_id"} | rules))), account_id_property="account"
        )
        sender = ProfileSender(self.api, Merges(self.store), sleep=self.waits.append)
        return OutboundProfiles(self.warehouse, self.store, sender, preparer)

    def send(self, first: date = FIRST, last: date = LAST, *, resend: bool = False, **rules: Any) -> Tally:
        return self.outbound(**rules).send(first, last, resend=resend, patience=AT_ONCE)

    def user(self, identity: str) -> dict[str, Any]:
        (found,) = self.sandbox.state("users", identity=identity)["users"]
        return dict(found["properties"])

    def account(self, name: str) -> dict[str, Any]:
        accounts = self.sandbox.state("accounts")["accounts"]
        return next(dict(account["properties"]) for account in accounts if account["account_id"] == name)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with (
        running_sandbox(tmp_path / "sandbox") as sandbox,
        closing(Store(f"sqlite:///{tmp_path}/store.db")) as store,
        closing(ProfilesApi(sandbox.url, sandbox.app_id)) as api,
    ):
        yield Project(Warehouse(f"duckdb:///{tmp_path}/warehouse.duckdb"), store, sandbox, api)


def test_people_and_accounts_are_told_of_in_one_request_each(project: Project) -> None:
    project.load(
        *(identify(number / 1000, f"user {number}", {"rank": number}) for number in range(500)),
        *(group(1, f"user {number}", f"account {number % 7}", {"seats": number}) for number in range(500)),
    )

    tally = project.send()

    assert (tally.read, tally.accepted, tally.batches) == (1000, 1000, 1)
    assert project.sandbox.counts()["requests"] == 2
    assert project.user("user 499") == {"rank": 499, "account": "account 2"}
    assert project.account("account 2") == {"seats": 499}


def test_of_several_values_the_last_by_time_wins_whatever_the_order_of_arrival(project: Project) -> None:
    project.load(
        identify(3, "ada", {"plan": "pro", "city": "Rome"}),
        identify(1, "ada", {"plan": "free", "first": 1}),
        identify(2, "ada", {"plan": "trial", "city": "Oslo"}),
    )

    tally = project.send()

    assert (tally.accepted, project.user("ada")) == (3, {"plan": "pro", "city": "Rome", "first": 1})


def test_an_older_value_that_arrives_later_does_not_overwrite_a_newer_one(project: Project) -> None:
    project.load(identify(5, "ada", {"plan": "pro"}), group(5, None, "Acme", {"seats": 9, "car.make": "Fiat"}))
    project.send()
    project.load(
        identify(1, "ada", {"plan": "free", "city": "Rome"}),
        identify(2, " ada ", {"plan": "trial"}),
        identify(6, "ada", {"plan": "team"}),
        group(2, "bob", "Acme", {"seats": 1, "car": {"make": "VW", "year": 99}}),
    )

    outbound = project.outbound()
    tally = outbound.send(FIRST, LAST)

    assert project.user("ada") == {"plan": "team", "city": "Rome"}
    assert project.account("Acme") == {"seats": 9, "car.make": "Fiat", "car.year": 99}
    assert (tally.accepted, dict(tally.reasons)) == (3, {SUPERSEDED: 1})
    assert outbound.notes["superseded"] == 4


def test_to_send_an_old_day_again_changes_nothing(project: Project) -> None:
    project.load(identify(1, "ada", {"plan": "free", "first": 1}), identify(2, "ada", {"plan": "pro"}))
    project.send()

    tally = project.send(date(2026, 1, 2), date(2026, 1, 2), resend=True)

    assert (tally.accepted, project.user("ada")) == (1, {"plan": "pro", "first": 1})
    assert (project.send(resend=True).accepted, project.user("ada")) == (2, {"plan": "pro", "first": 1})
    assert project.send().read == 0


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound_profiles, "CHUNK_ROWS", 2)
    monkeypatch.setattr(outbound_profiles, "NEWEST_FIRST", (range(1, 2), range(2, 100)))


def test_a_long_delivery_lets_a_newer_value_in_and_does_not_overwrite_it(project: Project, small_pages: None) -> None:
    project.load(*(identify(day, "ada", {"plan": day}) for day in range(1, 5)))
    live: list[Future[Tally]] = []

    def meanwhile(tally: Tally) -> None:
        if not live:
            project.load(identify(30, "ada", {"plan": "newest"}))
            live.append(pool.submit(project.send, LAST, LAST))

    with ThreadPoolExecutor(1) as pool:
        tally = project.outbound().send(FIRST, date(2026, 1, 10), patience=AT_ONCE, progress=meanwhile)

    assert live[0].result().accepted == 1
    assert (tally.read, tally.accepted, tally.reasons) == (4, 2, {SUPERSEDED: 2})
    assert project.user("ada") == {"plan": "newest"}


values = st.tuples(st.integers(0, 9), st.sampled_from(["plan", "city"]), st.integers(0, 99))
rounds = st.tuples(st.lists(values, min_size=1, max_size=4), st.sampled_from(["new", "again"]) | st.integers(0, 9))


@settings(
    max_examples=5,
    phases=[Phase.generate],
)
@given(given_rounds=st.lists(rounds, min_size=2, max_size=4))
def test_in_the_end_each_property_has_its_newest_value_whatever_was_sent_when(
    project: Project, small_pages: None, monkeypatch: pytest.MonkeyPatch, given_rounds: list[Any]
) -> None:
    monkeypatch.setattr(outbound_profiles, "LETTING_IN_SECONDS", 0)
    project.sandbox.client.post("/_limits", json={"enabled": False})
    with project.warehouse.write() as con:
        con.execute("delete from product_events; delete from event_outcomes")
    who, told = f"user {project.loads}", list[tuple[int, int, str, int]]()
    for given_values, then in given_rounds:
        new = [(day, len(told) + nth, key, value) for nth, (day, key, value) in enumerate(given_values)]
        told += new
        project.load(*(identify(day, who, {key: value, "nth": nth}) for day, nth, key, value in new))
        if isinstance(then, int):
            day = (START + timedelta(days=then)).date()
            project.send(day, day, resend=True)
        else:
            project.send(resend=then == "again")
    project.send()

    newest: dict[str, int] = {}
    for _, nth, key, value in sorted(told):
        newest |= {key: value, "nth": nth}
    assert project.user(who) == newest


def test_an_anonymous_past_becomes_a_persons_once(project: Project) -> None:
    event = {"app_id": project.sandbox.app_id, "user_id": "17", "event": "Before"}
    project.sandbox.client.post("/api/track", json=event)
    project.load(identify(1, "ada", {}, "17"), alias(2, "ada", 17), identify(3, "ada", {"plan": "pro"}, "17"))

    tally = project.send()

    assert (tally.accepted, tally.reasons) == (3, {})
    assert [event["identity"] for event in project.sandbox.events()] == ["ada"]
    # the event, one identify, one request with properties
    assert project.sandbox.counts()["requests"] == 3


def test_a_second_identity_of_a_user_id_is_rejected_and_its_properties_are_sent(project: Project) -> None:
    project.load(identify(1, "ada", {}, "17"))
    project.send()
    project.load(identify(2, "bob", {"plan": "pro"}, "17"), alias(3, "eve", 17))

    tally = project.send()

    assert (tally.rejected, tally.reasons) == (2, {f"{ELSEWHERE}; the properties were sent": 1, ELSEWHERE: 1})
    assert project.user("bob") == {"plan": "pro"}
    assert project.sandbox.counts().get("identifies_dropped", 0) == 0


def test_the_eleventh_user_id_of_a_month_waits_for_the_next_month(project: Project) -> None:
    project.load(*(identify(number / 10, "ada", {"visits": number}, str(number)) for number in range(11)))

    tally = project.send()

    assert (tally.accepted, tally.reasons) == (10, {f"{TOO_MANY}; the properties were sent": 1})
    assert project.user("ada") == {"visits": 10}
    assert project.sandbox.counts().get("identifies_dropped", 0) == 0
    # older than what Heap has of the rejected call
    project.load(identify(0.95, "ada", {"visits": 9}))
    assert project.send().reasons == {SUPERSEDED: 1}
    with project.store.begin() as connection:
        connection.execute(update(identified_users).values(at=identified_users.c.at - 32 * 86_400))
    assert project.send(resend=True).rejected == 0


@pytest.mark.parametrize("kind", ["lost_ack", "429", "503", "drop", "truncate"])
def test_a_bad_network_delays_and_changes_nothing(project: Project, kind: str) -> None:
    for path in ("/api/v1/identify", "/api/add_user_properties", "/api/add_account_properties"):
        project.sandbox.fault(kind=kind, path=path, next=1, retry_after=0 if kind == "429" else None)
    project.load(identify(1, "ada", {"plan": "pro"}, "17"), group(2, "ada", "Acme", {"seats": 1}))

    tally = project.send()

    assert (tally.accepted, tally.reasons) == (2, {})
    assert project.user("ada") == {"plan": "pro", "account": "Acme"}
    assert project.account("Acme") == {"seats": 1}
    assert project.sandbox.counts().get("identifies_dropped", 0) == 0
    assert [fault["hits"] for fault in project.sandbox.state()["faults"]] == [1, 1, 1]


def test_one_call_that_heap_refuses_is_taken_out_at_once(project: Project) -> None:
    # that preset keeps booleans, which this sandbox refuses
    calls = [identify(1, f"user {number}", {"vip": number == 700 or "no"}) for number in range(1000)]
    project.load(*calls, group(1, None, "Acme", {"open": True}), group(1, None, "Other", {"open": "yes"}))

    tally = project.send(preset="airbyte")

    assert (tally.accepted, tally.rejected) == (1000, 2)
    assert {reason.split(": ")[1].split("]")[1] for reason in tally.reasons} == {
        ".properties.vip should be string,number",
        ".properties.open should be string,number",
    }
    assert project.sandbox.counts()["users"] == 999
    assert project.sandbox.counts()["requests"] <= 6
    assert project.waits == []


def test_many_refused_calls_are_found_without_waiting(project: Project) -> None:
    project.load(*(identify(1, f"user {number}", {"vip": number % 5 == 4 or "no"}) for number in range(200)))

    tally = project.send(preset="airbyte")

    assert (tally.accepted, tally.rejected, project.waits) == (160, 40, [])


def test_a_culprit_among_several_calls_of_one_person_is_not_named(project: Project) -> None:
    def record(number: int, identity: str, value: Any) -> Record:
        told = ProfileUpdate("2026-01-01T00:00:00.000Z", identity, {"vip": value}, None, {}, None, ())
        return Record(bytes([number] * 16), told)

    sender = ProfileSender(project.api, Merges(project.store), sleep=project.waits.append)
    with pytest.raises(BatchRejected) as alone:
        sender.send([record(1, "ada", "no"), record(2, "ada", "yes"), record(3, "bob", True)])
    with pytest.raises(BatchRejected) as among:
        sender.send([record(1, "bob", "no"), record(2, "ada", "yes"), record(3, "ada", True)])

    assert (alone.value.culprit, among.value.culprit) == (2, None)


def test_requests_with_the_same_person_are_a_second_apart(project: Project) -> None:
    now, waits = 100.0, list[float]()

    def sleep(seconds: float) -> None:
        nonlocal now
        waits.append(round(seconds, 6))
        now += seconds

    def record(*identities: str) -> list[Record]:
        told = [ProfileUpdate("", identity, {"x": 1}, None, {}, None, ()) for identity in identities]
        return [Record(bytes(16), each) for each in told]

    sender = ProfileSender(project.api, Merges(project.store), clock=lambda: now, sleep=sleep)
    sender.send(record("ada", "bob"))
    sender.send(record("eve"))
    now += 0.4
    sender.send(record("eve", "bob"))
    now += 2
    sender.send(record("bob"))
    project.sandbox.fault(kind="lost_ack", path="/api/add_user_properties", next=1)
    with pytest.raises(Exception, match="no answer"):
        sender.send(record("bob", "new"))
    sender.send(record("new"))

    assert waits == [0.61, 1.01, 1.01]


def test_who_opted_out_and_what_a_switch_holds_back_is_not_told(project: Project) -> None:
    project.load(identify(1, "ada", {"x": 1}), identify(2, "bob", {"x": 1}))
    opt_out(project.store, ["ada"], "test")
    held = project.outbound()
    held.withheld_sources = lambda: {"shop"}

    assert held.send(FIRST, LAST).read == 0
    tally = project.send()
    assert (tally.accepted, tally.suppressed, project.sandbox.counts()["users"]) == (1, 1, 1)


def test_where_heap_cannot_be_reached_all_stays_pending(project: Project) -> None:
    project.load(identify(1, "ada", {"x": 1}, "17"))
    project.sandbox.fault(kind="503")

    with pytest.raises(DeliveryStopped, match="503"):
        project.outbound().send(FIRST, LAST, patience=Patience(attempts=2, first_wait=0.01))
    project.sandbox.client.delete("/_faults")
    assert project.send().accepted == 1


def test_what_a_dead_run_had_sent_is_known_to_the_next(project: Project) -> None:
    project.load(identify(5, "ada", {"plan": "pro"}))
    outbound = project.outbound()
    outbound.settle = dying(outbound.settle)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        outbound.send(FIRST, LAST)
    project.load(identify(1, "ada", {"plan": "free"}))

    assert project.send().reasons == {SUPERSEDED: 1}
    assert project.user("ada") == {"plan": "pro"}


def dying(settle: Callable[[], None]) -> Callable[[], None]:
    """Return ``settle`` for one time; the process dies before the second."""
    times = iter([settle])

    def settle_once() -> None:
        for once in times:
            once()
            return
        raise KeyboardInterrupt

    return settle_once


def test_refused_credentials_are_told_from_an_outage(project: Project) -> None:
    project.load(identify(1, "ada", {"plan": "pro"}))
    project.sandbox.fault(kind="401", path="/api/add_user_properties", next=1)

    with pytest.raises(DeliveryStopped) as stopped:
        project.send()

    assert isinstance(stopped.value.__cause__, NotAuthorised)
    assert project.send().accepted == 1
