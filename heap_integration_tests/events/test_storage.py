"""Files are found in folders and in object storage, told apart by version, and read piece by piece."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import fastavro
import pyarrow as pa
import pytest

from heap_integration.events.sources.files import read_input
from heap_integration.events.sources.storage import StorageError, Unreachable, list_files, read_options
from heap_integration_tests.events.conftest import NOW, Bucket

Write = Callable[[str, str | bytes], Path]


def names(pattern: str, bucket: Bucket) -> list[str]:
    return [file.name.removeprefix("s3://shop/") for file in list_files(pattern, bucket.options)]


def test_objects_are_found_by_wildcards_prefix_and_name(bucket: Bucket) -> None:
    for key in ("in/a.ndjson", "in/b.csv", "in/2026/01/c.ndjson", "in/_SUCCESS", "in/.part/d.ndjson", "inside.ndjson"):
        bucket.put(key, "x")
    assert names("s3://shop/in/*.ndjson", bucket) == ["in/a.ndjson"]
    assert names("s3://shop/in/**/*.ndjson", bucket) == ["in/.part/d.ndjson", "in/2026/01/c.ndjson", "in/a.ndjson"]
    assert names("s3://shop/in/", bucket) == ["in/2026/01/c.ndjson", "in/a.ndjson", "in/b.csv"]
    assert names("s3://shop/in", bucket) == ["in/2026/01/c.ndjson", "in/a.ndjson", "in/b.csv"]
    assert names("s3://shop/in/b.csv", bucket) == ["in/b.csv"]
    assert names("s3://shop/out/", bucket) == names("s3://shop/out.csv", bucket) == []


def test_an_objects_stamp_is_its_version_and_what_arrives_is_seen_at_once(bucket: Bucket) -> None:
    bucket.put("a.ndjson", "one")
    (first,) = list_files("s3://shop/*.ndjson", bucket.options)
    assert list_files("s3://shop/*.ndjson", bucket.options) == [first]
    bucket.put("a.ndjson", "two")
    bucket.put("b.ndjson", "one")
    changed, copy = list_files("s3://shop/*.ndjson", bucket.options)
    assert changed.stamp != first.stamp
    # the same bytes under another name are another object: an etag is unique for one name only
    assert copy.content != first.content


def test_an_object_is_read_in_pieces_and_can_be_sought_in(bucket: Bucket) -> None:
    content = os.urandom(9_000_000)
    bucket.put("large.bin", content)
    (file,) = list_files("s3://shop/large.bin", bucket.options)
    with file.open() as stream:
        assert stream.read(10) == content[:10]
        stream.seek(-10, io.SEEK_END)
        assert stream.read() == content[-10:]
    bucket.client.delete_object(Bucket="shop", Key="large.bin")
    with pytest.raises(FileNotFoundError):
        file.open()


def test_storage_that_refuses_is_named_and_the_secret_is_not() -> None:
    options = {"key": "key", "secret": "hush", "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"}}
    with pytest.raises(StorageError, match=r"s3://shop/\*\.csv can't be listed: ") as error:
        list_files("s3://shop/*.csv", options | {"config_kwargs": {"retries": {"max_attempts": 1}}})
    assert "hush" not in str(error.value)


def test_an_address_that_needs_another_package_says_which() -> None:
    with pytest.raises(StorageError, match=r"gs:// needs the package gcsfs: pip install 'heap-integration\[gcs\]'"):
        list_files("gs://shop/*.csv")
    with pytest.raises(StorageError, match=r"az:// needs the package adlfs: pip install 'heap-integration\[azure\]'"):
        list_files("az://shop/*.csv")
    with pytest.raises(StorageError, match=r"ftp:// is not supported: allowed are a path, s3://, gs://, az://"):
        list_files("ftp://host/*.csv")


@pytest.mark.parametrize("text", ['{"key": "hush", ', '["hush"]', '"hush"', ""])
def test_options_that_are_no_json_object_are_refused_unseen(text: str) -> None:
    with pytest.raises(StorageError, match="the variable SHOP_STORAGE is not ") as error:
        read_options(text, "SHOP_STORAGE")
    assert "hush" not in str(error.value)
    assert error.value.__cause__ is None


def test_a_folder_stands_for_all_its_files_but_those_beside_the_data(tmp_path: Path) -> None:
    for name in ("b.ndjson", "2026/a.ndjson", ".hidden", "_SUCCESS", "_temporary/c.ndjson"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [file.name for file in list_files(str(tmp_path))] == [
        str(tmp_path / "2026/a.ndjson"),
        str(tmp_path / "b.ndjson"),
    ]
    assert [file.name for file in list_files(f"file://{tmp_path}/*.ndjson")] == [str(tmp_path / "b.ndjson")]
    assert list_files(f"{tmp_path}/none/*.ndjson") == []


def test_a_local_files_stamp_changes_with_its_size_time_and_identity(write: Write) -> None:
    path = write("a.ndjson", "one")
    stamps = {list_files(str(path))[0].stamp}
    assert {list_files(str(path))[0].stamp} == stamps
    os.utime(path, ns=(1, 1))
    stamps.add(list_files(str(path))[0].stamp)
    with path.open("a") as file:
        file.write("more")
    os.utime(path, ns=(1, 1))
    stamps.add(list_files(str(path))[0].stamp)
    other = write("b.ndjson", "onemore")
    os.utime(other, ns=(1, 1))
    other.rename(path)
    stamps.add(list_files(str(path))[0].stamp)
    assert len(stamps) == 4


class CutOff(io.BytesIO):
    """A stream whose connection breaks half way."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > len(self.getbuffer()) // 2:
            raise ConnectionResetError("connection reset")
        return super().read(size)


@pytest.mark.parametrize("name", ["calls.ndjson", "calls.ndjson.zst", "calls.parquet", "calls.avro"])
def test_a_broken_connection_is_not_taken_for_a_broken_file(name: str) -> None:
    avro = io.BytesIO()
    schema = {"type": "record", "name": "row", "fields": [{"name": "user_id", "type": "string"}]}
    fastavro.writer(avro, schema, [{"user_id": "u1"}] * 200_000)
    lines = b'{"type": "track", "event": "Clicked", "userId": "u1"}\n' * 40_000
    content = {
        ".ndjson": lines,
        ".zst": bytes(pa.compress(os.urandom(1_000_000), codec="zstd", asbytes=True)),
        ".parquet": b"PAR1" + os.urandom(1_000_000) + b"PAR1",
        ".avro": avro.getvalue(),
    }[Path(name).suffix]
    with pytest.raises(Unreachable, match="can't be read: connection reset"):
        list(read_input(CutOff(content), name, None, received_at=NOW, row_format="userpilot"))
