"""Files and landed segments reach the warehouse once, whole, and in the order of their lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from heap_integration.events import loading
from heap_integration.events.loading import file_mark, load_file, load_landed
from heap_integration.events.mapping import Mapping
from heap_integration.landing import FolderArrivals
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.events import Loaded, balance, origin_counts
from heap_integration_tests.support.project import call, write_lines

MAPPING = Mapping(event="what", user_id="who", message_id="id", properties="*")


class PowerCut(Exception):
    """Ends a load between two pieces."""


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[Warehouse]:
    warehouse = Warehouse(f"duckdb:///{tmp_path}/warehouse.duckdb")
    yield warehouse
    with warehouse.read() as con:
        assert balance(con).faults == []


def in_warehouse(warehouse: Warehouse) -> list[str]:
    with warehouse.read() as con:
        found = con.execute("select message_id from product_events order by seq").fetchall()
    return [message for (message,) in found]


def messages(*numbers: int) -> list[str]:
    return [f"message-{number}" for number in numbers]


def cut_the_power(loaded: Loaded) -> None:
    raise PowerCut


def test_a_load_that_died_goes_on_where_it_stopped(
    tmp_path: Path, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "PACKED_ROWS", 10)
    lines = [*map(call, range(14)), "not json", *map(call, range(14, 34))]
    file = write_lines(tmp_path / "calls.ndjson", lines)
    for _ in range(2):
        with pytest.raises(PowerCut):
            load_file(warehouse, file, None, cut_the_power)
    assert in_warehouse(warehouse) == messages(*range(14), *range(14, 19))
    assert load_file(warehouse, file, None) == Loaded(read=15, loaded=15)
    assert in_warehouse(warehouse) == messages(*range(34))
    assert load_file(warehouse, file, None) == Loaded()
    with warehouse.read() as con:
        assert con.execute("select line, reason like 'not JSON%' from rejected_rows").fetchall() == [(15, True)]


def test_pieces_of_a_file_know_each_others_events(
    tmp_path: Path, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "PACKED_ROWS", 7)
    file = write_lines(tmp_path / "calls.ndjson", [call(number % 10) for number in range(50)])
    assert load_file(warehouse, file, None) == Loaded(read=50, loaded=10, duplicates=40)
    assert in_warehouse(warehouse) == messages(*range(10))


def test_a_content_is_loaded_once_and_a_name_may_be_used_again(tmp_path: Path, warehouse: Warehouse) -> None:
    file = write_lines(tmp_path / "calls.ndjson", map(call, range(5)))
    assert load_file(warehouse, file, None).loaded == 5
    assert load_file(warehouse, file.rename(tmp_path / "moved.ndjson"), None) == Loaded()
    grown = write_lines(file, map(call, range(8)))
    assert load_file(warehouse, grown, None) == Loaded(read=8, loaded=3, duplicates=5)
    with warehouse.read() as con:
        origins = con.execute("select origin, count(*) from product_events group by 1 order by 2").fetchall()
        counts = origin_counts(con, file_mark(grown, None))
    assert [rows for _, rows in origins] == [3, 5]
    assert origins[0][0].startswith("calls.ndjson#")
    assert (counts.read, counts.duplicates, counts.pending) == (8, 5, 3)


def test_other_rules_read_a_file_anew(tmp_path: Path, warehouse: Warehouse) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("id,who,what,whom\n1,ann,Called,bob\n2,,Called,cleo\n")
    first = load_file(warehouse, file, MAPPING)
    assert first == Loaded(read=2, loaded=1, refused=1)
    mended = MAPPING.model_copy(update={"user_id": "whom"})
    assert load_file(warehouse, file, mended) == Loaded(read=2, loaded=1, duplicates=1)
    assert load_file(warehouse, file, MAPPING) == Loaded()
    assert in_warehouse(warehouse) == ["1", "2"]


def test_an_empty_file_is_loaded_too(tmp_path: Path, warehouse: Warehouse) -> None:
    (tmp_path / "empty.ndjson").touch()
    assert load_file(warehouse, tmp_path / "empty.ndjson", None) == Loaded()
    with warehouse.read() as con:
        assert con.execute("select complete from loaded_inputs").fetchall() == [(True,)]


def landed(folder: Path, name: str, numbers: range) -> None:
    """Write a sealed segment, as the receiver leaves it."""
    folder.mkdir(exist_ok=True)
    lines = [
        json.dumps(
            {
                "id": f"n{number}",
                "received_at": "2026-01-02T03:04:05Z",
                "source": "userflow",
                "adapter": "userflow",
                "body": {
                    "id": f"n{number}",
                    "object": "webhook_notification",
                    "topic": "event.tracked.flow_started",
                    "created_at": "2026-01-02T03:04:04Z",
                    "data": {
                        "object": {
                            "id": f"e{number}",
                            "object": "event",
                            "name": "flow_started",
                            "user_id": "ann",
                            "time": "2026-01-02T03:04:04Z",
                            "attributes": {},
                        }
                    },
                },
            }
        )
        for number in numbers
    ]
    write_lines(folder / name, lines)


def test_a_landed_segment_goes_once_it_is_wholly_in(
    tmp_path: Path, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "PACKED_ROWS", 4)
    folder = tmp_path / "landing"
    landed(folder, "0001.ndjson", range(10))
    landed(folder, "0002.ndjson", range(8, 15))
    with pytest.raises(PowerCut):
        load_landed(warehouse, FolderArrivals(folder), cut_the_power)
    assert len(list(folder.glob("*.ndjson"))) == 2
    assert load_landed(warehouse, FolderArrivals(folder)) == Loaded(read=13, loaded=11, duplicates=2)
    assert list(folder.glob("*.ndjson")) == []
    assert in_warehouse(warehouse) == [f"userflow-n{number}" for number in range(15)]


def test_a_segment_that_was_in_before_its_file_could_be_removed_is_not_read_again(
    tmp_path: Path, warehouse: Warehouse
) -> None:
    folder = tmp_path / "landing"
    landed(folder, "0001.ndjson", range(3))
    load_landed(warehouse, FolderArrivals(folder))
    landed(folder, "0001.ndjson", range(3))
    assert load_landed(warehouse, FolderArrivals(folder)) == Loaded()
    assert list(folder.glob("*.ndjson")) == []


def test_a_landed_piece_may_be_cut_elsewhere_than_before(
    tmp_path: Path, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "landing"
    landed(folder, "0001.ndjson", range(10))
    with (folder / "0001.ndjson").open("r+") as segment:
        text = segment.read()
        segment.seek(0)
        segment.write("not json\n" + text)
    monkeypatch.setattr(loading, "PACKED_ROWS", 4)
    with pytest.raises(PowerCut):
        load_landed(warehouse, FolderArrivals(folder), cut_the_power)
    monkeypatch.setattr(loading, "PACKED_ROWS", 100)
    assert load_landed(warehouse, FolderArrivals(folder)) == Loaded(read=7, loaded=7)
    assert in_warehouse(warehouse) == [f"userflow-n{number}" for number in range(10)]
