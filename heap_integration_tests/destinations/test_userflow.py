"""Userflow's users get a segment's mark and lose it, whatever Userflow answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from heap_integration.delivery.engine import DeliveryStopped, Patience, Tally, deliver
from heap_integration.delivery.ledger import Ledger
from heap_integration.delivery.pace import Pace
from heap_integration.delivery.records import MemberChange, Record, RetryLater
from heap_integration.destinations.userflow import UNKNOWN_USER, MembershipSender, UserflowClient
from heap_integration.store import Store
from heap_integration_tests.support.recorder import recorder
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

QUICK = Patience(attempts=4, seconds=20, first_wait=0.01, longest_wait=0.02)
SECRET = "ak_something_secret"


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    with running_sandbox(tmp_path / "sandbox") as running:
        for user in ("ann", "bob", "o'neil/100%"):
            running.userflow("POST", "/users", json={"id": user, "attributes": {"plan": "pro"}}).raise_for_status()
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/store.db")
    yield store
    store.close()


def sender(sandbox: RunningSandbox, key: str | None = None, **settings: Any) -> MembershipSender:
    key = sandbox.environment.userflow_api_key.get_secret_value() if key is None else key
    client = UserflowClient(sandbox.userflow_url, key)
    return MembershipSender(client, slug="buyers", segment_name="Loyal buyers", **settings)


def change(identity: str, member: bool = True) -> Record:
    return Record(identity.encode().ljust(16), MemberChange(identity, member))


def send(store: Store, to: MembershipSender, *records: Record) -> Tally:
    pace = Pace(store, "userflow", to.limits.windows)
    try:
        return deliver(records, to, Ledger(store, "userflow"), pace=pace, patience=QUICK)
    finally:
        to.client.close()


def attributes(sandbox: RunningSandbox) -> dict[str, dict[str, Any]]:
    found = sandbox.state("userflow/users", app_id=sandbox.app_id, limit=1000)["users"]
    users = {user["id"]: user["attributes"] for user in found}
    return {user: users[user] for user in users if user in {"ann", "bob", "o'neil/100%", "nobody", ".."}}


def test_members_get_the_mark_lose_it_and_keep_all_else(sandbox: RunningSandbox, store: Store) -> None:
    assert send(store, sender(sandbox), change("ann"), change("o'neil/100%")).accepted == 2
    assert send(store, sender(sandbox), change("ann", member=False)).accepted == 1
    users = attributes(sandbox)
    assert (users["ann"]["heap_segment_buyers"], users["ann"]["plan"]) == (False, "pro")
    assert users["o'neil/100%"]["heap_segment_buyers"] is True
    assert "heap_segment_buyers" not in users["bob"]


@pytest.mark.parametrize("membership", ["boolean", "list"])
def test_whom_userflow_does_not_know_is_refused_and_not_created(
    sandbox: RunningSandbox, store: Store, membership: str
) -> None:
    tally = send(store, sender(sandbox, membership=membership), change("nobody"), change(".."), change("ann"))
    assert (tally.accepted, tally.rejected) == (1, 2)
    assert tally.reasons == {UNKNOWN_USER: 2}
    assert send(store, sender(sandbox, membership=membership), change("nobody", member=False)).accepted == 1
    assert attributes(sandbox).keys() == {"ann", "bob", "o'neil/100%"}


@pytest.mark.parametrize("membership", ["boolean", "list"])
def test_with_create_users_a_member_is_created_and_a_leaver_is_not(
    sandbox: RunningSandbox, store: Store, membership: str
) -> None:
    creating = {"membership": membership, "create_users": True}
    assert send(store, sender(sandbox, **creating), change("nobody", member=False)).accepted == 1
    assert "nobody" not in attributes(sandbox)
    assert send(store, sender(sandbox, **creating), change("nobody")).accepted == 1
    assert "nobody" in attributes(sandbox)


def test_a_list_holds_the_segments_name_once_among_other_names(tmp_path: Path, store: Store) -> None:
    with running_sandbox(tmp_path / "repeating", userflow_append="repeat") as sandbox:
        known = {"id": "ann", "attributes": {"heap_segments": ["Newcomers"]}}
        sandbox.userflow("POST", "/users", json=known).raise_for_status()
        for _ in range(2):
            assert send(store, sender(sandbox, membership="list"), change("ann")).accepted == 1
            assert attributes(sandbox)["ann"]["heap_segments"] == ["Newcomers", "Loyal buyers"]
        for _ in range(2):
            assert send(store, sender(sandbox, membership="list"), change("ann", member=False)).accepted == 1
            assert attributes(sandbox)["ann"]["heap_segments"] == ["Newcomers"]


def test_busy_answers_and_a_bad_network_only_delay(sandbox: RunningSandbox, store: Store) -> None:
    for kind in ("429", "503", "500", "drop", "lost_ack", "truncate"):
        sandbox.fault(kind=kind, path="/userflow", next=1, retry_after=0 if kind in {"429", "503"} else None)
    assert send(store, sender(sandbox), *map(change, attributes(sandbox))).accepted == 3
    assert all(user["heap_segment_buyers"] is True for user in attributes(sandbox).values())
    assert [fault["hits"] for fault in sandbox.state()["faults"]] == [1] * 6


def test_a_refused_key_stops_the_sync_and_rejects_nobody(sandbox: RunningSandbox, store: Store) -> None:
    with pytest.raises(DeliveryStopped, match="Check the Userflow API key of this environment") as stopped:
        send(store, sender(sandbox, key=SECRET), change("ann"), change("bob"))
    assert stopped.value.tally.rejected == 0
    assert SECRET not in str(stopped.value)
    assert Ledger(store, "userflow").unsettled() == []


@pytest.mark.parametrize("key", ["", f"{SECRET}\n", f" {SECRET}", f"{SECRET}’", f"{SECRET}\x00"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_repeated(key: str) -> None:
    with pytest.raises(ValueError, match="copy it again") as refused:
        UserflowClient("http://127.0.0.1:1", key)
    assert SECRET not in repr(refused.value)


def test_no_reason_ever_repeats_the_key() -> None:
    def repeats(request: httpx.Request) -> httpx.Response:
        raise httpx.LocalProtocolError(f"Illegal header value {request.headers['authorization']!r}")

    client = UserflowClient("http://127.0.0.1:1", SECRET, httpx.Client(transport=httpx.MockTransport(repeats)))
    with pytest.raises(RetryLater, match=r"Illegal header value 'Bearer \[key\]'"):
        client.find_user("ann")

    def echoes(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500, text=f"{'x' * 290}{request.headers['authorization']}")

    client = UserflowClient("http://127.0.0.1:1", SECRET, httpx.Client(transport=httpx.MockTransport(echoes)))
    with pytest.raises(RetryLater) as told:
        client.find_user("ann")
    assert SECRET[:4] not in str(told.value)


def test_an_answer_that_is_not_userflows_is_tried_again() -> None:
    page = httpx.MockTransport(lambda request: httpx.Response(200, text="<html>please log in</html>"))
    client = UserflowClient("http://127.0.0.1:1", SECRET, httpx.Client(transport=page))
    with pytest.raises(RetryLater, match="not JSON"):
        client.find_user("ann")


def test_a_request_that_userflow_calls_wrong_rejects_its_member_alone(store: Store) -> None:
    with recorder() as server:
        server.statuses[:] = [400, 200]
        client = UserflowClient(server.url, SECRET)
        to = MembershipSender(client, "buyers", "Loyal buyers", create_users=True, concurrency=1)
        tally = send(store, to, change("ann"), change("bob"))
    assert (tally.accepted, tally.rejected) == (1, 1)
    assert [request.headers["userflow-version"] for request in server.requests] == ["2020-01-03"] * 2
