"""Dumps of Heap's end as the tables that Heap has, whatever a dump holds and in which state the tables are."""

from __future__ import annotations

import multiprocessing
import resource
import signal
from datetime import datetime
from pathlib import Path

import pytest

from heap_integration.heap_connect.importer import DumpError
from heap_integration.sandbox.dumps import AvroType, DumpTable
from heap_integration.warehouse.systems.duckdb import DuckDBSettings
from heap_integration.warehouse.systems.postgres import PostgresSettings
from heap_integration.warehouse.systems.system import QueryError
from heap_integration_tests.heap_connect.importing import MIGRATIONS, Importing, click, clicks, users
from heap_integration_tests.support.warehouses import rows, surroundings


def test_an_incremental_dump_changes_the_rows_with_its_keys_and_adds_the_others(importing: Importing) -> None:
    importing.load(
        852, users([{"user_id": 1, "identity": "ann"}, {"user_id": 2, "identity": "bob"}], incremental=False)
    )
    told = importing.load(860, users([{"user_id": 2, "identity": "rob"}, {"user_id": 3, "identity": "cy"}]))["users"]

    assert importing.rows("users", "user_id", "identity", "_hub_dump") == [
        (1, "ann", 852),
        (2, "rob", 860),
        (3, "cy", 860),
    ]
    assert (told.how, told.read, told.inserted, told.updated, told.rows) == ("merged", 2, 1, 1, 3)


def test_a_full_dump_replaces_what_is_there(importing: Importing) -> None:
    importing.load(1, clicks([click(1), click(2)]))
    told = importing.load(2, clicks([click(2), click(3), click(4)], incremental=False))["click"]

    assert importing.rows("click", "event_id", "_hub_dump") == [(2, 2), (3, 2), (4, 2)]
    assert (told.how, told.inserted, told.updated, told.removed, told.rows) == ("replaced", 3, 0, 2, 3)


def test_user_migrations_are_whole_in_every_dump(importing: Importing) -> None:
    importing.load(1, DumpTable("user_migrations", MIGRATIONS, [{"from_user_id": 1, "to_user_id": 9}]))
    importing.load(2, DumpTable("user_migrations", MIGRATIONS, [{"from_user_id": 2, "to_user_id": 9}]))

    assert importing.rows("user_migrations", "from_user_id", "to_user_id") == [(2, 9)]


def test_each_dump_is_loaded_once_in_the_order_of_the_numbers(importing: Importing) -> None:
    for dump_id, name in ((1008461850, "newest"), (99, "oldest"), (852, "middle")):
        importing.bucket.write(dump_id, [users([{"user_id": 1, "identity": name}])])

    assert [dump.dump_id for dump in importing.importer().waiting()] == [99, 852, 1008461850]
    importing.run()
    assert importing.rows("users", "identity") == [("newest",)]
    assert importing.importer().waiting() == []


def test_a_table_starts_at_the_newest_dump_that_holds_all_of_it(importing: Importing) -> None:
    importing.bucket.write(1, [users([{"user_id": 1}]), clicks([click(1)])])
    importing.bucket.write(2, [users([{"user_id": 2}], incremental=False)])
    importing.bucket.write(3, [users([{"user_id": 3}])])
    for file in Path(importing.bucket.address).glob("sync_1/users/*"):
        file.unlink()

    first, *_ = importing.run()
    assert first.ignored == ("users",)
    assert importing.rows("users", "user_id") == [(2,), (3,)]
    assert importing.rows("click", "event_id") == [(1,)]


def test_a_dump_that_comes_late_changes_no_table_that_is_newer(importing: Importing) -> None:
    importing.load(7, users([{"user_id": 1, "identity": "new"}]))
    importing.bucket.write(6, [users([{"user_id": 1, "identity": "old"}]), clicks([click(1)])])

    (late,) = importing.run()
    assert late.ignored == ("users",)
    assert importing.rows("users", "identity") == [("new",)]
    assert importing.rows("click", "event_id") == [(1,)]


def test_a_dump_is_complete_when_its_manifest_is_there(in_duckdb: Importing) -> None:
    manifest = in_duckdb.bucket.write(1, [users([{"user_id": 1}])], manifest=False)
    assert manifest["tables"]
    assert in_duckdb.importer().waiting() == []


def test_of_rows_with_one_key_the_newest_stays(importing: Importing) -> None:
    first = [click(number, word="first") for number in range(50)]
    again = [click(number, word="second") for number in range(40, 60)]
    told = importing.load(
        1,
        clicks([*first, *again, click(55, word="third")], {"word": "string"}, rows_per_file=30),
        users([{"user_id": 1, "identity": "new", "last_modified": 1_700_000_002_000_000},
               {"user_id": 1, "identity": "old", "last_modified": 1_700_000_001_000_000}]),
    )  # fmt: skip

    words = {word: [number for number, each in importing.rows("click", "event_id", "word") if each == word]
             for word in ("first", "second", "third")}  # fmt: skip
    assert words == {"first": [*range(40)], "second": [*range(40, 55), *range(56, 60)], "third": [55]}
    assert importing.rows("users", "identity") == [("new",)]
    assert (told["click"].read, told["click"].duplicates, told["click"].inserted) == (71, 11, 60)


def test_rows_without_a_key_are_counted_and_left_out(importing: Importing) -> None:
    told = importing.load(1, clicks([click(1), {**click(2), "event_id": None}]))["click"]

    assert importing.rows("click", "event_id") == [(1,)]
    assert (told.read, told.inserted, told.keyless, told.duplicates) == (2, 1, 1, 0)


def test_columns_come_and_go_and_change_their_type(importing: Importing) -> None:
    importing.load(1, clicks([click(1, plan="pro", seats=3)], {"plan": "string", "seats": "long"}))
    more = clicks([click(2, seats=1.5, beta=True)], {"seats": "double", "beta": "boolean"})
    told = importing.load(2, more)["click"]

    assert (told.gained, told.lost, told.retyped) == (("beta",), ("plan",), ("seats",))
    expected = [(1, "pro", 3.0, None), (2, None, 1.5, True)]
    assert importing.rows("click", "event_id", "plan", "seats", "beta") == expected

    importing.load(3, clicks([click(3, seats="many")], {"seats": "string"}), lost_columns="drop")
    assert importing.columns("click") == ["event_id", "user_id", "session_id", "time", "seats"]
    assert [seats for _, seats in importing.rows("click", "event_id", "seats")][1:] == ["1.5", "many"]


def test_a_column_without_a_type_yet_is_no_column_yet(in_duckdb: Importing) -> None:
    in_duckdb.load(1, clicks([]))
    in_duckdb.load(2, clicks([click(1, age=4)], {"age": "long"}))
    assert in_duckdb.connection.columns("heap_connect", "click")["age"] == "BIGINT"


def test_both_encodings_of_times_become_the_same_time(importing: Importing) -> None:
    moment = 1_767_323_045
    encodings = [
        *("2026-01-02 03:04:05", "2026-01-02T03:04:05Z", "2026-01-02 03:04:05 UTC", "2026-01-02T05:04:05+02:00"),
        *("2026-01-01 22:04:05.000-05:00", "2026-01-02 03:04:05.000000", "2026-01-02T04:04:05+01"),
        *(str(moment), str(moment * 1000), str(moment * 1_000_000)),
    ]
    importing.bucket.write(1, [clicks([{**click(at), "time": text} for at, text in enumerate(encodings)])])
    numbers = {"last_modified": "long", "joindate": "double"}
    people = [{"user_id": at, "last_modified": moment * 1000**at, "joindate": float(moment)} for at in range(4)]
    importing.bucket.write(2, [users(people, numbers)])  # type: ignore[arg-type]
    importing.run()

    expected = datetime.fromisoformat("2026-01-02 03:04:05")
    assert {time for (time,) in importing.rows("click", "time")} == {expected}
    assert set(importing.rows("users", "last_modified", "joindate")) == {(expected, expected)}


def test_a_time_that_is_none_is_empty_and_counted(importing: Importing) -> None:
    told = importing.load(1, clicks([click(1), {**click(2), "time": "soon"}, {**click(3), "time": ""}]))["click"]

    assert [number for number, time in importing.rows("click", "event_id", "time") if time is None] == [2, 3]
    assert (told.unread, told.example) == (1, "time=soon")


def test_names_that_a_warehouse_would_misread_stay_as_they_are(importing: Importing) -> None:
    odd: dict[str, AvroType] = {"Order": "string", "order": "string", "select": "string", "a_" + "b" * 50: "long"}
    importing.load(1, clicks([click(1, Order="A", order="b", select="c")], odd))
    importing.load(2, clicks([click(2, Order="D", order="e", select="f")], odd))

    assert importing.columns("click")[4:] == ["Order", "order_2", "select", "a_" + "b" * 50]
    values = rows(importing.connection, f'select "Order", order_2, "select" from {importing.schema}.click order by 1')
    assert values == [("A", "b", "c"), ("D", "e", "f")]


def test_names_that_are_the_hubs_own_or_too_long_are_changed(importing: Importing) -> None:
    own, long = ("_hub_dump", "_hub_unread", "_hub_file", "_hub_row", "_hub_raw_0"), ("a" * 80 + "b", "a" * 80 + "c")
    columns: dict[str, AvroType] = dict.fromkeys((*own, *long), "string")
    for dump_id in (1, 2):
        importing.load(
            dump_id, clicks([click(number, **{name: name for name in columns}) for number in (1, 1)], columns)
        )

    *changed, one, other = importing.columns("click")[4:]
    assert changed == [name.removeprefix("_") for name in own]
    assert one != other
    assert max(map(len, (one, other))) <= 63
    assert importing.rows("click", "_hub_dump", "hub_dump", f'"{one}"', f'"{other}"') == [(2, "_hub_dump", *long)]


def test_one_column_may_be_spelt_in_two_ways_by_the_files_of_a_dump(importing: Importing) -> None:
    parts = [
        importing.bucket.write(1, [clicks([click(1, Plan="pro")], {"Plan": "string"})], manifest=False),
        importing.bucket.write(1, [clicks([click(2, plan="free")], {"plan": "string"})]),
    ]
    importing.say_files(1, "click", [file for part in parts for file in part["tables"][0]["files"]])
    importing.run()
    (name,) = importing.columns("click")[4:]
    assert importing.rows("click", "event_id", f'"{name}"') == [(1, "pro"), (2, "free")]


def test_a_broken_file_fails_its_dump_by_name_and_nothing_changes(in_duckdb: Importing) -> None:
    in_duckdb.load(1, users([{"user_id": 1}]), clicks([click(1)]))
    manifest = in_duckdb.bucket.write(
        2, [users([{"user_id": 2}]), clicks([click(number) for number in range(5_000)], rows_per_file=2_000)]
    )
    in_duckdb.bucket.write(3, [users([{"user_id": 3}])])
    name = manifest["tables"][1]["files"][1].partition("heap-rs3-test/")[2]
    file = Path(in_duckdb.bucket.address) / name
    whole = file.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]

    for broken in (whole[:middle], whole[:-20], flipped, b"", b"no Avro file"):
        file.write_bytes(broken)
        with pytest.raises(DumpError, match=name):
            in_duckdb.run()
        assert [dump.dump_id for dump in in_duckdb.importer().waiting()] == [2, 3]
        assert (in_duckdb.rows("users", "user_id"), in_duckdb.rows("click", "event_id")) == ([(1,)], [(1,)])
    file.unlink()
    with pytest.raises(DumpError, match=f"{name}, which isn't there"):
        in_duckdb.run()

    file.write_bytes(whole)
    in_duckdb.run()
    assert len(in_duckdb.rows("click", "event_id")) == 5_000


def test_a_dump_that_is_broken_for_good_can_be_left_out(in_duckdb: Importing) -> None:
    (Path(in_duckdb.bucket.address) / "manifests").mkdir(parents=True)
    (Path(in_duckdb.bucket.address) / "manifests/sync_1.json").write_text("{")
    in_duckdb.bucket.write(2, [users([{"user_id": 2}])])

    with pytest.raises(DumpError, match=r"sync_1\.json is not JSON"):
        in_duckdb.run()
    with pytest.raises(DumpError, match="dump 1 comes before dump 2"):
        in_duckdb.importer().apply(in_duckdb.importer().waiting()[1])
    assert [report.dump_id for report in in_duckdb.run(skip_dumps=[1])] == [2]


def test_an_id_that_is_no_number_fails_its_dump(in_duckdb: Importing) -> None:
    in_duckdb.bucket.write(1, [clicks([{**click(1), "user_id": "me"}], {"user_id": "string"})])
    with pytest.raises(DumpError, match=r"sync_1/click/.* has an id that is no whole number: user_id=me"):
        in_duckdb.run()


def test_a_file_outside_the_bucket_is_not_read(in_duckdb: Importing) -> None:
    in_duckdb.bucket.write(1, [users([{"user_id": 1}])])
    in_duckdb.say_files(1, "users", ["s3://heap-rs3-test/../secrets.avro"])
    with pytest.raises(DumpError, match="no file in the bucket"):
        in_duckdb.run()


def test_a_folder_is_not_taken_for_one_of_its_files(in_duckdb: Importing) -> None:
    in_duckdb.bucket.write(1, [users([{"user_id": 1}, {"user_id": 2}], rows_per_file=1)])
    in_duckdb.say_files(1, "users", ["s3://heap-rs3-test/sync_1/users"])
    with pytest.raises(DumpError, match="sync_1/users, which is a folder"):
        in_duckdb.run()


def test_a_file_that_goes_while_its_dump_is_read_fails_it_by_name(in_duckdb: Importing) -> None:
    in_duckdb.bucket.write(1, [users([{"user_id": number} for number in range(10)], rows_per_file=1)])

    def take_away(_table: str, _rows: int) -> None:
        for file in Path(in_duckdb.bucket.address).glob("sync_1/users/part-00009*"):
            file.unlink()

    importer = in_duckdb.importer()
    with pytest.raises(DumpError, match=r"users/part-00009-.*\.avro is gone"):
        importer.apply(importer.waiting()[0], take_away)


def test_an_index_in_the_way_is_told(in_duckdb: Importing) -> None:
    in_duckdb.load(1, clicks([click(1, seats=1)], {"seats": "long"}))
    in_duckdb.connection.run(["create index mine on heap_connect.click (event_id)"])
    with pytest.raises(QueryError, match=r"dump 2 can't be applied: .*drop it"):
        in_duckdb.load(2, clicks([click(1, seats=1.5)], {"seats": "double"}))


def import_onto_a_full_disk(folder: Path, said: Path) -> None:
    warehouse = DuckDBSettings(url=f"duckdb:///{folder}/hub.duckdb")
    with warehouse.connect(surroundings(folder)) as connection:
        importing = Importing(folder, warehouse, connection)
        words = [click(number, word=f"{number * 7919}" * 20) for number in range(40_000)]
        importing.bucket.write(1, [clicks(words, {"word": "string"}, rows_per_file=10_000)])
        importer = importing.importer()
        (dump,) = importer.waiting()
        # beyond the limit a write fails as it does on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
        try:
            importer.apply(dump)
        except (ValueError, OSError) as error:
            said.write_text(f"{type(error).__name__}: {error}")


def test_a_full_disk_is_not_taken_for_a_broken_file(tmp_path: Path) -> None:
    arguments = (tmp_path, tmp_path / "said")
    process = multiprocessing.get_context("spawn").Process(target=import_onto_a_full_disk, args=arguments)
    process.start()
    process.join(60)
    said = (tmp_path / "said").read_text()
    assert "no more room on the disk" in said
    assert said.startswith("WarehouseError")


def test_a_file_of_many_pieces_keeps_its_rows_and_their_order(in_duckdb: Importing) -> None:
    told = in_duckdb.load(
        1,
        clicks(
            [click(number % 15_000, word=f"{number}" * 200) for number in range(20_000)],
            {"word": "string"},
            rows_per_file=20_000,
        ),
    )["click"]

    assert (told.rows, told.duplicates) == (15_000, 5_000)
    found = dict(in_duckdb.rows("click", "event_id", "substr(word, 1, 5)"))
    assert (found[0], found[4_999], found[5_000]) == ("15000", "19999", "50005")


def test_dumps_are_loaded_from_a_bucket_on_s3(in_duckdb: Importing, heap_bucket) -> None:  # type: ignore[no-untyped-def]
    import json

    from heap_integration.heap_connect.importer import DumpImporter
    from heap_integration.heap_connect.settings import DumpsSettings
    from heap_integration.sandbox.dumps import DumpBucket

    DumpBucket(heap_bucket.address, heap_bucket.options).write(852, [clicks([click(1)]), users([{"user_id": 1}])])
    importer = DumpImporter(
        DumpsSettings.model_validate({"bucket": heap_bucket.address, "credentials": {"env": "BUCKET"}}),
        in_duckdb.connection,
        schema="heap_connect",
        dialect="duckdb",
        own=surroundings(in_duckdb.folder).own,
        store=in_duckdb.store,
        variables={"BUCKET": json.dumps(heap_bucket.options)},
    )
    (dump,) = importer.waiting()
    importer.apply(dump)
    assert in_duckdb.rows("click", "event_id") == [(1,)]
    assert {(table.name, table.dump_id, table.rows) for table in importer.tables()} == {
        ("click", 852, 1),
        ("users", 852, 1),
    }


def test_views_on_a_table_outlive_what_a_dump_does_to_it(importing: Importing) -> None:
    importing.load(1, clicks([click(1)]))
    view = f'create view "{importing.schema}".seen as select event_id from "{importing.schema}".click'
    importing.connection.run([view])
    importing.load(2, clicks([click(2, plan="pro")], {"plan": "string"}, incremental=False))
    assert importing.rows("seen", "event_id") == [(2,)]
    if isinstance(importing.warehouse, PostgresSettings):
        assert "_hub_staged_0" not in importing.connection.tables(importing.schema)


# a DuckDB file has no rights, and its views go by names
@pytest.mark.parametrize("warehouse", ["postgres"], indirect=True)
def test_another_type_of_a_column_takes_away_no_rights_and_no_other_view(importing: Importing) -> None:
    importing.load(1, clicks([click(1, seats=1, beta=True)], {"seats": "long", "beta": "boolean"}))
    table = f'"{importing.schema}".click'
    importing.connection.run(
        [
            f'create view "{importing.schema}".seen as select event_id from {table}',
            f"grant select on {table} to pg_read_all_stats",
        ]
    )
    importing.load(2, clicks([click(2, seats=1.5, beta="no")], {"seats": "double", "beta": "string"}))
    assert importing.rows("seen", "event_id") == [(1,), (2,)]
    assert importing.rows("click", "seats", "beta") == [(1.0, "true"), (1.5, "no")]
    may = f"select has_table_privilege('pg_read_all_stats', '{table}', 'select')"
    assert rows(importing.connection, may) == [(True,)]
