"""The clients of the warehouses of clouds against stand-ins: tests for the environment that has their packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest

from heap_integration.warehouse.duck import Warehouse
from heap_integration.warehouse.systems.bigquery import BigQuerySettings
from heap_integration.warehouse.systems.redshift import RedshiftSettings
from heap_integration.warehouse.systems.snowflake import SnowflakeSettings
from heap_integration.warehouse.systems.system import Connection, ServerSettings, Surroundings
from heap_integration_tests.support.cloud_servers import bigquery_server, redshift_server, snowflake_server

# They run from heap_integration_tests/warehouse/test_clouds.py.
collect_ignore_glob = [] if find_spec("snowflake") else ["test_*.py"]

Open = Callable[[], Connection]


@pytest.fixture
def surroundings(tmp_path: Path) -> Surroundings:
    """Return what a warehouse may know of its environment."""
    own = Warehouse(f"duckdb:///{tmp_path}/own.duckdb")
    return Surroundings("shop", own, {"HEAP_PASSWORD": "secret"})


@pytest.fixture(scope="session")
def bigquery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerSettings]:
    """Yield the settings of a project of BigQuery."""
    with bigquery_server(tmp_path_factory.mktemp("bigquery")) as address:
        yield BigQuerySettings(type="bigquery", project="heap", endpoint=address).named("shop")


@pytest.fixture(scope="session")
def snowflake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerSettings]:
    """Yield the settings of a database of Snowflake."""
    with snowflake_server(tmp_path_factory.mktemp("snowflake")) as port:
        yield SnowflakeSettings.model_validate(
            {
                "type": "snowflake",
                "account": "acme",
                "user": "hub",
                "password": {"env": "HEAP_PASSWORD"},
                "database": "heap",
                "warehouse": "small",
                "host": "127.0.0.1",
                "port": port,
                "protocol": "http",
            }
        ).named("shop")


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Serve S3's API with a bucket ``staging``; yield its address."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    boto3.client(
        "s3", endpoint_url=address, aws_access_key_id="key", aws_secret_access_key="secret", region_name="us-east-1"
    ).create_bucket(Bucket="staging")
    yield address
    server.stop()


@pytest.fixture(scope="session")
def redshift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerSettings]:
    """Yield the settings of a database of Redshift."""
    with redshift_server(tmp_path_factory.mktemp("redshift")) as port:
        yield redshift_settings(port)


def redshift_settings(port: int, **more: object) -> ServerSettings:
    """Return the settings of a database of Redshift."""
    return RedshiftSettings.model_validate(
        {
            "type": "redshift",
            "host": "127.0.0.1",
            "port": port,
            "database": "heap",
            "user": "hub",
            "password": {"env": "HEAP_PASSWORD"},
            "sslmode": "disable",
            **more,
        }
    ).named("shop")


@pytest.fixture(params=["bigquery", "snowflake", "redshift"])
def open_warehouse(request: pytest.FixtureRequest, surroundings: Surroundings) -> Open:
    """Return what opens a connection to each of the warehouses."""
    settings: ServerSettings = request.getfixturevalue(request.param)
    return lambda: settings.connect(surroundings)


def rows(batches: Iterator[pa.RecordBatch]) -> list[dict[str, object]]:
    """Return all rows of batches."""
    return [row for batch in batches for row in batch.to_pylist()]
