"""`heap-integration import-dumps` and `dumps`: from the bucket to the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from heap_integration.sandbox.dumps import DumpBucket
from heap_integration_tests.heap_connect.importing import click, clicks, users
from heap_integration_tests.support.commands import run
from heap_integration_tests.support.project import write_project

BUCKET = "heap-rs3-test"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project with two dumps in its bucket."""
    bucket = DumpBucket(str(tmp_path / BUCKET))
    bucket.write(852, [clicks([click(1), click(1)]), users([{"user_id": 1}])])
    bucket.write(853, [clicks([click(2, plan="[b]pro"), {**click(3), "time": "soon"}], {"plan": "string"})])
    return write_project(tmp_path, "http://127.0.0.1:9", more=f"heap_connect:\n  s3: {{bucket: {BUCKET}}}\n")


def test_dumps_are_imported_once_and_told_of(project: Path) -> None:
    assert run(project, "dumps", "test", "--json").json == {"in_bucket": True, "waiting": [852, 853], "tables": []}

    answer = run(project, "import-dumps", "test")
    told = answer.out.decode()
    assert answer.code == 0
    for words in ("dump 852", "dump 853", "click: new: plan", "1 rows have a time that can't be read: time=soon"):
        assert words in told

    stands = run(project, "dumps", "test", "--json").json
    assert stands["waiting"] == []
    assert {(table["name"], table["dump_id"], table["rows"]) for table in stands["tables"]} == {
        ("click", 853, 3),
        ("users", 852, 1),
    }
    assert "click" in run(project, "dumps", "test").out.decode()
    assert "no dump is waiting" in run(project, "import-dumps", "test").err


def test_a_broken_dump_ends_the_command_and_those_before_it_are_loaded(project: Path) -> None:
    for file in (project / BUCKET).glob("sync_853/click/*"):
        file.write_bytes(file.read_bytes()[:-30])

    answer = run(project, "import-dumps", "test", "--json")
    assert answer.code == 1
    assert [report["dump_id"] for report in answer.json["dumps"]] == [852]
    assert "sync_853/click/part-00000" in answer.json["stopped"]
    assert "Nothing of this dump is loaded" in answer.err


def test_a_bucket_without_manifests_is_told(project: Path) -> None:
    (project / BUCKET).rename(project / "elsewhere")
    assert not run(project, "dumps", "test", "--json").json["in_bucket"]
    for answer in (run(project, "dumps", "test"), run(project, "import-dumps", "test")):
        assert f"no manifest of a dump is in {project}/{BUCKET}/manifests" in answer.out.decode() + answer.err
    checked = run(project, "check", "test")
    assert (checked.code, "check heap_connect.s3.bucket" in checked.out.decode() + checked.err) == (1, True)


def test_without_a_bucket_the_command_says_what_is_missing(tmp_path: Path) -> None:
    write_project(tmp_path, "http://127.0.0.1:9")
    answer = run(tmp_path, "import-dumps", "test")
    assert (answer.code, "has no heap_connect.s3" in answer.err) == (2, True)
