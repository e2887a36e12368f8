"""Nested properties made flat, in Heap's limits, in the form of a preset."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import orjson

from heap_integration.events.mask import Masker

Preset = Literal["hub", "segment", "rudder", "airbyte"]
TooLong = Literal["cut", "reject"]
Scalar = str | int | float | bool | None

# "fewer than 1024 characters"
LONGEST_TEXT = 1023


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

# where JavaScript turns to exponents: 1e+21 and 1e-7
_LONGEST_INTEGER = 21
_MOST_ZEROS = -6


class Flattener:
    """Makes properties flat.

    Nothing is lost silently: whatever does not reach the result is named in the notes
    (``dropped:null``, ``dropped:empty``, ``dropped:nameless``, ``denied``, ``masked:<kind>``,
    ``key collision``, ``cut:key``, ``cut:value``), once for each time.
    """

    def __init__(
        self,
        form: Form,
        *,
        too_long: TooLong = "reject",
        masker: Masker | None = None,
        denied: Collection[str] = (),
    ) -> None:
        self._form = form
        self._too_long = too_long
        self._masker = masker
        self._denied = frozenset(name.casefold() for name in denied)

    def flatten(self, properties: dict[str, Any], *, scan: bool = True) -> tuple[dict[str, Scalar], list[str]]:
        """Return the flat properties and the notes; ``scan`` off says that there is nothing to mask.

        Objects give dotted keys. Two keys that become the same: the later wins.

        Raises:
            Unfit: a key or value is too long and not to be cut, or the nesting is too deep.
        """
        walk = _Walk(self._form, self._too_long, self._masker if scan else None, self._denied)
        try:
            walk.members(properties, "")
        except (RecursionError, TypeError):
            # orjson gives up on arrays within arrays before Python's stack does
            raise Unfit("the properties are nested too deeply") from None
        return walk.flat, walk.notes


class _Walk:
    """One pass through one event's properties."""

    __slots__ = ("_denied", "_form", "_masker", "_too_long", "flat", "notes")

    def __init__(self, form: Form, too_long: TooLong, masker: Masker | None, denied: frozenset[str]) -> None:
        self.flat: dict[str, Scalar] = {}
        self.notes: list[str] = []
        self._form = form
        self._too_long = too_long
        self._masker = masker
        self._denied = denied

    def members(self, properties: dict[str, Any], prefix: str) -> None:
        for key, value in properties.items():
            name = self._allowed(key, prefix)
            if name is not None:
                self._value(prefix + name, value)

    def _allowed(self, key: str, prefix: str) -> str | None:
        """Return the key to use, ``None`` where the property must not go out."""
        if self._denied and (key.casefold() in self._denied or (prefix + key).casefold() in self._denied):
            self.notes.append("denied")
            return None
        if not key and not prefix:
            self.notes.append("dropped:nameless")
            return None
        return self._masked(key)

    def _value(self, path: str, value: Any) -> None:
        kind = type(value)
        if kind is str:
            text = self._masked(value)
            if text is not None:
                self._put(path, text)
        elif kind is dict:
            if value:
                self.members(value, path + ".")
            else:
                self.notes.append("dropped:empty")
        elif kind is list:
            self._array(path, value)
        elif kind is int or kind is float:
            self._number(path, value)
        else:
            self._word(path, value)

    def _array(self, path: str, array: list[Any]) -> None:
        index = self._form.index
        if index is None:
            text = orjson.dumps(array).decode()
            if self._denied or (self._masker and self._masker.may_hold(text)):
                text = orjson.dumps(self._clean(array, path)).decode()
            self._put(path, text)
            return
        if not array:
            self.notes.append("dropped:empty")
        for place, item in enumerate(array):
            self._value(path + index.format(place), item)

    def _clean(self, node: Any, path: str) -> Any:
        """Return what stands in an array without what must not go out; ``None`` for a dropped value."""
        if isinstance(node, list):
            return [self._clean(item, path) for item in node]
        if isinstance(node, dict):
            names = ((self._allowed(key, f"{path}."), value) for key, value in node.items())
            return {name: self._clean(value, f"{path}.{name}") for name, value in names if name is not None}
        if isinstance(node, str):
            return self._masked(node)
        return self._masked_number(node) if type(node) in (int, float) else node

    def _number(self, path: str, value: float) -> None:
        as_text = self._form.leaves == "text"
        masked = self._masked(js_number(value)) if as_text else self._masked_number(value)
        if masked is not None:
            self._put(path, masked)

    def _word(self, path: str, value: bool | None) -> None:
        leaves = self._form.leaves
        if leaves == "typed":
            self._put(path, value)
        elif value is None and leaves == "plain":
            self.notes.append("dropped:null")
        else:
            self._put(path, "null" if value is None else "true" if value else "false")

    def _put(self, path: str, value: Scalar) -> None:
        if len(path) > LONGEST_TEXT:
            path = self._short("key", path, path)
        if type(value) is str and len(value) > LONGEST_TEXT:
            value = self._short("value", path, value)
        if path in self.flat:
            self.notes.append("key collision")
        self.flat[path] = value

    def _short(self, what: str, path: str, text: str) -> str:
        if self._too_long == "reject":
            raise Unfit(f"the {what} of {path[:80]!r} is longer than the {LONGEST_TEXT} characters Heap takes")
        self.notes.append(f"cut:{what}")
        return text[:LONGEST_TEXT]

    def _masked(self, text: str) -> str | None:
        return self._masker.text(text, self.notes) if self._masker else text

    def _masked_number(self, number: float) -> float | str | None:
        return self._masker.number(number, self.notes) if self._masker else number


def js_number(number: Any) -> str:
    """Return a number as JavaScript writes it: 1, 0.1, 1e+21, 10000000000000000."""
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
