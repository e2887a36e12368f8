"""Writes Heap Connect's dumps for S3: Avro files, and the manifest that completes them."""

from __future__ import annotations

import io
import json
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

AvroType = Literal["long", "double", "boolean", "string"]
Row = Mapping[str, Any]

NUMBERED = "part-{part:05}-{id}-c000.avro"
"""The name that tap-heap documents."""
PREFIXED = "{part}_part-00000-{id}-c000.avro"
"""The name that other consumers of users and user_migrations expect."""

_HEADER = {
    "type": "record",
    "name": "org.apache.avro.file.Header",
    "fields": [
        {"name": "magic", "type": {"type": "fixed", "name": "magic", "size": 4}},
        {"name": "meta", "type": {"type": "map", "values": "bytes"}},
        {"name": "sync", "type": {"type": "fixed", "name": "sync", "size": 16}},
    ],
}


@dataclass(frozen=True)
class DumpTable:
    """One table of a dump: the rows that are new or changed, or all of them where it isn't ``incremental``.

    ``columns`` are those of the table, with their Avro types; a row may lack some. Every value may be null but those of
    ``required``. ``file_name`` makes the names of the files, of ``rows_per_file`` rows each; there is always one.
    """

    name: str
    columns: Mapping[str, AvroType]
    rows: Iterable[Row]
    incremental: bool = True
    required: frozenset[str] = frozenset()
    rows_per_file: int = 200_000
    file_name: str = NUMBERED


@dataclass(frozen=True)
class DumpBucket:
    """The bucket, or a folder in its place, into which dumps are written.

    ``address`` is ``s3://heap-rs3-...`` or a folder; ``options`` are fsspec's for it.
    """

    address: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The bucket's name, which the manifests' paths begin with; a folder's own stands for it."""
        return self.address.rstrip("/").rpartition("/")[2]

    def write(self, dump_id: int, tables: Iterable[DumpTable], *, manifest: bool = True) -> dict[str, Any]:
        """Write the files of every table, the manifest last, and return the manifest.

        Without ``manifest`` the dump stays incomplete, as it looks while Heap is writing it.
        """
        dump = {
            "dump_id": dump_id,
            "tables": [self._table(dump_id, table) for table in tables],
            "property_definitions": f"s3://{self.name}/sync_{dump_id}/property_definitions.json",
        }
        self._put(f"sync_{dump_id}/property_definitions.json", b"{}")
        if manifest:
            self._put(f"manifests/sync_{dump_id}.json", json.dumps(dump).encode())
        return dump

    def _table(self, dump_id: int, table: DumpTable) -> dict[str, Any]:
        files = []
        for part, rows in enumerate(_pieces(table.rows, table.rows_per_file)):
            key = f"sync_{dump_id}/{table.name}/{table.file_name.format(part=part, id=uuid.uuid4())}"
            self._put(key, avro_file(table.columns, rows, table.required))
            files.append(f"s3://{self.name}/{key}")
        columns = list(table.columns)
        return {"name": table.name, "columns": columns, "files": files, "incremental": table.incremental}

    def _put(self, key: str, content: bytes) -> None:
        import fsspec

        address = f"{self.address.rstrip('/')}/{key}"
        # A bucket that is missing isn't made, a folder is.
        with fsspec.open(address, "wb", auto_mkdir="://" not in address, **self.options) as file:
            file.write(content)


def _pieces(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    remaining = iter(rows)
    yield list(islice(remaining, size))
    while piece := list(islice(remaining, size)):
        yield piece


def avro_file(columns: Mapping[str, AvroType], rows: Iterable[Row], required: frozenset[str] = frozenset()) -> bytes:
    """Return an Avro file, compressed with snappy: plain primitives where required, else unions with null."""
    import fastavro

    fields = [{"name": name, "type": kind if name in required else ["null", kind]} for name, kind in columns.items()]
    schema = fastavro.parse_schema({"type": "record", "name": "topLevelRecord", "fields": fields})
    plain = io.BytesIO()
    fastavro.writer(plain, schema, rows, codec="null", sync_interval=64_000)
    plain.seek(0)
    return _with_snappy(plain)


def _with_snappy(plain: io.BytesIO) -> bytes:
    # fastavro's own snappy needs another package, which pyarrow's makes unnecessary.
    import fastavro
    import pyarrow as pa

    blocks = fastavro.block_reader(plain)
    codec, marker, written = pa.Codec("snappy"), uuid.uuid4().bytes, io.BytesIO()
    meta = {**blocks.metadata, "avro.codec": "snappy"}
    header = {"magic": b"Obj\x01", "meta": {key: text.encode() for key, text in meta.items()}, "sync": marker}
    fastavro.schemaless_writer(written, fastavro.parse_schema(_HEADER), header)
    for block in blocks:
        content = block.bytes_.getvalue()  # type: ignore[attr-defined]
        packed = codec.compress(content, asbytes=True) + zlib.crc32(content).to_bytes(4, "big")
        for number in (block.num_records, len(packed)):
            fastavro.schemaless_writer(written, "long", number)
        written.write(packed + marker)
    return written.getvalue()
