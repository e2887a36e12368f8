"""A server that speaks S3's API, and a bucket of Heap Connect's on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

KEY, SECRET = "key", "secret"


@dataclass(frozen=True)
class HeapBucket:
    """An empty bucket, named as Heap asks for."""

    name: str
    endpoint: str
    client: Any

    @property
    def address(self) -> str:
        """Its address."""
        return f"s3://{self.name}"

    @property
    def options(self) -> dict[str, Any]:
        """What fsspec needs to reach it."""
        return {"key": KEY, "secret": SECRET, "client_kwargs": {"endpoint_url": self.endpoint}}

    @property
    def variables(self) -> dict[str, str]:
        """What the programs that use boto3 need to reach it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": self.endpoint,
        }


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Serve S3's API on a port of its own; yield its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def heap_bucket(s3_server: str) -> Iterator[HeapBucket]:
    """Yield an empty bucket."""
    import boto3

    client = boto3.client(
        "s3", endpoint_url=s3_server, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
    )
    bucket = HeapBucket("heap-rs3-test", s3_server, client)
    client.create_bucket(Bucket=bucket.name)
    yield bucket
    for entry in client.list_objects_v2(Bucket=bucket.name).get("Contents", []):
        client.delete_object(Bucket=bucket.name, Key=entry["Key"])
    client.delete_bucket(Bucket=bucket.name)
    client.close()
