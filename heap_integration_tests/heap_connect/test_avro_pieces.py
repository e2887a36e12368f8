"""Avro files are cut into pieces that are Avro files of the same rows."""

from __future__ import annotations

import io
from pathlib import Path

import fastavro
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_integration.heap_connect.avro_pieces import BrokenFile, cut, unique
from heap_integration.sandbox.dumps import avro_file

ROWS = [{"event_id": number, "word": f"word {number}"} for number in range(20_000)]
FILE = avro_file({"event_id": "long", "word": "string"}, ROWS)


def test_pieces_have_all_rows_in_their_order(tmp_path: Path) -> None:
    pieces = list(cut(io.BytesIO(FILE), tmp_path, 40_000))
    assert len(pieces) == 3
    assert all(piece.path.stat().st_size < 100_000 for piece in pieces)
    read = [row for piece in pieces for row in polars.read_avro(piece.path).to_dicts()]
    assert read == ROWS
    assert [piece.rows for piece in pieces] == [len(polars.read_avro(piece.path)) for piece in pieces]


def test_a_file_without_rows_is_one_piece(tmp_path: Path) -> None:
    (piece,) = cut(io.BytesIO(avro_file({"a": "long"}, [])), tmp_path)
    assert (piece.rows, [field.name for field in piece.fields]) == (0, ["a"])


def test_a_column_of_nothing_has_no_values(tmp_path: Path) -> None:
    file = io.BytesIO()
    schema = {"type": "record", "name": "r", "fields": [{"name": "a", "type": "null"}, {"name": "b", "type": "int"}]}
    fastavro.writer(file, fastavro.parse_schema(schema), [{"a": None, "b": 1}])
    (piece,) = cut(io.BytesIO(file.getvalue()), tmp_path)
    assert [field.has_values for field in piece.fields] == [False, True]


@given(length=st.integers(0, len(FILE) - 1))
def test_a_file_that_ends_too_early_is_broken_or_lacks_whole_blocks(tmp_path: Path, length: int) -> None:
    try:
        rows = sum(piece.rows for piece in cut(io.BytesIO(FILE[:length]), tmp_path))
    except BrokenFile:
        return
    # without a count of its own, a file can't say that a block is missing: this is where one ends
    assert FILE[length - 16 : length] == FILE[-16:]
    assert rows < len(ROWS)


@given(st.binary(max_size=300))
def test_what_is_no_avro_file_is_broken(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BrokenFile):
        list(cut(io.BytesIO(b"Obj\x01" + content), tmp_path))


@given(st.lists(st.text("aAbB_2", min_size=1, max_size=4)))
def test_names_that_differ_in_case_alone_get_numbers(names: list[str]) -> None:
    found = unique(names)
    assert len({name.casefold() for name in found}) == len(names) == len(found)
    assert [a for a, b in zip(names, found, strict=True) if a == b][:1] == names[:1]


@given(names=st.lists(st.text("aÄ_hub2", max_size=90)))
def test_names_can_be_told_apart_by_every_warehouse(names: list[str]) -> None:
    found = unique(names)
    assert len({name.casefold() for name in found}) == len(names)
    assert not any(name.casefold().startswith("_hub_") or len(name.encode()) > 63 for name in found)
