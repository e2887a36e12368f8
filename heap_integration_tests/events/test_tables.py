"""A table's rows become events once, in the cursor's order, late ones too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from heap_integration.events import loading_tables
from heap_integration.events.loading import load_table, table_has_news
from heap_integration.events.mapping import Mapping, MappingError
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.events import Loaded, balance
from heap_integration.warehouse.tables import TableError

ORDERS = Mapping(event_name="Ordered", user_id="who", message_id="id", timestamp="placed_at")
HOUR = timedelta(hours=1)


class PowerCut(Exception):
    """Ends a load between two steps."""


def cut_the_power(loaded: Loaded) -> None:
    raise PowerCut


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[Warehouse]:
    warehouse = Warehouse(f"duckdb:///{tmp_path}/warehouse.duckdb")
    run(warehouse, "create schema shop; create table shop.orders (id varchar, who varchar, placed_at timestamp)")
    yield warehouse
    with warehouse.read() as con:
        assert balance(con).faults == []


def run(warehouse: Warehouse, statement: str) -> None:
    with warehouse.write() as con:
        con.execute(statement)


def order(warehouse: Warehouse, *rows: tuple[str, str | None]) -> None:
    """Add rows: an id, and when it was placed on the first of January 2026."""
    with warehouse.write() as con:
        for identifier, at in rows:
            moment = f"2026-01-01 {at}" if at and at[2:3] == ":" else at
            con.execute("insert into shop.orders values (?, 'ann', ?)", [identifier, moment])


def load(warehouse: Warehouse, look_back: timedelta = HOUR, mapping: Mapping = ORDERS) -> Loaded:
    return load_table(warehouse, "orders", "shop.orders", "placed_at", mapping, look_back)


def has_news(warehouse: Warehouse) -> bool:
    return table_has_news(warehouse, "orders", "shop.orders", "placed_at", ORDERS, HOUR)


def ids(warehouse: Warehouse) -> list[str]:
    with warehouse.read() as con:
        return [name for (name,) in con.execute("select message_id from product_events order by seq").fetchall()]


def test_rows_are_read_once_in_the_cursors_order(warehouse: Warehouse) -> None:
    assert load(warehouse) == Loaded()
    order(warehouse, ("b", "10:00"), ("c", "11:00"), ("a", "09:00"))
    assert has_news(warehouse)
    assert load(warehouse) == Loaded(read=3, loaded=3)
    assert ids(warehouse) == ["a", "b", "c"]
    assert not has_news(warehouse)
    assert load(warehouse) == Loaded()
    order(warehouse, ("d", "11:00"), ("e", "12:00"))
    assert load(warehouse) == Loaded(read=2, loaded=2)
    with warehouse.read() as con:
        assert con.execute("select source, origin, line from product_events order by seq").fetchall() == [
            ("orders", "shop.orders", line) for line in range(1, 6)
        ]


def test_rows_that_arrive_late_are_found_within_the_look_back(warehouse: Warehouse) -> None:
    order(warehouse, ("a", "12:00"))
    load(warehouse)
    order(warehouse, ("late", "11:00"), ("too late", "10:59:59"))
    assert has_news(warehouse)
    assert load(warehouse) == Loaded(read=1, loaded=1)
    assert not has_news(warehouse)
    # the window is that of the last load, also where the table has gone far ahead since
    order(warehouse, ("later", "11:30"), ("z", "18:00"))
    assert load(warehouse) == Loaded(read=2, loaded=2)
    assert ids(warehouse) == ["a", "late", "later", "z"]


def test_a_row_that_is_seen_again_with_other_content_is_a_duplicate(warehouse: Warehouse) -> None:
    order(warehouse, ("a", "12:00"), ("b", "12:10"))
    load(warehouse)
    run(warehouse, "update shop.orders set who = 'bob', placed_at = placed_at + interval 1 minute where id = 'a'")
    assert load(warehouse) == Loaded(read=1, duplicates=1)
    assert ids(warehouse) == ["a", "b"]


def test_a_load_that_dies_goes_on_with_the_next_step(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_tables, "PACKED_ROWS", 10)
    run(
        warehouse,
        "insert into shop.orders"
        " select i::varchar, nullif('ann', if(i % 10 = 0, 'ann', '')), '2026-01-01'::timestamp + interval (i) minute"
        " from range(95) t(i)",
    )
    deaths = 0
    while True:
        try:
            load_table(warehouse, "orders", "shop.orders", "placed_at", ORDERS, HOUR, cut_the_power)
        except PowerCut:
            deaths += 1
        if not has_news(warehouse):
            break
        assert deaths < 100
    assert ids(warehouse) == [str(number) for number in range(95) if number % 10]
    with warehouse.read() as con:
        read = con.execute("select sum(read), sum(duplicates), sum(refused) from loaded_inputs").fetchone()
    assert read == (95, 0, 10)


def test_many_rows_may_share_a_day(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_tables, "PACKED_ROWS", 10)
    run(
        warehouse,
        "create table days as select i as id, 'ann' as who, date '2026-01-01' + (i // 50)::int as day"
        " from range(120) t(i)",
    )
    mapping = Mapping(event_name="Ordered", user_id="who", message_id="id", timestamp="day")
    given = (warehouse, "days", "days", "day", mapping, timedelta(0))
    assert load_table(*given) == Loaded(read=120, loaded=120)
    assert load_table(*given) == Loaded()
    run(warehouse, "insert into days select 500, 'ann', max(day) from days")
    assert load_table(*given) == Loaded(read=1, loaded=1)


def test_a_number_is_a_cursor_too_and_looks_back_on_itself_only(warehouse: Warehouse) -> None:
    run(warehouse, "create table clicks as select i as id, 'ann' as who from range(10) t(i)")
    mapping = Mapping(event_name="Clicked", user_id="who", properties=("id",))
    given = (warehouse, "clicks", "clicks", "id", mapping, HOUR)
    assert load_table(*given) == Loaded(read=10, loaded=10)
    run(warehouse, "insert into clicks values (9, 'bob'), (10, 'ann'), (3, 'late')")
    assert load_table(*given) == Loaded(read=2, loaded=2)
    assert not table_has_news(*given)


def test_rows_without_a_cursor_are_refused_once_and_counted(warehouse: Warehouse) -> None:
    order(warehouse, ("a", "12:00"), ("b", None), ("c", "infinity"))
    assert load(warehouse) == Loaded(read=2, loaded=1, refused=1)
    assert load(warehouse) == Loaded()
    order(warehouse, ("d", None))
    assert load(warehouse) == Loaded(read=1, refused=1)
    with warehouse.read() as con:
        reasons = con.execute("select reason from rejected_rows order by loaded_at").fetchall()
    assert reasons == [
        ("2 rows have no placed_at: without it they are never read",),
        ("a row has no placed_at: without it they are never read",),
    ]


def test_a_row_from_the_future_hides_none_that_come_before_it(warehouse: Warehouse) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    order(warehouse, ("far", "2099-01-01 00:00"), ("now", str(now - timedelta(minutes=1))))
    assert load(warehouse) == Loaded(read=2, loaded=2)
    order(warehouse, ("next", str(now)), ("late", str(now - timedelta(minutes=30))))
    assert load(warehouse) == Loaded(read=2, loaded=2)
    assert not has_news(warehouse)


def test_views_nested_columns_and_odd_names_are_read(warehouse: Warehouse) -> None:
    run(
        warehouse,
        """
        create view "odd ""name" as select 'ann' as "the user", timestamptz '2026-01-01 10:00:00+02' as "at",
               {'tags': ['a'], 'size': 2} as details, '{"deep": [1]}'::json as more, 1.5::decimal(9, 2) as price,
               null as nothing
        """,
    )
    mapping = Mapping(event_name="Seen", user_id="the user", timestamp="at", key_value_columns=("details",))
    assert load_table(warehouse, "odd", 'odd "name', "AT", mapping, HOUR) == Loaded(read=1, loaded=1)
    with warehouse.read() as con:
        properties, moment = con.execute("select properties, timestamp from product_events").fetchone() or ("", None)
    assert json.loads(properties) == {"tags": ["a"], "size": 2, "more": {"deep": [1]}, "price": 1.5}
    assert str(moment) == "2026-01-01 08:00:00"


def test_profiles_come_from_tables_too(warehouse: Warehouse) -> None:
    run(warehouse, "create table people as select 'ann' as who, 'pro' as plan, timestamp '2026-01-01' as changed_at")
    mapping = Mapping(type="identify", user_id="who", timestamp="changed_at")
    load_table(warehouse, "people", "people", "changed_at", mapping, HOUR)
    run(warehouse, "update people set plan = 'free', changed_at = timestamp '2026-01-01 00:30'")
    load_table(warehouse, "people", "people", "changed_at", mapping, HOUR)
    with warehouse.read() as con:
        rows = con.execute("select type, user_id, traits, properties from product_events order by seq").fetchall()
    assert rows == [("identify", "ann", '{"plan":"pro"}', "{}"), ("identify", "ann", '{"plan":"free"}', "{}")]


@pytest.mark.parametrize(
    ("table", "cursor", "problem"),
    [
        ("order", "placed_at", r"table 'order' is not there; did you mean orders or shop\.orders\?"),
        ("notes", "at", r"table shop.notes has no column 'at'; it has id, text"),
        ("notes", "text", "table shop.notes: text is VARCHAR; a cursor is a timestamp, a date or an integer of up to"),
        ("product_events", "seq", "table 'product_events' is not there"),
        ("broken", "id", "table shop.broken can't be read: "),
        ('orders"; drop table shop.orders; --', "id", "is not there"),
    ],
)
def test_a_table_that_cannot_be_followed_is_named(warehouse: Warehouse, table: str, cursor: str, problem: str) -> None:
    run(warehouse, "create table shop.notes (id integer, text varchar); create table orders (id integer)")
    run(warehouse, "create table gone (id integer); create view shop.broken as from gone; drop table gone")
    with pytest.raises(TableError, match=problem):
        load_table(warehouse, "orders", table, cursor, ORDERS, HOUR)


def test_a_name_in_several_schemas_wants_its_schema(warehouse: Warehouse) -> None:
    run(warehouse, "create schema other; create table other.orders (id integer)")
    with pytest.raises(TableError, match=r"table 'orders' stands for several tables: other\.orders, shop\.orders"):
        load_table(warehouse, "orders", "orders", "id", ORDERS, HOUR)


def test_a_mapping_that_does_not_fit_is_an_error_and_not_a_refusal_of_each_row(warehouse: Warehouse) -> None:
    wrong = ORDERS.model_copy(update={"user_id": "customer"})
    with pytest.raises(
        MappingError, match=r"shop\.orders: user_id: no column 'customer' in the table; it has id, who,"
    ):
        load(warehouse, mapping=wrong)
    keep = ORDERS.model_copy(update={"identical_rows": "keep"})
    with pytest.raises(MappingError, match="identical_rows: keep needs lines of a file"):
        load(warehouse, mapping=keep)


def test_other_rules_read_a_table_anew(warehouse: Warehouse) -> None:
    order(warehouse, ("a", "12:00"))
    load(warehouse)
    assert load(warehouse, mapping=ORDERS.model_copy(update={"event_name": "Bought"})) == Loaded(read=1, duplicates=1)
