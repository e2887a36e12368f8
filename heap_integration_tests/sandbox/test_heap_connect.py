"""The sandbox's Heap Connect: its dumps are as Heap describes them, and its endpoint answers SQL."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pyarrow as pa
import pytest

from heap_integration.heap.connect_sql import ConnectSql, ConnectSqlError
from heap_integration.sandbox.connect_tables import column_name
from heap_integration.sandbox.dumps import DumpBucket, DumpTable
from heap_integration_tests.support.avro import read_avro
from heap_integration_tests.support.s3 import HeapBucket
from heap_integration_tests.support.sandbox import RunningSandbox


class Heap:
    """A customer's environment that is told of events and people, and dumps them into a bucket."""

    def __init__(self, sandbox: RunningSandbox, bucket: HeapBucket) -> None:
        self.sandbox = sandbox
        self.bucket = bucket

    def track(self, event: str, identity: str, at: str, /, **properties: Any) -> None:
        """Tell of an event of 2026-01-02."""
        given = {"timestamp": f"2026-01-02T{at}Z", "properties": properties}
        self.told("track", event=event, identity=identity, **given)

    def told(self, path: str, **body: Any) -> None:
        """Call an endpoint of Heap's."""
        self.sandbox.client.post(f"/api/{path}", json={"app_id": self.sandbox.app_id, **body}).raise_for_status()

    def dump(self, **options: Any) -> dict[str, Any]:
        """Let a day pass; return the new dump's tables by name."""
        body = {"address": self.bucket.address, "options": self.bucket.options, **options}
        answer = self.sandbox.client.post(f"/_heap/{self.sandbox.app_id}/dumps", json=body)
        tables: list[dict[str, Any]] = answer.raise_for_status().json()["tables"]
        return {table["name"]: table for table in tables}

    def rows(self, table: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of all files of a table."""
        return [row for file in table["files"] for row in read_avro(file, self.bucket.options)]

    def query(self, sql: str, key: str | None = None) -> httpx.Response:
        """Ask with the environment's key, unless another is given."""
        bearer = self.sandbox.environment.heap_api_key.get_secret_value() if key is None else key
        headers = {"Authorization": f"Bearer {bearer}"}
        return self.sandbox.client.post("/api/connect/query", json={"query": sql}, headers=headers)


@pytest.fixture
def heap(sandbox: RunningSandbox, heap_bucket: HeapBucket) -> Heap:
    """Return an environment in which two people did something, one of them after half an hour's pause."""
    heap = Heap(sandbox, heap_bucket)
    heap.track("Page viewed", "ann", "10:00:00", path="/start", utm_source="news")
    heap.track("Sign Up - Click Link", "ann", "10:20:00", Plan="pro", time="noon")
    heap.track("Sign Up - Click Link", "ann", "10:50:01", Plan="free")
    heap.track("Sign Up - Click Link", "bob", "10:20:00", seats=3)
    heap.told(
        "add_user_properties", identity="ann", properties={"email": "ann@example.com", "seats": 3, "User ID": "7"}
    )
    return heap


def test_a_first_dump_holds_everything_under_the_paths_of_its_manifest(heap: Heap) -> None:
    tables = heap.dump()
    with fsspec.open(f"{heap.bucket.address}/manifests/sync_852.json", **heap.bucket.options) as file:
        manifest = json.load(file)
    assert (manifest["dump_id"], manifest["tables"]) == (852, [*tables.values()])
    (file_name,) = tables["users"]["files"]
    assert file_name.startswith(f"{heap.bucket.address}/sync_852/users/part-00000-")
    assert {name: table["incremental"] for name, table in tables.items()} == dict.fromkeys(
        ["users", "sessions", "pageviews", "sign_up_click_link", "user_migrations", "_event_metadata"],
        False,
    )
    ann, bob = heap.rows(tables["users"])
    assert (ann["identity"], ann["email"], ann["seats"], ann["_user_id"]) == ("ann", "ann@example.com", 3, "7")
    assert (bob["identity"], bob["email"], bob["seats"]) == ("bob", None, None)
    joined = datetime.fromtimestamp(ann["joindate"] / 1_000_000, UTC)
    assert abs((datetime.now(UTC) - joined).total_seconds()) < 60
    clicks = heap.rows(tables["sign_up_click_link"])
    assert [(row["time"], row["plan"], row["_time"], row["seats"]) for row in clicks] == [
        ("2026-01-02 10:20:00.000", "pro", "noon", None),
        ("2026-01-02 10:50:01.000", "free", None, None),
        ("2026-01-02 10:20:00.000", None, None, "3"),
    ]
    (view,) = heap.rows(tables["pageviews"])
    assert (view["path"], view["utm_source"], view["user_id"]) == ("/start", "news", ann["user_id"])


def test_a_session_ends_with_half_an_hour_of_silence(heap: Heap) -> None:
    tables = heap.dump()
    sessions = heap.rows(tables["sessions"])
    assert [(row["time"], row["utm_source"]) for row in sessions] == [
        ("2026-01-02 10:00:00.000", "news"),
        ("2026-01-02 10:50:01.000", None),
        ("2026-01-02 10:20:00.000", None),
    ]
    first, second, of_bob = (row["session_id"] for row in sessions)
    assert [row["session_id"] for row in heap.rows(tables["sign_up_click_link"])] == [first, second, of_bob]


def test_a_later_dump_holds_what_is_new_and_whom_that_changed(heap: Heap) -> None:
    heap.dump()
    heap.track("Sign Up - Click Link", "bob", "10:25:00", seats=4)
    heap.track("Bought", "bob", "10:26:00")
    tables = heap.dump()
    assert {name: table["incremental"] for name, table in tables.items() if not table["incremental"]} == {
        "bought": False,
        "user_migrations": False,
        "_event_metadata": False,
    }
    assert [row["identity"] for row in heap.rows(tables["users"])] == ["bob"]
    assert [row["seats"] for row in heap.rows(tables["sign_up_click_link"])] == ["4"]
    assert heap.rows(tables["sessions"]) == []
    again = heap.dump(full=["users"], dump_id=1008461850, leave_out=["bought"])
    assert again["users"]["incremental"] is False
    assert [row["identity"] for row in heap.rows(again["users"])] == ["ann", "bob"]
    assert "bought" not in again
    heap.track("Bought", "ann", "11:26:00")
    heap.dump(leave_out=["bought"])
    assert len(heap.rows(heap.dump()["bought"])) == 1


def test_who_is_identified_stays_in_earlier_dumps_and_is_told_of_in_every_later_one(heap: Heap) -> None:
    heap.told("track", event="Bought", user_id="42", timestamp="2026-01-02T09:00:00Z")
    assert [row["user_id"] for row in heap.rows(heap.dump()["bought"])] == [42]
    heap.told("v1/identify", user_id="42", identity="ann", timestamp="2026-01-02T09:10:00Z")
    for _ in range(2):
        tables = heap.dump()
        assert heap.rows(tables["bought"]) == []
        (migration,) = heap.rows(tables["user_migrations"])
        assert migration["from_user_id"] == 42
    (to,) = [row["user_id"] for row in heap.rows(heap.dump(restate=True)["users"]) if row["identity"] == "ann"]
    assert migration["to_user_id"] == to


def test_a_column_holds_whatever_the_properties_of_its_name_are(heap: Heap) -> None:
    heap.told("add_user_properties", identity="bob", properties={"Seats": 4.5, "Plan": "pro"})
    assert [row["seats"] for row in heap.rows(heap.dump()["users"])] == [3.0, 4.5]
    heap.told("add_user_properties", identity="ann", properties={"SEATS": "many", "plan": 1})
    heap.track("Page viewed", "ann", "12:00:00", **{"Session ID": "x", "session_time": "y", "joined?": 1, "": 2})
    tables = heap.dump(restate=True)
    assert [(row["seats"], row["plan"]) for row in heap.rows(tables["users"])] == [("many", "1"), ("4.5", "pro")]
    (view,) = heap.rows(tables["pageviews"])
    assert (view["_session_id"], view["session_time"], view["joined"], view["_"]) == ("x", "y", "1", "2")


def test_a_dump_departs_from_the_ordinary_one_as_it_is_told(heap: Heap) -> None:
    tables = heap.dump(
        repeat=True,
        user_times="text",
        event_times="milliseconds",
        lost_columns={"users": ["seats"]},
        prefixed_names=True,
    )
    assert "seats" not in tables["users"]["columns"]
    assert {type(row["joindate"]) for row in heap.rows(tables["users"])} == {str}
    assert tables["users"]["files"][0].split("/")[-1].startswith("0_part-00000-")
    files = [read_avro(file, heap.bucket.options) for file in tables["sign_up_click_link"]["files"]]
    assert [len(rows) for rows in files] == [3, 3]
    assert [row["time"] for row in files[0]][:2] == [1767349200000, 1767351001000]
    assert len({row["event_id"] for rows in files for row in rows}) == 3


def test_a_dump_without_a_manifest_is_not_complete_and_comes_again(heap: Heap) -> None:
    first = heap.dump(manifest=False)
    found = heap.bucket.client.list_objects_v2(Bucket=heap.bucket.name)["Contents"]
    assert {entry["Key"].split("/")[0] for entry in found} == {"sync_852"}
    again = heap.dump()
    assert heap.rows(again["users"]) == heap.rows(first["users"])


def test_a_bucket_that_is_not_there_is_told_and_changes_nothing(heap: Heap) -> None:
    body = {"address": "s3://heap-rs3-missing", "options": heap.bucket.options}
    answer = heap.sandbox.client.post(f"/_heap/{heap.sandbox.app_id}/dumps", json=body)
    assert (answer.status_code, answer.json()["error"].split(":")[0]) == (502, "the dump can't be written")
    assert heap.sandbox.client.post("/_heap/1/dumps", json=body).status_code == 404
    assert heap.sandbox.client.post(f"/_heap/{heap.sandbox.app_id}/dumps", json={}).status_code == 400


def test_files_are_avro_in_blocks_of_snappy_that_arrow_values_survive(tmp_path: Path) -> None:
    columns = pa.table({"user_id": range(5_000), "name": [f"name {number}" * 9 for number in range(5_000)]})
    rows = columns.to_pylist()
    table = DumpTable("users", {"user_id": "long", "name": "string"}, iter(rows), rows_per_file=3_000)
    (written,) = DumpBucket(f"{tmp_path}/heap-rs3-copy").write(7, [table])["tables"]
    files = [file.replace("s3://heap-rs3-copy", f"{tmp_path}/heap-rs3-copy") for file in written["files"]]
    assert [len(read_avro(file)) for file in files] == [3_000, 2_000]
    assert [row for file in files for row in read_avro(file)] == rows


def test_a_query_sees_the_tables_of_the_key_it_bears(heap: Heap) -> None:
    sql = (
        "select u.identity, count(*) as clicks, max(e.time) as last from main_production.all_events e"
        " join users u using (user_id) where event_table_name = 'sign_up_click_link' group by 1 order by 1"
    )
    assert heap.query(sql).json() == {
        "columns": ["identity", "clicks", "last"],
        "rows": [["ann", 2, "2026-01-02T10:50:01"], ["bob", 1, "2026-01-02T10:20:00"]],
    }
    assert heap.query("select count(*) as n from users", key="second-api-key").json()["rows"] == [[0]]
    assert heap.query("select 1", key="wrong").status_code == 401


def test_the_hubs_client_of_the_endpoint_understands_its_answers(heap: Heap) -> None:
    key = heap.sandbox.environment.heap_api_key.get_secret_value()
    with ConnectSql(heap.sandbox.url, key) as client:
        answer = client.ask("select identity, seats from users order by identity", seconds=30)
        assert (answer.columns, answer.rows) == (("identity", "seats"), (("ann", 3), ("bob", None)))
        with pytest.raises(ConnectSqlError, match="a query is one SELECT"):
            client.ask("drop table users", seconds=30)


@pytest.mark.parametrize(
    "sql",
    [
        "delete from users",
        "select 1; select 2",
        "selec 1",
        "select * from read_text('/etc/hostname')",
        "select * from x",
    ],
)
def test_a_query_that_is_no_query_over_the_tables_is_refused_in_words(heap: Heap, sql: str) -> None:
    answer = heap.query(sql)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_names_of_tables_are_small_letters_digits_and_underscores() -> None:
    assert column_name("Sign Up - Click Link") == "sign_up_click_link"
