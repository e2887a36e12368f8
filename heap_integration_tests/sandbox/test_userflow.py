"""Userflow's API: users, groups, lists, content, and signed webhooks."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs

from heap_integration_tests.support.recorder import recorder
from heap_integration_tests.support.sandbox import RunningSandbox


def ok(sandbox: RunningSandbox, method: str, path: str, **request: Any) -> Any:
    return sandbox.userflow(method, path, **request).raise_for_status().json()


def test_a_user_is_merged_and_attributes_know_their_operations(sandbox: RunningSandbox) -> None:
    first = {"plan": "free", "visits": 1, "old": "x", "lists": ["a"], "signed_up_at": "2026-01-01T00:00:00Z"}
    ok(sandbox, "POST", "/users", json={"id": "ada", "attributes": first})
    changes = {
        "plan": {"set_once": "pro"},
        "visits": {"add": 2},
        "old": None,
        "lists": {"append": ["a", "b"]},
        "score": {"set": "7", "data_type": "number"},
    }
    user = ok(sandbox, "POST", "/users", json={"id": "ada", "attributes": changes})

    expected = {"plan": "free", "visits": 3, "lists": ["a", "b"], "score": 7.0}
    assert user["attributes"] == expected | {"signed_up_at": "2026-01-01T00:00:00Z"}
    definitions = ok(sandbox, "GET", "/attribute_definitions?scope=user&limit=100")["data"]
    types = {each["name"]: each["data_type"] for each in definitions}
    assert types["visits"] == types["score"] == "number"
    assert (types["lists"], types["signed_up_at"]) == ("list", "datetime")
    removed = ok(sandbox, "POST", "/users", json={"id": "ada", "attributes": {"lists": {"remove": "a"}}})
    assert removed["attributes"]["lists"] == ["b"]


def test_mistakes_are_answered_with_userflows_error_object(sandbox: RunningSandbox) -> None:
    mistakes: list[tuple[int, str, str, dict[str, Any]]] = [
        (400, "POST", "/users", {"json": {"attributes": {}}}),
        (400, "POST", "/users", {"json": {"id": "a", "attributes": {"a.b": 1}}}),
        (400, "POST", "/users", {"json": {"id": "a", "attributes": {"a": {"increment": 1}}}}),
        (400, "POST", "/users", {"json": {"id": "a", "groups": [], "memberships": []}}),
        (400, "POST", "/users", {"content": b"{"}),
        (400, "POST", "/events", {"json": {"name": "signed/up", "user_id": "a"}}),
        (400, "GET", "/users?limit=101", {}),
        (400, "GET", "/users?order_by=shoe_size", {}),
        (404, "POST", "/events", {"json": {"name": "signed_up", "user_id": "nobody"}}),
        (404, "GET", "/users/nobody", {}),
        (404, "DELETE", "/users/nobody", {}),
        (404, "GET", "/segments", {}),
        (401, "GET", "/users", {"key": "ak_wrong"}),
    ]
    for status, method, path, request in mistakes:
        answer = sandbox.userflow(method, path, **request)
        assert (answer.status_code, set(answer.json()["error"])) == (status, {"code", "message"}), path
    assert sandbox.counts()["userflow_users"] == 0


def test_a_key_sees_its_own_environment_only(sandbox: RunningSandbox) -> None:
    ok(sandbox, "POST", "/users", json={"id": "ada"})

    assert sandbox.userflow("GET", "/users/ada", key="ak_second").status_code == 404
    assert sandbox.counts("2000000002")["userflow_users"] == 0


def test_groups_and_memberships_are_linked_and_pruned(sandbox: RunningSandbox) -> None:
    memberships = [
        {"group": {"id": "acme", "attributes": {"name": "Acme"}}, "attributes": {"role": "owner"}},
        {"group": {"id": "zeta"}},
    ]
    ok(sandbox, "POST", "/users", json={"id": "ada", "memberships": memberships})
    user = ok(sandbox, "GET", "/users/ada?expand[]=memberships.group&expand[]=groups")
    pruned = {"id": "ada", "groups": [{"id": "acme"}], "prune_memberships": True}
    ok(sandbox, "POST", "/users", json=pruned)

    assert user["memberships"][0]["attributes"] == {"role": "owner"}
    assert user["memberships"][0]["group"]["attributes"] == {"name": "Acme"}
    assert [group["id"] for group in user["groups"]] == ["acme", "zeta"]
    assert ok(sandbox, "GET", "/groups/zeta?expand=users")["users"] == []
    ok(sandbox, "DELETE", "/group_memberships?user_id=ada&group_id=acme")
    assert ok(sandbox, "GET", "/users/ada?expand=memberships")["memberships"] == []


def test_lists_are_paged_in_their_order(sandbox: RunningSandbox) -> None:
    for number in range(45):
        ok(sandbox, "POST", "/users", json={"id": f"u{number}", "attributes": {"rank": number % 7}})
    for query in ("order_by=created_at", "order_by[]=-attributes.rank&order_by[]=created_at"):
        found, cursor = [], ""
        while True:
            page = ok(sandbox, "GET", f"/users?limit=10&{query}{cursor}")
            found += page["data"]
            if not page["has_more"]:
                break
            cursor = f"&starting_after={parse_qs(page['next_page_url'])['starting_after'][0]}"
        assert len({user["id"] for user in found}) == len(found) == 45
        if "rank" in query:
            ranks = [user["attributes"]["rank"] for user in found]
            assert ranks == sorted(ranks, reverse=True)
    assert len(ok(sandbox, "GET", "/users")["data"]) == 20


def test_a_cursor_on_a_missing_value_fails_as_the_real_one_does(sandbox: RunningSandbox) -> None:
    for user in ({"id": "a", "attributes": {"rank": 1}}, {"id": "b"}, {"id": "c"}):
        ok(sandbox, "POST", "/users", json=user)

    answer = sandbox.userflow("GET", "/users?limit=1&order_by=attributes.rank&starting_after=b")

    assert answer.status_code == 500


def test_events_move_content_sessions_along_and_vanish_with_their_user(sandbox: RunningSandbox) -> None:
    ok(sandbox, "POST", "/users", json={"id": "ada"})
    checklist = {"checklist_name": "Getting started"}
    for name, more in (
        ("checklist_started", {}),
        ("checklist_task_completed", {"checklist_task_name": "Add a product"}),
        ("checklist_completed", {}),
    ):
        event = {"name": name, "user_id": "ada", "attributes": {**checklist, **more}}
        ok(sandbox, "POST", "/events", json=event)
    survey = {"flow_name": "NPS survey", "number_answer": 9, "question_name": "How likely?"}
    ok(sandbox, "POST", "/events", json={"name": "question_answered", "user_id": "ada", "attributes": survey})
    ok(sandbox, "POST", "/events", json={"name": "bought_tea", "user_id": "ada"})

    first, second = ok(sandbox, "GET", "/content_sessions?expand[]=content&expand[]=answers")["data"]
    assert (first["completed"], first["progress"], first["content"]["type"]) == (True, "1", "checklist")
    assert second["answers"][0]["answer_value"] == "9"
    names = [each["name"] for each in ok(sandbox, "GET", "/event_definitions?limit=100")["data"]]
    assert "bought_tea" in names
    assert ok(sandbox, "DELETE", "/users/ada") == {"id": "ada", "object": "user", "deleted": True}
    assert ok(sandbox, "GET", "/content_sessions")["data"] == []


def test_webhooks_are_signed_and_sent_until_received(sandbox: RunningSandbox) -> None:
    with recorder() as receiver:
        receiver.statuses = [500, 503]
        subscription = ok(
            sandbox,
            "POST",
            "/webhook_subscriptions",
            json={"url": receiver.url, "topics": ["event.tracked.flow_started", "user.updated"]},
        )
        ok(sandbox, "POST", "/users", json={"id": "ada", "attributes": {"plan": "free"}})
        ok(sandbox, "POST", "/events", json={"name": "flow_ended", "user_id": "ada"})
        event = {"name": "flow_started", "user_id": "ada", "attributes": {"flow_name": "Product tour"}}
        sent = ok(sandbox, "POST", "/events", json=event)
        tried = receiver.wait_for(3)
        ok(sandbox, "POST", "/users", json={"id": "ada", "attributes": {"plan": "pro"}})
        updated = json.loads(receiver.wait_for(4)[3].body)

        first, last = (json.loads(request.body) for request in (tried[0], tried[2]))
        assert first == last
        assert last["topic"] == "event.tracked"
        assert last["data"]["object"] == sent
        fields = dict(part.split("=") for part in tried[2].headers["userflow-signature"].split(","))
        assert subscription["secret"] == sandbox.environment.userflow_signing_secret.get_secret_value()
        message = f"{fields['t']}.".encode() + tried[2].body
        expected = hmac.new(subscription["secret"].encode(), message, hashlib.sha256).hexdigest()
        assert fields["v1"] == expected
        assert abs(int(fields["t"]) - time.time()) < 5
        assert (updated["topic"], updated["data"]["previous_attributes"]) == (
            "user.updated",
            {"plan": "free"},
        )

        path = f"/webhook_subscriptions/{subscription['id']}"
        ok(sandbox, "PATCH", path, json={"disabled": True})
        ok(sandbox, "POST", "/events", json=event)
        assert ok(sandbox, "GET", path)["disabled"] is True
        ok(sandbox, "DELETE", path)
        assert len(receiver.requests) == 4


def test_requests_a_minute_can_be_limited(sandbox: RunningSandbox) -> None:
    sandbox.client.post("/_limits", json={"userflow_requests_per_minute": 5})

    statuses = [sandbox.userflow("GET", "/users").status_code for _ in range(7)]

    assert statuses.count(429) in (1, 2)
    assert sandbox.counts()["userflow_rate_limited"] == statuses.count(429)


def test_requests_at_once_can_be_limited_and_wait_for_a_while(sandbox: RunningSandbox) -> None:
    def at_once(number: int, seconds: float) -> list[int]:
        limits = {"userflow_requests_at_once": number, "userflow_request_seconds": seconds}
        sandbox.client.post("/_limits", json=limits).raise_for_status()
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _: sandbox.userflow("GET", "/users"), range(6)))
        return sorted(answer.status_code for answer in answers)

    assert at_once(2, seconds=0.05) == [200] * 6
    assert at_once(2, seconds=0.4) == [200, 200, 503, 503, 503, 503]
    assert at_once(6, seconds=0.4) == [200] * 6


def test_groups_take_the_operations_of_users(sandbox: RunningSandbox) -> None:
    ok(sandbox, "POST", "/groups", json={"id": "acme", "attributes": {"seats": 3, "tags": ["a"], "old": 1}})
    changes = {"seats": {"add": -1}, "tags": {"remove": ["a"]}, "old": None, "since": {"set_once": "2026"}}
    ok(sandbox, "POST", "/groups", json={"id": "acme", "attributes": changes})

    assert ok(sandbox, "GET", "/groups/acme")["attributes"] == {"seats": 2, "tags": [], "since": "2026"}


def test_users_are_found_by_their_address(sandbox: RunningSandbox) -> None:
    for user in ("ada", "ada 2"):
        ok(sandbox, "POST", "/users", json={"id": user, "attributes": {"email": "ada@example.com"}})
    ok(sandbox, "POST", "/users", json={"id": "bob", "attributes": {"email": "bob@example.com"}})

    found = ok(sandbox, "GET", "/users?email=ada%40example.com&limit=10")["data"]

    assert [user["id"] for user in found] == ["ada", "ada 2"]


def test_segments_show_as_the_attributes_that_carry_them(sandbox: RunningSandbox) -> None:
    heaps = {"id": 1, "name": "Free, so far", "members": [], "page_size": 10}
    sandbox.client.post(f"/_heap/{sandbox.app_id}/segments", json=heaps).raise_for_status()
    for user, attributes in {
        "ada": {"heap_segment_buyers": True, "heap_segments": {"append": "free_so_far"}},
        "bob": {"heap_segment_buyers": False, "heap_segments": {"append": ["free_so_far", "new"]}},
        "cas": {"heap_segment_at_risk": False},
    }.items():
        ok(sandbox, "POST", "/users", json={"id": user, "attributes": attributes})

    shown = sandbox.state("userflow/segments", app_id=sandbox.app_id)["segments"]

    assert [(each["name"], each["attribute"], each["entry"], each["users"], each["sample"]) for each in shown] == [
        ("At risk", "heap_segment_at_risk", None, 0, []),
        ("Buyers", "heap_segment_buyers", None, 1, ["ada"]),
        ("Free, so far", "heap_segments", "free_so_far", 2, ["ada", "bob"]),
        ("New", "heap_segments", "new", 1, ["bob"]),
    ]
