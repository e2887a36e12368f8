"""The command says what it would do, does it once, counts it, and ends with a code that a script can use."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from heap_integration.delivery import engine
from heap_integration.sandbox.settings import DEVELOPMENT
from heap_integration_tests.support.commands import Answer, run
from heap_integration_tests.support.project import call, write_lines, write_project
from heap_integration_tests.support.recorder import recorder
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

ROOT = Path(__file__).parents[1]
NOBODY = "http://127.0.0.1:1"
KEYS = ("read", "sent", "unchanged", "rejected", "suppressed", "pending")
MAPPING = "event: what\nuser_id: who\ntimestamp: at\nproperties: [page.path, amount]\nidentical_rows: merge\n"
ROWS = """\
{"what": "Bought", "who": 7, "at": 1767322800, "page": {"path": "/buy", "host": "x"}, "amount": 12.50}
{"what": "Left", "who": "ann", "at": "2026-01-02T03:00:00+01:00", "page": {"path": "/"}, "amount": null}
"""


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    with running_sandbox(tmp_path / "sandbox", limits=False) as running:
        yield running


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after two attempts instead of six with long pauses."""
    monkeypatch.setattr(engine, "Patience", partial(engine.Patience, attempts=2, first_wait=0.01))


def send(project: Path, *arguments: str | Path) -> dict[str, Any]:
    answer = run(project, "send-events", *arguments, "-e", "test", "--json")
    assert answer.code == 0, answer.err
    counts: dict[str, Any] = answer.json
    assert counts["read"] == sum(counts[name] for name in KEYS[1:])
    return counts


def numbers(counts: dict[str, Any]) -> tuple[int, ...]:
    return tuple(counts[name] for name in KEYS)


def told(answer: Answer) -> str:
    """Return what a failing command says, after looking that it is an explanation."""
    assert "Traceback" not in answer.err
    return " ".join(answer.err.split())


def test_what_is_previewed_is_what_is_sent_byte_for_byte(tmp_path: Path) -> None:
    odd = [
        call(
            1,
            properties={
                "deep": {"er": [1, {"a": None}]},
                "float": 0.1,
                "big": 2**53,
                "yes": True,
                "ünï": "çødé \u2028",
            },
        ),
        call(2, event="Paid", properties={"card": "4111 1111 1111 1111", "mail": "ann@example.com", "password": "x"}),
        call(3, type="page", name="Home", event=None),
        call(4, userId=None, anonymousId="visitor", messageId=None),
    ]
    lines = ["not json", *odd, call(5, userId="null"), *(call(number) for number in range(6, 2_500))]
    file = write_lines(tmp_path / "calls.ndjson", lines)
    with recorder() as heap:
        privacy = "privacy: {mask: [email, payment_card], deny_properties: [password]}\n"
        project = write_project(tmp_path, heap.url, more=privacy)
        preview = run(project, "preview-events", file, "-e", "test")
        assert heap.requests == []
        assert not (project / "data").exists()
        counts = send(project, file)

    shown = [line for line in preview.out.splitlines() if b'"json"' in line]
    start = b'{"method":"POST","url":"%b/api/track","json":' % heap.url.encode()
    assert shown == [start + request.body + b"}" for request in heap.requests]
    assert {request.path for request in heap.requests} == {"/hook/api/track"}
    refused = {item["line"]: item["rejected"] for item in preview.json_lines if "line" in item}
    assert refused.keys() == {1, 6}
    assert sorted(refused.values()) == sorted(counts["reasons"])
    assert numbers(counts) == (2_500, 2_498, 0, 2, 0, 0)
    assert not any(secret in preview.out for secret in (b"4111", b"ann@example.com", b"password"))


def test_rows_are_previewed_by_their_mapping_from_a_file_or_standard_input(tmp_path: Path) -> None:
    project = write_project(tmp_path, NOBODY)
    (tmp_path / "rows.ndjson").write_text(ROWS)
    (tmp_path / "rows.yaml").write_text(MAPPING)
    options = ("-e", "test", "--mapping", "rows.yaml")
    from_file = run(project, "preview-events", "rows.ndjson", *options)
    from_stdin = run(project, "preview-events", "-", *options, given=ROWS.encode())
    assert (from_file.code, from_stdin.code) == (0, 0)
    assert from_file.out == from_stdin.out
    (request,) = from_file.json_lines
    keys = [event.pop("idempotency_key") for event in request["json"]["events"]]
    assert len(set(map(len, keys))) == 1
    assert request["json"]["events"] == [
        {
            "event": "Bought",
            "identity": "7",
            "timestamp": "2026-01-02T03:00:00.000Z",
            "properties": {"page.path": "/buy", "amount": 12.5},
        },
        {"event": "Left", "identity": "ann", "timestamp": "2026-01-02T02:00:00.000Z", "properties": {"page.path": "/"}},
    ]


def test_the_preset_of_a_preview_may_be_another(tmp_path: Path) -> None:
    project = write_project(tmp_path, NOBODY)
    line = json.dumps(call(1, properties={"a": [True]})).encode()

    def properties(*options: str) -> Any:
        (request,) = run(project, "preview-events", "-", "-e", "test", *options, given=line).json_lines
        return request["json"]["events"][0]["properties"]

    assert properties() == {"a": "[true]"}
    assert properties("--preset", "rudder") == {"a[0]": True}
    assert properties("--preset", "segment") == {"a.0": "true", "segment_library": "cloud-mode-destination"}


def test_a_file_is_sent_once_whatever_it_is_called(tmp_path: Path, sandbox: RunningSandbox) -> None:
    project = write_project(tmp_path, sandbox.url)
    file = write_lines(tmp_path / "calls.ndjson", [call(1), call(2), "{", call(2), call(3, userId=None)])
    first = send(project, file)
    assert numbers(first) == (5, 2, 1, 2, 0, 0)
    assert sorted(first["reasons"].values()) == [1, 1]
    assert first["stopped"] is None
    assert numbers(send(project, file)) == (5, 0, 3, 2, 0, 0)
    assert numbers(send(project, file.rename(tmp_path / "renamed.ndjson"))) == (5, 0, 3, 2, 0, 0)
    assert sandbox.counts()["requests"] == 1


def test_of_a_file_that_grew_only_the_new_is_sent(tmp_path: Path, sandbox: RunningSandbox) -> None:
    project = write_project(tmp_path, sandbox.url)
    file = write_lines(tmp_path / "calls.ndjson", map(call, range(10)))
    assert numbers(send(project, file)) == (10, 10, 0, 0, 0, 0)
    write_lines(file, map(call, range(15)))
    assert numbers(send(project, file)) == (15, 5, 10, 0, 0, 0)
    assert (sandbox.counts()["events"], sandbox.counts()["duplicates"]) == (15, 0)


def test_resending_is_absorbed_by_the_keys(tmp_path: Path, sandbox: RunningSandbox) -> None:
    project = write_project(tmp_path, sandbox.url)
    file = write_lines(tmp_path / "calls.ndjson", map(call, range(10)))
    send(project, file)
    assert numbers(send(project, file, "--resend")) == (10, 10, 0, 0, 0, 0)
    assert (sandbox.counts()["events"], sandbox.counts()["duplicates"]) == (10, 10)


def test_people_get_a_table_and_status_adds_up(tmp_path: Path, sandbox: RunningSandbox) -> None:
    project = write_project(tmp_path, sandbox.url)
    file = write_lines(tmp_path / "calls.ndjson", [*map(call, range(1_234)), "[red]{"])
    answer = run(project, "send-events", file, "-e", "test")
    assert answer.code == 0
    assert "1,234" in answer.out.decode()
    assert "not sent: not JSON" in answer.out.decode()
    status = run(project, "status", "-e", "test")
    assert "1,234 of 1,000,000,000 events in the last minute, 1,234 this month" in " ".join(status.out.decode().split())
    report = run(project, "status", "-e", "test", "--json").json
    assert report["faults"] == []
    assert report["events"]["read"] == 1_235
    assert [row["rows"] for row in report["reasons"]] == [1]


def test_check_tells_by_its_code_whether_a_key_is_refused(tmp_path: Path, sandbox: RunningSandbox) -> None:
    project = write_project(tmp_path, sandbox.url)
    with (project / "environments/test/environment.yaml").open("a") as settings:
        settings.write(
            f"destinations:\n  userflow: {{api_key: {{env: USERFLOW_API_KEY}}, base_url: {sandbox.userflow_url}}}\n"
        )
    key = DEVELOPMENT.userflow_api_key.get_secret_value()
    assert run(project, "check", "test", USERFLOW_API_KEY=key).code == 0
    wrong = run(project, "check", "test", "--json", USERFLOW_API_KEY="wrong-key")
    assert wrong.code == 1
    assert [finding["what"] for finding in wrong.json if not finding["ok"]] == ["destination userflow"]
    assert b"wrong-key" not in wrong.out
    assert run(project, "check", "test", "--offline", USERFLOW_API_KEY="").code == 2
    assert run(project, "check", "nowhere").code == 2


def test_heap_out_of_reach_or_refusing_leaves_all_pending_and_ends_with_1(
    tmp_path: Path, sandbox: RunningSandbox, impatient: None
) -> None:
    project = write_project(tmp_path, NOBODY)
    file = write_lines(tmp_path / "calls.ndjson", map(call, range(10)))
    answer = run(project, "send-events", file, "-e", "test", "--json")
    assert (answer.code, numbers(answer.json)) == (1, (10, 0, 0, 0, 0, 10))
    assert "no answer from http://127.0.0.1:1/api/track" in answer.json["stopped"]
    assert "What is pending goes out when the command is run again." in told(answer)

    with recorder() as heap:
        write_project(project, heap.url)
        heap.statuses[:] = [401]
        answer = run(project, "send-events", file, "-e", "test", "--json")
    assert (answer.code, numbers(answer.json)) == (1, (10, 0, 0, 0, 0, 10))
    assert "Check the app id and the region of this environment" in told(answer)

    write_project(project, sandbox.url)
    assert numbers(send(project, file)) == (10, 10, 0, 0, 0, 0)


def test_a_users_mistake_is_explained_and_ends_with_2(tmp_path: Path) -> None:
    project = write_project(tmp_path, NOBODY)
    write_lines(tmp_path / "calls.ndjson", [call(1)])
    (tmp_path / "rows.csv").write_text("who,what\nann,Bought\n")
    (tmp_path / "unknown.yaml").write_text("event: what\nuser: who\n")
    (tmp_path / "missing.yaml").write_text("event: what\nuser_id: whom\n")
    (tmp_path / "broken.yaml").write_text("event: [what\n")
    mistakes = {
        ("status", "-e", "nowhere"): "there is no environment 'nowhere'",
        ("send-events", "missing.ndjson", "-e", "test"): "'missing.ndjson' does not exist",
        ("preview-events", "missing.ndjson", "-e", "test"): "there is no file missing.ndjson",
        ("send-events", "calls.ndjson", "-e", "test", "--preset", "mixpanel"): "allowed are hub, segment, rudder",
        ("preview-events", "rows.csv", "-e", "test"): "a table needs a mapping of its columns: who, what",
        ("send-events", "rows.csv", "-e", "test", "--mapping", "unknown.yaml"): "unknown.yaml:2: user: unknown field",
        ("send-events", "rows.csv", "-e", "test", "--mapping", "missing.yaml"): "whom",
        ("send-events", "rows.csv", "-e", "test", "--mapping", "broken.yaml"): "broken.yaml:2:",
        ("send-events", "calls.ndjson"): "Missing option",
        ("demo", "--days", "some"): "allowed are a number of days and all",
    }
    for arguments, words in mistakes.items():
        answer = run(project, *arguments)
        assert words in told(answer), arguments
        assert (answer.code, answer.out) == (2, b""), arguments
    (project / "data").mkdir(exist_ok=True)
    (project / "data/test.duckdb").write_bytes(b"something else" * 1_000)
    assert "test.duckdb can't be opened" in told(run(project, "status", "-e", "test"))
    write_project(project, NOBODY, more="colour: red\n")
    wrong = run(project, "send-events", "calls.ndjson", "-e", "test")
    assert wrong.code == 2
    assert "environment.yaml:6: colour" in told(wrong)


@pytest.mark.slow
def test_the_installed_command_ends_alike(tmp_path: Path) -> None:
    project = write_project(tmp_path, NOBODY)
    command = [str(Path(sys.executable).with_name("heap-integration")), "status", "-e", "nowhere"]
    ended = subprocess.run(command, check=False, cwd=project, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: there is no environment 'nowhere'")
    assert "Traceback" not in ended.stderr


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """Find a data set that lies beside the project, or skip the test."""

    def find(name: str) -> Path:
        path = ROOT.parent / "shared/data" / name
        if not path.exists():
            pytest.skip(f"{name} is not there: the shared data sets don't lie beside the project")
        return path

    return find


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mapping", "lines"),
    [
        ("github_events/2021-07-21-few-hours.jsonl.gz", "github_events", 800),
        ("github_events/githubActivities-2016-07-07.jsonl.gz", "github_events", 2_000),
        ("ga4_merch_store_events/ga4_events.jsonl.gz", "ga4", 24_219),
    ],
)
def test_counts_of_real_data_add_up_at_both_ends(
    tmp_path: Path,
    sandbox: RunningSandbox,
    shared: Callable[[str], Path],
    name: str,
    mapping: str,
    lines: int,
) -> None:
    project = write_project(tmp_path, sandbox.url)
    rules = ROOT / f"docs/mappings/{mapping}.yaml"
    counts = send(project, shared(name), "--mapping", rules)
    assert (counts["read"], counts["pending"]) == (lines, 0)
    assert counts["sent"] > 0.9 * lines
    assert sum(counts["reasons"].values()) == counts["rejected"]
    held = sandbox.counts()
    assert (held["events"], held["duplicates"], held["rejected_requests"]) == (counts["sent"], 0, 0)
    status = run(project, "status", "-e", "test", "--json").json
    assert (status["faults"], status["events"]["accepted"]) == ([], counts["sent"])
    assert status["quota"]["events_this_month"] == counts["sent"]
