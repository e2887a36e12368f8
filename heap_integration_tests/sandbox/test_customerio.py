"""Customer.io's stand-in refuses what Customer.io refuses, and ignores what it ignores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from heap_integration.sandbox.customerio import CustomerioApi
from heap_integration.sandbox.state import State
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

TRACK_KEYS = ("sandbox-site-id", "sandbox-customerio-api-key")
APP_KEY = "sandbox-customerio-app-api-key"


@dataclass
class Workspace:
    """The workspace of the development environment."""

    sandbox: RunningSandbox

    def track(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Call the Track API with its keys."""
        return self.sandbox.client.request(method, f"/customerio/track{path}", **({"auth": TRACK_KEYS} | request))

    def app(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Call the App API with its key."""
        headers = {"authorization": f"Bearer {APP_KEY}"}
        return self.sandbox.client.request(method, f"/customerio/app{path}", **({"headers": headers} | request))

    def batch(self, *items: dict[str, Any]) -> httpx.Response:
        """Send a batch of operations."""
        return self.track("POST", "/api/v2/batch", json={"batch": items})

    def members(self, segment: int, **query: Any) -> dict[str, Any]:
        """Return a page of a segment's members."""
        page: dict[str, Any] = self.app("GET", f"/v1/segments/{segment}/membership", params=query).json()
        return page

    def attributes(self, who: str, id_type: str = "id") -> dict[str, str] | None:
        """Return somebody's attributes."""
        answer = self.app("POST", "/v1/customers/attributes", params={"id_type": id_type}, json={"ids": [who]})
        found = answer.json()["customers"]
        return found[0]["attributes"] if found else None


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with running_sandbox(tmp_path, limits=False) as sandbox:
        yield Workspace(sandbox)


def person(who: str, action: str = "identify", /, **attributes: Any) -> dict[str, Any]:
    identifiers = {"email" if "@" in who else "id": who}
    return {"type": "person", "identifiers": identifiers, "action": action, "attributes": attributes}


def manual(workspace: Workspace, name: str = "Buyers") -> int:
    made = workspace.app("POST", "/v1/segments", json={"segment": {"name": name, "description": "Kept from Heap"}})
    number: int = made.json()["segment"]["id"]
    return number


def test_each_api_takes_its_own_keys_only(workspace: Workspace) -> None:
    bearer = {"authorization": f"Bearer {APP_KEY}"}
    assert workspace.track("GET", "/api/v1/accounts/region", auth=("sandbox-site-id", APP_KEY)).status_code == 401
    assert workspace.track("GET", "/api/v1/accounts/region", auth=None, headers=bearer).status_code == 401
    assert workspace.app("GET", "/v1/segments", headers={}, auth=TRACK_KEYS).status_code == 401
    assert workspace.app("GET", "/v1/nothing").status_code == 404
    assert workspace.track("GET", "/api/v1/accounts/region").json()["environment_id"] == 1


def test_a_manual_segment_takes_whom_it_knows_and_ignores_the_rest(workspace: Workspace) -> None:
    workspace.batch(person("ann"), person("bob@example.com"))
    segment = manual(workspace)
    path = f"/api/v1/segments/{segment}"
    empty = {"segment_id": segment, "ids": None, "identifiers": None, "next": ""}
    assert workspace.members(segment) == empty

    assert workspace.track("POST", f"{path}/add_customers", json={"ids": ["ann", "nobody", "ann"]}).json() == {}
    addresses = {"ids": ["BOB@example.com", "ann"]}
    workspace.track("POST", f"{path}/add_customers", params={"id_type": "email"}, json=addresses)
    assert workspace.members(segment)["ids"] == ["ann", ""]
    assert workspace.app("GET", f"/v1/segments/{segment}/customer_count").json()["count"] == 2

    workspace.track("POST", f"{path}/remove_customers", params={"id_type": "email"}, json=addresses)
    workspace.track("POST", f"{path}/remove_customers", json={"ids": ["ann"]})
    assert [who["email"] for who in workspace.members(segment)["identifiers"]] == ["bob@example.com"]

    assert workspace.app("DELETE", f"/v1/segments/{segment}").status_code == 204
    assert workspace.app("GET", f"/v1/segments/{segment}").status_code == 404
    assert manual(workspace) == segment + 1


@pytest.mark.parametrize(
    ("segment", "body", "query"),
    [
        (2, {"ids": []}, {}),
        (2, {"ids": ["x"] * 1001}, {}),
        (2, {"ids": [1]}, {}),
        (2, {"ids": ["ann"], "more": 1}, {}),
        (2, ["ann"], {}),
        (2, {"ids": ["ann"]}, {"id_type": "phone"}),
        (1, {"ids": ["ann"]}, {}),
        (9, {"ids": ["ann"]}, {}),
    ],
)
def test_a_wrong_change_of_a_segment_is_refused(
    workspace: Workspace, segment: int, body: Any, query: dict[str, str]
) -> None:
    assert manual(workspace) == 2
    answer = workspace.track("POST", f"/api/v1/segments/{segment}/add_customers", json=body, params=query)
    assert answer.status_code == 400
    assert len(answer.json()["meta"]["errors"]) == 1


def test_members_come_in_pages(workspace: Workspace) -> None:
    ids = [f"user-{number:02}" for number in range(25)]
    workspace.batch(*map(person, ids))
    # the first segment is everybody's
    pages: list[list[str]] = []
    start: dict[str, str] = {}
    while not pages or start:
        page = workspace.members(1, limit=10, **start)
        pages.append(page["ids"])
        start = {"start": page["next"]} if page["next"] else {}
    assert pages == [ids[:10], ids[10:20], ids[20:]]
    assert workspace.app("GET", "/v1/segments/1/membership", params={"limit": 30_001}).status_code == 400


def test_a_batch_applies_what_is_right_and_names_the_rest(workspace: Workspace) -> None:
    answer = workspace.batch(
        person("ann", plan="pro"),
        {"type": "person", "action": "identify", "identifiers": {"id": "x", "email": "x@example.com"}},
        person("x" * 151),
        person("bob", "identify", **{"n" * 151: 1}),
        person("bob", text="é" * 501),
        person("bob", **{f"a{number}": 1 for number in range(301)}),
        person("bob", **{f"a{number}": "x" * 1000 for number in range(33)}),
        person("bob", "dance"),
        {"type": "person", "action": "event", "identifiers": {"id": "cleo"}},
        {"type": "delivery"},
        person("dave"),
    )
    assert answer.status_code == 207
    assert [error["batch_index"] for error in answer.json()["errors"]] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert workspace.members(1)["ids"] == ["ann", "dave"]

    wrong: list[Any] = [{"batch": []}, {"batch": {}}, {"batch": [person("eve")], "more": 1}]
    for body in wrong:
        assert workspace.track("POST", "/api/v2/batch", json=body).status_code == 400
    large = [person(f"user-{number}", text="x" * 990) for number in range(500)]
    refused = workspace.batch(*large)
    assert (refused.status_code, "500000" in refused.json()["errors"][0]["message"]) == (400, True)


def test_people_are_updated_joined_and_dropped_as_their_identifiers_say(workspace: Workspace) -> None:
    workspace.batch(person("ann@example.com", plan="pro", seats=1), person("bob", email="bob@example.com"))
    # an address that is there gets the new id; one that somebody else has isn't given twice
    workspace.batch(person("ann", email="ANN@example.com"), person("bob", email="ann@example.com", plan=""))
    found = workspace.attributes("ann@example.com", "email")
    assert found == {"id": "ann", "email": "ann@example.com", "cio_id": "a0000001", "plan": "pro", "seats": "1"}
    assert (workspace.attributes("bob") or {})["email"] == "bob@example.com"

    workspace.batch(person("ann", plan=None, seats=""), person("ghost", _update=True, plan="pro"))
    assert (workspace.attributes("ann") or {}).keys() == {"id", "email", "cio_id"}
    assert workspace.attributes("ghost") is None

    workspace.batch(person("ann", "delete"), person("ghost", "delete"))
    assert workspace.members(1)["ids"] == ["bob"]


def test_objects_have_attributes_of_their_own(workspace: Workspace) -> None:
    acme = {"type": "object", "identifiers": {"object_type_id": "1", "object_id": "acme"}}
    workspace.batch(acme | {"action": "identify", "attributes": {"seats": 3, "plan": "pro"}})
    workspace.track("POST", "/api/v2/entity", json=acme | {"action": "identify", "attributes": {"plan": ""}})
    found = workspace.app("GET", "/v1/objects/1/acme/attributes").json()["object"]
    assert found["attributes"] == {"seats": 3}
    workspace.batch(acme | {"action": "delete"})
    assert workspace.app("GET", "/v1/objects/1/acme/attributes").status_code == 404


def test_the_app_api_takes_ten_calls_a_second(tmp_path: Path) -> None:
    with running_sandbox(tmp_path) as sandbox:
        workspace = Workspace(sandbox)
        statuses = [workspace.app("GET", "/v1/segments").status_code for _ in range(20)]
        assert statuses[:10] == [200] * 10
        assert 429 in statuses
        assert workspace.track("GET", "/api/v1/accounts/region").status_code == 200


def test_what_was_told_outlives_a_restart_and_shows_in_the_console(tmp_path: Path) -> None:
    with running_sandbox(tmp_path, limits=False) as sandbox:
        workspace = Workspace(sandbox)
        workspace.batch(person("ann", plan="pro"), person("bob@example.com"))
        segment = manual(workspace)
        workspace.track("POST", f"/api/v1/segments/{segment}/add_customers", json={"ids": ["ann"]})
        settings, app_id = sandbox.settings, sandbox.app_id
    state = State(tmp_path / "sandbox.db")
    shown = CustomerioApi(settings, state).shown(app_id)
    state.close()
    assert shown["counts"] == {"people": 2, "objects": 0, "segments": 1}
    assert shown["audiences"] == [{"name": "Buyers", "members": 1, "sample": ["ann"], "mark": "Heap"}]
    assert shown["users"][0] == {"id": "ann", "attributes": {"plan": "pro"}}
