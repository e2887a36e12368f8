from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow as pa
import pytest

from heap_integration.warehouse.duck import WarehouseError
from heap_integration.warehouse.systems.system import LimitExceeded, Limits, ServerSettings, Surroundings
from heap_integration_tests.support.cloud_servers import redshift_server
from heap_integration_tests.warehouse.clouds.conftest import redshift_settings, rows

NUMBERS = pa.table({"n": pa.array(range(5_000), pa.int64())})


def test_rows_go_by_way_of_s3_and_nothing_stays_there(s3: str, surroundings: Surroundings, tmp_path: Path) -> None:
    import boto3

    options = {"key": "key", "secret": "secret", "client_kwargs": {"endpoint_url": s3}}
    known = Surroundings("shop", surroundings.own, {"HEAP_PASSWORD": "secret", "S3_OPTIONS": json.dumps(options)})
    with redshift_server(tmp_path, s3) as port:
        settings = redshift_settings(
            port,
            staging="s3://staging/heap/",
            staging_credentials={"env": "S3_OPTIONS"},
            staging_role="arn:aws:iam::1:role/r",
        )
        with settings.connect(known) as warehouse:
            assert warehouse.load("shop_heap_connect", "numbers", NUMBERS.to_batches(999), NUMBERS.schema) == 5_000
            assert rows(warehouse.batches("select count(*) as n, sum(n) as s from shop_heap_connect.numbers")) == [
                {"n": 5_000, "s": sum(range(5_000))}
            ]
    client = boto3.client("s3", endpoint_url=s3, aws_access_key_id="key", aws_secret_access_key="secret")
    assert client.list_objects_v2(Bucket="staging").get("Contents", []) == []


def test_a_bucket_that_is_not_there_is_told(s3: str, surroundings: Surroundings, redshift: ServerSettings) -> None:
    options = {"key": "key", "secret": "secret", "client_kwargs": {"endpoint_url": s3}}
    known = Surroundings("shop", surroundings.own, {"HEAP_PASSWORD": "secret", "S3_OPTIONS": json.dumps(options)})
    elsewhere = redshift_settings(
        redshift.model_dump()["port"], staging="s3://nowhere/heap", staging_credentials={"env": "S3_OPTIONS"}
    )
    with elsewhere.connect(known) as warehouse, pytest.raises(WarehouseError, match="s3://nowhere/heap"):
        warehouse.load("shop_heap_connect", "numbers", NUMBERS.to_batches(), NUMBERS.schema)


def test_a_query_that_takes_too_long_is_stopped_at_the_server(
    redshift: ServerSettings, surroundings: Surroundings
) -> None:
    with redshift.connect(surroundings) as warehouse:
        warehouse.load("shop_heap_connect", "numbers", NUMBERS.to_batches(), NUMBERS.schema)
        numbers = "shop_heap_connect.numbers"
        endless = (
            f"select count(distinct a.n * b.n + c.n) from {numbers} a cross join {numbers} b cross join {numbers} c"
        )
        begin = time.monotonic()
        with pytest.raises(LimitExceeded, match=r"longer than 0\.5 seconds"):
            rows(warehouse.batches(endless, limits=Limits(seconds=0.5)))
        assert time.monotonic() - begin < 30
