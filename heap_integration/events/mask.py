"""Personal data inside values: e-mail addresses, phone numbers, payment cards, US social security numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from hashlib import blake2b
from typing import Literal, get_args

MaskKind = Literal["email", "phone", "payment_card", "ssn"]
MaskAction = Literal["redact", "hash", "drop"]

MASK_KINDS: tuple[MaskKind, ...] = get_args(MaskKind)

# Separators people write between digits, no-break space and no-break hyphen among them.
_SEPARATORS = " .-/()\u00a0\u2011"
_GAP = "[ .\\-\u00a0\u2011]"
_START = r"(?<![0-9A-Za-z])(?<![0-9]\.)"
_END = r"(?![0-9A-Za-z])(?!\.[0-9])"

# A local part is bounded, so that a long text costs no more than its length. A country's domain may be
# any letters; what ends like a picture's file name (logo@2x.png) or goes on like an SSH address
# (git@github.com:owner) is no e-mail address.
_EMAIL = re.compile(
    r"[\w.+'-]{1,64}(?:@|%40)(?:[\w-]{1,63}\.){1,8}"
    r"(?!(?:png|jpe?g|gif|webp|svg|css|js)\b)[^\W\d_]{2,24}(?![\w-])(?!:[A-Za-z~/])",
    re.IGNORECASE,
)
_CARD = re.compile(
    rf"{_START}(?:[0-9]{{13,19}}"
    rf"|[0-9]{{4}}({_GAP})[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}(?:\1[0-9]{{3}})?"
    rf"|[0-9]{{4}}({_GAP})[0-9]{{6}}\2[0-9]{{4,5}}){_END}"
)
_SSN = re.compile(rf"(?<!-){_START}(?!000|666|9)[0-9]{{3}}([ \-\u2011])(?!00)[0-9]{{2}}\1(?!0000)[0-9]{{4}}{_END}(?!-)")
# A bare run of digits is as likely an order number: a national number needs the grouping of its country.
_PHONE = re.compile(
    rf"(?<![0-9A-Za-z+])(?<![0-9][.-])(?:"
    # E.164, grouped at will
    rf"\+[1-9](?:[ .\-/()\u00a0\u2011]{{0,3}}[0-9]){{8,14}}"
    # the same with the prefix 00
    rf"|00[1-9][0-9]{{0,2}}(?:{_GAP}\(?[0-9]{{2,8}}\)?){{2,5}}"
    # North America
    rf"|(?:1{_GAP})?(?:\([2-9][0-9]{{2}}\){_GAP}?|[2-9][0-9]{{2}}{_GAP})[2-9][0-9]{{2}}{_GAP}[0-9]{{4}}"
    # France, and others in pairs
    rf"|0[1-9](?:{_GAP}[0-9]{{2}}){{4}}"
    # United Kingdom
    rf"|\(?0(?:20|2[3489])\)?{_GAP}[0-9]{{4}}{_GAP}[0-9]{{4}}"
    rf"|\(?01[0-9]{{2,3}}\)?{_GAP}[0-9]{{3}}{_GAP}[0-9]{{3,4}}"
    rf"|07[0-9]{{3}}{_GAP}[0-9]{{3}}{_GAP}?[0-9]{{3}}"
    # Germany, Austria
    rf"|\(?0[1-9][0-9]{{1,4}}\)?[ ]?/[ ]?[0-9]{{2,4}}(?:[ ]?[0-9]{{2,4}}){{1,3}}"
    rf"|01[567][0-9]{{1,2}}{_GAP}[0-9]{{7,8}}"
    rf")(?![0-9A-Za-z])(?![.-][0-9])"
)

_NUMBERS: tuple[tuple[MaskKind, re.Pattern[str]], ...] = (
    ("payment_card", _CARD),
    ("ssn", _SSN),
    ("phone", _PHONE),
)

_DIGITS = bytes(ord("0") if chr(byte).isascii() and chr(byte).isdigit() else ord("x") for byte in range(256))
_DROPPED = _SEPARATORS.encode()
# the shortest of the patterns, a phone number or an SSN, has nine digits
_RUN = b"0" * 9
_SHORTEST_EMAIL = len("a@b.co")
_CARD_DIGITS = range(13, 20)
_LEAST_CARD, _BEYOND_CARDS = 10**12, 10**19
_EAN_DIGITS = 13

_LENGTHS_BY_ISSUER: tuple[tuple[range, int, Collection[int]], ...] = (
    # first digits, how many of them, lengths
    (range(4, 5), 1, (13, 16, 19)),
    (range(51, 56), 2, (16,)),
    (range(2221, 2721), 4, (16,)),
    (range(34, 35), 2, (15,)),
    (range(37, 38), 2, (15,)),
    (range(6011, 6012), 4, range(16, 20)),
    (range(644, 650), 3, range(16, 20)),
    (range(65, 66), 2, range(16, 20)),
    (range(3528, 3590), 4, range(16, 20)),
    (range(62, 63), 2, range(16, 20)),
    (range(300, 306), 3, (14,)),
    (range(36, 37), 2, (14,)),
    (range(38, 40), 2, (14,)),
)


def is_payment_card(digits: str) -> bool:
    """Say whether ``digits`` are a card's: an issuer's prefix and length, and Luhn's checksum.

    Thirteen digits that are a valid EAN are a product's bar code, not one of the old Visa cards.
    """
    issued = any(
        len(digits) in lengths and int(digits[:figures]) in prefixes
        for prefixes, figures, lengths in _LENGTHS_BY_ISSUER
    )
    if not issued or _weighted(digits, double=True) % 10:
        return False
    return len(digits) != _EAN_DIGITS or _weighted(digits, double=False) % 10 != 0


def _weighted(digits: str, *, double: bool) -> int:
    """Return Luhn's sum (every second digit doubled), or EAN's (tripled)."""
    others = (int(digit) for digit in digits[-2::-2])
    seconds = (sum(divmod(2 * digit, 10)) for digit in others) if double else (3 * digit for digit in others)
    return sum(map(int, digits[-1::-2])) + sum(seconds)


class Masker:
    """Finds the ``kinds`` of personal data in values and redacts, hashes or drops them.

    ``redact`` puts ``[email]`` in the place of what was found; ``hash`` a salted hash, the same for
    the same address or number however it is written; ``drop`` gives up the whole value.

    Raises:
        ValueError: ``hash`` without a salt, which anybody could reverse by trying.
    """

    def __init__(self, kinds: Collection[MaskKind], action: MaskAction = "redact", salt: str = "") -> None:
        if action == "hash" and kinds and not salt:
            raise ValueError("masking by hash needs a salt")
        self._action = action
        self._salt = blake2b(salt.encode()).digest()
        self._email = "email" in kinds
        self._cards = "payment_card" in kinds
        self._numbers = [(kind, pattern) for kind, pattern in _NUMBERS if kind in kinds]

    def may_hold(self, text: str) -> bool:
        """Say whether JSON text can hold anything to mask; a no is certain and cheap."""
        if self._email and ("@" in text or "%40" in text or "\\" in text):
            return True
        return bool(self._numbers) and ("\\" in text or _has_run(text))

    def text(self, value: str, notes: list[str]) -> str | None:
        """Return ``value`` masked, ``None`` where it is to be dropped; each find adds ``masked:<kind>``."""
        if len(value) < _SHORTEST_EMAIL:
            return value
        numbers = self._numbers if len(value) >= len(_RUN) and _has_run(value) else ()
        email = self._email and ("@" in value or "%40" in value)
        if not numbers and not email:
            return value
        before = len(notes)
        for kind, pattern in numbers:
            value = pattern.sub(self._replacement(kind, notes), value)
        if email:
            value = _EMAIL.sub(self._replacement("email", notes), value)
        return None if self._action == "drop" and len(notes) > before else value

    def number(self, value: float, notes: list[str]) -> float | str | None:
        """Return ``value`` itself, or in the place of a card's number what ``text`` would."""
        if value < _LEAST_CARD or not self._cards or value % 1:
            return value
        digits = str(int(value)) if value < _BEYOND_CARDS else ""
        if len(digits) not in _CARD_DIGITS or not is_payment_card(digits):
            return value
        return self.text(digits, notes)

    def _replacement(self, kind: MaskKind, notes: list[str]) -> Callable[[re.Match[str]], str]:
        def replace(match: re.Match[str]) -> str:
            text = match[0]
            if kind == "payment_card" and not is_payment_card(_digits(text)):
                return text
            notes.append(f"masked:{kind}")
            if self._action != "hash":
                return f"[{kind}]"
            same = text.replace("%40", "@").casefold() if kind == "email" else _digits(text)
            return blake2b(same.encode(), digest_size=16, key=self._salt).hexdigest()

        return replace


def _has_run(text: str) -> bool:
    return _RUN in text.encode(errors="surrogatepass").translate(_DIGITS, _DROPPED)


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isdigit())
