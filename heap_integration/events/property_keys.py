"""What becomes of the keys of nested properties, found out once for each key in each spot."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import orjson

from heap_integration.events.mask import Masker

# "fewer than 1024 characters"
LONGEST_TEXT = 1023
# What was found out is forgotten beyond about so many bytes: keys may be ids, without end.
_MOST_REMEMBERED = 4_000_000
_PLACE_BYTES, _LEVEL_BYTES = 500, 400

Verdict = Literal["goes", "stays", "leads", "covered"]


class Place(NamedTuple):
    """What becomes of a key.

    ``path`` is its flat key, cut where it is beyond the longest anyway; ``rule`` what rules know it by.
    ``leads`` says that of what is there only something below may go out; ``covered`` that it goes out
    masked, whatever it is. ``notes`` are to be made each time.
    """

    name: str
    path: str
    rule: str
    notes: tuple[str, ...]
    verdict: Verdict


class Level:
    """What is known of the keys of the objects, or of the places of the arrays, that stand in one spot.

    ``paths`` has the flat keys of those of which there is nothing else to say.
    """

    __slots__ = ("allowed", "arrays", "objects", "paths", "places", "prefix", "rule")

    def __init__(self, prefix: str, rule: str, *, allowed: bool) -> None:
        self.prefix = prefix
        self.rule = rule
        self.allowed = allowed
        self.paths: dict[str | int, str] = {}
        self.places: dict[str | int, Place] = {}
        self.objects: dict[str | int, Level] = {}
        self.arrays: dict[str | int, Level] = {}


@dataclass(frozen=True)
class KeyRules:
    """Keys or dotted paths, in any case; an array's places are no part of a path.

    What ``denied`` names stays behind: a key at any depth, a path from the top. What ``covered`` names
    goes out masked as a whole. With ``allowed`` nothing goes out but these top-level keys or paths and
    what is below them.
    """

    denied: frozenset[str] = frozenset()
    covered: frozenset[str] = frozenset()
    allowed: frozenset[str] | None = None

    @classmethod
    def of(cls, denied: Collection[str], covered: Collection[str], allowed: Collection[str] | None) -> Self:
        """Return the rules with everything in small letters."""
        denied, covered = (frozenset(map(str.casefold, names)) for names in (denied, covered))
        return cls(denied, covered, None if allowed is None else frozenset(map(str.casefold, allowed)))

    def verdict(self, level: Level, key: str, path: str) -> Verdict:
        """Return what becomes of a key in small letters, ``path`` included what is above it."""
        if _named(self.denied, level.rule, key, path):
            return "stays"
        if not level.allowed:
            allowed = self.allowed or ()
            if not any(path == name or path.startswith(f"{name}.") for name in allowed):
                return "leads" if any(name.startswith(f"{path}.") for name in allowed) else "stays"
        return "covered" if _named(self.covered, level.rule, key, path) else "goes"

    def marks(self) -> tuple[str, ...]:
        """Return texts of which JSON text in small letters holds one if it has a key that is named."""
        named = self.denied | self.covered
        return tuple({orjson.dumps(name.rsplit(".", 1)[-1])[1:-1].decode() for name in named})


class KeyTree:
    """The keys that were seen, level by level, in bounded memory."""

    def __init__(self, rules: KeyRules, masker: Masker, index: str | None) -> None:
        self._rules = rules
        self._marks = rules.marks()
        self._masker = masker
        self._index = index or ""
        self._forget()

    def top(self) -> Level:
        """Return the level of the properties themselves."""
        if self._remembered > _MOST_REMEMBERED:
            self._forget()
        return self._top

    def place(self, level: Level, key: str | int) -> Place:
        """Return what becomes of a key, or of a place in an array."""
        place = level.places.get(key)
        if place is None:
            place = self._element(level, key) if isinstance(key, int) else self._judged(level, key)
            self._remembered += _PLACE_BYTES + len(place.path) + len(place.rule)
            if self._remembered <= _MOST_REMEMBERED:
                level.places[key] = place
                if place.verdict == "goes" and not place.notes and len(place.path) <= LONGEST_TEXT:
                    level.paths[key] = place.path
        return place

    def below(self, level: Level, key: str | int, kind: type) -> Level:
        """Return the level of what stands under a key: a ``dict``, or a ``list``."""
        known = level.objects if kind is dict else level.arrays
        inner = known.get(key)
        if inner is None:
            place = self.place(level, key)
            prefix = f"{place.path}." if kind is dict else place.path
            inner = Level(prefix, place.rule, allowed=place.verdict == "goes")
            self._remembered += _LEVEL_BYTES + len(prefix)
            if self._remembered <= _MOST_REMEMBERED:
                known[key] = inner
        return inner

    def may_name(self, text: str) -> bool:
        """Say whether JSON text may have a key that a rule names; a no is certain."""
        return bool(self._marks) and any(map(text.casefold().__contains__, self._marks))

    def _forget(self) -> None:
        self._top = Level("", "", allowed=self._rules.allowed is None)
        self._remembered = 0

    def _element(self, level: Level, place: int) -> Place:
        path = level.prefix + self._index.format(place)
        return Place("", path, level.rule, (), "goes" if level.allowed else "leads")

    def _judged(self, level: Level, key: str) -> Place:
        folded = key.casefold()
        rule = (f"{level.rule}.{folded}" if level.rule else folded)[: LONGEST_TEXT + 1]
        verdict = self._rules.verdict(level, folded, rule)
        if verdict == "stays":
            return Place("", "", rule, ("denied",), verdict)
        if not key and not level.prefix:
            return Place("", "", rule, ("dropped:nameless",), "stays")
        notes: list[str] = []
        name = self._masker.text(key, notes)
        if name is None:
            return Place("", "", rule, tuple(notes), "stays")
        return Place(name, (level.prefix + name)[: LONGEST_TEXT + 1], rule, tuple(notes), verdict)


def _named(names: Collection[str], above: str, key: str, path: str) -> bool:
    """Say whether a key is named, or one of the steps that it writes with dots."""
    if key in names or path in names:
        return True
    if "." not in key:
        return False
    ends = (place for place, character in enumerate(path) if character == "." and place > len(above))
    return any(step in names for step in key.split(".")) or any(path[:end] in names for end in ends)
