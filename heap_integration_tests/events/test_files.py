"""Every line of a file ends as an event or as a refusal with its reason and place."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable
from datetime import UTC, date
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastavro.read import HEADER_SCHEMA
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_integration.events.mapping import Mapping, MappingError
from heap_integration.events.sources.files import fingerprint
from heap_integration.warehouse.schema import EVENT_SCHEMA, REJECT_SCHEMA
from heap_integration_tests.events.conftest import NOW, events, read, refused

Write = Callable[[str, str | bytes], Path]
CLICKS = Mapping(event="event", user_id="user", timestamp="at")


def track(number: int, **fields: Any) -> str:
    call = {"type": "track", "event": "Clicked", "userId": f"u{number}", "messageId": f"message-{number}"}
    return json.dumps(call | fields)


def test_a_bad_line_costs_only_itself(write: Write) -> None:
    lines = [
        track(1, timestamp="2026-01-01T10:00:00+02:00"),
        "",
        "{not json",
        "[1, 2]",
        track(5, userId=None),
        track(6, timestamp="yesterday"),
        track(7, event=""),
        track(8, properties=[]),
        track(9, type="tracked"),
        track(10, userId={"id": 1}),
        '{"type": "track", "event": "Clicked", "userId": "u", "properties": {"a": NaN}}',
        track(12, timestamp=4133980800001),
        track(13, userId=12345678901234567890123),
    ]
    (chunk,) = read(write("calls.ndjson", "\ufeff" + "\r\n".join(lines)))

    reasons = refused([chunk])
    assert reasons.pop(3).startswith("not JSON: ")
    assert reasons.pop(11).startswith("not JSON: ")
    assert reasons == {
        4: "not a JSON object",
        5: "no user: neither userId nor anonymousId",
        6: "timestamp 'yesterday' can't be read",
        7: "no event name",
        8: "properties is not an object: []",
        9: "type 'tracked' is none of track, identify, page, screen, group, alias",
        10: "{'id': 1} is neither text nor a number",
        12: "timestamp 4133980800001 lies outside the years 1971 to 2100",
        13: "1.2345678901234568e+22 is not a whole number that stays exact; send it as text",
    }
    (event,) = events([chunk])
    assert (event["user_id"], event["line"], event["timestamp"].isoformat()) == ("u1", 1, "2026-01-01T08:00:00")
    assert (chunk.lines, chunk.last_line) == (12, 13)
    assert (chunk.events.schema, chunk.refused.schema) == (EVENT_SCHEMA, REJECT_SCHEMA)


def test_fields_without_a_place_of_their_own_are_kept_and_the_write_key_is_not(write: Write) -> None:
    path = write("calls.ndjson", track(1, writeKey="secret", integrations={"All": True}, context={"ip": "::1"}))
    (event,) = events(read(path))
    assert json.loads(event["context"]) == {"integrations": {"All": True}, "ip": "::1"}
    assert event["timestamp"] == event["received_at"] == NOW.replace(tzinfo=None)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("2024-03-13 10:21:14", "2024-03-13T10:21:14"),
        ("2024-03-13T10:21:14.123456789Z", "2024-03-13T10:21:14.123456"),
        ("2024-03-13 10:21:14 UTC", "2024-03-13T10:21:14"),
        ("20240313", "2024-03-13T00:00:00"),
        ("1710325274", "2024-03-13T10:21:14"),
        (1710325274, "2024-03-13T10:21:14"),
        (1710325274500, "2024-03-13T10:21:14.500000"),
        (1710325274500123, "2024-03-13T10:21:14.500123"),
        (1710325274.5, "2024-03-13T10:21:14.500000"),
        ("1612011212345", "2021-01-30T12:53:32.345000"),
    ],
)
def test_times_are_read_as_text_and_as_numbers(write: Write, given: Any, meant: str) -> None:
    (event,) = events(read(write("calls.ndjson", track(1, timestamp=given))))
    assert event["timestamp"].isoformat() == meant


ROW_SCHEMA = {
    "type": "record",
    "name": "row",
    "fields": [
        {"name": "user", "type": ["null", "string"]},
        {"name": "event", "type": "string"},
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
    ],
}


def avro_file(rows: list[dict[str, Any]], schema: dict[str, Any] = ROW_SCHEMA, codec: str = "null") -> bytes:
    target = io.BytesIO()
    fastavro.writer(target, schema, rows, codec=codec, sync_interval=500)
    return target.getvalue()


def test_reading_goes_on_after_any_line(write: Write) -> None:
    rows = [{"user": f"u{number}", "event": "e", "at": NOW} for number in range(1, 51)]
    batches = [json.dumps({"batch": [json.loads(track(10 * batch + n)) for n in range(10)]}) for batch in range(5)]
    ndjson = "\n".join(track(number, timestamp=NOW.isoformat()) for number in range(1, 51))
    csv = "user,event,at\n" + "".join(f'u{number},"two\nlines",2026-01-01\n' for number in range(1, 26))
    table = pa.table({"user": list(range(1, 51)), "event": ["e"] * 50, "at": ["2026-01-01"] * 50})
    parquet = write("clicks.parquet", b"")
    pq.write_table(table, parquet, row_group_size=7)

    for path, mapping in (
        (write("calls.ndjson", ndjson), None),
        (write("clicks.csv", csv), CLICKS),
        (write("clicks.csv.gz", gzip.compress(csv.encode())), CLICKS),
        (write("calls.ndjson.zst", pa.compress(ndjson.encode(), codec="zstd", asbytes=True)), None),
        (write("calls.json", f"[{ndjson.replace(chr(10), ',')}]"), None),
        (write("batches.ndjson", "\n".join(batches)), None),
        (write("clicks.avro", avro_file(rows)), CLICKS),
        (parquet, CLICKS),
    ):
        whole = [event["event_key"] for event in events(read(path, mapping))]
        first, *rest = read(path, mapping, chunk_rows=9)
        resumed = read(path, mapping, chunk_rows=9, after_line=first.last_line)
        assert whole == [event["event_key"] for event in events([first, *rest])]
        assert whole == [event["event_key"] for event in events([first, *resumed])]


def test_a_json_array_is_read_item_by_item_and_a_bad_one_costs_only_itself(write: Write) -> None:
    items = [track(1), "{bad}", "7", track(4, properties={"text": 'a ],[ "quoted" \\'}), ""]
    chunks = read(write("calls.json", " [\n" + ",\n ".join(items) + "]\n"))
    reasons = refused(chunks)
    assert reasons.pop(2).startswith("not JSON: ")
    assert reasons == {3: "not a JSON object"}
    assert [event["line"] for event in events(chunks)] == [1, 4]

    cut = read(write("cut.json", f"[{track(1)},{track(2)[:20]}"))
    assert refused(cut) == {2: "the file is damaged, here or before: the JSON array is not closed"}
    two = read(write("two.json", f"[{track(1)}]\n[{track(2)}]"))
    assert refused(two) == {2: "the file is damaged, here or before: the JSON array ends, and more follows"}
    assert len(events(two)) == 1


def test_a_line_may_hold_a_whole_batch(write: Write) -> None:
    batch = {"batch": [json.loads(track(1)), json.loads(track(2, userId=None)), 3], "context": {"ip": "::1"}}
    chunks = read(write("calls.ndjson", f"{json.dumps(batch)}\n{track(4)}\n"), chunk_rows=2)
    assert [(event["message_id"], event["line"]) for event in events(chunks)] == [("message-1", 1), ("message-4", 2)]
    assert json.loads(events(chunks)[0]["context"]) == {"ip": "::1"}
    reasons = [(row["line"], row["reason"]) for chunk in chunks for row in chunk.refused.to_pylist()]
    assert reasons == [(1, "no user: neither userId nor anonymousId"), (1, "the call is not a JSON object: 3")]
    # a chunk never ends within a line
    assert [(chunk.lines, chunk.last_line) for chunk in chunks] == [(3, 1), (1, 2)]


def test_avro_of_any_codec_and_logical_type_becomes_json(write: Write) -> None:
    fields = ROW_SCHEMA["fields"] + [
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "payload", "type": {"type": "map", "values": ["null", "long", "string"]}},
    ]
    more = {"price": Decimal("12.50"), "day": date(2026, 1, 1), "payload": {"size": 2, "none": None}}
    rows = [{"user": user, "event": "Clicked", "at": NOW, **more} for user in ("u1", None, "u3")]
    for codec in ("null", "deflate", "bzip2", "xz"):
        chunks = read(write("clicks.avro", avro_file(rows, ROW_SCHEMA | {"fields": fields}, codec)), CLICKS)
        assert refused(chunks) == {2: "no user: user is empty"}
        first, third = events(chunks)
        assert (first["user_id"], third["line"]) == ("u1", 3)
        assert first["timestamp"] == NOW.replace(tzinfo=None)
        assert json.loads(first["properties"]) == {
            "price": 12.5,
            "day": "2026-01-01",
            "payload": {"size": 2, "none": None},
        }


def with_codec(plain: bytes, codec: str) -> bytes:
    """Rewrite an Avro file of the codec ``null``: fastavro has no snappy and Zstandard of its own."""
    reader = fastavro.block_reader(io.BytesIO(plain))
    target = io.BytesIO()
    head = {"magic": b"Obj\x01", "meta": {"avro.schema": json.dumps(reader.writer_schema).encode()}, "sync": bytes(16)}
    head["meta"]["avro.codec"] = codec.encode()  # type: ignore[index]
    fastavro.schemaless_writer(target, HEADER_SCHEMA, head)
    for block in reader:
        records = io.BytesIO()
        for record in block:
            fastavro.schemaless_writer(records, ROW_SCHEMA, record)
        packed = pa.compress(records.getvalue(), codec=codec.replace("zstandard", "zstd"), asbytes=True)
        packed += zlib.crc32(records.getvalue()).to_bytes(4, "big") if codec == "snappy" else b""
        for number in (block.num_records, len(packed)):
            fastavro.schemaless_writer(target, "long", number)
        target.write(packed + bytes(16))
    return target.getvalue()


@pytest.mark.parametrize("codec", ["snappy", "zstandard"])
def test_avros_other_codecs_need_no_package_more(write: Write, codec: str) -> None:
    rows = [{"user": f"u{number}", "event": "Clicked", "at": None} for number in range(500)]
    chunks = read(write("clicks.avro", with_codec(avro_file(rows), codec)), CLICKS)
    assert [event["user_id"] for event in events(chunks)] == [f"u{number}" for number in range(500)]


def test_a_damaged_avro_file_gives_the_records_before_the_damage(write: Write) -> None:
    whole = avro_file([{"user": f"u{number}", "event": "Clicked", "at": None} for number in range(500)])
    chunks = read(write("clicks.avro", whole[: len(whole) // 2]), CLICKS)
    found = len(events(chunks))
    assert 100 < found < 400
    ((line, reason),) = refused(chunks).items()
    assert line == found + 1
    assert reason.startswith("the file is damaged, here or before: ")
    assert refused(read(write("no.avro", b"nothing"), CLICKS))[0].startswith("not readable as Avro: ")


USERPILOT = {
    "event_type": "track",
    "event_name": "Report opened",
    "user_id": "u1",
    "inserted_at": "2026-01-01T10:00:00Z",
    "internal_event_id": "7",
}


def test_userpilots_exports_need_no_mapping_in_any_format(write: Write) -> None:
    parquet = write("export.parquet", b"")
    pq.write_table(pa.Table.from_pylist([USERPILOT]), parquet)
    schema = {"type": "record", "name": "row", "fields": [{"name": name, "type": "string"} for name in USERPILOT]}
    for path in (
        write("export.csv", ",".join(USERPILOT) + "\n" + ",".join(USERPILOT.values()) + "\n"),
        write("export.ndjson", json.dumps(USERPILOT)),
        write("export.avro", avro_file([USERPILOT], schema)),
        parquet,
    ):
        (event,) = events(read(path, row_format="userpilot"))
        assert (event["name"], event["user_id"]) == ("Report opened", "u1")
        assert event["timestamp"].isoformat() == "2026-01-01T10:00:00"


def test_customerios_orders_are_told_from_events(write: Write) -> None:
    path = write("calls.ndjson", f"{track(1)}\n{track(2, event='Device Deleted')}\n")
    (chunk,) = read(path, row_format="customerio")
    assert [event["source"] for event in events([chunk])] == ["customerio"]
    assert (chunk.lines, chunk.unused) == (2, 1)


def test_csv_refuses_rows_that_do_not_fit_the_header_and_names_the_line(write: Write) -> None:
    content = (
        b"user,event,at,note\n"
        b'u1,"Signed\nup",2026-01-01,"a, ""b"""\n'
        b"u2,Clicked\n"
        b"\n"
        b"u3,Cl\xffcked,2026-01-01,\n"
        b'u4,"Clicked"x,2026-01-01,\n'
        b"u5,Clicked,,\n"
        b",Clicked,2026-01-01,\n"
        b'u6,"never closed'
    )
    chunks = read(write("clicks.csv", content), CLICKS)
    assert refused(chunks) == {
        4: "2 fields where the header has 4",
        6: "not UTF-8",
        7: "not CSV: ',' expected after '\"'",
        9: "no user: user is empty",
        10: "not CSV: unexpected end of data",
    }
    first, second = events(chunks)
    assert (first["line"], first["name"], first["properties"]) == (2, "Signed\nup", r'{"note":"a, \"b\""}')
    assert (second["line"], second["timestamp"]) == (8, NOW.replace(tzinfo=None))
    assert sum(chunk.lines for chunk in chunks) == 7


def test_a_damaged_gzip_file_gives_the_lines_before_the_damage(write: Write) -> None:
    lines = "".join(track(number) + "\n" for number in range(1, 5001))
    whole = gzip.compress(lines.encode())
    chunks = read(write("calls.ndjson.gz", whole[: len(whole) // 2]))
    found = events(chunks)
    assert 1000 < len(found) < 5000
    assert refused(chunks) == {len(found) + 1: "the file is damaged, here or before: the gzip data ends too early"}

    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 0xFF
    *_, reason = refused(read(write("broken.ndjson.gz", bytes(broken)))).values()
    assert "the file is damaged, here or before: the gzip data is damaged" in reason

    two = gzip.compress(track(1).encode() + b"\n") + gzip.compress(track(2).encode())
    for ending in (b"", bytes(512)):
        chunks = read(write("members.ndjson.gz", two + ending))
        assert len(events(chunks)) == 2
        assert refused(chunks) == {}


def test_an_endless_line_is_refused_without_being_held(write: Write) -> None:
    long = track(1, properties={"text": "x" * 12_000_000})
    chunks = read(write("calls.ndjson.gz", gzip.compress(f"{long}\n{track(2)}\n".encode())))
    assert refused(chunks) == {1: "longer than 5 MB"}
    assert [event["line"] for event in events(chunks)] == [2]


def test_parquet_columns_of_any_type_become_json(write: Write) -> None:
    path = write("clicks.parquet", b"")
    table = pa.table(
        {
            "user": pa.array([1, 2, None]),
            "event": ["Clicked"] * 3,
            "at": pa.array([date(2026, 1, 1)] * 3),
            "price": pa.array([Decimal("12.50"), Decimal("3"), None]),
            "seen": pa.array([1_700_000_000_123_456_789] * 3, pa.timestamp("ns")),
            "payload": pa.array([{"tags": ["a"], "missing": None}] * 3),
            "bytes": pa.array([b"\xff"] * 3),
            "not a number": pa.array([float("nan")] * 3),
        }
    )
    pq.write_table(table, path)
    chunks = read(path, CLICKS)
    assert refused(chunks) == {3: "no user: user is empty"}
    first = events(chunks)[0]
    assert (first["user_id"], first["timestamp"].isoformat()) == ("1", "2026-01-01T00:00:00")
    assert json.loads(first["properties"]) == {
        "price": 12.5,
        "seen": "2023-11-14T22:13:20.123456Z",
        "payload": {"tags": ["a"], "missing": None},
        "bytes": "\\xff",
        "not a number": None,
    }


def test_one_value_that_is_not_utf8_costs_one_parquet_row(write: Write) -> None:
    path = write("clicks.parquet", b"")
    names = pa.array([b"Clicked", b"\xff\xfe", b"Clicked"]).view(pa.string())
    pq.write_table(pa.table({"user": ["a", "b", "c"], "event": names, "at": ["2026-01-01"] * 3}), path)
    chunks = read(path, CLICKS)
    assert list(refused(chunks)) == [2]
    assert [event["line"] for event in events(chunks)] == [1, 3]


def test_a_mapping_reaches_into_nested_rows(write: Write) -> None:
    mapping = Mapping(
        event="type", user_id="actor.id", timestamp="at", message_id="id", properties=("repo.name", "payload")
    )
    row = {"id": "e1", "type": "Push", "actor": {"id": 7}, "at": NOW.isoformat()}
    path = write("rows.ndjson", json.dumps(row | {"repo": {"name": "hub", "id": 1}, "payload": {"size": 2}}))
    (event,) = events(read(path, mapping))
    assert (event["user_id"], event["message_id"]) == ("7", "e1")
    assert json.loads(event["properties"]) == {"repo.name": "hub", "payload": {"size": 2}}

    parquet = write("rows.parquet", b"")
    pq.write_table(pa.Table.from_pylist([row | {"repo": {"name": "hub"}, "payload": {"size": 2}}]), parquet)
    assert events(read(parquet, mapping))[0]["event_key"] == event["event_key"]


def test_a_table_without_a_column_of_the_mapping_is_a_mistake_to_correct(write: Write) -> None:
    path = write("clicks.csv", "user,name\n")
    with pytest.raises(MappingError, match=r"clicks\.csv: event: no column 'event'.*it has user, name"):
        read(path, CLICKS)
    with pytest.raises(MappingError, match="a table needs a mapping of its columns: user, name"):
        read(path)
    with pytest.raises(MappingError, match="names user twice"):
        read(write("twice.csv", "user,event,at,user\n"), CLICKS)


def test_a_changed_file_has_another_fingerprint(write: Write) -> None:
    before = fingerprint(write("calls.ndjson", track(1)))
    assert before == fingerprint(write("same.ndjson", track(1)))
    assert before != fingerprint(write("calls.ndjson", track(2)))


@settings(max_examples=150)
@given(
    content=st.binary(max_size=400)
    | st.text(max_size=200).map(lambda text: text.encode(errors="ignore"))
    | st.text(alphabet='[]{}",:\\ a1\n').map(lambda text: b"[" + text.encode())
    | st.binary(max_size=100).map(lambda data: avro_file([{"user": "u", "event": "e", "at": None}]) + data)
    | st.binary(max_size=100).map(lambda data: pa.compress(b"{}" * 99, codec="zstd", asbytes=True)[:-9] + data),
    suffix=st.sampled_from([".ndjson", ".json.gz", ".csv", ".tsv", ".csv.gz", ".parquet", ".avro", ".json.zst", ""]),
    compressed=st.booleans(),
)
def test_no_bytes_make_reading_fail(tmp_path: Path, content: bytes, suffix: str, compressed: bool) -> None:
    path = tmp_path / f"file{suffix}"
    start = b"" if content[:1] in (b"[", b"O", b"(") else b"user,event,at\n"
    path.write_bytes(gzip.compress(content)[: -len(content) // 2] if compressed else start + content)
    try:
        chunks = read(path, CLICKS)
    except MappingError:
        return
    assert all(chunk.lines == chunk.events.num_rows + chunk.refused.num_rows + chunk.unused for chunk in chunks)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["type", "event", "name", "userId", "anonymousId", "messageId", "timestamp", "properties", "traits", "context"]
)


@settings(max_examples=150)
@given(calls=st.lists(st.dictionaries(FIELDS, JSON | st.sampled_from(["track", "page", "u1"])), max_size=5))
def test_no_json_makes_reading_fail(tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    path = tmp_path / "calls.ndjson"
    path.write_text("".join(json.dumps(call) + "\n" for call in calls))
    chunks = read(path)
    assert sum(chunk.events.num_rows + chunk.refused.num_rows for chunk in chunks) == len(calls)


@pytest.mark.parametrize(
    ("data", "mapping", "count"),
    [
        ("data/github_events/2021-07-21-few-hours.jsonl.gz", "docs/mappings/github_events.yaml", 800),
        ("data/github_events/githubActivities-2016-07-07.jsonl.gz", "docs/mappings/github_events.yaml", 2000),
        ("data/ga4_merch_store_events/ga4_events.jsonl.gz", "docs/mappings/ga4.yaml", 24219),
        ("data/retentioneering_ecom_synthetic/ecom.csv.gz", "docs/mappings/ecom_parquet.yaml", 31106),
    ],
)
def test_real_files_are_read_completely(
    shared: Callable[[str], Path],
    example_mapping: Callable[[str], Mapping],
    data: str,
    mapping: str,
    count: int,
) -> None:
    chunks = read(shared(data), example_mapping(mapping))
    assert sum(chunk.lines for chunk in chunks) == sum(chunk.events.num_rows for chunk in chunks) == count
    keys = {key for chunk in chunks for key in chunk.events.column("event_key").to_pylist()}
    assert len(keys) == count
    assert events(chunks[:1])[0]["timestamp"].replace(tzinfo=UTC) < NOW
