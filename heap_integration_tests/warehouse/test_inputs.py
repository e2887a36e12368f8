"""Of files it is kept which versions were seen, so that only what is new has to be looked at."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.inputs import (
    FileNote,
    Found,
    Version,
    changed_files,
    finish_inputs,
    note_files,
    origins_of,
    reached_lines,
    waiting_files,
)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(f"duckdb:///{tmp_path}/warehouse.duckdb")


def note(
    warehouse: Warehouse, name: str, stamp: str, found: Found, *, rules: str = "r", source: str = "shop", end: int = 0
) -> None:
    """Note a version whose content is named after its stamp, as wholly loaded where it has an ``end``."""
    content = f"content of {stamp}"
    with warehouse.write() as con:
        note_files(con, source, rules, [FileNote(name, stamp, 10, content, f"{content}-{rules}", 3, found)])
        if end:
            finish_inputs(con, [(name, f"{content}-{rules}", end)])


def waiting(warehouse: Warehouse, *listed: tuple[str, str], rules: str = "r", source: str = "shop") -> list[int]:
    with warehouse.read() as con:
        return [each.place for each in waiting_files(con, source, rules, listed)]


def test_a_version_is_done_with_once_it_is_wholly_loaded(warehouse: Warehouse) -> None:
    listed = ("a", "1"), ("b", "1b"), ("c", "1")
    assert waiting(warehouse) == []
    assert waiting(warehouse, *listed) == [0, 1, 2]
    note(warehouse, "a", "1", "new", end=5)
    note(warehouse, "b", "1b", "new")
    assert waiting(warehouse, *listed) == [1, 2]
    assert waiting(warehouse, ("a", "2")) == [0]
    assert waiting(warehouse, ("a", "1"), rules="other") == [0]
    assert waiting(warehouse, ("a", "1"), source="other") == [0]


def test_what_is_known_of_a_waiting_file_saves_reading_it(warehouse: Warehouse) -> None:
    note(warehouse, "a", "1", "new", end=5)
    note(warehouse, "a", "2", "grown")
    with warehouse.read() as con:
        second, third, new = waiting_files(con, "shop", "r", [("a", "2"), ("a", "3"), ("b", "1")])
        (other,) = waiting_files(con, "shop", "other", [("a", "1")])
    assert (second.content, second.after_line, second.found) == ("content of 2", 3, "grown")
    assert (third.content, third.known_name) == (None, True)
    assert third.latest == Version(10, "content of 1", 5)
    assert (new.content, new.known_name, new.latest) == (None, False, None)
    # the content is the same by other rules, how far it was read isn't
    assert (other.content, other.after_line, other.latest) == ("content of 1", 0, None)


def test_only_changes_are_kept_of_what_a_file_was(warehouse: Warehouse) -> None:
    for stamp, found in (
        ("1", "new"),
        ("2", "grown"),
        ("3", "known"),
        ("4", "changed"),
        ("5", "grown"),
        ("6", "grown"),
    ):
        note(warehouse, "a", stamp, found, end=5)  # type: ignore[arg-type]
    with warehouse.read() as con:
        assert con.execute("select stamp from input_files order by 1").fetchall() == [("1",), ("4",), ("6",)]
        (changed,) = changed_files(con)
        assert (changed.source, changed.name, changed.new_events) == ("shop", "a", 0)
        assert changed_files(con, "other") == []
        assert changed_files(con, since=changed.seen_at) == [changed]
        assert changed_files(con, since=changed.seen_at + timedelta(seconds=1)) == []
    assert isinstance(changed.seen_at, datetime)


def test_inputs_of_one_name_are_told_apart_by_their_content(warehouse: Warehouse) -> None:
    note(warehouse, "part-0", "1", "new", end=5)
    with warehouse.read() as con:
        names = {"content of 1-r": "part-0", "22222222-r": "part-0", "33333333-r": "part-1", "44444444-r": "part-1"}
        assert origins_of(con, names) == {
            "content of 1-r": "part-0",
            "22222222-r": "part-0#22222222",
            "33333333-r": "part-1",
            "44444444-r": "part-1#44444444",
        }
        assert reached_lines(con, ["content of 1-r", "22222222-r"]) == {"content of 1-r": None}
