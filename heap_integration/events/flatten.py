"""Nested properties made flat, in Heap's limits, in the form of a preset."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import orjson

from heap_integration.events.mask import Masker
from heap_integration.events.property_keys import LONGEST_TEXT, KeyRules, KeyTree, Level, Place

Preset = Literal["hub", "segment", "rudder", "airbyte"]
TooLong = Literal["cut", "reject"]
Scalar = str | int | float | bool | None


class Unfit(ValueError):
    """Properties that Heap would not take, and that no rule makes fit."""


@dataclass(frozen=True)
class Form:
    """How a preset writes what Heap's flat properties can't hold.

    ``index`` writes an array's place in a key; without it the array becomes one value, its JSON text.
    ``leaves``: ``plain`` keeps numbers, writes booleans as words and leaves out nulls; ``text`` writes
    everything as JavaScript's String() does; ``typed`` keeps everything.
    """

    index: str | None
    leaves: Literal["plain", "text", "typed"]


FORMS: dict[Preset, Form] = {
    "hub": Form(index=None, leaves="plain"),
    "segment": Form(index=".{}", leaves="text"),
    "rudder": Form(index="[{}]", leaves="typed"),
    "airbyte": Form(index=".{}", leaves="typed"),
}

_WORDS: dict[str, dict[bool | None, Scalar]] = {
    "plain": {True: "true", False: "false"},
    "text": {True: "true", False: "false", None: "null"},
    "typed": {True: True, False: False, None: None},
}

_AS_IS: dict[str, Collection[type]] = {
    "plain": frozenset({int, float}),
    "text": (),
    "typed": frozenset({int, float, bool, type(None)}),
}

# the shortest number that can be personal data
_NINE_DIGITS = 10**8

# where JavaScript turns to exponents: 1e+21 and 1e-7
_LONGEST_INTEGER = 21
_MOST_ZEROS = -6
_EXACT_INTEGER = 2**53


class Flattener:
    """Makes properties flat.

    ``denied``, ``covered`` and ``allowed`` are the names of ``KeyRules``. Nothing is lost silently:
    whatever does not reach the result is named in the notes (``dropped:null``, ``dropped:empty``,
    ``dropped:nameless``, ``denied``, ``masked:<kind>``, ``masked:property``, ``key collision``,
    ``cut:key``, ``cut:value``), once for each time.
    """

    def __init__(
        self,
        form: Form,
        *,
        too_long: TooLong = "reject",
        masker: Masker | None = None,
        denied: Collection[str] = (),
        covered: Collection[str] = (),
        allowed: Collection[str] | None = None,
    ) -> None:
        self.form = form
        self.too_long = too_long
        self.masker = masker or Masker(())
        self.keys = KeyTree(KeyRules.of(denied, covered, allowed), self.masker, form.index)

    def flatten(self, properties: dict[str, Any]) -> tuple[dict[str, Scalar], list[str]]:
        """Return the flat properties and the notes.

        Objects give dotted keys. Two keys that become the same: the later wins.

        Raises:
            Unfit: a key or value is too long and not to be cut, or the nesting is too deep.
        """
        top = self.keys.top()
        try:
            walk = _Walk(self, mask=False)
            # Few events hold personal data. To look at all texts at once, and at one after the other
            # only where something was seen, is several times faster.
            if not (walk.through(properties, top) and walk.is_clean()):
                walk = _Walk(self, mask=True)
                walk.members(properties.items(), top)
        except (RecursionError, TypeError):
            # orjson gives up on arrays within arrays before Python's stack does
            raise Unfit("the properties are nested too deeply") from None
        return walk.flat, walk.notes


class _Walk:
    """One pass through one event's properties."""

    __slots__ = ("_as_is", "_cuts", "_index", "_keys", "_mask", "_masker", "_texts", "_words", "flat", "notes")

    def __init__(self, flattener: Flattener, *, mask: bool) -> None:
        leaves = flattener.form.leaves
        self.flat: dict[str, Scalar] = {}
        self.notes: list[str] = []
        self._keys = flattener.keys
        self._cuts = flattener.too_long == "cut"
        self._masker = flattener.masker
        self._mask = mask
        self._index = flattener.form.index
        self._texts = leaves == "text"
        self._words = _WORDS[leaves]
        self._as_is = _AS_IS[leaves] if not mask else ()

    def through(self, properties: dict[str, Any], top: Level) -> bool:
        """Walk through all properties; say whether nothing was too long, as what isn't masked may be."""
        try:
            self.members(properties.items(), top)
        except Unfit:
            return False
        return "cut:value" not in self.notes

    def is_clean(self) -> bool:
        """Say whether no value holds anything to mask."""
        texts = []
        for value in self.flat.values():
            if isinstance(value, str):
                texts.append(value)
            elif value and value >= _NINE_DIGITS and self._masker.number(value, []) is not value:
                return False
        return not self._masker.may_hold("\n".join(texts))

    def members(self, members: Iterable[tuple[str | int, Any]], level: Level) -> None:
        """Walk through an object's members, or an array's with their places.

        The time goes into this loop: it calls nothing for what goes out as it came.
        """
        flat, paths, mask, as_is, words = self.flat, level.paths, self._mask, self._as_is, self._words
        for key, value in members:
            path = paths.get(key)
            kind = type(value)
            if path is None or path in flat:
                self._member(level, key, value)
            elif kind is str:
                if mask or len(value) > LONGEST_TEXT:
                    self._member(level, key, value)
                else:
                    flat[path] = value
            elif kind in as_is:
                flat[path] = value
            elif kind is bool:
                flat[path] = words[value]
            elif kind is dict and value:
                inner = level.objects.get(key) or self._keys.below(level, key, dict)
                self.members(value.items(), inner)
            elif kind is list and (text := self._short_text(value)):
                flat[path] = text
            else:
                self._member(level, key, value)

    def _member(self, level: Level, key: str | int, value: Any) -> None:
        """Do what a member asks for, whatever it is."""
        place = self._kept(level, key, value)
        if place is None:
            return
        kind = type(value)
        if place.verdict == "covered" and value is not None:
            self._put(place.path, self._cover(value))
        elif kind is dict or (kind is list and self._index is not None):
            if not value:
                self.notes.append("dropped:empty")
            members = value.items() if kind is dict else enumerate(value)
            self.members(members, self._keys.below(level, key, kind))
        elif kind is list:
            self._put(place.path, self._array(level, key, place, value))
        elif kind is str:
            self._put(place.path, self._masker.text(value, self.notes) if self._mask else value)
        elif kind is int or kind is float:
            self._put(place.path, self._number(value))
        elif value in self._words:
            self._set(place.path, self._words[value])
        else:
            self.notes.append("dropped:null")

    def _kept(self, level: Level, key: str | int, value: Any) -> Place | None:
        """Return what becomes of a key with this value; ``None``, and a note, where it stays behind."""
        place = self._keys.place(level, key)
        self.notes += place.notes
        if place.verdict == "leads" and not (value and type(value) in (dict, list)):
            self.notes.append("denied")
            return None
        return None if place.verdict == "stays" else place

    def _put(self, path: str, value: Scalar) -> None:
        """Set a property, cut if need be: after the masking, for half an address is no address any more."""
        if type(value) is str and len(value) > LONGEST_TEXT:
            value = self._short("value", path, value)
        if value is not None:
            self._set(path, value)

    def _set(self, path: str, value: Scalar) -> None:
        if len(path) > LONGEST_TEXT:
            path = self._short("key", path, path)
        if path in self.flat:
            self.notes.append("key collision")
        self.flat[path] = value

    def _short(self, what: str, path: str, text: str) -> str:
        if not self._cuts:
            raise Unfit(f"the {what} of {path[:80]!r} is longer than the {LONGEST_TEXT} characters Heap takes")
        self.notes.append(f"cut:{what}")
        return text[:LONGEST_TEXT]

    def _number(self, value: float) -> float | str | None:
        if self._texts:
            text = js_number(value)
            return self._masker.text(text, self.notes) if self._mask else text
        return self._masker.number(value, self.notes) if self._mask else value

    def _short_text(self, array: list[Any]) -> str | None:
        """Return an array's JSON text where that goes out as it is."""
        if self._index is None:
            text = orjson.dumps(array).decode()
            if len(text) <= LONGEST_TEXT and not self._may_hold_back(text):
                return text
        return None

    def _array(self, level: Level, key: str | int, place: Place, array: list[Any]) -> str | None:
        text = orjson.dumps(array).decode()
        whole = place.verdict == "goes"
        if whole and not self._may_hold_back(text):
            return text
        clean = self._clean(level, key, place, array)
        return orjson.dumps(clean).decode() if whole or any(clean) else None

    def _may_hold_back(self, text: str) -> bool:
        return self._keys.may_name(text) or (self._mask and self._masker.may_hold(text))

    def _clean(self, level: Level, key: str | int, place: Place, value: Any) -> Any:
        """Return what stands in an array without what must not go out; ``None`` for a dropped value."""
        kind = type(value)
        if place.verdict == "covered" and value is not None:
            return self._cover(value)
        if kind is dict or kind is list:
            return self._clean_inside(self._keys.below(level, key, kind), value)
        if not self._mask:
            return value
        if kind is str:
            return self._masker.text(value, self.notes)
        return self._masker.number(value, self.notes) if kind is int or kind is float else value

    def _clean_inside(self, level: Level, node: Any) -> Any:
        if type(node) is not dict:
            # one place stands for all of an array: none is named by a rule
            items = ((self._kept(level, 0, item), item) for item in node)
            return [self._clean(level, 0, place, item) for place, item in items if place]
        clean: dict[str, Any] = {}
        for key, value in node.items():
            place = self._kept(level, key, value)
            if place:
                if place.name in clean:
                    self.notes.append("key collision")
                clean[place.name] = self._clean(level, key, place, value)
        return clean

    def _cover(self, value: Any) -> str | None:
        text = value if type(value) is str else orjson.dumps(value).decode()
        return self._masker.cover(text, self.notes)


def js_number(number: Any) -> str:
    """Return a number as JavaScript writes it: 1, 0.1, 1e+21, 10000000000000000."""
    if type(number) is int and -_EXACT_INTEGER <= number <= _EXACT_INTEGER:
        return str(number)
    value = float(number)
    if value == 0:
        return "0"
    sign, figures, exponent = Decimal(repr(value)).normalize().as_tuple()
    digits = "".join(map(str, figures))
    # the place of the decimal point, counted from the first digit
    point = len(digits) + int(exponent)
    if len(digits) <= point <= _LONGEST_INTEGER:
        text = digits.ljust(point, "0")
    elif 0 < point <= _LONGEST_INTEGER:
        text = f"{digits[:point]}.{digits[point:]}"
    elif _MOST_ZEROS < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        text = f"{digits[0]}{fraction}e{point - 1:+d}"
    return f"-{text}" if sign else text
