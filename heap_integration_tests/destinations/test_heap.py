"""Heap's own users and accounts get segments and profiles as properties, in the types that Heap documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import orjson
import pytest
from httpx import MockTransport
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from heap_integration.delivery.engine import DeliveryStopped, Patience, Tally, deliver
from heap_integration.delivery.ledger import Ledger
from heap_integration.delivery.pace import Pace
from heap_integration.delivery.records import (
    AttributeChange,
    BatchRejected,
    MemberChange,
    ProfileChange,
    Record,
    RetryLater,
    Sender,
)
from heap_integration.destinations.destination import Audience, Kind, ProfileSet, Surroundings
from heap_integration.destinations.heap import HeapProperties, HeapPropertiesSettings
from heap_integration.heap.profiles_api import ProfilesApi
from heap_integration.store import Store
from heap_integration_tests.events.conftest import shared
from heap_integration_tests.support.endpoint import Reply, endpoint
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

ACCOUNTS = ProfileSet("accounts", create=True)
USERS = ProfileSet("users", create=True)

__all__ = ["shared"]

QUICK = Patience(attempts=4, seconds=20, first_wait=0.01, longest_wait=0.02)
BUYERS = Audience(slug="buyers", name="Loyal buyers", create=True)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    with running_sandbox(tmp_path / "sandbox") as running:
        yield running


def opened(url: str, app_id: str, store: Store) -> HeapProperties:
    surroundings = Surroundings("production", store, heap_url=url, heap_app_id=app_id, variables={})
    return HeapPropertiesSettings().connect(surroundings)


@pytest.fixture
def heap(sandbox: RunningSandbox, store: Store) -> Iterator[HeapProperties]:
    with closing(opened(sandbox.url, sandbox.app_id, store)) as heap:
        yield heap


def member(identity: str, present: bool = True) -> Record:
    return Record(f"{identity:16.16}".encode(), MemberChange(identity, present))


def profile(identity: str, **properties: Any) -> Record:
    changes = tuple(AttributeChange(name, "set", value) for name, value in properties.items())
    return Record(f"{identity:16.16}".encode(), ProfileChange(identity, changes))


def send(store: Store, to: Sender, *records: Record) -> Tally:
    return deliver(records, to, Ledger(store, "heap"), pace=Pace(store, "heap", to.limits.windows), patience=QUICK)


def users(sandbox: RunningSandbox) -> dict[str, dict[str, Any]]:
    found = sandbox.state("users", app_id=sandbox.app_id, limit=5000)["users"]
    return {user["identity"]: user["properties"] for user in found}


def test_members_become_a_property_in_requests_of_a_thousand(
    sandbox: RunningSandbox, store: Store, heap: HeapProperties
) -> None:
    everybody = [member(f"user {number}") for number in range(2_500)]
    assert send(store, heap.members(BUYERS), *everybody).accepted == 2_500
    assert send(store, heap.members(BUYERS), member("user 7", present=False)).accepted == 1
    found = users(sandbox)
    assert (len(found), found["user 7"], found["user 8"]) == (
        2_500,
        {"segment_buyers": "false"},
        {"segment_buyers": "true"},
    )
    assert sandbox.counts()["requests"] == 4


def test_profiles_keep_what_they_do_not_name_and_are_written_in_heaps_types(
    sandbox: RunningSandbox, store: Store, heap: HeapProperties
) -> None:
    to = heap.profiles(USERS)
    assert send(store, to, profile("ann", plan="pro", seats=3, trial=True, tags=["a", "ä"], left=None)).accepted == 1
    change = ProfileChange("ann", (AttributeChange("plan", "clear"), AttributeChange("seats", "set", 4.5)))
    assert send(store, to, Record(b"ann".ljust(16), change)).accepted == 1
    assert users(sandbox)["ann"] == {"plan": "", "seats": 4.5, "trial": "true", "tags": '["a","ä"]', "left": ""}


def test_accounts_have_properties_of_their_own(sandbox: RunningSandbox, store: Store, heap: HeapProperties) -> None:
    assert send(store, heap.profiles(ACCOUNTS), profile("Acme", id="A1", seats=10)).accepted == 1
    accounts = sandbox.state("accounts", app_id=sandbox.app_id)["accounts"]
    assert [(account["account_id"], account["properties"]) for account in accounts] == [
        ("Acme", {"id": "A1", "seats": 10})
    ]
    assert users(sandbox) == {}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (profile("x" * 256, plan="pro"), "the id is longer than the 255 characters"),
        (profile("", plan="pro"), "the id is empty"),
        (profile("wrong", Id="1"), "no property with the name 'Id'"),
        (profile("wrong", **{"": "1"}), "no property with the name ''"),
        (profile("wrong", **{"n" * 1024: "1"}), "name is longer than the 1,023 characters"),
        (profile("wrong", plan="x" * 1024), "'plan' is longer than the 1,023 characters"),
        (profile("wrong", plan=["x" * 1024]), "'plan' is longer than the 1,023 characters"),
        (profile("wrong", plan=float("nan")), "'plan' is neither text nor a number"),
        (profile("wrong", plan=2**64), "'plan' is neither text nor a number"),
        (profile("wrong", plan="\ud800"), "'plan' is no Unicode text"),
        (Record(b"w" * 16, ProfileChange("wrong", (AttributeChange("n", "add", 1),))), "Heap can't add"),
    ],
)
def test_what_breaks_a_limit_is_refused_alone_and_not_sent(
    sandbox: RunningSandbox, store: Store, heap: HeapProperties, wrong: Record, why: str
) -> None:
    tally = send(
        store,
        heap.profiles(USERS),
        profile("ann", plan="pro"),
        wrong,
        profile("bob", plan=""),
    )
    assert (tally.accepted, tally.rejected) == (2, 1)
    assert why in next(iter(tally.reasons))
    assert users(sandbox).keys() == {"ann", "bob"}
    assert sandbox.counts()["requests"] == 1


def test_whom_heap_refuses_by_name_is_rejected_without_the_others(store: Store) -> None:
    requests: list[int] = []

    def refuses(request: httpx.Request) -> httpx.Response:
        asked = [user["identity"] for user in orjson.loads(request.content)["users"]]
        requests.append(len(asked))
        if "user 3" in asked:
            return httpx.Response(400, text=f"postBody.users[{asked.index('user 3')}].identity is refused")
        return httpx.Response(200, json={})

    heap = HeapProperties(ProfilesApi("http://127.0.0.1:1", "1", httpx.Client(transport=MockTransport(refuses))))
    skipped = profile("user 0", Id="refused before it is sent")
    records = [skipped, *[profile(f"user {number}", n=number) for number in range(1, 6)]]
    tally = send(store, heap.profiles(USERS), *records)
    assert (tally.accepted, tally.rejected) == (4, 2)
    assert "Heap answered 400: postBody.users[].identity is refused" in tally.reasons
    assert requests == [5, 4]


def test_busy_answers_and_a_bad_network_only_delay(sandbox: RunningSandbox, store: Store, heap: HeapProperties) -> None:
    for kind in ("429", "500", "drop", "lost_ack"):
        sandbox.fault(kind=kind, path="/api/add_user_properties", next=1, retry_after=0 if kind == "429" else None)
    assert send(store, heap.members(BUYERS), member("ann"), member("bob")).accepted == 2
    assert users(sandbox) == {"ann": {"segment_buyers": "true"}, "bob": {"segment_buyers": "true"}}


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(429, headers={"retry-after": "\xb2"}), "Heap answered 429"),
        (Reply(200, b"no gzip", {"content-encoding": "gzip"}), "no answer from .*: Error -3"),
    ],
    ids=["patience", "encoding"],
)
def test_an_answer_that_cannot_be_read_is_waited_for(store: Store, reply: Reply, words: str) -> None:
    with (
        endpoint(lambda call: reply) as served,
        closing(opened(served.url(), "1", store)) as heap,
        pytest.raises(RetryLater, match=words),
    ):
        heap.members(BUYERS).send([member("ann")])


def test_a_reason_is_one_line_that_any_table_can_hold(store: Store) -> None:
    with (
        endpoint(lambda call: Reply(400, b"wrong:\x00\r\n the name")) as served,
        closing(opened(served.url(), "1", store)) as heap,
        pytest.raises(BatchRejected, match=r"wrong: +the name$"),
    ):
        heap.members(BUYERS).send([member("ann")])


def test_a_wrong_app_id_stops_and_rejects_nobody(sandbox: RunningSandbox, store: Store) -> None:
    with closing(opened(sandbox.url, "42", store)) as heap, pytest.raises(DeliveryStopped) as stopped:
        send(store, heap.members(BUYERS), member("ann"), member("bob"))
    assert stopped.value.tally.rejected == 0
    assert Ledger(store, "heap").unsettled() == []


def test_heap_is_not_asked_who_is_there_nor_checked_by_writing(sandbox: RunningSandbox, heap: HeapProperties) -> None:
    assert heap.existing(BUYERS) is None
    assert sandbox.app_id in heap.check()
    assert sandbox.counts()["requests"] == sandbox.counts()["rejected_requests"] == 0


VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=1100) | st.lists(st.text(max_size=3))
)


@given(
    of=st.sampled_from(["users", "accounts"]),
    properties=st.dictionaries(st.text(max_size=20), VALUES, max_size=4),
    identity=st.text(max_size=300),
)
def test_every_request_follows_heaps_contract(
    shared: Callable[[str], Path], of: Kind, properties: dict[str, Any], identity: str
) -> None:
    schemas = described(shared("contracts/heap/heap-openapi.yml"))
    sent: list[dict[str, Any]] = []

    def keeps(request: httpx.Request) -> httpx.Response:
        sent.append(orjson.loads(request.content))
        return httpx.Response(200)

    heap = HeapProperties(ProfilesApi("http://127.0.0.1:1", "1", httpx.Client(transport=MockTransport(keeps))))
    with closing(heap):
        heap.profiles(ProfileSet(of, create=True)).send([profile(identity, **properties)])
    for body in sent:
        if of == "users":
            schemas["AddUserPropertiesRequest"].validate({"app_id": body["app_id"], **body["users"][0]})
        else:
            schemas["AccountUpdate"].validate(body["accounts"][0])
        (item,) = body[of]
        texts = [*item["properties"], *[value for value in item["properties"].values() if isinstance(value, str)]]
        assert all(len(text) < 1024 for text in texts)


@cache
def described(path: Path) -> dict[str, jsonschema.Draft202012Validator]:
    document = YAML(typ="safe").load(path)
    return {
        name: jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", **document})
        for name in document["components"]["schemas"]
    }
