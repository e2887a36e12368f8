"""User properties, account properties and identify reach Heap, and its answers are told apart."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from heap_integration.environment_settings import HeapSettings
from heap_integration.heap.answers import HeapBusy, HeapRefused, HeapRejected, HeapUnavailable
from heap_integration.heap.events_api import EventsApi
from heap_integration.heap.profiles_api import ProfilesApi
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

WHEN = "2026-01-02T03:04:05.000Z"


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    with running_sandbox(tmp_path) as running:
        yield running


@pytest.fixture
def api(sandbox: RunningSandbox) -> Iterator[ProfilesApi]:
    with closing(ProfilesApi(sandbox.url, sandbox.app_id)) as api:
        yield api


def users(*properties: Any) -> list[dict[str, Any]]:
    return [{"identity": f"user {number}", "properties": each} for number, each in enumerate(properties)]


def test_a_thousand_people_and_accounts_go_in_one_request_each(sandbox: RunningSandbox, api: ProfilesApi) -> None:
    api.add_user_properties(users(*({"rank": number} for number in range(1000))))
    api.add_account_properties([{"account_id": "Acme", "properties": {"seats": 10}}])

    counts = sandbox.counts()
    assert (counts["requests"], counts["users"]) == (2, 1000)
    assert sandbox.state("users", identity="user 999")["users"][0]["properties"] == {"rank": 999}
    assert sandbox.state("accounts")["accounts"][0]["properties"] == {"seats": 10}


def test_identify_gives_an_anonymous_past_to_a_person(sandbox: RunningSandbox, api: ProfilesApi) -> None:
    sandbox.client.post("/api/track", json={"app_id": sandbox.app_id, "user_id": "17", "event": "Before"})

    api.identify(17, "ada", WHEN)

    assert [event["identity"] for event in sandbox.events()] == ["ada"]


@pytest.mark.parametrize("wrong", [0, 17, 999])
def test_a_refusal_names_the_item_of_the_batch(sandbox: RunningSandbox, api: ProfilesApi, wrong: int) -> None:
    properties: list[Any] = [{"rank": number} for number in range(1000)]
    properties[wrong] = {"nested": {"a": 1}}

    with pytest.raises(HeapRejected) as of_users:
        api.add_user_properties(users(*properties))
    with pytest.raises(HeapRejected) as of_accounts:
        api.add_account_properties([{"account_id": "a", "properties": each} for each in properties])
    with closing(EventsApi(sandbox.url, sandbox.app_id)) as events, pytest.raises(HeapRejected) as of_events:
        events.track([b'{"identity":"a","event":%b}' % (b"5" if n == wrong else b'"E"') for n in range(1000)])

    assert [error.value.position for error in (of_users, of_accounts, of_events)] == [wrong] * 3
    assert sandbox.counts()["users"] == 0


def test_a_refusal_of_the_whole_request_names_no_item(sandbox: RunningSandbox, api: ProfilesApi) -> None:
    with pytest.raises(HeapRejected, match="should NOT have more than 1000 items") as too_many:
        api.add_user_properties(users(*({} for _ in range(1001))))
    with pytest.raises(HeapRejected, match="identity should NOT be longer") as too_long:
        api.identify(1, "x" * 256, WHEN)

    assert (too_many.value.position, too_long.value.position) == (None, None)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("429", HeapBusy), ("500", HeapUnavailable), ("503", HeapUnavailable), ("lost_ack", HeapUnavailable)],
)
def test_what_may_pass_later_is_told_apart(
    sandbox: RunningSandbox, api: ProfilesApi, kind: str, error: type[Exception]
) -> None:
    sandbox.fault(kind=kind, path="/api/", retry_after=7 if kind == "429" else None)

    with pytest.raises(error) as raised:
        api.add_user_properties(users({"rank": 1}))

    if isinstance(raised.value, HeapBusy):
        assert raised.value.after == 7


def test_an_address_where_heap_is_not_is_refused_and_where_nobody_is_unavailable(sandbox: RunningSandbox) -> None:
    wrong = r"404: .* Check the app id and the region"
    with closing(ProfilesApi(f"{sandbox.url}/no", sandbox.app_id)) as api, pytest.raises(HeapRefused, match=wrong):
        api.identify(1, "ada", WHEN)
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    with closing(ProfilesApi(f"http://127.0.0.1:{port}", sandbox.app_id)) as nobody, pytest.raises(HeapUnavailable):
        nobody.add_account_properties([])


@pytest.mark.parametrize(("region", "host"), [("us", "heapanalytics.com"), ("eu", "c.eu.heap-api.com")])
def test_the_region_of_the_environment_chooses_the_host_of_every_call(region: Any, host: str) -> None:
    called: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        called.append(f"{request.url.scheme}://{request.url.host}{request.url.path}")
        return httpx.Response(200, text="OK")

    settings = HeapSettings.model_validate({"app_id": "11", "region": region})
    api = ProfilesApi(settings.url, settings.app_id, httpx.Client(transport=httpx.MockTransport(answer)))
    with closing(api):
        api.add_user_properties(users({}))
        api.add_account_properties([])
        api.identify(1, "ada", WHEN)

    paths = ("/api/add_user_properties", "/api/add_account_properties", "/api/v1/identify")
    assert called == [f"https://{host}{path}" for path in paths]
