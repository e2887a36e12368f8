"""Segments through Dagster: Heap's signed pages in, only differences out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
import httpx
import pytest

from heap_integration.delivery.records import UNKNOWN_THERE
from heap_integration_tests.assets.project import Project, key, numbers
from heap_integration_tests.receiver.signing import heap_headers

LOYAL = 1338065


@dataclass
class Heap:
    """Heap as far as it sends segments to the project's receiver."""

    project: Project
    url: str

    def define(self, *members: str, segment: int = LOYAL, name: str = "Loyal buyers", page_size: int = 1000) -> None:
        """Create a segment, or give it other members, and sync it."""
        body = {"id": segment, "name": name, "members": members, "webhook_url": self.url, "page_size": page_size}
        self._post("", body)
        self.sync(segment)

    def sync(self, segment: int = LOYAL, **options: Any) -> None:
        """Send what has changed."""
        answer = self._post(f"/{segment}/sync", options)
        assert {page["status"] for page in answer["pages"]} <= {200}

    def page(self, number: int, pages: int, *, add: list[str]) -> None:
        """Send one page of the task "by hand"."""
        data = {
            "segment": {"id": LOYAL, "name": "Loyal buyers"},
            "sync_info": {"page_number": number, "total_pages": pages, "sync_task_id": "by hand"},
            "add": [{"id": identity} for identity in add],
        }
        body = httpx.Request("POST", self.url, json={"action_type": "segment.users.sync", "data": data}).content
        secret = self.project.sandbox.environment.heap_webhook_secret.get_secret_value()
        assert httpx.post(self.url, content=body, headers=heap_headers(body, secret=secret)).status_code == 200

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        sandbox = self.project.sandbox
        return sandbox.client.post(f"/_heap/{sandbox.app_id}/segments{path}", json=body).raise_for_status().json()


@pytest.fixture
def heap(project: Project) -> Iterator[Heap]:
    configure(project)
    with project.receiving() as url:
        yield Heap(project, url)


def configure(project: Project, *, membership: str = "boolean", **segment: Any) -> None:
    project.settings["segments"] = [{"name": "Loyal buyers", "from": "heap", "sync_to": ["userflow"]} | segment]
    project.settings["destinations"]["userflow"]["membership"] = membership
    project.write()


def known(project: Project, *users: str) -> None:
    """Let users exist in Userflow."""
    for user in users:
        assert project.sandbox.userflow("POST", "/users", json={"id": user, "attributes": {}}).is_success


def attribute(project: Project, name: str = "heap_segment_loyal_buyers") -> dict[str, Any]:
    """Return what Userflow's users have under a name."""
    users = project.sandbox.state("userflow/users", limit=1000)["users"]
    return {user["id"]: user["attributes"][name] for user in users if name in user["attributes"]}


def sync(project: Project, **config: Any) -> dict[str, int]:
    """Run the job, whose counts add up and whose check passes, and return what it did and cost."""
    before = project.sandbox.counts()["userflow_requests"]
    result = project.sync(**{"lab__userflow_segments__loyal_buyers": config} if config else {})
    assert result.success
    assert all(check.passed for check in result.get_asset_check_evaluations())
    told = numbers(result, key("userflow_segments", "loyal_buyers"))[None]
    assert told["read"] == sum(told[part] for part in ("sent", "unchanged", "rejected", "suppressed", "pending"))
    wanted = ("sent", "unchanged", "rejected", "added", "removed")
    return {name: told[name] for name in wanted} | {"calls": project.sandbox.counts()["userflow_requests"] - before}


def test_only_who_entered_or_left_is_sent(project: Project, heap: Heap) -> None:
    known(project, "ada", "bob", "cy")
    heap.define("ada", "bob", page_size=1)

    first = sync(project)
    nothing_new = sync(project)
    heap.define("ada", "cy")
    changed = sync(project)

    assert first == {"sent": 2, "unchanged": 0, "rejected": 0, "added": 2, "removed": 0, "calls": 5}
    assert nothing_new == {"sent": 0, "unchanged": 2, "rejected": 0, "added": 0, "removed": 0, "calls": 0}
    assert changed == {"sent": 2, "unchanged": 1, "rejected": 0, "added": 1, "removed": 1, "calls": 4}
    assert attribute(project) == {"ada": True, "bob": False, "cy": True}


def test_who_is_unknown_to_userflow_is_refused_with_a_reason_and_tried_again(project: Project, heap: Heap) -> None:
    known(project, "ada")
    heap.define("ada", "zoë")

    result = project.sync()

    told = numbers(result, key("userflow_segments", "loyal_buyers"))[None]
    assert (told["sent"], told["rejected"]) == (1, 1)
    assert UNKNOWN_THERE in told["reasons"]
    assert "zoë" in told["rejected sample"]
    assert (told["match rate"], told["unknown_there"]) == (0.5, 1)
    assert sync(project)["rejected"] == 1
    assert attribute(project) == {"ada": True}

    known(project, "zoë")
    assert sync(project)["sent"] == 1
    assert attribute(project) == {"ada": True, "zoë": True}


def test_add_only_lets_nobody_leave(project: Project, heap: Heap) -> None:
    configure(project, mode="add_only")
    known(project, "ada", "bob")
    heap.define("ada", "bob")
    sync(project)
    heap.define("ada")

    assert sync(project)["calls"] == 0
    assert attribute(project) == {"ada": True, "bob": True}


def test_membership_can_be_a_list_of_segments(project: Project, heap: Heap) -> None:
    configure(project, membership="list")
    known(project, "ada", "bob")
    assert project.sandbox.userflow(
        "POST", "/users", json={"id": "bob", "attributes": {"heap_segments": {"set": ["Another"]}}}
    ).is_success
    heap.define("ada", "bob")
    sync(project)
    assert attribute(project, "heap_segments") == {"ada": ["loyal_buyers"], "bob": ["Another", "loyal_buyers"]}

    heap.define("ada")
    sync(project)
    assert attribute(project, "heap_segments") == {"ada": ["loyal_buyers"], "bob": ["Another"]}


def test_a_drained_segment_loses_everybody_once_that_is_confirmed(project: Project, heap: Heap) -> None:
    known(project, "ada", "bob")
    heap.define("ada", "bob")
    sync(project)
    heap.sync(drain=True)

    held_back = project.sync()
    (failed,) = (event for event in held_back.all_events if event.is_step_failure)
    assert "the source is empty while 2 are at the destination" in failed.step_failure_data.error_display_string
    assert attribute(project) == {"ada": True, "bob": True}
    assert sync(project, confirm=True)["removed"] == 2
    assert attribute(project) == {"ada": False, "bob": False}

    heap.sync(full=True)
    sync(project)
    assert attribute(project) == {"ada": True, "bob": True}


def test_a_task_is_applied_whole_and_once(project: Project, heap: Heap) -> None:
    known(project, "ada", "bob")
    heap.page(2, 2, add=["bob"])

    result = project.sync()
    assert numbers(result, key("heap_segments", "loyal_buyers"))[None]["incomplete_tasks"] == 1
    assert attribute(project) == {}

    heap.page(1, 2, add=["ada"])
    assert sync(project)["sent"] == 2
    for number, member in ((1, "ada"), (2, "bob")):
        heap.page(number, 2, add=[member])
    assert sync(project) == {"sent": 0, "unchanged": 2, "rejected": 0, "added": 0, "removed": 0, "calls": 0}


def test_two_segments_of_one_name_are_told_apart_by_their_numbers(project: Project, heap: Heap) -> None:
    known(project, "ada", "bob")
    heap.define("ada")
    heap.define("bob", segment=7)

    result = project.sync()
    (failed,) = (event for event in result.all_events if event.is_step_failure)
    assert "2 segments called 'Loyal buyers' (7, 1338065)" in failed.step_failure_data.error_display_string
    assert attribute(project) == {}

    configure(project, segment_id=7)
    sync(project)
    assert attribute(project) == {"bob": True}


def test_a_new_page_is_noticed_once_and_the_schedule_follows_the_cadence(project: Project, heap: Heap) -> None:
    configure(project, every="15 minutes")
    definitions = project.definitions
    sensor = definitions.resolve_sensor_def("segment_pages")

    def tick(cursor: str | None) -> tuple[int, str | None]:
        context = dg.build_sensor_context(
            project.instance, cursor, definitions=definitions, resources=definitions.resources
        )
        ticked = sensor.evaluate_tick(context)
        return len(ticked.run_requests or ()), ticked.cursor

    nothing, cursor = tick(None)
    heap.define("ada")
    noticed, cursor = tick(cursor)
    noticed_again, cursor = tick(cursor)

    assert (nothing, noticed, noticed_again) == (0, 1, 0)
    schedule = definitions.resolve_schedule_def("segments_15_minutes")
    due = schedule.evaluate_tick(dg.build_schedule_context(project.instance))
    assert schedule.cron_schedule == "*/15 * * * *"
    assert [request.asset_selection for request in due.run_requests or ()] == [
        [key("heap_segments", "loyal_buyers"), key("userflow_segments", "loyal_buyers")]
    ]


def test_a_refused_key_fails_the_run_without_another_try(
    project: Project, heap: Heap, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(project, "ada")
    heap.define("ada")
    monkeypatch.setenv("USERFLOW_API_KEY", "ak_of_somebody_else")

    result = project.sync()

    (failed,) = (event for event in result.all_events if event.is_step_failure)
    assert "Check the Userflow API key" in failed.step_failure_data.error_display_string
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    assert attribute(project) == {}

    monkeypatch.undo()
    monkeypatch.setenv("USERFLOW_API_KEY", project.sandbox.environment.userflow_api_key.get_secret_value())
    assert sync(project)["sent"] == 1


def test_a_baseline_that_is_not_the_segment_fails_the_check(project: Project, heap: Heap) -> None:
    known(project, "ada", "bob")
    heap.define("ada", "bob")
    sync(project)

    def check() -> dg.AssetCheckEvaluation:
        definitions = project.definitions
        result = dg.materialize(
            [*(definitions.assets or ()), *(definitions.asset_checks or ())],  # type: ignore[list-item]
            selection=dg.AssetSelection.checks_for_assets(key("userflow_segments", "loyal_buyers")),
            resources=definitions.resources,
            instance=project.instance,
            raise_on_error=False,
        )
        found = result.get_asset_check_evaluations()
        return next(each for each in found if each.check_name == "baseline_is_source")

    assert check().passed
    with project.hub() as hub, hub.warehouse.write() as con:
        con.execute("delete from sync_baseline where identity = 'ada'")
    failed = check()
    assert (failed.passed, failed.blocking, failed.metadata["missing"].value) == (False, True, 1)


def test_a_segment_switched_off_during_a_sync_leaves_the_rest_pending(project: Project, heap: Heap) -> None:
    members = [f"user-{number}" for number in range(40)]
    known(project, *members)
    heap.define(*members)
    project.sandbox.fault(kind="latency", path="/userflow/users", seconds=0.05)
    running = project.definitions

    def switch_off() -> None:
        while not attribute(project):
            time.sleep(0.02)
        configure(project, enabled=False)

    thread = threading.Thread(target=switch_off)
    thread.start()
    result = project.run("sync_segments", definitions=running)
    thread.join()

    told = numbers(result, key("userflow_segments", "loyal_buyers"))[None]
    assert result.success
    assert 0 < told["sent"] < 40
    assert told["sent"] + told["pending"] == 40
    assert len(attribute(project)) == told["sent"]
    families = {node.key.path[1] for node in project.definitions.resolve_asset_graph().asset_nodes}
    assert "userflow_segments" not in families

    project.sandbox.client.delete("/_faults")
    configure(project)
    assert sync(project)["sent"] == 40 - told["sent"]
