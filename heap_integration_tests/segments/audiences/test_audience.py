"""An audience is computed from the hub's own warehouse, day by day, and refused where it names what isn't there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from heap_integration.environment import EnvironmentProblems
from heap_integration.events.event import Event, EventType
from heap_integration.events.sources.rows import event_rows
from heap_integration.segments.audiences.audience import Audience, DayToCome
from heap_integration.segments.audiences.catalog import NoResultYet
from heap_integration.segments.audiences.settings import AudienceSettings, EventsTable, ModelColumn, UsersTable
from heap_integration.sync_settings import SegmentSync
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.audiences import newest_result, result_sizes
from heap_integration.warehouse.events import load_chunk
from heap_integration_tests.support.commands import run
from heap_integration_tests.support.project import write_project

DAY = date(2026, 3, 10)
NOW = datetime(2026, 3, 10, 15, tzinfo=UTC)
BUYERS = {"events": [{"type": "Purchase", "within_days": 7}]}


def call(who: str, name: str, at: datetime, kind: EventType = "track", **values: Any) -> Event:
    made = Event(
        type=kind,
        name=name,
        message_id=f"{who} {name} {at} {values}",
        user_id=who,
        anonymous_id=None,
        timestamp=at,
        source="shop",
    )
    object.__setattr__(made, "traits" if kind == "identify" else "properties", values)
    return made


def load(warehouse: Warehouse, events: Sequence[Event], received: datetime = NOW) -> None:
    chunk = event_rows(enumerate(events, start=1), "file", received)
    with warehouse.write() as con:
        load_chunk(
            con,
            chunk.events,
            chunk.refused,
            origin="file",
            fingerprint=str(id(events)),
            last_line=chunk.last_line,
            read=chunk.lines,
            unused=chunk.unused,
            complete=True,
        )


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    warehouse = Warehouse(f"duckdb:///{tmp_path}/hub.duckdb")
    load(
        warehouse,
        [
            call("ann", "Purchase", NOW - timedelta(days=1), amount=50),
            call("bob", "Purchase", NOW - timedelta(days=6), amount=5, coupon="SPRING"),
            call("cyd", "Add to Cart", NOW - timedelta(hours=1), cart_value=120),
            call("dan", "Purchase", NOW + timedelta(days=1), amount=1),
        ],
    )
    return warehouse


def audience(folder: Path, definition: Any, *segments: SegmentSync, name: str = "Buyers", **settings: Any) -> Audience:
    file = folder / f"{name.lower()}.json"
    file.write_text(json.dumps({"name": name, "definition": definition}, indent=1))
    return Audience.load(file, name.lower(), AudienceSettings(**settings), segments)


def kept(warehouse: Warehouse, day: date, name: str = "buyers") -> list[str]:
    with warehouse.read() as con:
        query = "select identity from audience_members where audience = ? and as_of = ? order by identity"
        return [who for (who,) in con.execute(query, [name, day]).fetchall()]


def test_a_days_members_are_kept_in_place_of_those_before(tmp_path: Path, warehouse: Warehouse) -> None:
    buyers = audience(tmp_path, BUYERS)
    first = buyers.compute(warehouse, DAY, NOW)
    assert (first.members, first.entered, first.left, first.compared_with) == (2, 2, 0, None)
    assert first.moment == NOW

    load(warehouse, [call("eve", "Purchase", NOW + timedelta(minutes=1))])
    later = buyers.compute(warehouse, DAY, NOW + timedelta(hours=1))
    assert (later.members, later.entered, later.left, later.compared_with) == (3, 1, 0, DAY)
    assert kept(warehouse, DAY) == ["ann", "bob", "eve"]

    tomorrow = buyers.compute(warehouse, DAY + timedelta(days=1), NOW + timedelta(days=9))
    assert tomorrow.moment == datetime(2026, 3, 12, tzinfo=UTC)
    assert (tomorrow.members, tomorrow.entered, tomorrow.left) == (3, 1, 1)
    assert kept(warehouse, DAY + timedelta(days=1)) == ["ann", "dan", "eve"]
    with warehouse.read() as con:
        assert result_sizes(con, "buyers") == [(DAY, 3), (DAY + timedelta(days=1), 3)]


def test_a_backfill_finds_what_those_days_would_have_found(tmp_path: Path, warehouse: Warehouse) -> None:
    traits = [
        call("ann", "", NOW - timedelta(days=3), "identify", plan="free", team="a"),
        call("ann", "", NOW - timedelta(days=1), "identify", plan="pro", note=None),
    ]
    load(warehouse, traits, NOW - timedelta(hours=2))
    free = audience(tmp_path, {"user_properties": {"plan": "free", "team": {"exists": True}}}, name="Free")
    late = NOW + timedelta(days=3)
    for day, members in ((DAY - timedelta(days=3), ["ann"]), (DAY - timedelta(days=1), []), (DAY, [])):
        free.compute(warehouse, day, late)
        assert kept(warehouse, day, "free") == members


def test_the_newest_value_of_each_trait_counts_by_when_it_was_told(tmp_path: Path, warehouse: Warehouse) -> None:
    load(
        warehouse,
        [
            # A clock that runs years ahead doesn't hold what was told for years.
            call("ann", "", NOW + timedelta(days=900), "identify", plan="free", size=3),
            call("bob", "", NOW - timedelta(days=1), "identify", plan="free", size=None),
            call("bob", "", NOW - timedelta(days=2), "identify", plan="pro", size=7),
        ],
        NOW - timedelta(hours=3),
    )
    load(warehouse, [call("ann", "", NOW - timedelta(hours=1), "identify", plan="pro")])
    with warehouse.read() as con:
        found = con.execute("select identity, properties from hub_users").fetchall()
    assert {who: json.loads(properties) for who, properties in found} == {
        "ann": {"plan": "pro", "size": 3},
        "bob": {"plan": "free", "size": None},
    }
    sized = audience(tmp_path, {"user_properties": {"size": {"exists": True}}}, name="Sized")
    sized.compute(warehouse, DAY, NOW)
    assert kept(warehouse, DAY, "sized") == ["ann"]


def test_results_are_kept_for_as_many_days_as_the_environment_says(tmp_path: Path, warehouse: Warehouse) -> None:
    buyers = audience(tmp_path, BUYERS, keep_days=2)
    for days in (3, 2, 1, 0):
        buyers.compute(warehouse, DAY - timedelta(days=days), NOW)
    with warehouse.read() as con:
        assert [day for day, _ in result_sizes(con, "buyers")] == [DAY - timedelta(days=1), DAY]
        newest = newest_result(con, "buyers", DAY - timedelta(days=1))
        assert newest is not None
        assert newest.as_of == DAY - timedelta(days=1)
        assert newest_result(con, "buyers", DAY - timedelta(days=2)) is None
    assert kept(warehouse, DAY - timedelta(days=2)) == []


def test_a_day_that_is_yet_to_come_has_no_members(tmp_path: Path, warehouse: Warehouse) -> None:
    with pytest.raises(DayToCome, match="2026-03-11 is yet to come"):
        audience(tmp_path, BUYERS).compute(warehouse, DAY + timedelta(days=1), NOW)


def test_other_segments_are_conditions(tmp_path: Path, warehouse: Warehouse) -> None:
    with warehouse.write() as con:
        con.execute("insert into heap_segments values (7, 'Loyal', 0, -1), (8, 'Renamed', 0, -1)")
        con.execute("insert into segment_members values (7, 'ann'), (7, 'cyd'), (8, 'bob')")
        con.execute("create table vips as select 'ann' as person union all select 'zoe'")
    buyers = audience(tmp_path, BUYERS)
    segments = [
        SegmentSync.model_validate({"name": "Buyers", "from": str(buyers.file), "sync_to": ["userflow"]}),
        SegmentSync.model_validate({"name": "Old name", "from": "heap", "segment_id": 8, "sync_to": ["userflow"]}),
        SegmentSync.model_validate(
            {"name": "VIPs", "from": {"table": "vips", "identity": "person"}, "sync_to": ["userflow"]}
        ),
    ]

    def members(definition: Any) -> list[str]:
        made = audience(tmp_path, definition, *segments, name="Made")
        made.compute(warehouse, DAY, NOW)
        return kept(warehouse, DAY, "made")

    with pytest.raises(NoResultYet, match="'Buyers' has no result of 2026-03-10 or before: compute it first"):
        members({"segments": ["Buyers"]})
    buyers.compute(warehouse, DAY - timedelta(days=1), NOW)
    assert members({"segments": ["Buyers"], "exclude_segments": ["Loyal"]}) == ["bob"]
    assert members({"any": [{"segments": ["Old name"]}, {"segments": ["VIPs"]}]}) == ["ann", "bob", "zoe"]
    assert members({"none": [{"segments": ["Loyal"]}, {"segments": ["VIPs"]}]}) == ["bob"]


def test_an_audience_that_asks_for_itself_is_refused_with_the_way(tmp_path: Path) -> None:
    segments = [
        SegmentSync.model_validate({"name": name, "from": str(tmp_path / f"{name.lower()}.json"), "sync_to": ["x"]})
        for name in ("One", "Two", "Three")
    ]
    for name, other in (("Two", "Three"), ("Three", "One")):
        (tmp_path / f"{name.lower()}.json").write_text(
            json.dumps({"name": name, "definition": {"none": [{"segments": [other]}]}})
        )
    with pytest.raises(EnvironmentProblems, match=r"one\.json:3: definition: asks for itself: One → Two → Three → One"):
        audience(tmp_path, {"exclude_segments": ["Two"]}, *segments, name="One")


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (
            {"events": [{"type": "Purchases"}]},
            ":6: definition.events[0].type: there is no event 'Purchases'; did you mean Purchase?",
        ),
        (
            {"sequences": [{"steps": [{"type": "Purchase"}, {"type": "add to cart"}]}]},
            "definition.sequences[0].steps[1].type: there is no event 'add to cart'; did you mean Add to Cart?",
        ),
        (
            {"none": [{"events": [{"type": "Purchase", "properties": {"cupon": "SPRING"}}]}]},
            "properties.cupon: no event 'Purchase' has a property 'cupon'; did you mean coupon?",
        ),
        (
            {"events": [{"type": "Add to Cart", "properties": {"amount": 5}}]},
            "no event 'Add to Cart' has a property 'amount'; it has cart_value",
        ),
        ({"user_properties": {"plan": "free"}}, "no user has a property 'plan'; a user has none"),
        ({"models": {"scores": 5}}, "definition.models.scores: there is no model 'scores'; did you mean score?"),
        ({"models": {"stage": "new"}}, "audiences.models.stage: table main.scores has no column 'stag'; did you mean"),
        ({"models": {"score": "high"}}, "definition.models.score: score is a column of numbers: compare it with one"),
        ({"segments": ["Loyle"]}, "definition.segments[0]: there is no segment 'Loyle'; did you mean Loyal?"),
    ],
)
def test_what_isnt_there_is_refused_with_the_nearest_names(
    tmp_path: Path, warehouse: Warehouse, definition: Any, message: str
) -> None:
    with warehouse.write() as con:
        con.execute("insert into heap_segments values (7, 'Loyal', 0, -1)")
        con.execute("create table scores (person text, score double, stage text)")
    column = {"table": "scores", "identity": "person"}
    models = {
        "score": ModelColumn(**column, column="score"),
        "stage": ModelColumn(**column, column="stag"),
    }
    with pytest.raises(EnvironmentProblems) as caught:
        audience(tmp_path, definition, models=models).compute(warehouse, DAY, NOW)
    assert message in str(caught.value)
    assert kept(warehouse, DAY) == []


def test_models_and_columns_of_their_own_are_conditions(tmp_path: Path, warehouse: Warehouse) -> None:
    with warehouse.write() as con:
        con.execute("create schema shop")
        con.execute(
            "create table shop.orders (buyer bigint, what text, placed timestamptz, total decimal(9, 2), ok boolean)"
        )
        con.execute("insert into shop.orders values (1, 'Order', '2026-03-09 12:00:00+01', 99.5, true)")
        con.execute("insert into shop.orders values (2, 'Order', '2026-03-09 12:00:00+01', 12, false)")
        con.execute("create table shop.buyers as select 1::bigint as id, date '2026-01-05' as since")
        con.execute("create table shop.scores as select 1::bigint as id, 80 as score, 'loyal' as stage")
    settings: dict[str, Any] = {
        "events": EventsTable(table="shop.orders", identity="buyer", event="what", time="placed"),
        "users": UsersTable(table="shop.buyers", identity="id"),
        "models": {
            "score": ModelColumn(table="shop.scores", identity="id", column="score"),
            "stage": ModelColumn(table="shop.scores", identity="id", column="stage"),
        },
    }
    definition = {
        "events": [{"type": "Order", "properties": {"total": {"gt": 50}, "ok": True}, "within_days": 7}],
        "user_properties": {"since": {"gte": "2026-01-05"}},
        "models": {"score": {"between": [50, 80]}, "stage": {"in": ["loyal", "new"]}},
    }
    audience(tmp_path, definition, **settings).compute(warehouse, DAY, NOW)
    assert kept(warehouse, DAY) == ["1"]
    with pytest.raises(EnvironmentProblems, match="total is a column of numbers: compare it with one"):
        audience(tmp_path, {"events": [{"type": "Order", "properties": {"total": "x"}}]}, **settings).compute(
            warehouse, DAY, NOW
        )


@pytest.fixture
def project(tmp_path: Path, warehouse: Warehouse) -> Path:
    more = f"warehouse: {'duckdb:///' + str(warehouse.path)}\n"
    write_project(tmp_path, "http://127.0.0.1:1", more=more)
    audience(tmp_path, BUYERS)
    return tmp_path


def test_the_command_previews_and_writes_nothing(project: Path, warehouse: Warehouse) -> None:
    answer = run(project, "audience", "preview", "buyers.json", "-e", "test", "--as-of", "2026-03-10", "--json")
    assert answer.code == 0, answer.err
    assert answer.json == {
        "members": 2,
        "entering": 2,
        "leaving": 0,
        "as_of": "2026-03-11T00:00:00Z",
        "compared_with": None,
        "sample": ["ann", "bob"],
    }
    assert kept(warehouse, DAY) == []
    shown = run(project, "audience", "preview", "buyers.json", "-e", "test", "--as-of", "2026-03-10").out.decode()
    assert "There is no result yet." in shown
    assert "  ann\n  bob\n" in shown


def test_the_command_prints_sql_that_finds_the_same(project: Path, warehouse: Warehouse) -> None:
    for more in ((), ("-e", "test")):
        answer = run(project, "audience", "sql", "buyers.json", "--as-of", "2026-03-10", *more)
        with warehouse.read() as con:
            assert sorted(con.execute(answer.out.decode()).fetchall()) == [("ann",), ("bob",)]
    tsql = run(project, "audience", "sql", "buyers.json", "--as-of", "2026-03-10", "--dialect", "tsql")
    assert b"[main].[hub_events]" in tsql.out


def test_the_command_checks_files_and_ends_with_2_where_one_is_wrong(project: Path) -> None:
    audience(project, {"events": [{"type": "Purchases"}]}, name="Wrong")
    alone = run(project, "audience", "check", "buyers.json", "wrong.json")
    assert (alone.code, alone.out.decode().splitlines()) == (
        0,
        ["ok     buyers.json: Buyers", "ok     wrong.json: Wrong"],
    )
    known = run(project, "audience", "check", "buyers.json", "wrong.json", "-e", "test", "--json")
    assert known.code == 2
    assert known.json == [
        {"file": "buyers.json", "name": "Buyers", "problems": []},
        {
            "file": "wrong.json",
            "name": None,
            "problems": [
                {
                    "line": 6,
                    "field": "definition.events[0].type",
                    "message": "there is no event 'Purchases'; did you mean Purchase?",
                }
            ],
        },
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("preview", "none.json", "-e", "test"), "there is no file none.json"),
        (("preview", "buyers.json", "-e", "test", "--as-of", "May"), "--as-of is 'May': wanted is a day such as"),
        (("preview", "buyers.json", "-e", "test", "--as-of", "2999-01-01"), "2999-01-01 is yet to come"),
        (("sql", "others.json"), "there is no segment Loyal; segments are known to an environment only"),
    ],
)
def test_the_command_says_what_is_wrong(project: Path, arguments: tuple[str, ...], message: str) -> None:
    audience(project, {"segments": ["Loyal"]}, name="Others")
    answer = run(project, "audience", *arguments)
    assert answer.code == 2
    assert message in " ".join(answer.err.split())
    assert answer.out == b""
