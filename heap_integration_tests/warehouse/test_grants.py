"""The scripts that give the hub its rights in a warehouse."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy.engine import make_url

from heap_integration_tests.support.venvs import ROOT

SCRIPTS = ROOT / "deploy/warehouse"
RECORDING = """#!/bin/sh
printf '%s' "$(basename "$0")" >> "$CALLS"
for word in "$@"; do printf '\\t%s' "$word" >> "$CALLS"; done
echo >> "$CALLS"
case "$*" in {there}) exit 0 ;; *show*|*describe*) exit 1 ;; esac
"""
MEMBER = "serviceAccount:heap-hub@acme.iam.gserviceaccount.com"


def bigquery(folder: Path, *arguments: str, there: str = "nothing") -> tuple[int, list[list[str]]]:
    """Run the script for BigQuery with programs that note how they are called; ``there`` is what exists already."""
    for name in ("gcloud", "bq"):
        (folder / name).write_text(RECORDING.format(there=there))
        (folder / name).chmod(0o755)
    calls = folder / "calls"
    calls.touch()
    known = {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls)}
    done = subprocess.run([SCRIPTS / "bigquery.sh", *arguments], env=known, capture_output=True, check=False)
    return done.returncode, [line.split("\t") for line in calls.read_text().splitlines()]


def test_bigquery_gets_an_account_that_owns_its_datasets_and_reads_heaps(tmp_path: Path) -> None:
    code, calls = bigquery(tmp_path, "acme", "shop", "--location", "EU", "--heap-dataset", "main_production")
    assert code == 0
    made = [call[-1] for call in calls if call[:2] == ["bq", "mk"]]
    assert made == [f"acme:shop_{part}" for part in ("heap_connect", "models", "hub", "exports")]
    assert all("EU" in call for call in calls if call[:2] == ["bq", "mk"])
    granted = [call[-1] for call in calls if call[:2] == ["bq", "query"]]
    assert granted == [
        *(
            f"grant `roles/bigquery.dataEditor` on schema `acme.shop_{part}` to '{MEMBER}'"
            for part in ("heap_connect", "models", "hub", "exports")
        ),
        f"grant `roles/bigquery.dataViewer` on schema `acme.main_production` to '{MEMBER}'",
    ]
    in_project = [call for call in calls if "add-iam-policy-binding" in call]
    assert [call[call.index("--role") + 1] for call in in_project] == ["roles/bigquery.jobUser"]
    assert not any("keys" in call for call in calls)


def test_bigquery_keeps_what_is_there(tmp_path: Path) -> None:
    code, calls = bigquery(tmp_path, "acme", "shop", there="*show*|*describe*")
    assert code == 0
    assert not any(call[:2] == ["bq", "mk"] or "create" in call for call in calls)


@pytest.mark.parametrize("arguments", ["acme", "acme shop more", "acme shop`", "--what acme shop"])
def test_bigquery_is_not_touched_by_a_call_that_is_wrong(arguments: str, tmp_path: Path) -> None:
    code, calls = bigquery(tmp_path, *arguments.split())
    assert code == 2
    assert calls == []


def test_postgres_gets_a_role_that_can_work_in_its_own_schemas_alone(postgres_database: str) -> None:
    psql = shutil.which("psql")
    if psql is None:
        pytest.skip("psql isn't installed")
    url = make_url(postgres_database)
    role = f"heap_{url.database}"
    address = f"host={url.query['host']} dbname={url.database}"
    with psycopg2.connect(f"{address} user={url.username}") as owner, owner.cursor() as cursor:
        cursor.execute("create schema payroll; create table payroll.salaries (amount int)")
    values = ["-v", f"role={role}", "-v", "prefix=shop", "-v", "password=it's secret"]
    for _ in range(2):
        subprocess.run(
            [
                psql,
                f"{address} user={url.username}",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                *values,
                "-f",
                SCRIPTS / "postgres.sql",
            ],
            check=True,
            capture_output=True,
        )
    hub = psycopg2.connect(f"{address} user={role}")
    hub.autocommit = True
    with hub.cursor() as cursor:
        for part in ("heap_connect", "models", "hub", "exports"):
            cursor.execute(f"create table shop_{part}.mine (a int); drop table shop_{part}.mine")
        for statement in ("create table public.mine (a int)", "select * from payroll.salaries", "create role other"):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(statement)
    hub.close()


@pytest.mark.parametrize("name", ["bigquery.sh", "postgres.sql", "redshift.sql", "snowflake.sql", "synapse.sql"])
def test_every_script_is_about_the_four_schemas_and_makes_no_administrator(name: str) -> None:
    text = (SCRIPTS / name).read_text().lower()
    assert all(part in text for part in ("heap_connect", "models", "hub", "exports"))
    sweeping = (
        r"all privileges|grant all|accountadmin|db_owner|roles/(owner|editor|bigquery\.admin)|control on|superuser;"
    )
    assert re.search(sweeping, text) is None
