"""How many events a CPU-second checks, flattens, masks and keys, beside what anybody would write first.

python benchmarks/prepare.py [--events N] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import orjson

from heap_integration.events.mask import MASK_KINDS
from heap_integration.events.prepare import Prepared, PreparedRow, Preparer, PrepareSettings

BLOCK = 1_000
SETTINGS = PrepareSettings(
    mask=MASK_KINDS,
    deny_properties=("password",),
    mask_properties=("customer.birthday",),
    consent_property="analytics_consent",
)
PUBLISHED = """\
Measured at another time with the projects' own published code, on events of this size and shape, in one process,
reading and writing JSON included: RudderStack's transformer 12,000 to 17,000 events per CPU-second (8,000 to 11,000
over its HTTP interface), Segment's action for Heap 500 to 1,700 with its mapping and validation. Neither masks.
"""

Row = PreparedRow
Contender = Callable[[Row], bytes]

NAMES = ["Order Completed", "Product Viewed", "Checkout Started", "Report Shared", "Plan Changed"]
WORDS = ["invoice", "summer", "report", "board", "winter", "laptop", "garden", "ticket", "coffee", "travel", "studio"]
PERSONAL = [
    "write to ann.lee@example.com please",
    "call +1 (555) 123-4567 now",
    "card 4111 1111 1111 1111",
    "123-45-6789",
]


def made_events(count: int, seed: int) -> Iterator[Row]:
    """Yield events of about 1 KB: 20 leaves or so on three levels, no two alike, every 50th with personal data."""
    dice = random.Random(seed)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(count):
        when = start + timedelta(milliseconds=dice.randrange(2_419_200_000))
        text = when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        context = {
            "library": {"name": "analytics.js", "version": "2.11.1"},
            "userAgent": f"Mozilla/5.0 (X11; Linux x86_64; rv:{dice.randrange(99, 140)}) Gecko/20100101 Firefox/128",
            "locale": "en-GB",
        }
        yield (
            dice.randbytes(16),
            f"ajs-next-{dice.getrandbits(64):016x}",
            "track",
            NAMES[number % len(NAMES)],
            f"user-{dice.randrange(25_000)}",
            f"{dice.getrandbits(64):016x}",
            text,
            orjson.dumps(made_properties(dice, number, text)).decode(),
            "{}",
            orjson.dumps(context).decode(),
            text,
        )


def made_properties(dice: random.Random, number: int, when: str) -> dict[str, Any]:
    """Return nested properties that no other event has."""
    word, other = dice.choice(WORDS), dice.choice(WORDS)
    properties: dict[str, Any] = {
        "order_id": f"ord_{dice.getrandbits(40):010x}",
        "revenue": round(dice.random() * 500, 2),
        "quantity": dice.randrange(1, 9),
        "first_purchase": dice.random() < 0.2,
        "placed_at": when,
        "page": {
            "url": f"https://shop.example.com/{word}/{other}?ref={dice.randrange(100_000)}",
            "title": f"{word} and {other} for every day of the year",
            "utm": {"source": dice.choice(["newsletter", "search", "partner"]), "campaign": f"{word}-{number % 97}"},
        },
        "customer": {
            "plan": dice.choice(["free", "pro", "team"]),
            "seats": dice.randrange(1, 400),
            "address": {"country": dice.choice(["NO", "DE", "US", "FR"]), "city": other.title()},
            "birthday": None,
        },
        "experiment": {"name": f"{other}-test", "variant": dice.choice("ABC"), "weight": dice.random()},
        "products": [
            {"sku": f"SKU-{dice.randrange(9_999)}", "name": f"{word} {place}", "price": 9.5 * place, "quantity": place}
            for place in range(1, 3)
        ],
        "tags": [word, other, "2026"],
        "note": f"{word} {other} {dice.getrandbits(32):08x} delivered to the front door, signed for by a neighbour",
    }
    if number % 5 == 0:
        properties["coupon"] = {"code": f"{word.upper()}{dice.randrange(99)}", "percent": 10, "stackable": False}
    if number % 50 == 0:
        properties["note"] = f"{word}: {dice.choice(PERSONAL)}"
    return properties


def ours() -> Contender:
    """Return the hub's own preparing: all kinds of masking, and a rule of each sort."""
    preparer = Preparer(SETTINGS)

    def prepare(row: Row) -> bytes:
        prepared = preparer.prepare(row)
        assert isinstance(prepared, Prepared), prepared
        return prepared.payload

    return prepare


PATTERNS = {
    "email": re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+"),
    "payment_card": re.compile(r"\b(?:\d[ -]?){13,19}\b"),
    "ssn": re.compile(r"\b\d{3}-\d{2}-\d{4}\b"),
    "phone": re.compile(r"\+?\d[\d ().-]{8,}\d"),
    "ip_address": re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b"),
    "iban": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[0-9A-Z]{4}){3,7}\b"),
    "secret": re.compile(r"\b(?:sk_live_|ghp_|AKIA|eyJ)[\w.-]{16,}"),
}


def naive_mask(text: str) -> str:
    """Put each pattern to a text."""
    for kind, pattern in PATTERNS.items():
        text = pattern.sub(f"[{kind}]", text)
    return text[:1023]


def naive_flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield flat keys and values."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key.lower() not in ("password", "birthday"):
                yield from naive_flat(item, f"{path}.{key}" if path else key)
    elif isinstance(value, bool):
        yield path, str(value).lower()
    elif isinstance(value, str | list):
        yield path, naive_mask(value if isinstance(value, str) else json.dumps(value))
    elif value is not None:
        yield path, value


def naive(row: Row) -> bytes:
    """Do what anybody would write first: json, recursion, each pattern on each value."""
    _, message_id, _, name, user_id, anonymous_id, timestamp, properties, traits, context, _ = row
    if any(json.loads(text).get("analytics_consent") is False for text in (traits, context)):
        raise ValueError("no consent")
    identity = user_id or anonymous_id
    if not identity or len(identity) > 255 or len(name) > 1024:
        raise ValueError("refused")
    when = datetime.fromisoformat(timestamp).astimezone(UTC).isoformat()
    event = {
        "event": name,
        "identity": identity,
        "timestamp": when,
        "properties": dict(naive_flat(json.loads(properties))),
        "idempotency_key": sha256(f"{message_id}{identity}{when}".encode()).hexdigest(),
    }
    return json.dumps(event).encode()


def bare_flat(value: dict[str, Any], path: str, into: dict[str, Any]) -> dict[str, Any]:
    """Return flat keys and values, unchecked."""
    for key, item in value.items():
        if type(item) is dict:
            bare_flat(item, f"{path}{key}.", into)
        else:
            into[path + key] = orjson.dumps(item).decode() if type(item) is list else item
    return into


def bare(row: Row) -> bytes:
    """Do the least that there is to do: orjson in, recursion, orjson out; no check, no masking, no key."""
    event = {
        "event": row[3],
        "identity": row[4],
        "timestamp": row[6],
        "properties": bare_flat(orjson.loads(row[7]), "", {}),
        "idempotency_key": row[1],
    }
    return orjson.dumps(event)


@dataclass
class Lane:
    """One contender and what each round took it, in seconds."""

    name: str
    prepare: Contender
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def run(self, rows: list[Row]) -> None:
        """Prepare some events; the time goes to the round that is on."""
        prepare, cpu, wall = self.prepare, time.process_time(), time.perf_counter()
        for row in rows:
            prepare(row)
        self.cpu[-1] += time.process_time() - cpu
        self.wall[-1] += time.perf_counter() - wall


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=50_000, help="how many events a round")
    parser.add_argument("--rounds", type=int, default=5, help="so many rounds, each with new events")
    options = parser.parse_args()
    lanes = [
        Lane("ours: checked, flat, masked, keyed", ours()),
        Lane("naive: json, recursion, each pattern on each value", naive),
        Lane("bare: orjson and recursion, nothing checked or masked", bare),
    ]
    sample = list(made_events(BLOCK, 0))
    for lane in lanes:
        for row in sample:
            lane.prepare(row)
    for number in range(options.rounds):
        for lane in lanes:
            lane.cpu.append(0.0)
            lane.wall.append(0.0)
        events = made_events(options.events, 1 + number)
        for block in range(options.events // BLOCK):
            rows = [next(events) for _ in range(BLOCK)]
            for place in range(len(lanes)):
                lanes[(block + place) % len(lanes)].run(rows)
    size = statistics.mean(sum(len(str(part)) for part in row[1:]) for row in sample)
    print(f"{options.events:,} events a round, {size:,.0f} characters each; {options.rounds} rounds, interleaved")
    print(f"{'events per CPU-second':<58}{'best':>9}{'median':>9}{'wall s':>9}")
    for lane in lanes:
        speeds = [options.events / seconds for seconds in lane.cpu]
        wall = statistics.median(lane.wall)
        print(f"{lane.name:<58}{max(speeds):>9,.0f}{statistics.median(speeds):>9,.0f}{wall:>9.2f}")
    print(f"peak memory of all together: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB\n")
    print(PUBLISHED, end="")


if __name__ == "__main__":
    main()
