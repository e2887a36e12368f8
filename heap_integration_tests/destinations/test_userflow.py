"""Userflow's users get a segment's mark and lose it, and profiles their attributes, whatever Userflow answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_integration.delivery.engine import DeliveryStopped, Patience, Tally, deliver
from heap_integration.delivery.ledger import Ledger
from heap_integration.delivery.pace import Pace
from heap_integration.delivery.records import (
    AMBIGUOUS_THERE,
    UNKNOWN_THERE,
    AttributeChange,
    BatchRejected,
    MemberChange,
    ProfileChange,
    Record,
    RetryLater,
    Sender,
)
from heap_integration.destinations.destination import Audience, Kind, ProfileSet, Surroundings
from heap_integration.destinations.userflow import Userflow, UserflowSettings
from heap_integration.segments.changes import profile_change
from heap_integration.segments.wanted import Action
from heap_integration.settings import MissingSecret, Secret
from heap_integration.store import Store
from heap_integration.sync_settings import ProfileField
from heap_integration_tests.support.recorder import recorder
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

QUICK = Patience(attempts=4, seconds=20, first_wait=0.01, longest_wait=0.02)
SECRET = "ak_something_secret"
BUYERS = Audience("buyers", "Loyal buyers")
EVERYBODY = {"membership": "boolean"}, {"membership": "list"}


@dataclass
class Pair:
    """A sandbox whose Userflow knows three users, and what sends to it."""

    sandbox: RunningSandbox
    store: Store
    opened: list[Userflow] = field(default_factory=list)

    def open(self, key: str | None = None, **settings: Any) -> Userflow:
        """Open the destination as an environment with these settings would."""
        known = self.sandbox.environment.userflow_api_key.get_secret_value()
        userflow = UserflowSettings(api_key=Secret(env="KEY"), base_url=self.sandbox.userflow_url, **settings).connect(
            Surroundings("test", self.store, "", "", {"KEY": key or known})
        )
        self.opened.append(userflow)
        return userflow

    def send(self, to: Sender, *records: Record) -> Tally:
        """Deliver records as a sync does."""
        return deliver(records, to, Ledger(self.store, "x"), pace=Pace(self.store, "x", ()), patience=QUICK)

    def users(self, kind: str = "users") -> dict[str, dict[str, Any]]:
        """Return the attributes of the users (or groups) that don't come with the sandbox."""
        found = self.sandbox.state(f"userflow/{kind}", app_id=self.sandbox.app_id, limit=1000)[kind]
        return {each["id"]: each["attributes"] for each in found}

    def put(self, kind: str, identity: str, **attributes: Any) -> None:
        """Write attributes as somebody else would."""
        body = {"id": identity, "attributes": attributes}
        self.sandbox.userflow("POST", f"/{kind}", json=body).raise_for_status()

    def events(self) -> list[tuple[str, str, str]]:
        """Return name, user and segment of the events, in the order of arrival."""
        found = self.sandbox.state("userflow/events", app_id=self.sandbox.app_id, limit=1000)["events"]
        return [(each["name"], each["user_id"], each["attributes"]["segment"]) for each in found]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    # A repeated append doubles an entry here: nothing may depend on its kindness.
    with running_sandbox(tmp_path / "sandbox", userflow_append="repeat") as running:
        store = Store(f"sqlite:///{tmp_path}/store.db")
        pair = Pair(running, store)
        for user in ("ann", "bob", "o'neil/100%"):
            pair.put("users", user, plan="pro", email=f"{user[:3]}@example.com")
        yield pair
        for userflow in pair.opened:
            userflow.close()
        store.close()


def member(identity: str, member: bool = True) -> Record:
    return Record(identity.encode().ljust(16), MemberChange(identity, member))


def profile(identity: str, *changes: AttributeChange, leaving: bool = False) -> Record:
    return Record(b"k" * 16, ProfileChange(identity, changes, leaving))


def test_members_get_the_mark_lose_it_and_keep_all_else(pair: Pair) -> None:
    to = pair.open().members(BUYERS)
    assert pair.send(to, member("ann"), member("o'neil/100%")).accepted == 2
    assert pair.send(to, member("ann", False)).accepted == 1
    users = pair.users()
    assert (users["ann"]["heap_segment_buyers"], users["ann"]["plan"]) == (False, "pro")
    assert users["o'neil/100%"]["heap_segment_buyers"] is True
    assert "heap_segment_buyers" not in users["bob"]


@pytest.mark.parametrize("form", EVERYBODY)
def test_whom_userflow_does_not_know_is_refused_and_not_created(pair: Pair, form: dict[str, Any]) -> None:
    to = pair.open(**form).members(BUYERS)
    tally = pair.send(to, member("nobody"), member(".."), member("ann"))
    assert (tally.accepted, tally.reasons) == (1, {UNKNOWN_THERE: 2})
    assert pair.send(to, member("nobody", False)).accepted == 1
    assert pair.users().keys() == {"ann", "bob", "o'neil/100%"}


@pytest.mark.parametrize("form", [*EVERYBODY, {"entered_event": "entered"}])
def test_an_audience_that_creates_makes_members_and_never_leavers(pair: Pair, form: dict[str, Any]) -> None:
    to = pair.open(**form).members(Audience("buyers", "Loyal buyers", create=True))
    assert pair.send(to, member("nobody", False)).accepted == 1
    assert "nobody" not in pair.users()
    tally = pair.send(to, member("nobody"), member(".."))
    assert (tally.accepted, tally.reasons) == (1, {UNKNOWN_THERE: 1})
    assert pair.users()["nobody"]


def test_a_list_holds_the_segment_once_among_others_and_knows_it_by_what_never_changes(pair: Pair) -> None:
    pair.put("users", "ann", heap_segments=["newcomers"])
    userflow = pair.open(membership="list")
    for _ in range(2):
        assert pair.send(userflow.members(BUYERS), member("ann")).accepted == 1
        assert pair.users()["ann"]["heap_segments"] == ["newcomers", "buyers"]
    renamed = userflow.members(Audience("buyers", "Our best customers"))
    for _ in range(2):
        assert pair.send(renamed, member("ann", False)).accepted == 1
        assert pair.users()["ann"]["heap_segments"] == ["newcomers"]


@pytest.mark.parametrize("form", EVERYBODY)
def test_who_is_in_the_audience_can_be_asked(pair: Pair, form: dict[str, Any]) -> None:
    for number in range(130):
        pair.put("users", f"u{number}", email=f"U{number}@Example.com")
    userflow = pair.open(**form)
    changes = [member(f"u{number}") for number in range(0, 130, 2)]
    members = userflow.members(BUYERS)
    assert pair.send(members, *changes, member("ann")).accepted == 66
    assert pair.send(members, member("ann", False)).accepted == 1
    pair.sandbox.fault(kind="500", path="/userflow/users", next=1)
    assert sorted(userflow.existing(BUYERS)) == sorted(f"u{number}" for number in range(0, 130, 2))
    by_email = Audience("buyers", "Loyal buyers", identified_by="email")
    assert "u4@example.com" in set(userflow.existing(by_email))


def test_a_mark_that_nobody_ever_had_is_not_looked_for_among_all_users(pair: Pair) -> None:
    userflow = pair.open()
    pair.sandbox.fault(kind="403", path="/userflow/users")
    assert list(userflow.existing(Audience("new_segment", "New segment"))) == []


def test_a_list_that_userflow_wants_to_show_tomorrow_is_not_waited_for() -> None:
    busy = httpx.Response(429, headers={"retry-after": "86400"})
    began = time.monotonic()
    with pytest.raises(RetryLater, match="answered 429"):
        list(imagined(lambda request: busy).existing(BUYERS))
    assert time.monotonic() - began < 10


def test_members_can_be_known_by_their_address_if_it_is_theirs_alone(pair: Pair) -> None:
    for twin in ("cas", "cas 2"):
        pair.put("users", twin, email="cas@example.com")
    to = pair.open().members(Audience("buyers", "Loyal buyers", create=True, identified_by="email"))
    tally = pair.send(to, *map(member, ("ann@example.com", "cas@example.com", "new@example.com", "")))
    assert (tally.accepted, tally.reasons) == (1, {AMBIGUOUS_THERE: 1, UNKNOWN_THERE: 2})
    users = pair.users()
    assert users["ann"] == {"plan": "pro", "email": "ann@example.com", "heap_segment_buyers": True}
    assert users.keys() == {"ann", "bob", "o'neil/100%", "cas", "cas 2"}
    assert pair.send(to, member("ann@example.com", False)).accepted == 1
    assert pair.users()["ann"]["heap_segment_buyers"] is False


def test_profiles_can_be_known_by_an_address_too(pair: Pair) -> None:
    for twin in ("cas", "cas 2"):
        pair.put("users", twin, email="cas@example.com")
    to = pair.open().profiles(ProfileSet("users", create=True, identified_by="email"))
    plan = AttributeChange("plan", "set", "free")
    tally = pair.send(to, *(profile(f"{name}@example.com", plan) for name in ("ann", "cas", "new")))
    assert (tally.accepted, tally.reasons) == (1, {AMBIGUOUS_THERE: 1, UNKNOWN_THERE: 1})
    assert pair.users()["ann"]["plan"] == "free"
    assert pair.users().keys() == {"ann", "bob", "o'neil/100%", "cas", "cas 2"}


def test_an_address_filter_that_is_not_understood_marks_nobody_else() -> None:
    people = [{"id": "ann", "attributes": {"email": "ann@example.com"}}, {"id": "nameless", "attributes": {}}]
    users = {"object": "list", "data": [*people, {"id": "empty", "attributes": {"email": ""}}], "has_more": False}
    written = []

    def answers(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            written.append(request)
        return httpx.Response(200, json=users)

    to = imagined(answers).members(Audience("buyers", "Loyal buyers", identified_by="email"))
    for address in ("bob@example.com", "None", ""):
        assert to.send([member(address)])[0].reason == UNKNOWN_THERE
    assert written == []


def test_events_tell_who_enters_and_leaves_and_a_second_sync_tells_nothing_new(pair: Pair) -> None:
    to = pair.open(entered_event="segment entered", left_event="segment_left").members(BUYERS)
    for _ in range(2):
        assert pair.send(to, member("ann"), member("bob", False)).accepted == 2
    assert pair.events() == [("segment entered", "ann", "buyers")]
    for _ in range(2):
        assert pair.send(to, member("ann", False)).accepted == 1
    assert pair.events() == [("segment entered", "ann", "buyers"), ("segment_left", "ann", "buyers")]


def test_an_event_whose_acknowledgement_is_lost_is_tracked_again_and_never_missed(pair: Pair) -> None:
    to = pair.open(entered_event="entered").members(Audience("buyers", "Loyal buyers", create=True))
    pair.sandbox.fault(kind="500", path="/userflow/events", next=1)
    pair.sandbox.fault(kind="lost_ack", path="/userflow/events", next=1)
    assert pair.send(to, member("new")).accepted == 1
    assert pair.events() == [("entered", "new", "buyers")] * 2
    assert pair.users()["new"] == {"heap_segment_buyers": True}


def test_attributes_of_users_take_every_operation(pair: Pair) -> None:
    pair.put("users", "ann", visits=3, tags=["a", "b"], old="x", first="long ago")
    changes = (
        AttributeChange("plan", "set", "free"),
        AttributeChange("first", "set_once", "now"),
        AttributeChange("source", "set_once", "ad"),
        AttributeChange("visits", "add", 2, total=2),
        AttributeChange("tags", "append", ["b", "c"]),
        AttributeChange("tags", "remove", ["a"]),
        AttributeChange("old", "clear"),
        AttributeChange("joined", "set", "2026-01-02T03:04:05Z"),
        AttributeChange("email", "set", None),
    )
    assert pair.send(pair.open().profiles(ProfileSet("users")), profile("ann", *changes)).accepted == 1
    found = {name: value for name, value in pair.users()["ann"].items() if not name.startswith("heap_added_to_")}
    assert found == {
        "plan": "free",
        "first": "long ago",
        "source": "ad",
        "visits": 5,
        "tags": ["b", "c"],
        "joined": "2026-01-02T03:04:05Z",
    }


@pytest.mark.parametrize(("kind", "path"), [("users", "users"), ("accounts", "groups")])
def test_profiles_are_created_only_when_told_to_and_never_in_order_to_leave(pair: Pair, kind: Kind, path: str) -> None:
    name = AttributeChange("name", "set", "Acme")
    gone = AttributeChange("name", "clear")
    userflow = pair.open()
    tally = pair.send(userflow.profiles(ProfileSet(kind)), profile("acme", name))
    assert tally.reasons == {UNKNOWN_THERE: 1}
    creating = ProfileSet(kind, create=True)
    assert pair.send(userflow.profiles(creating), profile("acme", gone, leaving=True)).accepted == 1
    assert "acme" not in pair.users(path)
    assert pair.send(userflow.profiles(creating), profile("acme", name)).accepted == 1
    assert pair.users(path)["acme"] == {"name": "Acme"}
    assert pair.send(userflow.profiles(ProfileSet(kind)), profile("acme", gone, leaving=True)).accepted == 1
    assert pair.users(path)["acme"] == {}


@pytest.mark.parametrize("fault", ["lost_ack", "drop", "500", "truncate"])
def test_a_repeated_change_of_a_number_or_a_list_happens_once(pair: Pair, fault: str) -> None:
    pair.put("users", "ann", visits=3, tags=["a"])
    growth = AttributeChange("visits", "add", 2, total=2), AttributeChange("tags", "append", ["b"])
    to = pair.open().profiles(ProfileSet("users"))
    pair.sandbox.fault(kind=fault, path="/userflow/users", after=1, next=1)
    assert pair.send(to, profile("ann", *growth)).accepted == 1
    # Somebody else counts too, and then a restart sends the same change once more.
    pair.put("users", "ann", visits={"add": 10})
    assert pair.send(to, profile("ann", *growth)).accepted == 1
    assert (pair.users()["ann"]["visits"], pair.users()["ann"]["tags"]) == (15, ["a", "b"])


def test_a_number_is_right_though_nobody_knows_what_has_arrived_before(pair: Pair) -> None:
    pair.put("users", "ann", visits=100)
    to = pair.open().profiles(ProfileSet("users"))

    def add(difference: float, total: float) -> float:
        change = AttributeChange("visits", "add", difference, total=total)
        assert pair.send(to, profile("ann", change)).accepted == 1
        return float(pair.users()["ann"]["visits"])

    assert add(5, total=5) == 105
    # Two more arrive, their acknowledgement is lost, and by the next sync it is four since what was acknowledged.
    assert add(2, total=7) == 107
    assert add(4, total=9) == 109
    assert add(-1, total=4) == 104
    assert add(0, total=5) == 105
    assert add(0.1, total=5.1) == 105.1
    # Gone from the source: what was added goes, what others have counted stays.
    assert add(-5.1, total=0) == 100
    assert add(3, total=3) == 103


def test_a_growth_that_a_sync_tells_again_from_further_back_is_right_too(pair: Pair) -> None:
    pair.put("users", "ann", visits=100)
    to = pair.open().profiles(ProfileSet("users"))
    told = profile_change({"logins": ProfileField(to="visits", operation="add")})
    for action, wanted, acknowledged, visits in (
        (Action.ADD, 5, None, 105),
        (Action.UPDATE, 7, 5, 107),
        (Action.ADD, 9, 5, 109),  # the 7 has arrived and nobody knows
        (Action.ADD, 5, 5, 105),  # neither does anybody know of the 9
        (Action.REMOVE, None, 5, 100),
    ):
        texts = [None if number is None else f'{{"visits":{number}}}' for number in (wanted, acknowledged)]
        change = told(action, "ann", *texts)
        assert pair.send(to, Record(b"k" * 16, change)).accepted == 1
        assert pair.users()["ann"]["visits"] == visits


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["append", "remove"]), st.lists(st.sampled_from("abcd"), max_size=3, unique=True)),
        max_size=6,
    ),
    before=st.lists(st.sampled_from("abcdxy"), unique=True),
)
def test_a_list_ends_as_the_changes_say_though_each_request_is_made_twice(
    steps: list[tuple[Any, list[str]]], before: list[str]
) -> None:
    attributes: dict[str, Any] = {"tags": list(before)}

    def answers(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"id": "ann", "attributes": attributes})
        (operation,) = httpx.Response(200, content=request.content).json()["attributes"]["tags"].items()
        for entry in operation[1]:
            if operation[0] == "append":
                attributes["tags"].append(entry)
            else:
                attributes["tags"] = [each for each in attributes["tags"] if each != entry]
        return httpx.Response(200, json={})

    to = imagined(answers).profiles(ProfileSet("users"))
    wanted = set(before)
    for operation, entries in steps:
        for _ in range(2):
            to.send([profile("ann", AttributeChange("tags", operation, entries))])
        wanted = wanted | set(entries) if operation == "append" else wanted - set(entries)
    assert sorted(attributes["tags"]) == sorted(wanted)


def test_busy_answers_and_a_bad_network_only_delay(pair: Pair) -> None:
    for kind in ("429", "503", "500", "drop", "lost_ack", "truncate"):
        pair.sandbox.fault(kind=kind, path="/userflow", next=1, retry_after=0 if kind in {"429", "503"} else None)
    assert pair.send(pair.open().members(BUYERS), *map(member, pair.users())).accepted == 3
    assert all(user["heap_segment_buyers"] is True for user in pair.users().values())
    assert [fault["hits"] for fault in pair.sandbox.state()["faults"]] == [1] * 6


def test_userflows_limits_are_kept_without_a_word_about_them(pair: Pair) -> None:
    pair.sandbox.client.post("/_limits", json={"userflow_requests_at_once": 2, "userflow_request_seconds": 0.01})
    userflow = pair.open(concurrency=12)
    audience = Audience("buyers", "Loyal buyers", create=True)
    tally = pair.send(userflow.members(audience), *(member(f"u{number}") for number in range(150)))
    assert tally.accepted == 150
    assert pair.sandbox.counts()["userflow_rejected_requests"] < 30


def test_check_proves_the_key_and_writes_nothing(pair: Pair) -> None:
    before = pair.users()
    assert "lists" in pair.open().check()
    assert pair.users() == before
    with pytest.raises(Exception, match="Check the Userflow API key of this environment") as refused:
        pair.open(key=SECRET).check()
    assert SECRET not in str(refused.value)


def test_a_refused_key_stops_the_sync_and_rejects_nobody(pair: Pair) -> None:
    with pytest.raises(DeliveryStopped, match="Check the Userflow API key of this environment") as stopped:
        pair.send(pair.open(key=SECRET).members(BUYERS), member("ann"), member("bob"))
    assert stopped.value.tally.rejected == 0
    assert SECRET not in str(stopped.value)
    assert Ledger(pair.store, "x").unsettled() == []


@pytest.mark.parametrize("key", ["", f"{SECRET}\n", f" {SECRET}", f"{SECRET}’", f"{SECRET}\x00"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_repeated(key: str) -> None:
    with pytest.raises(ValueError, match="copy it again") as refused:
        Userflow(UserflowSettings(api_key=Secret(env="KEY")), key)
    assert SECRET not in repr(refused.value)


def test_a_key_that_is_not_set_is_named_by_its_variable(pair: Pair) -> None:
    variables: Mapping[str, str] = {}
    with pytest.raises(MissingSecret, match="KEY"):
        UserflowSettings(api_key=Secret(env="KEY")).connect(Surroundings("test", pair.store, "", "", variables))


def test_no_reason_ever_repeats_the_key() -> None:
    def repeats(request: httpx.Request) -> httpx.Response:
        raise httpx.LocalProtocolError(f"Illegal header value {request.headers['authorization']!r}")

    with pytest.raises(RetryLater, match=r"Illegal header value 'Bearer \[key\]'"):
        imagined(repeats).members(BUYERS).send([member("ann")])

    def echoes(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500, text=f"{'x' * 290}{request.headers['authorization']}")

    with pytest.raises(RetryLater) as told:
        imagined(echoes).members(BUYERS).send([member("ann")])
    assert SECRET[:4] not in str(told.value)


@pytest.mark.parametrize("page", ["<html>please log in</html>", "[]", '"welcome"', "{}"])
def test_an_answer_that_is_not_userflows_is_tried_again(page: str) -> None:
    userflow = imagined(lambda request: httpx.Response(200, text=page))
    with pytest.raises(RetryLater, match=r"not JSON|no object|neither a user|no list"):
        userflow.members(BUYERS).send([member("ann")])
    with pytest.raises(RetryLater, match=r"not JSON|no object|neither a user|no list"):
        userflow.check()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(404, text="<html>nothing here</html>"), "answered 404, and not as Userflow does: check its ad"),
        (httpx.Response(302, headers={"location": "https://login.example"}), "points to https://login.example: redir"),
    ],
    ids=["page", "redirect"],
)
def test_another_server_in_userflows_place_stops_the_sync_and_takes_nobody_out(
    pair: Pair, answer: httpx.Response, words: str
) -> None:
    for audience in (BUYERS, Audience("buyers", "Loyal buyers", create=True)):
        to = imagined(lambda request: answer).members(audience)
        with pytest.raises(DeliveryStopped, match=words) as stopped:
            pair.send(to, member("ann"), member("bob", member=audience.create))
        assert (stopped.value.tally.accepted, stopped.value.tally.rejected) == (0, 0)


@pytest.mark.parametrize("after", ["\xb2", "9" * 30, "-1", "1e9", "soon"])
def test_a_busy_answer_whose_patience_cannot_be_read_is_busy_all_the_same(after: str) -> None:
    busy = httpx.Response(429, headers=[(b"retry-after", after.encode("latin-1"))])
    with pytest.raises(RetryLater) as told:
        imagined(lambda request: busy).members(BUYERS).send([member("ann")])
    assert (told.value.busy, told.value.after) == (True, None)


def test_a_reason_is_one_line_that_any_table_can_hold() -> None:
    answer = httpx.Response(400, text="wrong:\x00\r\n the id")
    with pytest.raises(BatchRejected, match=r"wrong: +the id$"):
        imagined(lambda request: answer).members(BUYERS).send([member("ann")])


def test_a_request_that_userflow_calls_wrong_rejects_its_member_alone(pair: Pair) -> None:
    with recorder() as server:
        server.statuses[:] = [400, 200]
        settings = UserflowSettings(api_key=Secret(env="KEY"), base_url=server.url, concurrency=1)
        with closing(Userflow(settings, SECRET)) as userflow:
            to = userflow.members(Audience("buyers", "Loyal buyers", create=True))
            tally = pair.send(to, member("ann"), member("bob"))
    assert (tally.accepted, tally.rejected) == (1, 1)
    assert [request.headers["userflow-version"] for request in server.requests] == ["2020-01-03"] * 2


def imagined(answers: Any) -> Userflow:
    client = httpx.Client(transport=httpx.MockTransport(answers))
    return Userflow(UserflowSettings(api_key=Secret(env="KEY"), base_url="http://127.0.0.1:1"), SECRET, client)
