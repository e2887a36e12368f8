"""Userpilot's stand-in: identify, events, companies, jobs that take time, and deletion."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from heap_integration.sandbox.settings import DEVELOPMENT
from heap_integration_tests.sandbox.conftest import SECOND
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

ENVIRONMENTS = (DEVELOPMENT, SECOND.model_copy(update={"userpilot_api_key": SecretStr("second-userpilot-key")}))
VERSION = {"x-api-version": "2020-09-22"}


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    """Serve jobs of 100 rows a second that wait a fifth of a second before and after."""
    with running_sandbox(
        tmp_path,
        environments=ENVIRONMENTS,
        deletion_seconds=0.1,
        userpilot_rows_per_minute=6_000,
        userpilot_job_seconds=0.2,
    ) as running:
        yield running


def call(
    sandbox: RunningSandbox, method: str, path: str, key: str = "sandbox-userpilot-api-key", **request: Any
) -> httpx.Response:
    headers = {"authorization": f"Token {key}", **VERSION, **request.pop("headers", {})}
    return sandbox.client.request(method, f"/userpilot/v1{path}", headers=headers, **request)


def identify(sandbox: RunningSandbox, user: str, company: dict[str, Any] | None = None, **metadata: Any) -> None:
    body = {"user_id": user, "metadata": metadata} | ({} if company is None else {"company": company})
    assert call(sandbox, "POST", "/identify", json=body).status_code == 202


def rows(count: int) -> list[dict[str, Any]]:
    return [{"user_id": f"user {number:03}", "metadata": {"heap_segment_all": True}} for number in range(count)]


def shown(sandbox: RunningSandbox, app_id: str = DEVELOPMENT.app_id) -> dict[str, Any]:
    found: dict[str, Any] = sandbox.state("vendors", app_id=app_id, name="userpilot")["vendors"][0]
    return found


def ended(sandbox: RunningSandbox, job_id: str) -> list[dict[str, Any]]:
    """Ask until a job has ended, and return what was told."""
    told: list[dict[str, Any]] = []
    until = time.monotonic() + 10
    while not told or told[-1]["status"] not in ("completed", "failed"):
        assert time.monotonic() < until
        told.append(call(sandbox, "GET", f"/background_jobs/{job_id}").raise_for_status().json())
        time.sleep(0.01)
    return told


def test_a_user_is_merged_null_removes_and_the_company_may_be_named_either_way(sandbox: RunningSandbox) -> None:
    identify(sandbox, "ada", {"id": "acme", "name": "Acme", "seats": 3}, plan="free", old="x", visits=1)
    identify(sandbox, "ada", plan="pro", old=None)
    identify(sandbox, "bob", {"company_id": "acme", "seats": None})
    company = {"company_id": "acme", "metadata": {"industry": "tea"}}
    assert call(sandbox, "POST", "/companies/identify", json=company).status_code == 202
    acme = {"id": "acme", "name": "Acme", "industry": "tea"}
    assert shown(sandbox)["users"] == [
        {"id": "ada", "properties": {"plan": "pro", "visits": 1}, "company": acme},
        {"id": "bob", "properties": {}, "company": acme},
    ]


def test_mistakes_are_answered_with_userpilots_error_object(sandbox: RunningSandbox) -> None:
    identify(sandbox, "ada")
    mistakes: list[tuple[int, str, str, dict[str, Any]]] = [
        (400, "POST", "/identify", {"json": {"metadata": {}}}),
        (400, "POST", "/identify", {"json": {"user_id": 7}}),
        (400, "POST", "/identify", {"json": {"user_id": "a", "metadata": {"list": [1]}}}),
        (400, "POST", "/identify", {"json": {"user_id": "a", "metadata": {"n" * 256: 1}}}),
        (400, "POST", "/identify", {"json": {"user_id": "a", "metadata": {"n": "x" * 65_536}}}),
        (400, "POST", "/identify", {"json": {"user_id": "a", "metadata": {f"n{n}": n for n in range(501)}}}),
        (400, "POST", "/identify", {"json": {"user_id": "a", "company": {"name": "Acme"}}}),
        (400, "POST", "/identify", {"json": {"user_id": "a"}, "headers": {"x-api-version": "2019-01-01"}}),
        (400, "POST", "/identify", {"content": b"{"}),
        (400, "POST", "/companies/identify", {"json": {"id": "acme"}}),
        (400, "POST", "/track", {"json": {"user_id": "ada"}}),
        (400, "POST", "/track", {"json": {"user_id": "nobody", "event_name": "Bought tea"}}),
        (400, "POST", "/track", {"json": {"user_id": "ada", "event_name": "e", "metadata": {"n": "x" * 10_000}}}),
        (400, "POST", "/users/bulk_identify", {"json": {"users": []}}),
        (400, "POST", "/users/bulk_identify", {"json": {"users": rows(10_001)}}),
        (413, "POST", "/users/bulk_identify", {"content": b"x" * 50_000_001}),
        (400, "DELETE", "/users", {"json": {"users": [7]}}),
        (404, "GET", "/background_jobs/nothing", {}),
        (404, "GET", "/segments", {}),
        (401, "GET", "/validate", {"key": "NX-app-token"}),
        (401, "GET", "/validate", {"headers": {"authorization": "Bearer sandbox-userpilot-api-key"}}),
    ]
    for status, method, path, request in mistakes:
        answer = call(sandbox, method, path, **request)
        assert answer.status_code == status, (path, answer.text)
        assert answer.json()["errors"][0].keys() == {"message", "error", "error_code", "details"}
    assert [user["id"] for user in shown(sandbox)["users"]] == ["ada"]


def test_a_key_sees_its_own_environment_only(sandbox: RunningSandbox) -> None:
    identify(sandbox, "ada")
    assert call(sandbox, "GET", "/validate", key="second-userpilot-key").status_code == 200
    assert shown(sandbox, "2000000002")["counts"] == {"users": 0, "companies": 0, "events": 0, "bulk jobs": 0}


def test_a_job_takes_its_time_and_its_rows_appear_one_after_the_other(sandbox: RunningSandbox) -> None:
    job = call(sandbox, "POST", "/users/bulk_identify", json={"users": rows(50)})
    assert (job.status_code, job.json()["status"], job.json()["total_rows"]) == (202, "queued", 50)
    assert job.json()["end_time"] is None
    told = ended(sandbox, job.json()["job_id"])
    statuses = list(dict.fromkeys(each["status"] for each in told))
    assert statuses == ["queued", "validating", "processing", "pending_refresh", "completed"]
    completed = [each["completed_rows"] for each in told]
    assert completed == sorted(completed)
    assert (completed[0], completed[-1], len(set(completed)) > 5) == (0, 50, True)
    (listed,) = call(sandbox, "GET", "/background_jobs").json()
    assert (listed["job_id"], listed["status"]) == (job.json()["job_id"], "completed")
    (audience,) = shown(sandbox)["audiences"]
    sample = [f"user 00{number}" for number in range(5)]
    assert audience == {"name": "heap_segment_all", "members": 50, "sample": sample, "mark": "Heap"}


def test_one_job_runs_at_a_time_of_users_and_companies_together(sandbox: RunningSandbox) -> None:
    job = call(sandbox, "POST", "/users/bulk_identify", json={"users": rows(5)}).json()
    companies = {"companies": [{"company_id": "acme", "metadata": {"seats": 3}}]}
    assert call(sandbox, "POST", "/companies/bulk_identify", json=companies).status_code == 409
    ended(sandbox, job["job_id"])
    assert call(sandbox, "POST", "/companies/bulk_identify", json=companies).status_code == 202


@pytest.mark.parametrize(("wrong_rows", "status", "users"), [("fail", "failed", 0), ("skip", "completed", 2)])
def test_a_wrong_row_lets_the_job_fail_or_is_left_out(tmp_path: Path, wrong_rows: str, status: str, users: int) -> None:
    settings = {"userpilot_wrong_rows": wrong_rows, "userpilot_job_seconds": 0.01, "userpilot_rows_per_minute": 60_000}
    with running_sandbox(tmp_path, **settings) as sandbox:
        wrong = [*rows(2), {"user_id": "wrong", "metadata": {"list": [1]}}]
        job = ended(sandbox, call(sandbox, "POST", "/users/bulk_identify", json={"users": wrong}).json()["job_id"])[-1]
        assert (job["status"], job["completed_rows"], job["total_rows"]) == (status, users, 3)
        assert shown(sandbox)["counts"]["users"] == users


def test_each_kind_of_call_has_a_pace_of_its_own(tmp_path: Path) -> None:
    with running_sandbox(tmp_path, userpilot_calls_per_minute=3) as sandbox:
        bodies = [("/identify", {"user_id": "ada"}), ("/track", {"user_id": "ada", "event_name": "Bought tea"})]
        for path, body in bodies:
            answers = [call(sandbox, "POST", path, json=body).status_code for _ in range(4)]
            assert answers == [202, 202, 202, 429]
        assert call(sandbox, "POST", "/companies/identify", json={"company_id": "acme"}).status_code == 429
        deletions = [call(sandbox, "DELETE", "/users", json={"users": ["ada"]}).status_code for _ in range(2)]
        assert deletions == [202, 429]
        assert call(sandbox, "GET", "/validate").status_code == 200
        assert sandbox.counts()["userpilot_rate_limited"] == 4
        assert shown(sandbox)["counts"]["events"] == 3


def test_a_deletion_is_done_a_while_after_it_was_asked_for(sandbox: RunningSandbox) -> None:
    identify(sandbox, "ada", {"id": "acme"})
    identify(sandbox, "bob", {"id": "acme"})
    call(sandbox, "POST", "/track", json={"user_id": "ada", "event_name": "Bought tea"})
    answer = call(sandbox, "DELETE", "/users", json={"users": ["ada", "nobody"]})
    assert (answer.status_code, answer.json()["message"]) == (202, "2 users have been scheduled for deletion")
    assert shown(sandbox)["counts"] == {"users": 2, "companies": 1, "events": 1, "bulk jobs": 0}
    time.sleep(0.15)
    assert shown(sandbox)["counts"] == {"users": 1, "companies": 1, "events": 0, "bulk jobs": 0}
