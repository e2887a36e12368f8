"""The forms of personal data and secrets: what each looks like, and the checks that tell it from its likenesses."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Collection
from ipaddress import AddressValueError, IPv6Address, IPv6Network
from typing import Literal, NamedTuple

import orjson

MaskKind = Literal["email", "phone", "payment_card", "ssn", "ip_address", "iban", "secret"]

# Separators people write between digits, no-break space and no-break hyphen among them.
SEPARATORS = " .-/()\u00a0\u2011"
# the shortest of the numbers, a phone's or an SSN, has nine digits, and so has every bank's account in an IBAN
FEWEST_DIGITS = 9

_GAP = "[ .\\-\u00a0\u2011]"
_SPACE = "[ \\-\u00a0\u2011]"
_TRUNK_GAP = "(?: ?[/\\-\u2011] ?|[ .\u00a0])"
# Where a number begins is told from its first digit on: a pattern that opens with what it looks for is found
# several times as fast as one that opens with what must not stand before it.
_BEGINS = r"(?<![0-9A-Za-z].)(?<![0-9]\..)"
_ENDS = r"(?![0-9A-Za-z])(?!\.[0-9])"

# A country's domain may be any letters; what ends like a picture's file name (logo@2x.png) or goes on
# like a repository (git@github.com:owner/name) is no e-mail address. Nothing here is tried twice from
# the same place, so that a long text costs no more than its length.
_AT_DOMAIN = (
    r"(?:@|%40)(?:[\w-]{1,63}\.){1,8}"
    r"(?!(?:png|jpe?g|gif|webp|svg|css|js)\b)(?:xn--[a-z0-9-]{2,59}|[^\W\d_]{2,24})(?![\w-])"
)
EMAIL = re.compile(
    # addresses that stick together are one find
    rf"(?<![\w.+'-])[\w.+'-]++{_AT_DOMAIN}(?:[\w.+'-]*+{_AT_DOMAIN})*(?!:[\w.~-]{{1,64}}/)",
    re.IGNORECASE,
)
CARD = re.compile(
    rf"[0-9]{_BEGINS}(?:[0-9]{{12,18}}"
    rf"|[0-9]{{3}}({_GAP})[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{1,4}}(?:\1[0-9]{{1,3}})?"
    rf"|[0-9]{{3}}({_GAP})[0-9]{{6}}\2[0-9]{{4,5}}){_ENDS}"
)
_AREA = r"(?<!000)(?<!666)"
SSN = re.compile(
    rf"[0-8](?:(?<!-.){_BEGINS}[0-9]{{2}}{_AREA}([ \-\u2011])(?!00)[0-9]{{2}}\1(?!0000)[0-9]{{4}}{_ENDS}(?!-)"
    # without its hyphens it is any nine digits, unless the text says so
    rf"|(?i:(?<=ssn .)|(?<=ssn:.)|(?<=ssn: .)|(?<=ssn=.))[0-9]{{2}}{_AREA}(?!00)[0-9]{{2}}(?!0000)[0-9]{{4}}{_ENDS})"
)
# A bare run of digits is as likely an order number: a national number needs the grouping of its country,
# or the trunk 0 before the digits of a mobile phone.
_INTERNATIONAL_REST = "(?:[ .\\-/()\u00a0\u2011]{0,3}[0-9]){8,14}"
_AMERICAN = rf"[2-9][0-9]{{2}}{_GAP}[0-9]{{4}}"


def _trunk(gap: str) -> str:
    """Return what follows the trunk 0: an area or a mobile network, ``gap``, groups: nine to twelve digits in all."""
    return "|".join(
        rf"[1-9][0-9]{{{area}}}{gap}[0-9](?:(?:{_TRUNK_GAP}(?=[0-9]{{2}}))?[0-9]){{{6 - area},{9 - area}}}"
        for area in range(1, 5)
    )


PHONE = re.compile(
    r"[+%(0-9](?:(?<![A-Za-z+].)(?:(?<![0-9])|(?<![0-9].)(?<![0-9][.-].))(?:"
    # E.164, grouped at will
    rf"(?:(?<=\+)|(?<=%)2[Bb])[1-9]{_INTERNATIONAL_REST}"
    r"|(?<=0)(?:"
    # the same with the prefix 00
    rf"0{_GAP}?(?=(?:[17]|[2-9][0-9]{{1,2}}){_GAP})[1-9]{_INTERNATIONAL_REST}"
    # France, in pairs
    rf"|[1-9](?P<between>{_GAP})[0-9]{{2}}(?:(?P=between)[0-9]{{2}}){{3}}"
    # Australia, Japan, Italy, the Netherlands
    rf"|[2-8]{_GAP}[0-9]{{4}}{_GAP}[0-9]{{4}}|[26][ -][0-9]{{7,8}}"
    # an area or a mobile network, then groups, unless a sum of money came before; five digits and four are a ZIP code
    rf"|(?<![0-9] .)(?![0-9]{{4}}-[0-9]{{4}}(?![0-9]))(?:{_trunk(_TRUNK_GAP)})"
    # mobile phones without any grouping
    r"|7[1-9][0-9]{8}|1[567][0-9]{8,9}|[4-7][0-9]{8}"
    # India
    r"|[6-9][0-9]{4} [0-9]{5}"
    r")|(?<=\()(?:"
    # North America, Brazil, and those with the trunk 0
    rf"[2-9][0-8][0-9]\){_GAP}?{_AMERICAN}"
    r"|[1-9][1-9]\) ?(?:9[0-9]{4}|[2-5][0-9]{3})-[0-9]{4}"
    rf"|0[2-8]\) ?[0-9]{{4}}{_GAP}[0-9]{{4}}|0(?:{_trunk('[)] ?')})"
    r")|(?<=[1-9])(?:"
    # North America
    rf"(?:(?<=1){_GAP}\(?[2-9]|(?<=[2-9]))[0-8][0-9]\)?{_GAP}{_AMERICAN}"
    # Spain and Italy, unless it goes on like a sum of money
    r"|(?<![0-9] .)(?:(?<=[6-9])[0-9]{2}(?: [0-9]{2}){3}|(?<=[679])[0-9]{2}(?: [0-9]{3}){2}"
    r"|(?<=9)[0-9] [0-9]{3}(?: [0-9]{2}){2}|(?<=3)[2-9][0-9][ /][0-9]{3} ?[0-9]{4})(?! [0-9])"
    # India, Brazil
    r"|(?<=[6-9])[0-9]{4} [0-9]{5}|[1-9] 9[0-9]{4}-[0-9]{4}"
    r"))(?![0-9A-Za-z])(?![.-][0-9])"
    # a link says that it is one
    r"|(?<=tel:[0-9])(?:[.\-]?[0-9]){8,14}(?![0-9A-Za-z]))"
)

# Numbers up to 999 and what may not stand around them are for the check.
IPV4 = re.compile(r"[0-9]{1,3}+(?:\.[0-9]{1,3}+){3}")
IPV6 = re.compile(
    r"[0-9A-Fa-f:](?<![0-9A-Za-z:.].)(?:(?<=:)|[0-9A-Fa-f]{0,3}:)(?:[0-9A-Fa-f]{0,4}:){0,6}"
    r"(?::|(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9A-Fa-f]{1,4})"
    r"(?![0-9A-Za-z]|:[0-9A-Fa-f:])"
)

_IBAN_LENGTHS: dict[int, str] = {
    # length: countries, after SWIFT's IBAN registry
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ DZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
SHORTEST_IBAN = min(_IBAN_LENGTHS)
IBAN = re.compile(
    r"[A-Z](?<![0-9A-Z].)[A-Z](?=[0-9]{2})(?:"
    + "|".join(
        rf"(?<={countries.replace(' ', '|')})(?:{_SPACE}?[0-9A-Z]){{{length - 2}}}"
        for length, countries in _IBAN_LENGTHS.items()
    )
    + ")(?![0-9A-Z])",
    re.IGNORECASE | re.ASCII,
)

_SIGN = "[0-9A-Za-z_-]"
SECRET = re.compile(
    # keys and tokens that bear their issuer's sign
    "(?<![0-9A-Za-z])(?:"
    "[spr]k_(?:live|test)_[0-9A-Za-z]{16,}+|gh[pousr]_[0-9A-Za-z]{30,}+|github_pat_[0-9A-Za-z_]{22,}+"
    "|xox[abeoprs]-[0-9A-Za-z-]{16,}+|(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])"
    f"|AIza{_SIGN}{{30,}}+|ya29\\.[0-9A-Za-z_.-]{{20,}}+"
    f"|glpat-{_SIGN}{{20,}}+|npm_[0-9A-Za-z]{{30,}}+|whsec_[0-9A-Za-z+/]{{20,}}+=*+|shp(?:at|ca|ss)_[0-9A-Fa-f]{{32}}"
    f"|SG\\.{_SIGN}{{16,}}+\\.{_SIGN}{{16,}}+|sk-(?:ant|proj|svcacct)-{_SIGN}{{20,}}+"
    # a JSON Web Token of three parts, or encrypted of five
    f"|(?P<header>eyJ{_SIGN}{{15,}}+)\\.{_SIGN}++\\.{_SIGN}*+(?:\\.{_SIGN}++\\.{_SIGN}++)?"
    # what a header calls a bearer's
    r"|(?:[Bb]earer|BEARER) (?=[A-Za-z._~+/-]*+[0-9])[0-9A-Za-z._~+/-]{16,}+=*+"
    r")"
    # the user and the password in an address
    r"|(?<=://)[^\s/?#@:\"'<>]*+:[^\s/?#@\"'<>]++(?=@)"
    # a private key up to its end, or to that of the text
    r"|-----BEGIN (?:[0-9A-Z]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?s:.*?-----END [0-9A-Z ]{0,40}-----|.*)"
)
SHORTEST_SECRET = 20
# The signs alone. Each branch begins with a character that is rare and looks back for the rest, so that the engine
# jumps from one of these characters to the next.
SECRET_SIGN = re.compile(
    r"_(?:(?<=k_)(?:live|test)_|(?<=whsec_)|(?<=gh[pousr]_)|(?<=github_pat_)|(?<=npm_)|(?<=shp(?:at|ca|ss)_))"
    r"|-(?:(?<=sk-)(?:ant|proj|svcacct)-|(?<=glpat-)|----BEGIN )"
    r"|xox|I(?:(?<=AKI)|(?<=ASI))A|Iza(?<=AIza)|ya29\.|SG\.|J(?<=eyJ)|b(?i:earer )|B(?i:earer )"
)

_LENGTHS_BY_ISSUER: tuple[tuple[range, int, Collection[int]], ...] = (
    # first digits, how many of them, lengths
    (range(4, 5), 1, (13, 16, 19)),
    (range(51, 56), 2, (16,)),
    (range(2221, 2721), 4, (16,)),
    (range(34, 35), 2, (15,)),
    (range(37, 38), 2, (15,)),
    (range(6011, 6012), 4, (16,)),
    (range(644, 650), 3, (16,)),
    (range(65, 66), 2, (16,)),
    (range(3528, 3590), 4, (16,)),
    (range(62, 63), 2, range(16, 20)),
    (range(300, 306), 3, (14, 16)),
    (range(36, 37), 2, (14,)),
    (range(38, 40), 2, (14,)),
    # Maestro, Mir
    (range(6759, 6764), 4, range(16, 20)),
    (range(2200, 2205), 4, (16,)),
)
_EAN_DIGITS = 13

# the beginnings that no country code of ITU-T E.164 has
_NO_COUNTRY = ("28", "83", "89")
# of North America, Russia and Kazakhstan, whose codes have one digit
_LONG_WITH_ONE_DIGIT = 11
_NATIONAL_DIGITS = range(9, 13)
_ISBN_DIGITS = 10
_UPC_DIGITS = 12
_ORDER_NUMBER = re.compile("[0-9]{3}(?:-[0-9]{3}){2}|[0-9]{4}(?:-[0-9]{4}){2}")
_ROW = re.compile(r"[0-9] \||\| [0-9]")
_INTERNATIONAL_DIGITS = range(FEWEST_DIGITS, 16)

_SERVICES = ("git@", "hg@", "svn@")
_OCTET = 255
# Around a number of four parts: more of it or of a word, a file's ending, a product (Chrome/), what says version.
_GOES_ON = re.compile(
    r"[0-9A-Za-z]|\.[0-9]|-[A-Za-z]|\.(?:zip|tar|t?gz|exe|msi|dmg|pkg|deb|rpm|whl|jar|dll|so|apk)\b", re.IGNORECASE
)
_WENT_BEFORE = re.compile(
    r"(?:[0-9A-Za-z]|[0-9A-Za-z]\.|[A-Za-z][/_-]"
    r"|(?:version|ver|build|release|firmware|driver|revision|rev|update|sdk)\.?[\"']?[\s:=#]{0,3})\Z",
    re.IGNORECASE,
)
_VERSION_WORD = 16
_NETWORK = re.compile("/[0-9]")
# Addresses with no number above this, or two zeros in the middle, are as rare as such versions are common,
# but for those of one's own network and the resolvers that everybody knows.
_VERSION_LIKE = 31
_LOCAL_NETWORKS = (10, 127)
_RESOLVERS = ("1.1.1.1", "8.8.8.8", "8.8.4.4")
_FIRST_MULTICAST = 224
_FIRST_OF_HOSTS = "0236fF:"
_HOSTS = tuple(
    map(
        IPv6Network,
        ("2000::/3", "fc00::/7", "fe80::/10", "64:ff9b::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "::1/128"),
    )
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


def is_iban(text: str) -> bool:
    """Say whether letters and digits of a country's length are an IBAN: ISO 13616's remainder, a numbered account."""
    account = text[4:] + text[:4]
    remainder = int("".join(str(int(character, 36)) for character in account)) % 97
    return remainder == 1 and re.search(r"[0-9]{9}", text) is not None


def digits_of(text: str) -> str:
    """Return the digits of ``text``."""
    return "".join(character for character in text if character.isdigit())


def compact(text: str) -> str:
    """Return the letters and digits of ``text``, in capitals."""
    return "".join(character for character in text if character.isalnum()).upper()


def _ssn(match: re.Match[str]) -> bool:
    # within a row of numbers it is none
    begin, end = match.span()
    return not (
        match[1] == " " and _ROW.search(f"{match.string[max(0, begin - 2) : begin]}|{match.string[end : end + 2]}")
    )


def _card(match: re.Match[str]) -> bool:
    return is_payment_card(digits_of(match[0]))


def _phone(match: re.Match[str]) -> bool:
    text = match[0]
    digits = digits_of(text)
    if text[0] == "+" or text[0] == "%":
        return _international(digits if text[0] == "+" else digits[1:])
    if digits.startswith("00"):
        return _international(digits[2:])
    if not digits.startswith("0"):
        return True
    if _ORDER_NUMBER.fullmatch(text):
        return False
    return len(digits) in _NATIONAL_DIGITS and not (digits == text and _is_product(digits))


def _is_product(digits: str) -> bool:
    """Say whether the check digit is that of a book's number or of an American bar code."""
    if len(digits) == _ISBN_DIGITS:
        return sum((_ISBN_DIGITS - place) * int(digit) for place, digit in enumerate(digits)) % 11 == 0
    return len(digits) == _UPC_DIGITS and _weighted(digits, double=False) % 10 == 0


def _international(digits: str) -> bool:
    if digits.startswith(("1", "7")):
        return len(digits) == _LONG_WITH_ONE_DIGIT and not digits.startswith(("10", "11", "70"))
    return len(digits) in _INTERNATIONAL_DIGITS and not digits.startswith(_NO_COUNTRY)


def _ipv4(match: re.Match[str]) -> bool:
    text, (begin, end) = match[0], match.span()
    first, second, third, last = parts = [int(part) for part in text.split(".")]
    if max(parts) > _OCTET or not 0 < first < _FIRST_MULTICAST:
        return False
    version_like = max(parts) <= _VERSION_LIKE or second + third == 0
    if version_like and first not in _LOCAL_NETWORKS and text not in _RESOLVERS:
        return False
    before, after = match.string[max(0, begin - _VERSION_WORD) : begin], match.string[end : end + len(".tar0")]
    if _GOES_ON.match(after) or _WENT_BEFORE.search(before):
        return False
    return (last > 0 or _NETWORK.match(after) is not None) and ".".join(map(str, parts)) == text


def _ipv6(match: re.Match[str]) -> bool:
    if match[0][0] not in _FIRST_OF_HOSTS:
        return False
    try:
        address = IPv6Address(match[0])
    except AddressValueError:
        return False
    return any(address in network for network in _HOSTS)


def _iban(match: re.Match[str]) -> bool:
    return is_iban(compact(match[0]))


def _secret(match: re.Match[str]) -> bool:
    header = match["header"]
    if header is None:
        return True
    try:
        return isinstance(orjson.loads(urlsafe_b64decode(header + "=" * (-len(header) % 4))), dict)
    except (NotBase64, orjson.JSONDecodeError):
        return False


def _email(match: re.Match[str]) -> bool:
    return not match[0].startswith(_SERVICES)


class Finder(NamedTuple):
    """A kind of personal data: its pattern, the check of what the pattern finds, and the form that is hashed."""

    kind: MaskKind
    pattern: re.Pattern[str]
    is_one: Callable[[re.Match[str]], bool]
    same: Callable[[str], str]


SECRETS = Finder("secret", SECRET, _secret, str)
NUMBERS = (
    Finder("iban", IBAN, _iban, compact),
    Finder("payment_card", CARD, _card, digits_of),
    Finder("ssn", SSN, _ssn, digits_of),
    Finder("phone", PHONE, _phone, digits_of),
)
IPV4_ADDRESSES = Finder("ip_address", IPV4, _ipv4, str)
IPV6_ADDRESSES = Finder("ip_address", IPV6, _ipv6, lambda text: str(IPv6Address(text)))
EMAILS = Finder("email", EMAIL, _email, lambda text: text.replace("%40", "@").casefold())
