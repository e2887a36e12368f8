"""The dbt models as each warehouse gets them: compiled by dbt's own adapters, kept beside this file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from heap_integration.warehouse.systems.bigquery import BigQuerySettings
from heap_integration.warehouse.systems.redshift import RedshiftSettings
from heap_integration.warehouse.systems.snowflake import SnowflakeSettings
from heap_integration.warehouse.systems.synapse import SynapseSettings
from heap_integration.warehouse.systems.system import ServerSettings
from heap_integration_tests.support.venvs import ROOT, venv

HERE = Path(__file__).parent
SUPPORT = HERE.parent / "support"
EVENT_COLUMNS = ["event_id", "user_id", "session_id", "time", "library", "platform", "browser", "country", "_hub_dump"]
HEAP_TABLES = {
    "users": ["user_id", "identity", "email", "joindate", "last_modified", "plan", "account_id", "_hub_dump"],
    "sessions": [*EVENT_COLUMNS, "referrer", "landing_page", "landing_page_query", "utm_source", "utm_medium"],
    "pageviews": [*EVENT_COLUMNS, "domain", "path", "query", "title", "referrer", "plan_seen"],
    "user_migrations": ["from_user_id", "to_user_id", "time"],
    "signup_started": [*EVENT_COLUMNS, "type", "form"],
    "email_verified": [*EVENT_COLUMNS, "type"],
    "first_purchase": [*EVENT_COLUMNS, "type", "amount"],
    "feature_export": [*EVENT_COLUMNS, "type"],
}
VARIABLES: Mapping[str, Any] = {
    "as_of": "2026-01-31",
    "computed_at": "2026-02-01 00:00:00",
    "first_day": "2026-01-01",
    "events_from": "heap_connect",
    "heap_connect_schema": "shop_heap_connect",
    "hub_schema": "shop_hub",
    "heap_tables": HEAP_TABLES,
    "heap_event_tables": {
        "signup_started": "Signup Started",
        "email_verified": "Email Verified",
        "first_purchase": "First Purchase",
        "feature_export": "Feature: Export",
    },
    "funnels": [
        {
            "name": "signup",
            "steps": ["Signup Started", "Email Verified", "First Purchase"],
            "ordered": True,
            "window_hours": 48,
            "by": ["platform", "form"],
        }
    ],
    "conversion_events": ["First Purchase"],
}
SECRET = {"env": "HEAP_WAREHOUSE_PASSWORD"}


class Target(NamedTuple):
    """A warehouse to compile for: its settings, dbt's adapter and what has it, and sqlglot's name of its SQL."""

    settings: ServerSettings
    adapter: str
    environment: str
    dialect: str


def _named(settings: ServerSettings) -> ServerSettings:
    return settings.named("shop")


TARGETS = {
    "bigquery": Target(
        _named(BigQuerySettings.model_validate({"type": "bigquery", "project": "heap", "credentials": SECRET})),
        "bigquery",
        "clouds",
        "bigquery",
    ),
    "snowflake": Target(
        _named(
            SnowflakeSettings.model_validate(
                {
                    "type": "snowflake",
                    "account": "acme",
                    "user": "hub",
                    "password": SECRET,
                    "database": "heap",
                    "warehouse": "small",
                }
            )
        ),
        "snowflake",
        "clouds",
        "snowflake",
    ),
    "redshift": Target(
        _named(
            RedshiftSettings.model_validate(
                {"type": "redshift", "host": "redshift", "database": "heap", "user": "hub", "password": SECRET}
            )
        ),
        "redshift",
        "clouds",
        "redshift",
    ),
    "synapse": Target(
        _named(
            SynapseSettings.model_validate(
                {"type": "synapse", "host": "synapse", "database": "heap", "user": "hub", "password": SECRET}
            )
        ),
        "synapse",
        "dbt-synapse",
        "tsql",
    ),
}


def on_record(system: str) -> dict[str, str]:
    """Return the SQL of each model as it is kept."""
    return {path.stem: path.read_text() for path in sorted((HERE / system).glob("*.sql"))}


def compiled(system: str, folder: Path) -> dict[str, str]:
    """Return the SQL of each model for a warehouse as it is now; skip where its adapter can't be installed."""
    target = TARGETS[system]
    # dbt asks for nothing of what surrounds the settings
    output = target.settings.dbt_output(None)  # type: ignore[arg-type]
    secret = _service_account() if system == "bigquery" else "secret"
    more = {"PYTHONPATH": str(SUPPORT / "without_odbc")} if system == "synapse" else {}
    return _compile(venv(target.environment), target.adapter, output, folder, {SECRET["env"]: secret, **more})


def compiled_for_duckdb(folder: Path) -> dict[str, str]:
    """Return the SQL of each model for DuckDB."""
    output = {"type": "duckdb", "path": f"{folder}/heap.duckdb", "schema": "shop_models", "threads": 1}
    return _compile(Path(sys.executable), "duckdb", output, folder, {})


def _compile(
    python: Path, adapter: str, output: dict[str, Any], folder: Path, variables: dict[str, str]
) -> dict[str, str]:
    profile = {"heap_integration": {"target": "there", "outputs": {"there": {**output, "threads": 1}}}}
    # JSON is YAML
    (folder / "profiles.yml").write_text(json.dumps(profile))
    command = [python, "-P", SUPPORT / "dbt_compile.py", adapter, ROOT / "dbt_project", folder, json.dumps(VARIABLES)]
    known = {"PATH": os.environ["PATH"], "HOME": str(folder), "DBT_SEND_ANONYMOUS_USAGE_STATS": "false", **variables}
    done = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return {name: _tidy(sql) for name, sql in json.loads((folder / "sql.json").read_text()).items()}


def _service_account() -> str:
    """Return the key of a service account, which dbt wants to be able to read before it compiles."""
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "heap",
            "private_key_id": "1",
            "private_key": key.decode(),
            "client_email": "hub@heap.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": "https://oauth2.googleapis.com/token",
        },
        indent=2,
    )


def _tidy(sql: str) -> str:
    """Return SQL without the empty lines and the spaces at ends of lines that templates leave."""
    return re.sub(r"\s*\n(?:\s*\n)*", "\n", sql.strip() + "\n")
