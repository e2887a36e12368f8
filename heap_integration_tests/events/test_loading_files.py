"""Each version of each file reaches the warehouse once, wherever it lies and whenever the load dies."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heap_integration.events import loading_files
from heap_integration.events.loading import file_mark, load_file, load_files, waiting_files
from heap_integration.events.mapping import Mapping, MappingError
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.events import Loaded, balance
from heap_integration.warehouse.inputs import changed_files
from heap_integration_tests.events.conftest import Bucket
from heap_integration_tests.support.project import call, write_lines

ORDERS = Mapping(event_name="Ordered", user_id="who", message_id="id")


class PowerCut(Exception):
    """Ends a load between two transactions."""


def cut_the_power(loaded: Loaded) -> None:
    raise PowerCut


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[Warehouse]:
    warehouse = Warehouse(f"duckdb:///{tmp_path}/warehouse.duckdb")
    yield warehouse
    with warehouse.read() as con:
        assert balance(con).faults == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


def load(warehouse: Warehouse, folder: Path) -> Loaded:
    return load_files(warehouse, "shop", f"{folder}/*", None)


def waiting(warehouse: Warehouse, folder: Path) -> list[str]:
    return [Path(name).name for name in waiting_files(warehouse, "shop", f"{folder}/*", None)]


def found(warehouse: Warehouse) -> dict[str, list[str]]:
    with warehouse.read() as con:
        rows = con.execute(
            "select name, list(found order by seen_at) from input_files group by 1 order by 1"
        ).fetchall()
    return {Path(name).name: states for name, states in rows}


def messages(warehouse: Warehouse) -> set[str]:
    with warehouse.read() as con:
        return {name for (name,) in con.execute("select message_id from product_events").fetchall()}


def changes(warehouse: Warehouse) -> list[tuple[str, int]]:
    with warehouse.read() as con:
        return [(Path(each.name).name, each.new_events) for each in changed_files(con, "shop")]


def test_a_known_stamp_is_enough_not_to_read_a_file_again(folder: Path, warehouse: Warehouse) -> None:
    file = write_lines(folder / "calls.ndjson", map(call, range(5)))
    assert waiting(warehouse, folder) == ["calls.ndjson"]
    assert load(warehouse, folder) == Loaded(read=5, loaded=5)
    assert waiting(warehouse, folder) == []
    # other content under the same stamp: who reads it would find it
    before = file.stat()
    file.write_bytes(file.read_bytes().replace(b"message-4", b"message-9"))
    os.utime(file, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert load(warehouse, folder) == Loaded()
    file.touch()
    assert load(warehouse, folder) == Loaded(read=5, loaded=1, duplicates=4)


def test_what_was_loaded_by_hand_or_under_another_name_is_only_noted(folder: Path, warehouse: Warehouse) -> None:
    load_file(warehouse, write_lines(folder / "a.ndjson", map(call, range(5))), None)
    write_lines(folder / "b.ndjson", map(call, range(5)))
    assert load(warehouse, folder) == Loaded()
    (folder / "a.ndjson").touch()
    assert waiting(warehouse, folder) == ["a.ndjson"]
    assert load(warehouse, folder) == Loaded()
    assert waiting(warehouse, folder) == []
    assert changes(warehouse) == []


def test_a_file_that_grows_is_read_from_its_last_line_on(folder: Path, warehouse: Warehouse) -> None:
    file = write_lines(folder / "calls.ndjson", map(call, range(100)))
    half = json.dumps(call(100))
    with file.open("a") as growing:
        growing.write(half[:30])
    assert load(warehouse, folder) == Loaded(read=101, loaded=100, refused=1)
    with file.open("a") as growing:
        growing.write(half[30:] + "\n" + json.dumps(call(101)) + "\n")
    assert load(warehouse, folder) == Loaded(read=2, loaded=2)
    with file.open("a") as growing:
        growing.write(json.dumps(call(102)) + "\n")
    # the last line is read once more: it might have been half a line
    assert load(warehouse, folder) == Loaded(read=2, loaded=1, duplicates=1)
    assert found(warehouse) == {"calls.ndjson": ["new", "grown"]}
    assert messages(warehouse) == {f"message-{number}" for number in range(103)}
    assert changes(warehouse) == []


def test_a_changed_file_is_read_whole_and_reported(folder: Path, warehouse: Warehouse) -> None:
    file = write_lines(folder / "calls.ndjson", map(call, range(5)))
    load(warehouse, folder)
    write_lines(file, map(call, range(1, 8)))
    assert load(warehouse, folder) == Loaded(read=7, loaded=3, duplicates=4)
    assert changes(warehouse) == [("calls.ndjson", 3)]
    write_lines(file, map(call, range(5)))
    assert load(warehouse, folder) == Loaded()
    assert changes(warehouse) == [("calls.ndjson", 3)]


def test_a_load_that_dies_at_any_moment_goes_on_where_it_stopped(
    folder: Path, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading_files, "PACKED_ROWS", 10)
    for number in range(4):
        lines = [*map(call, range(25 * number, 25 * number + 24)), f"not JSON {number}"]
        write_lines(folder / f"{number}.ndjson", lines)
    deaths = 0
    while True:
        try:
            load_files(warehouse, "shop", f"{folder}/*", None, progress=cut_the_power)
        except PowerCut:
            deaths += 1
        else:
            break
    assert deaths >= 10
    with warehouse.read() as con:
        read = con.execute("select sum(read), sum(loaded), sum(duplicates), sum(refused) from loaded_inputs").fetchone()
    assert read == (100, 96, 0, 4)
    assert waiting(warehouse, folder) == []


def test_a_grown_file_goes_on_after_a_death_too(
    folder: Path, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_lines(folder / "calls.ndjson", map(call, range(30)))
    load(warehouse, folder)
    monkeypatch.setattr(loading_files, "PACKED_ROWS", 10)
    write_lines(file, map(call, range(60)))
    with pytest.raises(PowerCut):
        load_files(warehouse, "shop", f"{folder}/*", None, progress=cut_the_power)
    with file.open("a") as growing:
        growing.write(json.dumps(call(60)) + "\n")
    load(warehouse, folder)
    assert messages(warehouse) == {f"message-{number}" for number in range(61)}
    assert waiting(warehouse, folder) == []


def test_many_small_files_share_transactions(folder: Path, warehouse: Warehouse) -> None:
    for number in range(30):
        write_lines(folder / f"{number}.ndjson", [call(number)])
    written: list[int] = []
    load_files(warehouse, "shop", f"{folder}/*", None, progress=lambda so_far: written.append(so_far.read))
    assert written == [30]
    with warehouse.read() as con:
        origins = con.execute("select count(distinct origin), any_value(source) from product_events").fetchone()
    assert origins == (30, "shop")


def test_other_rules_read_files_anew(folder: Path, warehouse: Warehouse) -> None:
    (folder / "orders.csv").write_text("id,who,whom\n1,ann,bob\n2,,cleo\n")
    pattern = f"{folder}/*.csv"
    assert load_files(warehouse, "shop", pattern, ORDERS) == Loaded(read=2, loaded=1, refused=1)
    mended = ORDERS.model_copy(update={"user_id": "whom"})
    assert len(waiting_files(warehouse, "shop", pattern, mended)) == 1
    assert load_files(warehouse, "shop", pattern, mended) == Loaded(read=2, loaded=1, duplicates=1)
    assert load_files(warehouse, "shop", pattern, ORDERS) == Loaded()


def test_a_file_that_does_not_fit_keeps_no_other_waiting(folder: Path, warehouse: Warehouse) -> None:
    (folder / "a.csv").write_text("id,customer\n1,ann\n")
    (folder / "b.csv").write_text("id,who\n2,ann\n")
    (folder / "c.parquet").write_text("no Parquet at all")
    with pytest.raises(MappingError, match=r"a\.csv: user_id: no column 'who' in the file; it has id, customer"):
        load_files(warehouse, "shop", f"{folder}/*", ORDERS)
    assert messages(warehouse) == {"2"}
    with warehouse.read() as con:
        refused = con.execute("select origin, line, reason from rejected_rows").fetchall()
    assert [(origin, line) for origin, line, _ in refused] == [("c.parquet", 0)]
    # what was wrong is mended: the file is read without a change of the others
    (folder / "a.csv").write_text("id,who\n1,ann\n")
    assert load_files(warehouse, "shop", f"{folder}/*", ORDERS) == Loaded(read=1, loaded=1)


def test_a_file_that_vanishes_is_left_for_the_next_time(
    folder: Path, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        write_lines(folder / f"{name}.ndjson", [call(ord(name))])
    listed = loading_files.list_files(f"{folder}/*")
    (folder / "b.ndjson").unlink()
    monkeypatch.setattr(loading_files, "list_files", lambda pattern, options: listed)
    assert load(warehouse, folder).loaded == 2


def test_files_of_one_name_in_several_folders_stay_apart(folder: Path, warehouse: Warehouse) -> None:
    for day in ("01", "02"):
        (folder / day).mkdir()
        write_lines(folder / day / "part-0.ndjson", [call(int(day))])
    assert load_files(warehouse, "shop", str(folder), None).loaded == 2
    with warehouse.read() as con:
        (origins,) = con.execute("select list(distinct origin order by origin) from product_events").fetchone() or ([],)
    assert origins[0] == "part-0.ndjson"
    assert origins[1].startswith("part-0.ndjson#")


def in_bucket(warehouse: Warehouse, bucket: Bucket) -> Loaded:
    return load_files(warehouse, "shop", "s3://shop/in/", None, options=bucket.options)


def test_objects_are_loaded_once_and_a_changed_one_is_reported(bucket: Bucket, warehouse: Warehouse) -> None:
    lines = [json.dumps(call(number)) for number in range(30)]
    bucket.put("in/2026/01/a.ndjson", "\n".join(lines[:10]))
    bucket.put("in/2026/01/b.ndjson.gz", gzip.compress("\n".join(lines[10:20]).encode()))
    bucket.put("in/2026/02/c.json", f"[{','.join(lines[20:25])}]")
    assert in_bucket(warehouse, bucket) == Loaded(read=25, loaded=25)
    assert in_bucket(warehouse, bucket) == Loaded()
    bucket.put("in/2026/02/c.json", f"[{','.join(lines[20:27])}]")
    bucket.put("in/2026/02/d.ndjson", "\n".join(lines[27:]))
    names = waiting_files(warehouse, "shop", "s3://shop/in/", None, options=bucket.options)
    assert names == ["s3://shop/in/2026/02/c.json", "s3://shop/in/2026/02/d.ndjson"]
    assert in_bucket(warehouse, bucket) == Loaded(read=10, loaded=5, duplicates=5)
    assert changes(warehouse) == [("c.json", 2)]
    with warehouse.read() as con:
        origins = con.execute("select distinct origin from product_events where origin like '%/a.ndjson'").fetchall()
    assert origins == [("s3://shop/in/2026/01/a.ndjson",)]


def test_parquet_is_read_out_of_a_bucket(bucket: Bucket, tmp_path: Path, warehouse: Warehouse) -> None:
    rows = pa.table({"id": [str(number) for number in range(5_000)], "who": ["ann"] * 5_000})
    pq.write_table(rows, tmp_path / "orders.parquet", row_group_size=1_000)
    bucket.put("orders.parquet", (tmp_path / "orders.parquet").read_bytes())
    loaded = load_files(warehouse, "shop", "s3://shop/*.parquet", ORDERS, options=bucket.options)
    assert loaded == Loaded(read=5_000, loaded=5_000)


def test_a_mark_does_not_depend_on_what_a_mapping_leaves_open(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "calls.ndjson", [call(1)])
    spelt_out = ORDERS.model_copy(update={"identical_rows": "merge"})
    assert file_mark(file, ORDERS) == file_mark(file, spelt_out) != file_mark(file, None)
