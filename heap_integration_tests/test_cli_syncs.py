"""The commands that carry segments to destinations: preview, try one, confirm, list, forget."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from heap_integration.environment import load_environment
from heap_integration.hub import open_hub
from heap_integration_tests.support.commands import Answer, run
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    with running_sandbox(tmp_path / "sandbox") as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, sandbox: RunningSandbox) -> Path:
    """Return a project whose table of members follows to Userflow, which knows ada, bob and cy."""
    settings = {
        "heap": {"app_id": sandbox.app_id, "base_url": sandbox.url},
        "segments": [
            {"name": "Listed people", "from": {"table": "listed", "identity": "person"}, "sync_to": ["userflow"]}
        ],
        "destinations": {"userflow": {"api_key": {"env": "USERFLOW_API_KEY"}, "base_url": sandbox.userflow_url}},
    }
    write(tmp_path, settings)
    key = sandbox.environment.userflow_api_key.get_secret_value()
    (tmp_path / "environments" / "test" / ".env").write_text(f"USERFLOW_API_KEY={key}\n")
    for user in ("ada", "bob", "cy"):
        assert sandbox.userflow("POST", "/users", json={"id": user, "attributes": {}}).is_success
    list_people(tmp_path, "ada", "bob", "zoë")
    return tmp_path


def write(project: Path, settings: dict[str, object]) -> None:
    folder = project / "environments" / "test"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "environment.yaml").write_text(json.dumps(settings))


def list_people(project: Path, *people: str) -> None:
    """Make the table of members anew."""
    environment = load_environment(project / "environments" / "test")
    with open_hub(environment, {}) as hub, hub.warehouse.write() as con:
        con.execute("create or replace table listed (person varchar)")
        con.execute("insert into listed select unnest($people::varchar[])", {"people": list(people)})


def sync(project: Path, *arguments: str) -> Answer:
    answer = run(project, "sync", *arguments, "-e", "test")
    assert "Traceback" not in answer.err
    return answer


def members(sandbox: RunningSandbox) -> list[str]:
    users = sandbox.state("userflow/users", limit=1000)["users"]
    return sorted(user["id"] for user in users if user["attributes"].get("heap_segment_listed_people"))


def test_a_preview_tells_what_a_sync_then_does(project: Path, sandbox: RunningSandbox) -> None:
    preview = sync(project, "Listed people", "--preview").out.decode()
    assert "would add 3, update 0, remove 0" in preview
    assert "add    ada" in preview
    assert members(sandbox) == []

    (told,) = sync(project, "listed_people", "--json").json
    assert (told["counts"]["sent"], told["counts"]["rejected"]) == (2, 1)
    assert told["reasons"] == {"the destination does not know this user": 1}
    assert (told["match"]["members"], told["match"]["unknown_there"]) == (3, 1)
    assert members(sandbox) == ["ada", "bob"]


def test_one_identity_is_tried_alone(project: Path, sandbox: RunningSandbox) -> None:
    sync(project, "Listed people", "--only", "bob")
    assert members(sandbox) == ["bob"]
    assert "cy is neither wanted nor held" in sync(project, "Listed people", "--only", "cy").out.decode()


def test_what_a_guard_stops_ends_with_1_and_is_done_once_confirmed(project: Path, sandbox: RunningSandbox) -> None:
    sync(project, "Listed people")
    list_people(project)

    stopped = sync(project, "Listed people")
    assert stopped.code == 1
    assert "the source is empty while 2 are at the destination" in " ".join(stopped.err.split())
    assert "--confirm" in stopped.err
    assert members(sandbox) == ["ada", "bob"]

    assert sync(project, "Listed people", "--confirm").code == 0
    assert members(sandbox) == []


def test_a_refused_key_ends_with_1_and_says_which(project: Path) -> None:
    answer = run(project, "sync", "Listed people", "-e", "test", USERFLOW_API_KEY="ak_wrong")
    assert answer.code == 0  # .env goes first

    (project / "environments" / "test" / ".env").write_text("USERFLOW_API_KEY=ak_wrong\n")
    list_people(project, "ada", "cy")
    answer = sync(project, "Listed people")
    assert answer.code == 1
    assert "Userflow API key" in " ".join(answer.err.split())
    assert "ak_wrong" not in answer.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("Nobody",), "no segment or set of profiles called 'Nobody' is switched on; there are: Listed people"),
        (("Listed people", "--to", "braze"), "Listed people doesn't go to 'braze'; it goes to: userflow"),
    ],
)
def test_a_wrong_name_ends_with_2_and_the_right_ones(project: Path, arguments: tuple[str, ...], words: str) -> None:
    answer = sync(project, *arguments)
    assert answer.code == 2
    assert words in " ".join(answer.err.split())


def test_a_table_that_is_not_there_ends_with_2_and_the_nearest(project: Path) -> None:
    file = project / "environments" / "test" / "environment.yaml"
    file.write_text(file.read_text().replace('"listed"', '"lister"'))
    answer = sync(project, "Listed people")
    assert answer.code == 2
    assert "listed" in answer.err


def test_a_sync_that_is_no_longer_configured_is_listed_and_can_be_forgotten(
    project: Path, sandbox: RunningSandbox
) -> None:
    sync(project, "Listed people")
    settings = json.loads((project / "environments" / "test" / "environment.yaml").read_text())
    write(project, settings | {"segments": []})

    (row,) = run(project, "syncs", "-e", "test", "--json").json
    assert (row["sync"], row["held"], row["configured"]) == ("userflow/listed_people", 2, False)
    assert "put it back with mode: drain" in " ".join(run(project, "syncs", "-e", "test").out.decode().split())

    assert run(project, "forget-sync", "userflow/listed_people", "-e", "test").code == 0
    assert run(project, "syncs", "-e", "test", "--json").json == []
    assert members(sandbox) == ["ada", "bob"]
    again = run(project, "forget-sync", "userflow/listed_people", "-e", "test")
    assert (again.code, "there is no sync" in again.err) == (2, True)


def test_draining_takes_out_all_that_the_hub_has_put_there(project: Path, sandbox: RunningSandbox) -> None:
    sync(project, "Listed people")
    file = project / "environments" / "test" / "environment.yaml"
    settings = json.loads(file.read_text())
    settings["segments"][0]["mode"] = "drain"
    write(project, settings)

    assert sync(project, "Listed people").code == 0
    assert members(sandbox) == []
