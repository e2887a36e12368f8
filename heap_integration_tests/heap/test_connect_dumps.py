"""What a manifest says, and which of a dump's tables have to be loaded."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_integration.heap.connect_dumps import (
    BadManifest,
    DumpTable,
    Manifest,
    dump_id_of,
    place_of,
    read_manifest,
    tables_to_load,
)

NAME = "s3://heap-rs3-x/manifests/sync_852.json"
TABLE = {
    "name": "users",
    "columns": ["user_id"],
    "files": ["s3://heap-rs3-x/sync_852/users/part-0.avro"],
    "incremental": True,
}


def manifest(**changes: Any) -> bytes:
    """Return a manifest of one table, parts of which are changed."""
    document = {"dump_id": 852, "tables": [{**TABLE, **changes}], "property_definitions": "s3://x/y.json"}
    return json.dumps(document).encode()


def test_a_manifest_says_what_a_dump_holds() -> None:
    table = DumpTable("users", ("user_id",), ("s3://heap-rs3-x/sync_852/users/part-0.avro",), True)
    assert read_manifest(manifest(), NAME) == Manifest(852, (table,))


@pytest.mark.parametrize(
    ("name", "key", "replaces"),
    [("users", "user_id", False), ("user_migrations", "from_user_id", True), ("sign_up", "event_id", False)],
)
def test_each_table_has_its_key(name: str, key: str, replaces: bool) -> None:
    (table,) = read_manifest(manifest(name=name), NAME).tables
    assert (table.key, table.replaces) == (key, replaces)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"[]", "no list of tables"),
        (b'{"dump_id": 853, "tables": []}', "another number than its name: 853"),
        (manifest(incremental="no"), r"tables\[0\]\.incremental is 'no'"),
        (manifest(files="a"), r"tables\[0\]\.files is not a list"),
        (manifest(name="_hub_dumps"), "no name of a table"),
        (manifest(name="_Hub_Dumps"), "no name of a table"),
        (json.dumps({"tables": [TABLE, {**TABLE, "name": "Users"}]}).encode(), "names the table users twice"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_told_by_its_name(content: bytes, message: str) -> None:
    with pytest.raises(BadManifest, match=message) as told:
        read_manifest(content, NAME)
    assert NAME in str(told.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*TABLE, "dump_id", "tables"]), inner),
    max_leaves=12,
)


@given(json_values)
def test_no_manifest_does_worse_than_to_be_bad(document: Any) -> None:
    with suppress(BadManifest):
        assert read_manifest(json.dumps(document).encode(), NAME).dump_id == 852


def test_only_manifests_have_numbers() -> None:
    assert dump_id_of(NAME) == 852
    assert [dump_id_of(name) for name in ("sync_1.json.tmp", "x/sync_.json", "sync_1_2.json")] == [None] * 3


def dump(number: int, **tables: bool) -> Manifest:
    """Return a dump of tables, which are incremental or not."""
    return Manifest(number, tuple(DumpTable(name, (), (), incremental) for name, incremental in tables.items()))


def test_a_table_is_left_to_a_later_dump_that_holds_all_of_it() -> None:
    later = [dump(6, users=True, sign_up=False), dump(9, user_migrations=True)]
    chosen = tables_to_load(dump(5, users=True, sign_up=True, user_migrations=True), later, {})
    assert [table.name for table in chosen] == ["users"]


def test_a_table_that_is_as_new_or_unwanted_is_left_out() -> None:
    loaded = {"users": 5, "pageviews": 6, "sessions": 4}
    manifest = dump(5, users=True, pageviews=False, sessions=True, _event_metadata=True, purchase=True)
    chosen = tables_to_load(manifest, [], loaded, ["_event_metadata"])
    assert [table.name for table in chosen] == ["sessions", "purchase"]


def test_files_are_found_in_the_bucket_and_in_copies_of_it() -> None:
    file = "s3://heap-rs3-x/sync_1/users/part-0.avro"
    assert place_of(file, "s3://heap-rs3-x") == file
    assert place_of(file, "s3://heap-rs3-x/") == file
    assert place_of(file, "/data/copy") == "/data/copy/sync_1/users/part-0.avro"
    assert place_of(file, "s3://other/copies/x") == "s3://other/copies/x/sync_1/users/part-0.avro"
    assert place_of("s3://other/copies/x/sync_1/u.avro", "s3://other/copies/x") == "s3://other/copies/x/sync_1/u.avro"


@pytest.mark.parametrize("file", ["s3://b/../x.avro", "s3://b/a//b", "s3://b/", "../../etc/passwd", "s3://b/./a"])
def test_no_file_outside_the_bucket_is_found(file: str) -> None:
    with pytest.raises(BadManifest, match="no file in the bucket"):
        place_of(file, "/data/copy")
