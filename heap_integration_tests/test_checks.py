"""What `check` finds, and what it advises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from heap_integration.checks import Finding, offline_checks, online_checks
from heap_integration.environment import load_environment
from heap_integration.sandbox.settings import DEVELOPMENT
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

YAML = """\
heap:
  app_id: "{app_id}"
  api_key: {{env: HEAP_API_KEY}}
  base_url: {url}
  segment_sync: {{webhook_secret: {{env: HEAP_SEGMENT_SYNC_SECRET}}}}
sources:
  userflow: {{signing_secret: {{env: USERFLOW_WEBHOOK_SECRET}}}}
  files: [{{name: shop, path: "shop/*.csv", mapping: shop.yaml}}]
destinations:
  userflow: {{api_key: {{env: USERFLOW_API_KEY}}, base_url: {url}/userflow}}
"""
VARIABLES = {
    "HEAP_API_KEY": DEVELOPMENT.heap_api_key.get_secret_value(),
    "HEAP_SEGMENT_SYNC_SECRET": DEVELOPMENT.heap_webhook_secret.get_secret_value(),
    "USERFLOW_API_KEY": DEVELOPMENT.userflow_api_key.get_secret_value(),
    "USERFLOW_WEBHOOK_SECRET": DEVELOPMENT.userflow_signing_secret.get_secret_value(),
}


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    with running_sandbox(tmp_path / "sandbox") as running:
        yield running


def write(root: Path, url: str = "http://127.0.0.1:1", name: str = "production") -> Path:
    folder = root / "environments" / name
    folder.mkdir(parents=True)
    (folder / "environment.yaml").write_text(YAML.format(app_id=DEVELOPMENT.app_id, url=url))
    return folder


def failures(findings: list[Finding]) -> dict[str, str]:
    assert not any(value in repr(findings) for value in VARIABLES.values())
    return {finding.what: f"{finding.message}. {finding.advice}" for finding in findings if not finding.ok}


def written(sandbox: RunningSandbox) -> dict[str, int]:
    return {what: count for what, count in sandbox.counts().items() if not what.endswith("requests")}


def test_right_credentials_are_proved_and_nothing_is_written(tmp_path: Path, sandbox: RunningSandbox) -> None:
    folder = write(tmp_path, sandbox.url)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/1.csv").write_text("a,b\n")
    sandbox.client.post(
        "/userflow/webhook_subscriptions",
        json={"url": "http://127.0.0.1:1/userflow", "topics": ["event.tracked"]},
        headers={
            "Authorization": f"Bearer {VARIABLES['USERFLOW_API_KEY']}",
            "Userflow-Version": "2020-01-03",
        },
    ).raise_for_status()
    before = written(sandbox), sorted(tmp_path.rglob("*"))

    findings = list(online_checks(load_environment(folder), VARIABLES))

    assert failures(findings) == {}
    assert [finding.what for finding in findings] == [
        "Heap",
        "Heap api key",
        "Heap Segment Sync secret",
        "Userflow webhook secret",
        "destination userflow",
        "store",
        "warehouse",
        "landing",
        "files shop",
    ]
    assert (written(sandbox), sorted(tmp_path.rglob("*"))) == before


def test_a_refused_key_is_told_with_what_to_do(tmp_path: Path, sandbox: RunningSandbox) -> None:
    wrong = dict.fromkeys(VARIABLES, "wrong")

    found = failures(list(online_checks(load_environment(write(tmp_path, sandbox.url)), wrong)))

    assert "refuses HEAP_API_KEY for app id 1000000001 (401). Heap > Account" in found["Heap api key"]
    assert "Userflow answered 401" in found["destination userflow"]
    assert "Check the Userflow API key of this environment" in found["destination userflow"]
    assert "no file at" in found["files shop"]


def test_a_key_that_no_header_can_hold_is_not_repeated(tmp_path: Path, sandbox: RunningSandbox) -> None:
    spoilt = {"USERFLOW_API_KEY": "hunter2\n"}

    found = failures(list(online_checks(load_environment(write(tmp_path, sandbox.url)), spoilt)))

    assert found["destination userflow"].startswith("the Userflow key holds characters that no key has: copy it again")


def test_an_address_where_nobody_answers_is_told_with_what_to_do(tmp_path: Path) -> None:
    found = failures(list(online_checks(load_environment(write(tmp_path)), VARIABLES)))

    assert "can't be reached" in found["Heap"]
    assert "start the stand-in: heap-integration sandbox" in found["Heap"]


def test_a_password_that_makes_the_store_unreadable_is_not_repeated(tmp_path: Path, sandbox: RunningSandbox) -> None:
    folder = write(tmp_path, sandbox.url)
    with (folder / "environment.yaml").open("a") as file:
        file.write("store: {env: STORE_URL}\n")
    known = VARIABLES | {"STORE_URL": "postgresql://hub:p@ss:hunter2@db/hub"}

    found = failures(list(online_checks(load_environment(folder), known)))

    assert found["store"].startswith("can't be opened: the address can't be read.")
    assert "destination userflow" not in found
    assert "hunter2" not in str(found)


def test_offline_a_missing_variable_a_missing_mapping_and_a_shared_app_id_are_found(tmp_path: Path) -> None:
    write(tmp_path, name="production")
    write(tmp_path, name="staging")

    known = VARIABLES | {"USERFLOW_API_KEY": ""}
    found = failures(offline_checks(tmp_path, ["production"], known))

    file = tmp_path / "environments/production/environment.yaml"
    assert set(found) == {"sources.files[0].mapping", "destinations.userflow.api_key.env", "heap.app_id"}
    assert f"{file}:10: " in found["destinations.userflow.api_key.env"]
    assert "environment staging has the same app id" in found["heap.app_id"]
