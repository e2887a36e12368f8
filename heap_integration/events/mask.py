"""Masks personal data and secrets in values, by their form or because of the name they stand under."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from hashlib import blake2b
from typing import Literal, get_args

from heap_integration.events.personal_data import (
    EMAILS,
    FEWEST_DIGITS,
    IPV4_ADDRESSES,
    IPV6_ADDRESSES,
    NUMBERS,
    SECRET_SIGN,
    SECRETS,
    SEPARATORS,
    SHORTEST_IBAN,
    SHORTEST_SECRET,
    Finder,
    MaskKind,
    is_payment_card,
)

__all__ = ["MASK_KINDS", "MaskAction", "MaskKind", "Masker"]

MaskAction = Literal["redact", "hash", "drop"]

MASK_KINDS: tuple[MaskKind, ...] = get_args(MaskKind)

_DIGITS = bytes(ord("0") if chr(byte).isascii() and chr(byte).isdigit() else ord("x") for byte in range(256))
# A backslash of JSON may stand before a slash.
_DROPPED = (SEPARATORS + "\\").encode()
_RUN = b"0" * FEWEST_DIGITS
# without their digits, hexadecimal ones too, addresses are rows of dots and colons
_DOTS = bytes(byte if chr(byte) in ".:" else ord("x") for byte in range(256))
_HEXADECIMAL = b"0123456789abcdefABCDEF"
_SHORTEST_IPV6, _SHORTEST = len("::1"), len("a@b.co")
_DOTS_OF_IPV4, _COLONS_OF_IPV6 = 3, 6
_THREE_DOTS, _SEVEN_COLONS = "...", ":::::::"
_REMEMBERED, _REMEMBERED_LENGTH = 4_096, 200
# what stuck to a find may be one itself: ann@example.com+15551234567
_MORE_LOOKS = 3
_CARD_DIGITS = range(13, 20)
_LEAST_CARD, _BEYOND_CARDS = 10**12, 10**19
# Written with an exponent a round number shows too few digits for the first look at an event to see it.
_ROUND = 10_000


class Masker:
    """Finds the ``kinds`` of personal data in values and redacts, hashes or drops them.

    ``redact`` puts ``[email]`` in the place of what was found; ``hash`` a salted hash, the same for
    the same address or number however it is written; ``drop`` gives up the whole value.

    Raises:
        ValueError: ``hash`` without a salt, which anybody could reverse by trying.
    """

    def __init__(self, kinds: Collection[MaskKind], action: MaskAction = "redact", salt: str = "") -> None:
        if action == "hash" and not salt:
            raise ValueError("masking by hash needs a salt")
        self._action = action
        self._salt = blake2b(salt.encode()).digest()
        self._cards = "payment_card" in kinds
        self._email = "email" in kinds
        self._ip = "ip_address" in kinds
        self._secret = "secret" in kinds
        self._numbers = [finder for finder in NUMBERS if finder.kind in kinds]
        self._short_numbers = [finder for finder in self._numbers if finder.kind != "iban"]
        self._at = self._email or self._secret
        # values repeat themselves, and most of them are clean
        self._clean: set[str] = set()
        self._shortest = _SHORTEST_IPV6 if self._ip else _SHORTEST

    def may_hold(self, text: str) -> bool:
        """Say whether JSON text, or values line by line, can hold anything to mask; a no is certain and cheap."""
        if self._at and ("@" in text or ("%" in text and "%40" in text)):
            return True
        if "\\" in text and "\\u" in text:
            return True
        octets = text.encode("utf-8", "surrogatepass")
        return (
            (bool(self._numbers) and _RUN in octets.translate(_DIGITS, _DROPPED))
            or (self._ip and _has_dots(text, octets))
            or (self._secret and SECRET_SIGN.search(text) is not None)
        )

    def text(self, value: str, notes: list[str]) -> str | None:
        """Return ``value`` masked, ``None`` where it is to be dropped; each find adds ``masked:<kind>``."""
        if len(value) < self._shortest or value in self._clean:
            return value
        masked = self._once(value, notes)
        if masked is value:
            self._remember(value)
            return value
        if self._action == "drop":
            return None
        for _ in range(_MORE_LOOKS):
            before, masked = masked, self._once(masked, notes)
            if masked is before:
                break
        return masked

    def number(self, value: float, notes: list[str]) -> float | str | None:
        """Return ``value`` itself, or in the place of a card's number what ``text`` would."""
        if value < _LEAST_CARD or not self._cards or value % 1 or value % _ROUND == 0:
            return value
        digits = str(int(value)) if value < _BEYOND_CARDS else ""
        if len(digits) not in _CARD_DIGITS or not is_payment_card(digits):
            return value
        return self.text(digits, notes)

    def cover(self, text: str, notes: list[str]) -> str | None:
        """Return what stands for a value that is masked because of its name, whatever it holds."""
        notes.append("masked:property")
        if self._action == "drop":
            return None
        return self._hash(text) if self._action == "hash" else "[masked]"

    def _once(self, value: str, notes: list[str]) -> str:
        before, masked = len(notes), value
        for finder in self._worth_trying(value):
            if finder.pattern.search(masked):
                masked = finder.pattern.sub(self._replacement(finder, notes), masked)
        return masked if len(notes) > before else value

    def _worth_trying(self, value: str) -> list[Finder]:
        """Return what ``value`` could hold, in the order in which it is looked for."""
        finders: list[Finder] = []
        length = len(value)
        at = self._at and ("@" in value or ("%" in value and "%40" in value))
        if length < SHORTEST_SECRET and not at and value.isalpha():
            return finders
        octets = value.encode("utf-8", "surrogatepass")
        if self._secret and (at or (length >= SHORTEST_SECRET and SECRET_SIGN.search(value))):
            finders.append(SECRETS)
        if self._numbers and length >= FEWEST_DIGITS and _RUN in octets.translate(_DIGITS, _DROPPED):
            finders += self._numbers if length >= SHORTEST_IBAN else self._short_numbers
        if self._ip:
            if "::" in value or value.count(":") >= _COLONS_OF_IPV6:
                finders.append(IPV6_ADDRESSES)
            if value.count(".") >= _DOTS_OF_IPV4:
                finders.append(IPV4_ADDRESSES)
        if self._email and at:
            finders.append(EMAILS)
        return finders

    def _remember(self, value: str) -> None:
        if len(value) <= _REMEMBERED_LENGTH:
            if len(self._clean) >= _REMEMBERED:
                self._clean.clear()
            self._clean.add(value)

    def _replacement(self, finder: Finder, notes: list[str]) -> Callable[[re.Match[str]], str]:
        def replace(match: re.Match[str]) -> str:
            if not finder.is_one(match):
                return match[0]
            notes.append(f"masked:{finder.kind}")
            return self._hash(finder.same(match[0])) if self._action == "hash" else f"[{finder.kind}]"

        return replace

    def _hash(self, text: str) -> str:
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=self._salt).hexdigest()


def _has_dots(text: str, octets: bytes) -> bool:
    if "::" in text:
        return True
    left = octets.translate(_DOTS, _HEXADECIMAL).decode()
    return _THREE_DOTS in left or _SEVEN_COLONS in left
