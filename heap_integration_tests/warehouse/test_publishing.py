"""What the hub keeps stands in another warehouse too: all of it, as it is, and nothing twice."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest
from sqlglot import exp, parse_one

from heap_integration.warehouse import Warehouse, publishing
from heap_integration.warehouse.names import translated
from heap_integration.warehouse.publishing import TABLES, USERS_OF_TRAITS, publish
from heap_integration.warehouse.systems.system import Connection, Dialect, QueryError
from heap_integration_tests.support.warehouses import postgres_warehouse, rows, surroundings

SCHEMA = "test_hub"
NOON = datetime(2026, 3, 1, 12)  # noqa: DTZ001 - the warehouse's times are UTC without a zone
EVENTS = """
insert into product_events
select seq, uuid(), 'message ' || seq, type, 'Bought', 'user ' || seq % 7, null, $noon + to_seconds(seq::integer),
       ($noon + to_seconds(seq::integer))::date, $noon + to_seconds(seq::integer), 'shop',
       '{"amount": ' || seq || '}', '{}', '{}', 'file', seq, null
from (select range as seq, if(range % 10 = 0, 'identify', 'track') as type from range($first, $stop))
"""
OUTCOMES = """
insert into event_outcomes
select seq, event_key, event_day, type, origin, $status::utinyint, '', $at from product_events
where seq between $first and $last and seq not in (select seq from event_outcomes)
"""


@pytest.fixture
def own(tmp_path: Path) -> Warehouse:
    return Warehouse(f"duckdb:///{tmp_path}/hub.duckdb")


@pytest.fixture
def there(postgres_database: str, tmp_path: Path) -> Iterator[Connection]:
    with postgres_warehouse(postgres_database).connect(surroundings(tmp_path)) as connection:
        yield connection


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few hundred rows be several transactions."""
    monkeypatch.setattr(publishing, "ROWS_AT_ONCE", 10_000)


def run(own: Warehouse, statement: str, **values: Any) -> None:
    with own.write() as con:
        con.execute(statement, values)


def load(own: Warehouse, first: int, stop: int) -> None:
    run(own, EVENTS, first=first, stop=stop, noon=NOON)


def published(own: Warehouse, there: Connection) -> dict[str, int]:
    return {name: sent for name, sent in publish(own, there, SCHEMA, "postgres").rows.items() if sent}


def assert_equal(own: Warehouse, there: Connection) -> None:
    """Hold every table there against what is here, row for row and value for value."""
    for table in TABLES:
        with own.read() as con:
            found = con.execute(f"with chosen as (select * from {table.source}) {table.rows}").to_arrow_table()
        names = ", ".join(f'"{name}"' for name in found.column_names)
        kept = rows(there, f"select {names} from {SCHEMA}.{table.name}")
        here = [tuple(row.values()) for row in found.to_pylist()]
        assert sorted(kept, key=repr) == sorted(here, key=repr), table.name


def test_only_what_is_new_or_has_changed_is_sent(own: Warehouse, there: Connection) -> None:
    load(own, 1, 12_001)
    assert published(own, there) == {"product_events": 12_000, "user_traits": 1_200}
    assert published(own, there) == {}

    load(own, 12_001, 12_101)
    run(own, OUTCOMES, first=1, last=20, status=1, at=NOON)
    # the block with which the events ended, and the only one that has outcomes
    assert published(own, there) == {"product_events": 2_101, "event_outcomes": 20, "user_traits": 211}

    run(own, "insert into rejected_rows values ('file', 7, 'no name', 'a secret', $at)", at=NOON)
    run(own, "insert into sync_rejections values ('a/b', 'ann', 1, 'no e-mail', $at)", at=NOON)
    run(own, "update event_outcomes set status = 2, settled_at = settled_at + interval 1 second where seq = 3")
    assert published(own, there) == {"event_outcomes": 20, "rejected_rows": 1, "sync_rejections": 1}
    assert_equal(own, there)
    assert "raw" not in there.columns(SCHEMA, "rejected_rows")


def test_what_is_taken_back_here_is_gone_there(own: Warehouse, there: Connection) -> None:
    load(own, 1, 101)
    run(own, OUTCOMES, first=1, last=100, status=2, at=NOON)
    run(own, "insert into rejected_rows values ('a', 1, 'x', '', $at), ('b', 2, 'x', '', $at)", at=NOON)
    run(own, "insert into sync_rejections values ('a/b', 'ann', 1, 'r', $at), ('c''d', 'bob', 2, 'r', $at)", at=NOON)
    published(own, there)
    run(own, "delete from event_outcomes where seq < 50")
    run(own, "delete from rejected_rows where origin = 'b'")
    run(own, "delete from sync_rejections where sync = 'c''d'")
    published(own, there)
    assert_equal(own, there)
    run(own, "delete from event_outcomes")
    published(own, there)
    assert_equal(own, there)


def test_odd_characters_arrive_and_json_stays_json(own: Warehouse, there: Connection) -> None:
    texts = ["\0", "\\\0", "\\", "\\u0000", "\\\\u0000", "é😀'\"", "a\0b\0\0c"]
    for number, text in enumerate(texts, start=1):
        load(own, number, number + 1)
        told = json.dumps({text: text})
        run(own, "update product_events set properties = $told, type = 'track', name = $name where seq = $seq",
            told=told, name=text, seq=number)  # fmt: skip
    published(own, there)
    found = rows(
        there, f"select name, properties, properties::jsonb::text as read from {SCHEMA}.product_events order by seq"
    )
    assert [name for name, _, _ in found] == [text.replace("\0", "") for text in texts]
    wanted = [{text.replace("\0", ""): text.replace("\0", "")} for text in texts]
    assert [json.loads(told) for _, told, _ in found] == wanted
    assert [json.loads(told) for _, _, told in found] == wanted


def test_users_are_put_together_there_as_they_are_here(own: Warehouse, there: Connection) -> None:
    told = [
        ("ann", 1, {"plan": "free", "size": 3, "a.b": {"c": [1]}}),
        ("ann", 2, {"plan": "pro", "note": None}),
        ("bob", 1, {}),
        ("cyd", 1, {"é\"'": "x\ny"}),
    ]
    load(own, 1, len(told) + 1)
    for seq, (who, days, traits) in enumerate(told, start=1):
        run(
            own,
            "update product_events set type = 'identify', user_id = $who, traits = $traits, timestamp = $at, "
            "received_at = $at where seq = $seq",
            who=who,
            traits=json.dumps(traits),
            at=NOON + timedelta(days=days),
            seq=seq,
        )
    published(own, there)
    between = NOON + timedelta(days=1, hours=1)
    before = f"where told_at < timestamp '{between}'"
    at = translated(USERS_OF_TRAITS.format(user_traits=f"{SCHEMA}.user_traits", before=before), "postgres")
    for here, asked in (
        ("from hub_users", f"select identity, properties from {SCHEMA}.hub_users"),
        (f"from hub_users_at('{between}'::timestamp)", at),
    ):
        with own.read() as con:
            wanted = {who: json.loads(text) for who, text in con.execute(here).fetchall()}
        assert {who: json.loads(text) for who, text in rows(there, asked)} == wanted
        assert len(wanted) == 3


def test_a_table_that_is_gone_or_lacks_a_column_comes_back(own: Warehouse, there: Connection) -> None:
    load(own, 1, 101)
    run(own, OUTCOMES, first=1, last=100, status=1, at=NOON)
    published(own, there)
    there.run([f"drop table {SCHEMA}.event_outcomes", f"alter table {SCHEMA}.product_events drop column line"])
    assert published(own, there) == {"product_events": 100, "event_outcomes": 100}
    assert_equal(own, there)
    assert len(rows(there, f"select * from {SCHEMA}.hub_events")) == 90


@pytest.mark.parametrize("dialect", [name for name in get_args(Dialect) if name != "duckdb"])
def test_what_is_run_there_can_be_read_in_every_system(dialect: Dialect, own: Warehouse) -> None:
    there = Listening()
    load(own, 1, 11)
    connection: Any = there
    publish(own, connection, SCHEMA, dialect)
    kinds = {type(parse_one(statement, dialect=dialect)) for statement in there.statements if "brin" not in statement}
    assert kinds == {exp.Create, exp.Delete, exp.Insert, exp.Select, exp.Update}
    assert not [statement for statement in there.statements if re.search(r"{\w+}", statement)]
    assert sorted(there.loaded) == ["product_events", "user_traits"]


class Listening:
    """A warehouse that notes what it is told and has nothing but the name of who published last."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.loaded: list[str] = []
        self.run_by = "none"

    def tables(self, _schema: str) -> list[str]:
        return []

    def batches(self, sql: str) -> list[pa.RecordBatch]:
        self.statements.append(sql)
        asks_who = "_hub_publication" in sql.lower()
        return [pa.record_batch({"run": [self.run_by]})] if asks_who else []

    def run(self, statements: list[str]) -> None:
        self.statements += statements
        self.loaded += [table.name for each in statements for table in TABLES if inserts(each, table.name)]
        self.run_by = next((found[1] for each in statements if (found := WHO.search(each))), self.run_by)

    def load(self, _schema: str, _table: str, batches: Any, _columns: pa.Schema) -> int:
        return sum(batch.num_rows for batch in batches)


WHO = re.compile(r"(?i)set \W*run\W* = '(\w{32})'")


def inserts(statement: str, table: str) -> bool:
    return re.match(rf"(?i)insert into \W*{SCHEMA}\W+{table}\W", statement) is not None


class Slow:
    """A connection whose owner is overtaken by another publisher right before its transaction."""

    def __init__(self, connection: Connection, overtaking: Callable[[], None]) -> None:
        self.connection = connection
        self.overtaking = overtaking

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def run(self, statements: list[str]) -> None:
        if any("INSERT" in statement for statement in statements):
            overtaking, self.overtaking = self.overtaking, lambda: None
            overtaking()
        self.connection.run(statements)


def test_whoever_was_overtaken_doubles_nothing(
    own: Warehouse, there: Connection, postgres_database: str, tmp_path: Path
) -> None:
    load(own, 1, 101)
    published(own, there)
    load(own, 101, 201)

    def overtake() -> None:
        with postgres_warehouse(postgres_database).connect(surroundings(tmp_path)) as another:
            published(own, another)

    slow: Any = Slow(there, overtake)
    with pytest.raises(QueryError, match="another process publishes to test_hub at the same time"):
        published(own, slow)
    assert_equal(own, there)


def publish_until_killed(url: str, folder: str) -> None:
    publishing.ROWS_AT_ONCE = 10_000
    own = Warehouse(f"duckdb:///{folder}/hub.duckdb")
    with postgres_warehouse(url).connect(surroundings(Path(folder))) as connection:
        publish(own, connection, SCHEMA, "postgres")


@pytest.mark.slow
def test_who_is_killed_at_any_moment_loses_and_doubles_nothing(
    own: Warehouse, there: Connection, postgres_database: str, tmp_path: Path
) -> None:
    chance = random.Random(5)
    context = get_context("forkserver")
    context.set_forkserver_preload(["duckdb", "pyarrow", "adbc_driver_postgresql.dbapi", publishing.__name__])
    finished = 0
    for number in range(12):
        load(own, number * 3_000 + 1, (number + 1) * 3_000 + 1)
        first, last = sorted(chance.choices(range(number * 3_000 + 1), k=2))
        run(own, OUTCOMES, first=first, last=last, status=1, at=NOON + timedelta(seconds=number))
        run(own, "delete from event_outcomes where seq between $first and $last", first=last - 500, last=last)
        process = context.Process(target=publish_until_killed, args=(postgres_database, str(tmp_path)))
        process.start()
        process.join(chance.uniform(0.05, 1.2))
        finished += process.exitcode == 0
        process.kill()
        process.join()
    assert finished < 12
    published(own, there)
    assert_equal(own, there)
    assert published(own, there) == {}


def test_readers_never_see_a_block_missing(
    own: Warehouse, there: Connection, postgres_database: str, tmp_path: Path
) -> None:
    load(own, 1, 9_001)
    published(own, there)
    counts, over = [], threading.Event()

    def look() -> None:
        with postgres_warehouse(postgres_database).connect(surroundings(tmp_path)) as reader:
            while not over.is_set():
                counts.append(rows(reader, f"select count(*) from {SCHEMA}.product_events")[0][0])
                time.sleep(0.001)

    looking = threading.Thread(target=look)
    looking.start()
    for stop in (9_101, 9_201, 9_301):
        load(own, stop - 100, stop)
        published(own, there)
    over.set()
    looking.join()
    assert set(counts) <= {9_000, 9_100, 9_200, 9_300}
    assert counts == sorted(counts)
