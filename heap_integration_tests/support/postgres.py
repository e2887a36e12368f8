"""A throw-away PostgreSQL server from the binaries that the machine has."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

OPTIONS = "-c listen_addresses='' -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
# What was committed is there again after `stopped`, as after the crash of a server that isn't set up for tests.
DURABLE = "-c listen_addresses=''"
ROLE = "hub"
_numbers = count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Yield the URL of a server's own database; skip where the machine can't run one."""
    binaries = found_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL binaries: neither initdb on PATH nor /usr/lib/postgresql/*/bin/initdb")
    if os.geteuid() == 0 and _postgres_account() is None:
        pytest.skip("PostgreSQL refuses to run as root and there is no account named postgres")
    with server(binaries) as url:
        yield url


@pytest.fixture
def postgres_database(postgres: str) -> str:
    """Return the URL of an empty database."""
    return empty_database(postgres)


def empty_database(postgres: str) -> str:
    """Make a database on a server, by the URL of another one, and return its URL."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    engine = create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"create database {name}"))
    engine.dispose()
    return make_url(postgres).set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def durable_postgres() -> Iterator[str]:
    """Yield the URL of a database on a server of its own, which keeps what is committed; see ``stopped``."""
    binaries = found_binaries()
    if binaries is None or (os.geteuid() == 0 and _postgres_account() is None):
        pytest.skip("no PostgreSQL that can be run here")
    with server(binaries, DURABLE) as url:
        yield url


@contextmanager
def stopped(url: str, options: str = DURABLE) -> Iterator[None]:
    """Stop a server in the middle of what it does, as a crash would, and start it again at the end."""
    folder, binaries = Path(str(make_url(url).query["host"])), found_binaries()
    assert binaries is not None
    _control(binaries, folder, "-m", "immediate", "stop")
    try:
        yield
    finally:
        _control(binaries, folder, "-w", "-l", str(folder / "log"), "-o", f"-k {folder} {options}", "start")


@contextmanager
def server(binaries: Path, options: str = OPTIONS) -> Iterator[str]:
    """Run a server on a socket file, without a port, and yield its URL."""
    # Not pytest's own folder: it shuts other accounts out, and a socket's path has room for 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    if account := _postgres_account():
        os.chown(folder, account.pw_uid, account.pw_gid)

    try:
        _run(binaries / "initdb", folder, "-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        _control(binaries, folder, "-w", "-l", str(folder / "log"), "-o", f"-k {folder} {options}", "start")
        try:
            yield f"postgresql://{ROLE}@/postgres?host={folder}"
        finally:
            _control(binaries, folder, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _control(binaries: Path, folder: Path, *arguments: str) -> None:
    _run(binaries / "pg_ctl", folder, *arguments)


def _run(program: Path, folder: Path, *arguments: str) -> None:
    command = [str(program), "-D", str(folder / "data"), *arguments]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, **_as_postgres())


def found_binaries() -> Path | None:
    """Return the folder of the programs of PostgreSQL, if the machine has them."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return max((path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")), default=None)


def _postgres_account() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return None


def _as_postgres() -> dict[str, Any]:
    account = _postgres_account()
    return {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
