"""The tables that dumps become hold, row for row, what tap-heap reads from the same bucket."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from heap_integration.heap_connect.importer import DumpImporter
from heap_integration.heap_connect.settings import DumpsSettings
from heap_integration.sandbox.dumps import PREFIXED, DumpBucket, DumpTable
from heap_integration.settings import Secret
from heap_integration.store import Store
from heap_integration.warehouse.systems.system import Connection, WarehouseSettings
from heap_integration_tests.support.s3 import HeapBucket
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox
from heap_integration_tests.support.tap_heap import TapHeap
from heap_integration_tests.support.venvs import venv
from heap_integration_tests.support.warehouses import rows, surroundings

SCHEMA = "heap_connect"
KEYS = {"users": "user_id", "user_migrations": "from_user_id"}


class BothReaders:
    """A warehouse into which the dumps of a bucket are loaded, and tap-heap beside it."""

    def __init__(self, importer: DumpImporter, tap: TapHeap, connection: Connection) -> None:
        self._importer = importer
        self._tap = tap
        self._connection = connection

    def read(self) -> None:
        """Let both read what is new."""
        for dump in self._importer.waiting():
            self._importer.apply(dump)
        self._tap.read()

    def ours(self, table: str) -> list[dict[str, Any]]:
        """Return our rows of a table, in the order of their keys."""
        columns = [name for name in self._connection.columns(SCHEMA, table) if not name.startswith("_hub_")]
        names = ", ".join(f'"{column}"' for column in columns)
        found = rows(self._connection, f'select {names} from {SCHEMA}."{table}" order by {KEYS.get(table, "event_id")}')
        return [dict(zip(columns, row, strict=True)) for row in found]

    def agree(self) -> dict[str, int]:
        """Check that every table is the same, and return how many rows each has."""
        tables = self._tap.tables()
        there = {name for name in self._connection.tables(SCHEMA) if not name.startswith("_hub_")}
        assert {*tables} <= there
        assert {name: self.ours(name) for name in there - {*tables}} == {name: [] for name in there - {*tables}}
        for name, theirs in tables.items():
            ours = self.ours(name)
            assert ours == [as_ours(row, of) for row, of in zip(theirs, ours, strict=True)], name
        return {name: len(theirs) for name, theirs in tables.items()}


def as_ours(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the tap's with our columns: times as times, and as text what has become text."""
    assert {*theirs} <= {*ours}
    return {name: as_value(theirs.get(name), mine) for name, mine in ours.items()}


def as_value(theirs: Any, ours: Any) -> Any:
    """Return a value as it should be ours."""
    if theirs is None:
        return None
    if isinstance(ours, datetime):
        return as_time(theirs)
    return str(theirs) if isinstance(ours, str) else theirs


def as_time(given: str | int) -> datetime:
    """Return a time in UTC that is written as text, or counted in milliseconds or microseconds since 1970."""
    if isinstance(given, str):
        return datetime.fromisoformat(given)
    microseconds = given * (1_000 if given < 10**14 else 1)
    return datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None) + timedelta(microseconds=microseconds)


@pytest.fixture
def both(
    tmp_path: Path, heap_bucket: HeapBucket, warehouse: WarehouseSettings, connection: Connection
) -> Iterator[BothReaders]:
    """Yield both readers of an empty bucket."""
    around = surroundings(tmp_path, {"S3": json.dumps(heap_bucket.options)})
    settings = DumpsSettings(bucket=heap_bucket.address, credentials=Secret(env="S3"))
    tap = TapHeap(venv("tap-heap"), heap_bucket, tmp_path)
    with closing(Store(f"sqlite:///{tmp_path}/store.db")) as store:
        importer = DumpImporter(
            settings,
            connection,
            schema=SCHEMA,
            dialect=warehouse.dialect,
            own=around.own,
            store=store,
            variables=around.variables,
        )
        yield BothReaders(importer, tap, connection)


class Customer:
    """A customer of the sandbox's, whose events and people Heap dumps."""

    def __init__(self, sandbox: RunningSandbox, bucket: HeapBucket) -> None:
        self._sandbox = sandbox
        self._bucket = bucket

    def told(self, path: str, **body: Any) -> None:
        """Tell Heap."""
        self._sandbox.client.post(f"/api/{path}", json={"app_id": self._sandbox.app_id, **body}).raise_for_status()

    def tracked(self, event: str, person: str, **properties: Any) -> None:
        """Tell Heap of an event."""
        who = {"user_id": person} if person.isdigit() else {"identity": person}
        self.told("track", event=event, **who, properties=properties, timestamp="2026-01-02T03:04:05.678Z")

    def dumped(self, **options: Any) -> None:
        """Let a day pass."""
        body = {"address": self._bucket.address, "options": self._bucket.options, **options}
        self._sandbox.client.post(f"/_heap/{self._sandbox.app_id}/dumps", json=body).raise_for_status()


@pytest.fixture
def customer(tmp_path: Path, heap_bucket: HeapBucket) -> Iterator[Customer]:
    """Yield a customer of a sandbox of its own."""
    with running_sandbox(tmp_path) as sandbox:
        yield Customer(sandbox, heap_bucket)


@pytest.mark.slow
@pytest.mark.parametrize("warehouse", ["duckdb"], indirect=True)
def test_the_days_of_a_customer_agree_whatever_heap_does_with_its_tables(both: BothReaders, customer: Customer) -> None:
    customer.tracked("Page viewed", "42", path="/start")
    customer.tracked("Signed Up", "ann", plan="pro", seats=3)
    customer.told("add_user_properties", identity="ann", properties={"seats": 3, "city": "Bonn"})
    customer.dumped(repeat=True)
    both.read()
    assert both.agree()["users"] == 2

    # Somebody is identified, a property is no number any more, another is new, times are written in another way.
    customer.told("v1/identify", user_id="42", identity="bob", timestamp="2026-01-02T03:04:06Z")
    customer.tracked("Signed Up", "bob", coupon="x")
    customer.told("add_user_properties", identity="bob", properties={"seats": "many"})
    customer.dumped(user_times="milliseconds", event_times="microseconds", prefixed_names=True, restate=True)
    both.read()
    assert both.agree()["user_migrations"] == 1

    # A gap in the numbers, a table that isn't in the dump, one that comes whole, a column that is gone.
    customer.tracked("Signed Up", "cid")
    customer.tracked("Bought", "ann", price=9.5)
    customer.dumped(
        dump_id=1_008_461_850,
        full=["signed_up"],
        leave_out=["pageviews"],
        lost_columns={"users": ["city"]},
        user_times="text",
    )
    both.read()
    assert both.agree() == {
        "users": 4,
        "sessions": 3,
        "pageviews": 1,
        "signed_up": 3,
        "bought": 1,
        "user_migrations": 1,
    }


@pytest.mark.slow
@pytest.mark.parametrize("warehouse", ["postgres"], indirect=True)
def test_tables_that_change_at_random_agree_after_every_dump(both: BothReaders, heap_bucket: HeapBucket) -> None:
    chance = random.Random(1)
    bucket = DumpBucket(heap_bucket.address, heap_bucket.options)
    for dump_id in (852, 1_000, 100_000):
        bucket.write(dump_id, [random_users(chance), random_events(chance), random_migrations(chance)])
        both.read()
        assert min(both.agree().values()) > 0


def random_users(chance: random.Random) -> DumpTable:
    """Return users of whom many were in earlier dumps."""
    people = chance.sample(range(1, 600), 200)
    rows = [
        {
            "user_id": person,
            "identity": chance.choice([None, f"{person}@example.com"]),
            "joindate": chance.randrange(1_500_000_000_000_000, 1_700_000_000_000_000),
            "score": chance.choice([None, chance.random()]),
            "active": chance.choice([None, True, False]),
        }
        for person in people
    ]
    columns = {"user_id": "long", "identity": "string", "joindate": "long", "score": "double", "active": "boolean"}
    return table("users", columns, rows, incremental=chance.random() < 0.7, file_name=PREFIXED)


def random_events(chance: random.Random) -> DumpTable:
    """Return events, late ones and repeated ones among them, with properties that come and go."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    properties = chance.sample(["plan", "path", "sum", "order"], 2)
    rows = [
        {
            "event_id": event,
            "user_id": chance.randrange(1, 600),
            "session_id": chance.randrange(2**53),
            "time": f"{start + timedelta(milliseconds=chance.randrange(10**10)):%Y-%m-%d %H:%M:%S.%f}"[:-3],
            **{name: chance.choice([None, "", "ü 'x' \"y\"\n", f"{name} {event}"]) for name in properties},
        }
        for event in chance.sample(range(1, 4_000), 600)
    ]
    columns = {"event_id": "long", "user_id": "long", "session_id": "long", "time": "string"}
    again = chance.sample(rows, 60)
    return table(
        "checkout", columns | dict.fromkeys(properties, "string"), rows + again, incremental=chance.random() < 0.8
    )


def random_migrations(chance: random.Random) -> DumpTable:
    """Return all merged users there are."""
    rows = [{"from_user_id": old, "to_user_id": old + 1} for old in chance.sample(range(1, 600), 50)]
    return table("user_migrations", {"from_user_id": "long", "to_user_id": "long"}, rows, incremental=False)


def table(name: str, columns: Mapping[str, Any], rows: Sequence[dict[str, Any]], **more: Any) -> DumpTable:
    """Return a table of several files."""
    return DumpTable(name, columns, rows, rows_per_file=len(rows) // 2 + 1, **more)
