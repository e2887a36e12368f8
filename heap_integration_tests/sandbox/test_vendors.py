"""Each tool beside Heap shows what it has, and the console shows it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from heap_integration.sandbox.settings import ENVIRONMENTS_VARIABLE, settings_from
from heap_integration_tests.support.sandbox import RunningSandbox

PILOT = {"Authorization": "Token sandbox-userpilot-api-key", "X-API-Version": "2020-09-22"}


def shown(sandbox: RunningSandbox, name: str, app_id: str | None = None) -> Any:
    (vendor,) = sandbox.state("vendors", app_id=app_id or sandbox.app_id, name=name)["vendors"]
    return vendor


def identify(sandbox: RunningSandbox) -> int:
    user = {"user_id": "ada", "metadata": {"plan": "pro", "heap_segment_buyers": True}}
    return sandbox.client.post("/userpilot/v1/identify", json=user, headers=PILOT).status_code


def test_every_tool_is_listed_by_name_and_begins_empty(sandbox: RunningSandbox) -> None:
    vendors = sandbox.state("vendors", app_id=sandbox.app_id)["vendors"]
    assert [(each["name"], each["title"]) for each in vendors] == [
        ("userflow", "Userflow"),
        ("userpilot", "Userpilot"),
        ("customerio", "Customer.io"),
        ("webhook", "Webhook"),
    ]
    assert all(audience["members"] == 0 for each in vendors for audience in each["audiences"])
    assert all(each["users"] == [] for each in vendors)


def test_a_segment_stands_in_userflows_list_with_heaps_mark(sandbox: RunningSandbox) -> None:
    for user, member in {"ada": True, "bob": False}.items():
        attributes = {"heap_segment_buyers": member}
        sandbox.userflow("POST", "/users", json={"id": user, "attributes": attributes}).raise_for_status()

    found = shown(sandbox, "userflow")

    assert found["audiences"] == [
        {"name": "All users", "members": 2, "sample": ["ada", "bob"], "mark": ""},
        {"name": "Buyers", "members": 1, "sample": ["ada"], "mark": "Heap"},
    ]
    assert found["counts"] == {"users": 2, "groups": 0, "events": 0}
    assert found["users"][0] == {"id": "bob", "attributes": {"heap_segment_buyers": False}}
    assert shown(sandbox, "userflow", "2000000002")["counts"]["users"] == 0


def test_a_reset_forgets_what_every_tool_knew(sandbox: RunningSandbox) -> None:
    assert identify(sandbox) == 202
    assert shown(sandbox, "userpilot")["counts"]["users"] == 1

    sandbox.client.post("/_reset").raise_for_status()

    assert shown(sandbox, "userpilot")["counts"]["users"] == 0
    assert shown(sandbox, "userpilot")["audiences"] == []


def test_what_a_tool_refuses_is_not_counted_as_heaps(sandbox: RunningSandbox) -> None:
    assert identify(sandbox) == 202
    assert sandbox.client.post("/userpilot/v1/identify", json={}, headers=PILOT).status_code == 400

    counts = sandbox.counts()

    assert (counts["userpilot_requests"], counts["userpilot_rejected_requests"]) == (2, 1)
    assert (counts["requests"], counts["rejected_requests"]) == (0, 0)


def test_the_console_has_a_place_for_every_tool(sandbox: RunningSandbox) -> None:
    page = sandbox.client.get("/").text
    for request in ("/_state/vendors", "/_state/userflow/segments"):
        assert request in page


@pytest.mark.parametrize("key", ["userflow_api_key", "userpilot_api_key", "webhook_secret"])
def test_two_environments_never_share_the_key_that_tells_them_apart(key: str) -> None:
    names = (
        "heap_api_key heap_webhook_secret heap_client_id heap_client_secret userflow_api_key userflow_signing_secret"
    )
    first = {name: f"{name} 1" for name in names.split()} | {"app_id": "1", key: "same"}
    second = {name: f"{name} 2" for name in names.split()} | {"app_id": "2", key: "same"}
    with pytest.raises(ValueError, match=f"the same {key}"):
        settings_from({ENVIRONMENTS_VARIABLE: json.dumps([first, second])})
