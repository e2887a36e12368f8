"""The items of a JSON array that is too large to be held."""

from __future__ import annotations

import re
from collections.abc import Iterator

from heap_integration.events.sources.streams import LONGEST_LINE, Lines

_BLOCK = 1 << 17
# Each goes over what stands between two marks in one step, strings included, and never back. An opening
# quote is a mark only where the block ends before the closing one.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_BETWEEN_ITEMS = re.compile(rb'[^"{}\[\],]*+(?:' + _STRING + rb'[^"{}\[\],]*+)*+([{}\[\],"]|\Z)', re.DOTALL)
_IN_ITEM = re.compile(rb'[^"{}\[\]]*+(?:' + _STRING + rb'[^"{}\[\]]*+)*+([{}\[\]"]|\Z)', re.DOTALL)
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+("|\\?\Z)', re.DOTALL)


class Items:
    """The numbered items of one JSON array, the first is 1, each as its text.

    ``None`` stands for an item longer than 5 MB, which is passed over without being held in memory.
    ``damage`` says after the last item what is wrong with the file, if anything; an unfinished item is left
    out. ``number`` is that of the last item given.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._problem = ""
        self._depth = 0
        self._in_string = False
        # from the item's first byte on, searched up to the position
        self._text = b""
        self._start = self._position = 0
        self._too_long = False
        self.number = 0

    @property
    def damage(self) -> str:
        """Return what is wrong with the file, empty where nothing is."""
        return self._lines.damage or self._problem

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        while block := self._lines.read(_BLOCK):
            self._text = self._text[self._start :] + block
            self._position -= self._start
            self._start = 0
            while found := self._next_mark():
                if self._ends_item(found):
                    self.number += 1
                    yield self.number, None if self._too_long else self._text[self._start : self._position - 1]
                    self._start, self._too_long = self._position, False
                if self._depth == 0:
                    self._end()
                    return
            if self._too_long or len(self._text) - self._start > LONGEST_LINE:
                self._too_long = True
                self._start = self._position
        self._problem = "the JSON array is not closed"

    def _next_mark(self) -> bytes:
        """Go to the next comma, bracket or quote; empty at the end of the text."""
        pattern = _IN_STRING if self._in_string else _BETWEEN_ITEMS if self._depth == 1 else _IN_ITEM
        match = pattern.match(self._text, self._position)
        if match is None or match[1] == b"\\":
            # what a backslash at the end hides comes with the next block
            self._position = len(self._text) - (match is not None)
            return b""
        self._position = match.end()
        return match[1]

    def _ends_item(self, mark: bytes) -> bool:
        if mark == b'"':
            self._in_string = not self._in_string
        elif mark == b",":
            return True
        elif mark in b"{[":
            self._depth += 1
            if self._depth == 1:
                self._start = self._position
        else:
            self._depth -= 1
            return self._depth == 0
        return False

    def _end(self) -> None:
        rest = self._text[self._position :]
        while not rest or rest.isspace():
            rest = self._lines.read(_BLOCK)
            if not rest:
                return
        self._problem = "the JSON array ends, and more follows"
