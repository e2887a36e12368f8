"""Customer.io's manual segments hold whom they should, and each record's end is told truthfully."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from heap_integration.delivery.engine import DeliveryStopped, Patience, Tally, deliver
from heap_integration.delivery.ledger import Ledger
from heap_integration.delivery.pace import Pace
from heap_integration.delivery.records import (
    UNKNOWN_THERE,
    AttributeChange,
    MemberChange,
    NotAuthorised,
    ProfileChange,
    Record,
    RetryLater,
    Sender,
)
from heap_integration.destinations.customerio import CustomerioDestination, CustomerioSettings
from heap_integration.destinations.customerio_client import AppTurns, CustomerioClient
from heap_integration.destinations.customerio_senders import NOT_REMOVABLE, UNKNOWN
from heap_integration.destinations.destination import Audience, Destination, ProfileSet, Surroundings
from heap_integration.destinations.http import Api
from heap_integration.store import Store
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

ACCOUNTS = ProfileSet("accounts", create=True)
USERS = ProfileSet("users", create=True)

QUICK = Patience(attempts=4, seconds=20, first_wait=0.01, longest_wait=0.2)
BUYERS = Audience("buyers", "Loyal buyers")
BY_EMAIL = Audience("buyers", "Loyal buyers", identified_by="email")

Calls = Callable[..., Any]


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    with running_sandbox(tmp_path / "sandbox", limits=False) as running:
        yield running


Connect = Callable[..., CustomerioDestination]


def urls(sandbox: RunningSandbox) -> dict[str, str]:
    return {"track_url": f"{sandbox.url}/customerio/track", "app_url": f"{sandbox.url}/customerio/app"}


@pytest.fixture
def connect(sandbox: RunningSandbox, store: Store) -> Iterator[Connect]:
    """Open the workspace with the right keys unless told otherwise; all are closed in the end."""
    opened: list[CustomerioDestination] = []
    variables = {
        "SITE": "sandbox-site-id",
        "KEY": "sandbox-customerio-api-key",
        "APP": "sandbox-customerio-app-api-key",
        "WRONG": "a-wrong-secret",
        "BROKEN": "a-broken-secret\n",
    }

    def open_it(**settings: Any) -> CustomerioDestination:
        secrets = {"site_id": "SITE", "api_key": "KEY", "app_api_key": "APP"}
        named = {name: {"env": settings.pop(name, variable)} for name, variable in secrets.items()}
        given = CustomerioSettings.model_validate(named | urls(sandbox) | settings)
        customerio = given.connect(Surroundings("production", store, "https://heap.invalid", "1", variables))
        opened.append(customerio)
        as_any_other: Destination = customerio
        assert as_any_other is customerio
        return customerio

    yield open_it
    for each in opened:
        each.close()


@pytest.fixture
def track(sandbox: RunningSandbox) -> Calls:
    """Call the Track API with the workspace's own keys."""
    env = sandbox.environment
    assert env.customerio_site_id
    assert env.customerio_api_key
    keys = (env.customerio_site_id.get_secret_value(), env.customerio_api_key.get_secret_value())

    def call(method: str, path: str, **request: Any) -> Any:
        answer = sandbox.client.request(method, f"/customerio/track{path}", auth=keys, **request)
        return answer.raise_for_status().json()

    return call


@pytest.fixture
def app(sandbox: RunningSandbox) -> Calls:
    """Call the App API with the workspace's own key."""
    key = sandbox.environment.customerio_app_api_key
    assert key

    def call(method: str, path: str, **request: Any) -> Any:
        headers = {"authorization": f"Bearer {key.get_secret_value()}"}
        answer = sandbox.client.request(method, f"/customerio/app{path}", headers=headers, **request)
        return answer.raise_for_status().json() if answer.status_code != 204 else None

    return call


def send(store: Store, to: Sender, *payloads: Any) -> Tally:
    records = [Record(f"{number:016d}".encode(), payload) for number, payload in enumerate(payloads)]
    return deliver(records, to, Ledger(store, "customerio"), pace=Pace(store, "c", to.limits.windows), patience=QUICK)


def enter(*identities: str) -> list[MemberChange]:
    return [MemberChange(identity, member=True) for identity in identities]


def leave(*identities: str) -> list[MemberChange]:
    return [MemberChange(identity, member=False) for identity in identities]


def profile(identity: str, **values: Any) -> ProfileChange:
    changes = [
        AttributeChange(name, "clear") if value is None else AttributeChange(name, "set", value)
        for name, value in values.items()
    ]
    return ProfileChange(identity, tuple(changes))


def farewell(identity: str, *names: str) -> ProfileChange:
    return ProfileChange(identity, tuple(AttributeChange(name, "clear") for name in names), leaving=True)


def people(track: Calls, *identities: str, **attributes: Any) -> None:
    """Make people known to Customer.io, by their ids or addresses."""
    for first in range(0, len(identities), 1000):
        batch = [
            {
                "type": "person",
                "action": "identify",
                "identifiers": {"email" if "@" in each else "id": each},
                "attributes": attributes,
            }
            for each in identities[first : first + 1000]
        ]
        assert track("POST", "/api/v2/batch", json={"batch": batch}) == {}


def segment(app: Calls, name: str = "Loyal buyers") -> dict[str, Any]:
    [found] = [each for each in app("GET", "/v1/segments")["segments"] if each["name"] == name]
    return dict(found)


def attributes(app: Calls, *ids: str) -> dict[str, dict[str, str]]:
    found = app("POST", "/v1/customers/attributes", json={"ids": list(ids)})["customers"]
    return {each["id"]: each["attributes"] for each in found}


def test_members_enter_a_segment_made_for_them_and_leave_it(
    sandbox: RunningSandbox, connect: Connect, store: Store, track: Calls, app: Calls
) -> None:
    people(track, "ann", "bob", "o'neil/100%")
    customerio = connect()
    assert list(customerio.existing(BUYERS)) == []
    assert "Loyal buyers" not in {each["name"] for each in app("GET", "/v1/segments")["segments"]}

    assert send(store, customerio.members(BUYERS), *enter("ann", "o'neil/100%")).accepted == 2
    assert segment(app)["type"] == "manual"
    for kind in ("500", "429"):
        sandbox.fault(kind=kind, path=f"/customerio/app/v1/segments/{segment(app)['id']}/membership", next=1)
    assert set(customerio.existing(BUYERS)) == {"ann", "o'neil/100%"}

    assert send(store, customerio.members(BUYERS), *leave("ann"), *enter("bob")).accepted == 2
    assert set(customerio.existing(BUYERS)) == {"bob", "o'neil/100%"}
    # nothing is made in order to be left
    other = Audience("others", "Others")
    assert send(store, customerio.members(other), *leave("ann")).accepted == 1
    assert "Others" not in {each["name"] for each in app("GET", "/v1/segments")["segments"]}


def test_whom_customerio_does_not_know_is_told_and_the_others_get_in(
    connect: Connect, store: Store, track: Calls
) -> None:
    known = [f"user-{number}" for number in range(230)]
    people(track, *known)
    customerio = connect()
    long, empty = "x" * 151, ""
    tally = send(store, customerio.members(BUYERS), *enter(*known, "nobody", long, empty), *leave("also nobody"))
    assert (tally.accepted, tally.rejected) == (231, 3)
    assert UNKNOWN.startswith(UNKNOWN_THERE)
    assert tally.reasons[UNKNOWN] == 1
    assert set(tally.reasons) == {
        UNKNOWN,
        "Customer.io's ids have at most 150 bytes, not 151",
        "an empty id is nobody's",
    }
    assert set(customerio.existing(BUYERS)) == set(known)


def test_who_has_become_known_meanwhile_gets_in(connect: Connect, store: Store, track: Calls) -> None:
    customerio = connect()
    members, profiles = customerio.members(BUYERS), customerio.profiles(ProfileSet("users"))
    assert send(store, members, *enter("ann")).rejected == 1
    assert send(store, profiles, profile("ann", plan="pro")).rejected == 1
    people(track, "ann")
    assert send(store, members, *enter("ann")).accepted == 1
    assert send(store, profiles, profile("ann", plan="pro")).accepted == 1


def test_with_create_members_are_made_and_nobody_in_order_to_leave(
    sandbox: RunningSandbox, connect: Connect, store: Store, track: Calls
) -> None:
    creating = Audience("buyers", "Loyal buyers", create=True, identified_by="email")
    customerio = connect()
    tally = send(
        store, customerio.members(creating), *enter("new@example.com", "no address"), *leave("gone@example.com")
    )
    assert (tally.accepted, tally.rejected) == (2, 1)
    assert list(tally.reasons) == ["Customer.io: identifiers.email is not an e-mail address"]
    assert list(customerio.existing(creating)) == ["new@example.com"]
    assert sandbox.counts()["customerio_operations"] == 1


def test_members_by_address_leave_by_their_id_and_who_has_none_is_told(
    connect: Connect, store: Store, track: Calls
) -> None:
    people(track, "Ann@example.com", "Bob@example.com")
    people(track, "ann", email="ann@example.com")
    customerio = connect()
    assert send(store, customerio.members(BY_EMAIL), *enter("ann@example.com", "bob@example.com")).accepted == 2

    tally = send(store, customerio.members(BY_EMAIL), *leave("ann@example.com", "bob@example.com", "no@example.com"))
    assert (tally.accepted, tally.reasons) == (2, {NOT_REMOVABLE: 1})
    assert list(customerio.existing(BY_EMAIL)) == ["bob@example.com"]
    assert list(customerio.existing(BUYERS)) == []


def test_taking_people_out_by_their_address_can_be_insisted_on(
    sandbox: RunningSandbox, connect: Connect, store: Store, track: Calls
) -> None:
    people(track, "ann", email="ann@example.com")
    customerio = connect(remove_by_email=True)
    assert send(store, customerio.members(BY_EMAIL), *enter("ann@example.com")).accepted == 1
    asked = sandbox.counts()["customerio_requests"]
    assert send(store, customerio.members(BY_EMAIL), *leave("ann@example.com")).accepted == 1
    # the region, the segment, the removal: nobody is looked up
    assert sandbox.counts()["customerio_requests"] - asked == 3
    assert list(customerio.existing(BY_EMAIL)) == []


def test_a_segment_is_remembered_by_its_number_whatever_it_is_called(
    connect: Connect, store: Store, track: Calls, app: Calls
) -> None:
    people(track, "ann", "bob")
    made = app("POST", "/v1/segments", json={"segment": {"name": "Loyal buyers"}})["segment"]["id"]
    customerio = connect()
    send(store, customerio.members(BUYERS), *enter("ann"))
    renamed = Audience("buyers", "Best buyers")
    send(store, customerio.members(renamed), *enter("bob"))
    assert segment(app)["id"] == made
    assert set(customerio.existing(renamed)) == {"ann", "bob"}
    assert len(app("GET", "/v1/segments")["segments"]) == 2

    app("DELETE", f"/v1/segments/{made}")
    with pytest.raises(DeliveryStopped, match=f"segment {made} of Customer.io.*was deleted there") as stopped:
        send(store, connect().members(BUYERS), *enter("ann"))
    assert stopped.value.tally.rejected == 0
    afresh = Audience("buyers_2", "Loyal buyers")
    assert send(store, customerio.members(afresh), *enter("ann")).accepted == 1
    assert segment(app)["id"] != made


def test_a_segment_that_is_deleted_during_a_delivery_stops_it_and_rejects_nobody(
    connect: Connect, store: Store, track: Calls, app: Calls
) -> None:
    people(track, "ann", "bob")
    sender = connect().members(BUYERS)
    send(store, sender, *enter("ann"))
    app("DELETE", f"/v1/segments/{segment(app)['id']}")
    with pytest.raises(DeliveryStopped, match="was deleted there") as stopped:
        send(store, sender, *enter("bob"))
    assert stopped.value.tally.rejected == 0


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("Signed up", "data-driven segment"), ("Twins", "2 manual segments named 'Twins'")],
)
def test_a_name_that_is_no_single_manual_segments_is_refused(
    connect: Connect, store: Store, track: Calls, app: Calls, name: str, complaint: str
) -> None:
    people(track, "ann")
    for _ in range(2):
        app("POST", "/v1/segments", json={"segment": {"name": "Twins"}})
    with pytest.raises(DeliveryStopped, match=complaint):
        send(store, connect().members(Audience("it", name)), *enter("ann"))


def test_busy_answers_and_a_bad_network_only_delay(
    sandbox: RunningSandbox, connect: Connect, store: Store, track: Calls
) -> None:
    known = [f"user-{number}" for number in range(1200)]
    people(track, *known)
    for surface in ("track", "app"):
        for kind in ("429", "503", "500", "drop", "lost_ack", "truncate"):
            sandbox.fault(kind=kind, path=f"/customerio/{surface}", next=1)
    customerio = connect()
    patient = Patience(attempts=20, seconds=60, first_wait=0.01, longest_wait=0.2)
    sender = customerio.members(BUYERS)
    records = [Record(f"{number:016d}".encode(), change) for number, change in enumerate(enter(*known))]
    pace = Pace(store, "c", sender.limits.windows)
    assert deliver(records, sender, Ledger(store, "customerio"), pace=pace, patience=patient).accepted == 1200
    assert len(list(customerio.existing(BUYERS))) == 1200
    assert [fault["hits"] for fault in sandbox.state()["faults"]] == [1] * 12


def test_a_batch_of_which_half_got_through_is_repeated_as_a_whole(
    sandbox: RunningSandbox, connect: Connect, store: Store, track: Calls
) -> None:
    people(track, "ann", "bob")
    customerio = connect()
    send(store, customerio.members(BUYERS), *enter("ann"))
    for kind in ("500", "lost_ack"):
        sandbox.fault(kind=kind, path="/customerio/track/api/v1/segments/2/add_customers", next=1)
    assert send(store, customerio.members(BUYERS), *enter("bob"), *leave("ann")).accepted == 2
    assert list(customerio.existing(BUYERS)) == ["bob"]
    assert [fault["hits"] for fault in sandbox.state()["faults"]] == [1, 1]


def test_the_app_apis_ten_calls_a_second_are_kept(connect: Connect, tmp_path: Path, store: Store) -> None:
    with running_sandbox(tmp_path / "limited") as sandbox:
        customerio = connect(**urls(sandbox))
        nobody = enter(*(f"user-{number}" for number in range(2000)))
        assert send(store, customerio.members(BUYERS), *nobody).rejected == 2000
        assert list(customerio.existing(BUYERS)) == []
        assert "customerio_rate_limited" not in sandbox.counts()


def test_a_batch_that_is_tried_again_asks_only_what_it_does_not_know_yet(
    sandbox: RunningSandbox, connect: Connect, store: Store
) -> None:
    sandbox.fault(kind="429", path="/customerio/app/v1/objects", after=5, next=1)
    going = [farewell(f"account-{number}", "plan") for number in range(8)]
    assert send(store, connect().profiles(ACCOUNTS), *going).accepted == 8
    assert sandbox.counts().get("customerio_operations", 0) == 0
    assert sandbox.counts()["customerio_rejected_requests"] == 8


def test_attributes_are_set_and_cleared_and_each_refusal_stands_alone(
    connect: Connect, store: Store, track: Calls, app: Calls
) -> None:
    people(track, "ann", "bob", plan="free", city="Oslo")
    customerio = connect()
    tally = send(
        store,
        customerio.profiles(ProfileSet("users")),
        profile("ann", plan="pro", city=None, seats=3, since="2026-01-02T03:04:05Z", on=True, tags=["a", "b"]),
        profile("bob", plan="x" * 1001),
        profile("nobody", plan="pro"),
        farewell("ghost", "plan"),
        profile("bob", **{f"a{number}": number for number in range(300)}),
        profile("bob", **{"n" * 151: 1}),
        profile("bob", **{f"a{number}": "x" * 1000 for number in range(40)}),
        ProfileChange("bob", (AttributeChange("seats", "add", 1),)),
        profile("bob", city="Rome", _update=False),
    )
    assert (tally.accepted, tally.rejected) == (2, 7)
    assert tally.reasons[UNKNOWN] == 1
    assert any("at most 1000 bytes, and plan has 1001" in reason for reason in tally.reasons)
    assert any("fewer than 300 attributes" in reason for reason in tally.reasons)
    assert any("32000 bytes a profile" in reason for reason in tally.reasons)
    assert any("knows no add" in reason for reason in tally.reasons)
    found = attributes(app, "ann", "bob", "nobody", "ghost")
    assert found["ann"] == {
        "id": "ann",
        "cio_id": found["ann"]["cio_id"],
        "plan": "pro",
        "seats": "3",
        "since": "1767323045",
        "on": "true",
        "tags": '["a","b"]',
    }
    assert found["bob"]["city"] == "Oslo"
    assert found.keys() == {"ann", "bob"}


def test_what_customerio_refuses_of_a_batch_is_told_of_that_record(connect: Connect, store: Store, app: Calls) -> None:
    customerio = connect()
    by_email = customerio.profiles(ProfileSet("users", create=True, identified_by="email"))
    tally = send(store, by_email, profile("no address", plan="pro"), profile("ann@example.com", plan="pro"))
    assert tally.accepted == 1
    assert tally.reasons == {"Customer.io: identifiers.email is not an e-mail address": 1}
    [found] = app("GET", "/v1/customers", params={"email": "ANN@example.com"})["results"]
    assert found["email"] == "ann@example.com"


def test_a_large_batch_goes_in_requests_of_500_kb(sandbox: RunningSandbox, connect: Connect, store: Store) -> None:
    customerio = connect(dates="text")
    made = [profile(f"user-{number}", text="x" * 990, since="2026-01-02T03:04:05Z") for number in range(1000)]
    assert send(store, customerio.profiles(USERS), *made).accepted == 1000
    assert sandbox.counts()["customerio_operations"] == 1000
    assert sandbox.counts()["customerio_requests"] == 3


def test_accounts_are_objects_that_are_made_only_where_that_is_wanted(
    connect: Connect, store: Store, app: Calls
) -> None:
    customerio = connect(object_type="2")
    tally = send(store, customerio.profiles(ProfileSet("accounts")), profile("acme", seats=3))
    assert next(iter(tally.reasons)).startswith(UNKNOWN_THERE)
    assert send(store, customerio.profiles(ACCOUNTS), profile("acme", seats=3, plan="pro")).accepted == 1
    assert send(store, customerio.profiles(ProfileSet("accounts")), profile("acme", plan=None)).accepted == 1
    assert app("GET", "/v1/objects/2/acme/attributes")["object"]["attributes"] == {"seats": 3}


def test_people_can_be_deleted_and_leave_their_segments(
    connect: Connect, store: Store, track: Calls, app: Calls
) -> None:
    people(track, "ann", "bob")
    customerio = connect()
    send(store, customerio.members(BUYERS), *enter("ann", "bob"))
    assert send(store, customerio.deletions(), "ann", "nobody", "").rejected == 1
    assert list(customerio.existing(BUYERS)) == ["bob"]
    assert attributes(app, "ann", "bob").keys() == {"bob"}


def test_a_check_says_what_the_keys_open_and_which_of_them_is_wrong(sandbox: RunningSandbox, connect: Connect) -> None:
    works = "the Track API's keys open workspace 1 (us); the App API's key lists 1 segments, 0 of them manual"
    assert connect().check() == works
    with pytest.raises(NotAuthorised, match="Check site_id and api_key") as wrong:
        connect(api_key="WRONG").check()
    assert "app_api_key" not in str(wrong.value)
    with pytest.raises(NotAuthorised, match="Check app_api_key") as wrong:
        connect(app_api_key="WRONG").check()
    assert "site_id" not in str(wrong.value)
    with pytest.raises(NotAuthorised, match=r"site_id.*app_api_key"):
        connect(site_id="WRONG", app_api_key="WRONG").check()
    with pytest.raises(NotAuthorised, match="set region: us"):
        connect(region="eu").check()
    assert sandbox.counts().get("customerio_operations", 0) == 0


@pytest.mark.parametrize("page", ["{}", "[]", '"welcome"', "<html>please log in</html>"])
def test_an_answer_that_is_not_customerios_is_tried_again(store: Store, page: str) -> None:
    secrets = {"site_id": {"env": "SITE"}, "api_key": {"env": "KEY"}, "app_api_key": {"env": "APP"}}
    api = Api(
        "Customer.io",
        "http://127.0.0.1:1",
        headers={},
        secrets=(),
        key_advice="",
        client=httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, text=page))),
    )
    client = CustomerioClient(api, api, AppTurns(store, "app"))
    surroundings = Surroundings("production", store, "https://heap.invalid", "1", {})
    customerio = CustomerioDestination(CustomerioSettings.model_validate(secrets), client, surroundings)
    asked: list[Callable[[], object]] = [
        customerio.check,
        lambda: list(customerio.existing(BUYERS)),
        lambda: customerio.members(BUYERS).send([Record(b"k" * 16, enter("ann")[0])]),
        lambda: client.create_segment("Buyers", ""),
        lambda: client.segment(7),
    ]
    for ask in asked:
        with pytest.raises(RetryLater, match=r"not JSON|no object|no workspace|no segment"):
            ask()


def test_a_refused_key_stops_a_delivery_and_rejects_nobody(connect: Connect, store: Store) -> None:
    customerio = connect(app_api_key="WRONG")
    with pytest.raises(DeliveryStopped, match="Check app_api_key") as stopped:
        send(store, customerio.members(BUYERS), *enter("ann", "bob"))
    assert stopped.value.tally.rejected == 0
    assert "a-wrong-secret" not in str(stopped.value)


@pytest.mark.parametrize("name", ["site_id", "api_key", "app_api_key"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_repeated(connect: Connect, name: str) -> None:
    with pytest.raises(ValueError, match="copy it again") as refused:
        connect(**{name: "BROKEN"})
    assert "a-broken-secret" not in str(refused.value)
