"""A JSON array is cut into its items wherever its text is cut into blocks."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_integration.events.sources import json_array
from heap_integration.events.sources.json_array import Items
from heap_integration.events.sources.streams import Lines

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(alphabet='ab"\\,[]{}ä\n'),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a"\\{', max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def items(text: bytes, block: int) -> tuple[list[bytes | None], str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "_BLOCK", block)
        found = Items(Lines(io.BytesIO(text)))
        return [item for _, item in found], found.damage


@given(
    values=st.lists(JSON, max_size=6), block=st.integers(1, 50), indent=st.sampled_from([None, 1]), escape=st.booleans()
)
def test_any_array_falls_into_its_items(values: list[object], block: int, indent: int | None, escape: bool) -> None:
    found, damage = items(json.dumps(values, indent=indent, ensure_ascii=escape).encode(), block)
    assert [json.loads(item) for item in found if item and item.strip()] == values
    assert damage == ""


@given(text=st.text(alphabet='[]{}",\\: a'), block=st.integers(1, 50))
def test_no_text_makes_it_fail(text: str, block: int) -> None:
    whole = items(b"[" + text.encode(), 1_000)
    assert items(b"[" + text.encode(), block) == whole


class Endless(io.RawIOBase):
    """An array of 50,000 objects of 2 KB, made while it is read."""

    def __init__(self) -> None:
        super().__init__()
        self._parts = self._made()
        self.size = 0

    def _made(self) -> Iterator[bytes]:
        yield b"["
        for _ in range(2_000):
            yield b'{"text": "%s"},\n' % (b"[x]," * 500) * 25
        yield b"{}]"

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = next(self._parts, b"")
        buffer[: len(part)] = part
        self.size += len(part)
        return len(part)


def test_a_large_array_takes_the_memory_of_an_item() -> None:
    stream = Endless()
    found = Items(Lines(stream))  # type: ignore[arg-type]
    tracemalloc.start()
    count = sum(1 for _ in found)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (count, found.damage) == (50_001, "")
    assert stream.size > 100_000_000
    assert peak < 2_000_000


def test_an_item_that_is_too_long_is_passed_over() -> None:
    long = b'{"text": "' + b'\\"[' * 3_000_000 + b'"}'
    found, damage = items(b"[" + long + b', {"a": 1},' + long + b"]", 1 << 17)
    assert (found, damage) == ([None, b' {"a": 1}', None], "")
