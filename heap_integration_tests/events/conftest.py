from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from heap_integration.events.mapping import Mapping, load_mapping
from heap_integration.events.sources.files import Chunk, read_file
from heap_integration_tests.support.s3 import s3_server

__all__ = ["s3_server"]

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """Find a file of the data sets and vectors that lie beside the project, or skip the test."""

    def find(name: str) -> Path:
        path = ROOT.parent / "shared" / name
        if not path.exists():
            pytest.skip(f"{name} is not there: the shared data sets don't lie beside the project")
        return path

    return find


@pytest.fixture
def example_mapping() -> Callable[[str], Mapping]:
    """Load one of the mappings that the project ships."""
    return lambda name: load_mapping(ROOT / name)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file and return its path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@dataclass(frozen=True)
class Bucket:
    """A bucket behind S3's API, and what fsspec needs to reach it."""

    client: Any
    options: dict[str, Any]

    def put(self, key: str, content: bytes | str) -> None:
        """Write an object."""
        body = content.encode() if isinstance(content, str) else content
        self.client.put_object(Bucket="shop", Key=key, Body=body)


@pytest.fixture
def bucket(s3_server: str) -> Iterator[Bucket]:
    """Yield an empty bucket ``shop``."""
    import boto3

    client = boto3.client(
        "s3", endpoint_url=s3_server, aws_access_key_id="key", aws_secret_access_key="secret", region_name="us-east-1"
    )
    client.create_bucket(Bucket="shop")
    yield Bucket(client, {"key": "key", "secret": "secret", "client_kwargs": {"endpoint_url": s3_server}})
    for entry in client.list_objects_v2(Bucket="shop").get("Contents", []):
        client.delete_object(Bucket="shop", Key=entry["Key"])
    client.delete_bucket(Bucket="shop")
    client.close()


def read(path: Path, mapping: Mapping | None = None, **options: Any) -> list[Chunk]:
    """Read a whole file."""
    return list(read_file(path, mapping, received_at=NOW, **options))


def events(chunks: list[Chunk]) -> list[dict[str, Any]]:
    """Return all events of ``chunks``."""
    return [event for chunk in chunks for event in chunk.events.to_pylist()]


def refused(chunks: list[Chunk]) -> dict[int, str]:
    """Return the reasons of ``chunks`` by line."""
    return {row["line"]: row["reason"] for chunk in chunks for row in chunk.refused.to_pylist()}
