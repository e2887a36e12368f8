"""Userpilot's users and companies get segments and profiles as properties, one by one or in jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import md5
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import orjson
import pytest
from httpx import MockTransport
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from heap_integration.delivery.engine import DeliveryStopped, Patience, Tally, deliver
from heap_integration.delivery.ledger import Ledger
from heap_integration.delivery.pace import Pace
from heap_integration.delivery.records import (
    AttributeChange,
    MemberChange,
    ProfileChange,
    Record,
    RetryLater,
    Sender,
)
from heap_integration.destinations.destination import Audience, Kind, ProfileSet, Surroundings
from heap_integration.destinations.userpilot import CALLS, Userpilot, UserpilotSettings
from heap_integration.store import Store
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

ACCOUNTS = ProfileSet("accounts", create=True)
USERS = ProfileSet("users", create=True)

QUICK = Patience(attempts=4, seconds=20, first_wait=0.01, longest_wait=0.02)
BUYERS = Audience(slug="buyers", name="Loyal buyers", create=True)
KEY = "userpilot-secret"
FAST = {"userpilot_rows_per_minute": 6_000_000, "userpilot_job_seconds": 0.02}


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    with running_sandbox(tmp_path / "sandbox", **FAST) as running:
        yield running


@contextmanager
def opened(
    sandbox: RunningSandbox, store: Store, key: str | None = None, first_pause: float = 0.01, **settings: Any
) -> Iterator[Userpilot]:
    secret = sandbox.environment.userpilot_api_key
    assert secret is not None
    declared = UserpilotSettings.model_validate(
        {"api_key": {"env": "KEY"}, "base_url": f"{sandbox.url}/userpilot", **settings}
    )
    with closing(Userpilot(declared, key or secret.get_secret_value(), store, first_pause=first_pause)) as userpilot:
        yield userpilot


def answering(store: Store, handler: Callable[[httpx.Request], httpx.Response], **settings: Any) -> Userpilot:
    declared = UserpilotSettings.model_validate(
        {"api_key": {"env": "KEY"}, "base_url": "http://127.0.0.1:1", **settings}
    )
    return Userpilot(declared, KEY, store, first_pause=0.01, client=httpx.Client(transport=MockTransport(handler)))


def member(identity: str, present: bool = True) -> Record:
    return Record(named(identity, present), MemberChange(identity, present))


def profile(identity: str, **properties: Any) -> Record:
    changes = tuple(AttributeChange(name, "set", value) for name, value in properties.items())
    return Record(named(identity, properties), ProfileChange(identity, changes))


def named(*what: Any) -> bytes:
    return md5(repr(what).encode(), usedforsecurity=False).digest()


def send(store: Store, to: Sender, *records: Record, patience: Patience = QUICK) -> Tally:
    pace = Pace(store, "userpilot", to.limits.windows)
    return deliver(records, to, Ledger(store, "userpilot"), pace=pace, patience=patience)


def shown(sandbox: RunningSandbox) -> dict[str, Any]:
    (userpilot,) = sandbox.state("vendors", app_id=sandbox.app_id, name="userpilot")["vendors"]
    return {**userpilot, "users": {user["id"]: user for user in userpilot["users"]}}


def properties(sandbox: RunningSandbox) -> dict[str, dict[str, Any]]:
    return {name: user["properties"] for name, user in shown(sandbox)["users"].items()}


def members(sandbox: RunningSandbox) -> int:
    return sum(audience["members"] for audience in shown(sandbox)["audiences"])


def test_few_members_go_one_by_one_and_lose_the_mark_again(sandbox: RunningSandbox, store: Store) -> None:
    with opened(sandbox, store) as userpilot:
        assert send(store, userpilot.profiles(USERS), profile("ann", plan="pro")).accepted == 1
        assert send(store, userpilot.members(BUYERS), member("ann"), member("o'neil/100% ü")).accepted == 2
        assert send(store, userpilot.members(BUYERS), member("ann", present=False)).accepted == 1
    assert properties(sandbox) == {
        "ann": {"plan": "pro", "heap_segment_buyers": False},
        "o'neil/100% ü": {"heap_segment_buyers": True},
    }
    assert shown(sandbox)["counts"]["bulk jobs"] == 0


def test_many_members_go_in_jobs_of_ten_thousand_and_the_rest_one_by_one(sandbox: RunningSandbox, store: Store) -> None:
    everybody = [member(f"user {number}") for number in range(10_030)]
    with opened(sandbox, store) as userpilot:
        assert send(store, userpilot.members(BUYERS), *everybody).accepted == 10_030
    found = shown(sandbox)
    assert (found["counts"]["bulk jobs"], found["counts"]["users"], members(sandbox)) == (1, 10_030, 10_030)


def test_companies_have_properties_and_a_user_moves_into_one(sandbox: RunningSandbox, store: Store) -> None:
    acme, zeta = profile("acme", name="Acme", seats=10, old="x"), profile("zeta", name="Zeta")
    without_old = ProfileChange("acme", (AttributeChange("old", "clear"),))
    with opened(sandbox, store, bulk_from=2) as userpilot:
        companies, people = (
            userpilot.profiles(ACCOUNTS),
            userpilot.profiles(USERS),
        )
        assert send(store, companies, acme, zeta).accepted == 2
        assert send(store, companies, Record(b"c" * 16, without_old)).accepted == 1
        assert send(store, people, profile("ann", company_id="acme")).accepted == 1
        assert send(store, people, profile("bob", company_id="zeta"), profile("cid", company_id=7)).accepted == 2
    found = {name: user["company"] for name, user in shown(sandbox)["users"].items()}
    assert found == {
        "ann": {"id": "acme", "name": "Acme", "seats": 10},
        "bob": {"id": "zeta", "name": "Zeta"},
        "cid": {"id": "7"},
    }


@pytest.mark.parametrize("bulk_from", [2, 100])
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (profile("", plan="pro"), "the id is empty"),
        (profile("wrong", **{"n" * 256: "1"}), "name is empty or longer than the 255 characters"),
        (profile("wrong", plan="x" * 65_536), "'plan' is longer than the 65,535 characters"),
        (profile("wrong", plan=["a"]), "'plan' is neither text nor a number"),
        (profile("wrong", plan=float("inf")), "'plan' is neither text nor a number"),
        (profile("wrong", plan=2**64), "'plan' is neither text nor a number"),
        (profile("wrong", plan="\ud800"), "not Unicode"),
        (profile("wrong", **{f"p{number}": 1 for number in range(501)}), "more than the 500 properties"),
        (profile("wrong", company_id=None), "can't take a user out of a company"),
        (Record(b"w" * 16, ProfileChange("wrong", (AttributeChange("n", "append", 1),))), "Userpilot can't append"),
    ],
)
def test_what_breaks_a_limit_is_refused_alone_and_not_sent(
    sandbox: RunningSandbox, store: Store, wrong: Record, why: str, bulk_from: int
) -> None:
    with opened(sandbox, store, bulk_from=bulk_from) as userpilot:
        records = profile("ann", plan="pro"), wrong, profile("bob", plan=None)
        tally = send(store, userpilot.profiles(USERS), *records)
    assert (tally.accepted, tally.rejected) == (2, 1)
    assert why in next(iter(tally.reasons))
    assert properties(sandbox) == {"ann": {"plan": "pro"}, "bob": {}}
    assert "userpilot_rejected_requests" not in sandbox.counts()


@pytest.mark.parametrize("wrong_rows", ["fail", "skip"])
def test_a_record_that_only_userpilot_finds_wrong_loses_none_of_its_job(
    tmp_path: Path, store: Store, wrong_rows: str
) -> None:
    records = [profile(f"user {number}", name="Bartholomew" if number == 123 else "Ann") for number in range(400)]
    strict = {"userpilot_wrong_rows": wrong_rows, "userpilot_longest_value": 10, **FAST}
    with running_sandbox(tmp_path / wrong_rows, **strict) as sandbox, opened(sandbox, store, bulk_from=30) as userpilot:
        tally = send(store, userpilot.profiles(USERS), *records)
        assert shown(sandbox)["counts"]["users"] == 399
    assert (tally.accepted, tally.rejected) == (399, 1)
    assert "name must not have more than 10 characters" in next(iter(tally.reasons))


def test_a_job_that_took_nobody_acknowledges_nobody(tmp_path: Path, store: Store) -> None:
    strict = {"userpilot_wrong_rows": "skip", "userpilot_longest_value": 10, **FAST}
    wrong = [profile(f"user {number}", name="Bartholomew") for number in range(4)]
    with running_sandbox(tmp_path / "skip", **strict) as sandbox, opened(sandbox, store, bulk_from=2) as userpilot:
        tally = send(store, userpilot.profiles(USERS), *wrong)
    assert (tally.accepted, tally.rejected) == (0, 4)


def test_a_job_of_somebody_else_is_waited_for(tmp_path: Path, store: Store) -> None:
    """As after a crash, where the job of before may still run: the same one goes out again after it."""
    slow = {"userpilot_rows_per_minute": 30_000, "userpilot_job_seconds": 0.1}
    people = [f"user {number}" for number in range(200)]
    with running_sandbox(tmp_path / "slow", **slow) as sandbox, opened(sandbox, store) as userpilot:
        rows = [{"user_id": name, "metadata": {"heap_segment_buyers": True}} for name in people]
        userpilot.api.call("POST", "/v1/users/bulk_identify", json={"users": rows})
        assert members(sandbox) < 200
        assert send(store, userpilot.members(BUYERS), *map(member, people)).accepted == 200
        found = shown(sandbox)
        refusals = sandbox.state("refusals", app_id=sandbox.app_id)["refusals"]
    assert (found["counts"]["bulk jobs"], found["audiences"][0]["members"]) == (2, 200)
    assert {refusal["status"] for refusal in refusals} == {409}


@pytest.mark.parametrize("bulk_from", [2, 100])
def test_busy_answers_and_a_bad_network_only_delay(sandbox: RunningSandbox, store: Store, bulk_from: int) -> None:
    for kind in ("429", "503", "500", "drop", "lost_ack", "truncate"):
        sandbox.fault(kind=kind, path="/userpilot", next=1, retry_after=0 if kind in {"429", "503"} else None)
    patience = Patience(attempts=8, seconds=20, first_wait=0.01, longest_wait=0.02)
    with opened(sandbox, store, bulk_from=bulk_from) as userpilot:
        people = [member(f"user {number}") for number in range(10)]
        assert send(store, userpilot.members(BUYERS), *people, patience=patience).accepted == 10
    assert members(sandbox) == 10
    assert [fault["hits"] for fault in sandbox.state()["faults"]] == [1] * 6


def test_a_repeated_batch_goes_on_where_it_stopped(sandbox: RunningSandbox, store: Store) -> None:
    sandbox.fault(kind="500", path="/userpilot/v1/identify", after=7, next=1)
    sandbox.fault(kind="500", path="/userpilot/v1/background_jobs", next=2)
    with opened(sandbox, store, bulk_from=20) as userpilot:
        assert send(store, userpilot.members(BUYERS), *[member(f"few {n}") for n in range(10)]).accepted == 10
        assert sandbox.counts()["userpilot_requests"] == 10
        assert send(store, userpilot.members(BUYERS), *[member(f"many {n}") for n in range(20)]).accepted == 20
    assert shown(sandbox)["counts"]["bulk jobs"] == 1


def test_no_more_than_fifty_megabytes_go_at_once(sandbox: RunningSandbox, store: Store) -> None:
    texts = {f"text {number}": "x" * 65_000 for number in range(20)}
    with opened(sandbox, store, bulk_from=10) as userpilot:
        tally = send(
            store,
            userpilot.profiles(USERS),
            *[profile(f"user {n}", **texts) for n in range(40)],
        )
    assert (tally.accepted, shown(sandbox)["counts"]["bulk jobs"]) == (40, 2)
    assert "userpilot_rejected_requests" not in sandbox.counts()


def test_calls_keep_to_six_hundred_a_minute_with_those_of_other_processes(
    sandbox: RunningSandbox, store: Store
) -> None:
    a_minute_ago = Pace(store, "Userpilot calls", (CALLS,), clock=lambda: time.time() - 59)
    a_minute_ago.ask([Record(b"", None)] * CALLS.records)
    started = time.monotonic()
    with opened(sandbox, store) as userpilot:
        assert send(store, userpilot.members(BUYERS), member("ann")).accepted == 1
    assert time.monotonic() - started > 0.8


def test_a_job_may_take_longer_than_the_patience_for_anything_else(tmp_path: Path, store: Store) -> None:
    slow = {**FAST, "userpilot_job_seconds": 0.3}
    with running_sandbox(tmp_path / "slow", **slow) as sandbox, opened(sandbox, store) as userpilot:
        impatient = Patience(seconds=0.1, first_wait=0.01, longest_wait=0.02)
        people = [member(f"user {number}") for number in range(100)]
        assert send(store, userpilot.members(BUYERS), *people, patience=impatient).accepted == 100


def test_a_job_under_way_is_asked_for_ever_more_rarely(store: Store) -> None:
    job = {"job_id": "bulk:jobs:1", "status": "processing", "completed_rows": 1}
    sender = answering(store, lambda request: httpx.Response(200, json=job), bulk_from=2).members(BUYERS)
    waits = []
    for _ in range(30):
        with pytest.raises(RetryLater, match="processing, 1 of 2 records") as later:
            sender.send([member("ann"), member("bob")])
        assert later.value.busy
        waits.append(later.value.after or 0)
    assert (waits[0], waits[-1]) == (0.01, 15)
    assert waits == sorted(waits)


@pytest.mark.parametrize("answer", [{}, [], {"job_id": 7}, "<html>please log in</html>"])
def test_an_answer_that_is_not_userpilots_is_tried_again(store: Store, answer: Any) -> None:
    page = answer if isinstance(answer, str) else orjson.dumps(answer).decode()
    userpilot = answering(store, lambda request: httpx.Response(200, text=page), bulk_from=2)
    with pytest.raises(RetryLater):
        userpilot.members(BUYERS).send([member("ann"), member("bob")])


def test_a_job_that_userpilot_forgot_is_handed_in_again(store: Store) -> None:
    asked: list[str] = []

    def forgets(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        if request.method == "POST":
            return httpx.Response(202, json={"job_id": "bulk:jobs:1"})
        return httpx.Response(404) if len(asked) < 3 else httpx.Response(200, json={"status": "completed"})

    records = [member("ann"), member("bob")]
    assert send(store, answering(store, forgets, bulk_from=2).members(BUYERS), *records).accepted == 2
    assert asked == ["POST", "GET", "POST", "GET"]


def test_a_refused_key_stops_the_sync_and_is_not_repeated(sandbox: RunningSandbox, store: Store) -> None:
    with (
        opened(sandbox, store, key=KEY) as userpilot,
        pytest.raises(DeliveryStopped, match="not the app token") as stop,
    ):
        send(store, userpilot.members(BUYERS), member("ann"), member("bob"))
    assert stop.value.tally.rejected == 0
    assert KEY not in str(stop.value)
    assert Ledger(store, "userpilot").unsettled() == []


def test_the_key_is_checked_without_writing(sandbox: RunningSandbox, store: Store) -> None:
    surroundings = Surroundings("production", store, heap_url="", heap_app_id="", variables={"KEY": KEY})
    settings = UserpilotSettings.model_validate({"api_key": {"env": "KEY"}, "base_url": f"{sandbox.url}/userpilot"})
    with closing(settings.connect(surroundings)) as userpilot, pytest.raises(Exception, match="Invalid API key"):
        userpilot.check()
    with opened(sandbox, store) as userpilot:
        assert sandbox.url in userpilot.check()
        assert userpilot.existing(BUYERS) is None
    assert shown(sandbox)["counts"]["users"] == 0


def test_users_and_companies_are_deleted_two_seconds_apart(tmp_path: Path, store: Store) -> None:
    with running_sandbox(tmp_path / "deleting", deletion_seconds=0.01) as sandbox, opened(sandbox, store) as userpilot:
        send(
            store,
            userpilot.profiles(USERS),
            profile("ann", company_id="acme"),
            profile("bob", n=1),
        )
        deleted = [Record(b"d" * 16, "ann"), Record(b"e" * 16, "nobody")]
        assert send(store, userpilot.deletions("users"), *deleted).accepted == 2
        assert send(store, userpilot.deletions("accounts"), Record(b"f" * 16, "acme")).accepted == 1
        time.sleep(0.02)
        found = shown(sandbox)
        assert "userpilot_rate_limited" not in sandbox.counts()
    assert (found["users"].keys(), found["counts"]["companies"]) == ({"bob"}, 0)


@pytest.mark.parametrize(
    "settings", [{"bulk_from": 1}, {"bulk_from": 1_001}, {"company_key": "name"}, {"region": "mars"}]
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        UserpilotSettings.model_validate({"api_key": {"env": "KEY"}, **settings})


@pytest.mark.parametrize(
    ("key", "company"),
    [("both", {"id": "a", "company_id": "a"}), ("id", {"id": "a"}), ("company_id", {"company_id": "a"})],
)
def test_the_company_is_named_as_the_settings_say(store: Store, key: str, company: dict[str, str]) -> None:
    bodies: list[Any] = []
    userpilot = answering(store, keeping(bodies), company_key=key)
    userpilot.profiles(USERS).send([profile("ann", company_id="a")])
    assert bodies == [{"user_id": "ann", "metadata": {}, "company": company}]


def test_with_values_as_text_everything_but_null_is_text(store: Store) -> None:
    bodies: list[Any] = []
    userpilot = answering(store, keeping(bodies), values="text")
    userpilot.profiles(USERS).send([profile("ann", a=True, b=1.5, c=None, d="d", e=2**60)])
    expected = {"a": "true", "b": "1.5", "c": None, "d": "d", "e": "1152921504606846976"}
    assert bodies == [{"user_id": "ann", "metadata": expected}]


def keeping(bodies: list[Any]) -> Callable[[httpx.Request], httpx.Response]:
    def keep(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            bodies.append(orjson.loads(request.content))
        return httpx.Response(200, json={"job_id": "bulk:jobs:1", "status": "completed"})

    return keep


METADATA = {
    "type": "object",
    "maxProperties": 500,
    "propertyNames": {"minLength": 1, "maxLength": 255},
    "additionalProperties": {"type": ["string", "number", "boolean", "null"], "maxLength": 65_535},
}
ID = {"type": "string", "minLength": 1}


def row(name: str, **more: Any) -> dict[str, Any]:
    properties = {name: ID, "metadata": METADATA, **more}
    return {"type": "object", "required": [name], "properties": properties, "additionalProperties": False}


def rows(kind: str, of: dict[str, Any]) -> dict[str, Any]:
    listed = {"type": "array", "minItems": 1, "maxItems": 10_000, "items": of}
    return {"type": "object", "required": [kind], "properties": {kind: listed}, "additionalProperties": False}


COMPANY = {"type": "object", "required": ["company_id", "id"], "properties": {"company_id": ID, "id": ID}}
# What Userpilot's reference says of the bodies: https://docs.userpilot.com/api-references
CONTRACT = {
    ("users", False): row("user_id", company=COMPANY),
    ("accounts", False): row("company_id"),
    ("users", True): rows("users", row("user_id", company_id=ID)),
    ("accounts", True): rows("companies", row("company_id")),
}
NUMBERS = st.booleans() | st.integers() | st.floats()
PROPERTIES = st.dictionaries(
    st.text(max_size=20) | st.just("company_id"), st.none() | NUMBERS | st.text() | st.lists(st.none()), max_size=4
)


@given(of=st.sampled_from(["users", "accounts"]), sent=st.dictionaries(st.text(), PROPERTIES, max_size=4))
def test_every_request_follows_userpilots_reference(store: Store, of: Kind, sent: dict[str, dict[str, Any]]) -> None:
    bodies: list[Any] = []
    userpilot = answering(store, keeping(bodies), bulk_from=3)
    records = [profile(identity, **properties) for identity, properties in sent.items()]
    outcomes = userpilot.profiles(ProfileSet(of, create=True)).send(records)
    assert [outcome.key for outcome in outcomes] == [record.key for record in records]
    for body in bodies:
        jsonschema.validate(body, CONTRACT[of, len(records) >= 3])
