"""Personal data is found by its form, and only that; `pii_corpus.csv` says what is what."""

from __future__ import annotations

import csv
import gzip
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, get_args
from uuid import UUID

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from heap_integration.environment_settings import PersonalData, Privacy
from heap_integration.events.mask import MASK_KINDS, Masker
from heap_integration.events.personal_data import is_payment_card

CORPUS = Path(__file__).with_name("pii_corpus.csv")
PAGE = Path(__file__).parents[2] / "docs" / "privacy.md"
# Keys are kept in two pieces: whoever searches repositories for leaked ones takes these for leaked.
BREAK = "¦"
# precision and recall of each part, and of each kind in it
FLOORS = {"tuned": (0.99, 0.99), "held_out": (0.99, 0.97)}
LEAST_OF_A_KIND = (0.98, 0.94)
FORMS_OF_TIME = (
    *("%d.%m.%Y %H:%M", "%d.%m.%y %H.%M", "%d-%m-%Y %H-%M-%S", "%m/%d/%Y %I:%M %p"),
    *("%Y%m%d%H%M%S", "%Y%m%d %H%M%S", "%a, %d %b %Y %H:%M:%S GMT", "%d/%b/%Y:%H:%M:%S +0000"),
)
# what a person reading along would call slow, and less than a hundredth of what a quadratic pattern takes
LONG, LONG_SECONDS = 100_000, 0.3


class Labelled(NamedTuple):
    """A value, what it is, and which part of the corpus it belongs to."""

    part: str
    kind: str
    what: str
    value: str


def corpus() -> list[Labelled]:
    with CORPUS.open(encoding="utf-8", newline="") as file:
        return [Labelled(**row | {"value": row["value"].replace(BREAK, "")}) for row in csv.DictReader(file)]


VALUES = corpus()
POSITIVE = [one.value for one in VALUES if one.kind != "none"]
PIECES = st.lists(
    st.sampled_from([one.value for one in VALUES])
    | st.text('0123456789+-./ @:_%()abcdefABCDEFghIJkpxz\\"\n\u00a0\u2011é\U0001f600', max_size=20)
    | st.text(max_size=5),
    max_size=4,
).map("".join)


def found(value: str, masker: Masker | None = None) -> set[str]:
    """Return the kinds that are found in ``value``."""
    notes: list[str] = []
    (masker or Masker(MASK_KINDS)).text(value, notes)
    return {note.removeprefix("masked:") for note in notes}


@pytest.mark.parametrize("part", ["tuned", "held_out"])
def test_the_corpus_is_told_apart(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    right, wrongly, missed = Counter[str](), Counter[str](), Counter[str]()
    wrong = []
    for one in VALUES:
        if one.part == part:
            kinds, expected = found(one.value), {one.kind} - {"none"}
            right.update(kinds & expected)
            wrongly.update(kinds - expected)
            missed.update(expected - kinds)
            if kinds != expected:
                wrong.append(f"{one.value!r} ({one.kind}: {one.what}) was taken for {sorted(kinds) or 'nothing'}")
    precision = {kind: right[kind] / (right[kind] + wrongly[kind]) for kind in MASK_KINDS}
    recall = {kind: right[kind] / (right[kind] + missed[kind]) for kind in MASK_KINDS}
    overall = right.total() / (right.total() + wrongly.total()), right.total() / (right.total() + missed.total())
    with capsys.disabled():
        print(f"\n{part}: precision {overall[0]:.3f}, recall {overall[1]:.3f}")
        for kind in MASK_KINDS:
            print(f"  {kind:12} {right[kind]:3} found, precision {precision[kind]:.3f}, recall {recall[kind]:.3f}")
    least = FLOORS[part]
    assert overall[0] >= least[0], "\n".join(wrong)
    assert overall[1] >= least[1], "\n".join(wrong)
    assert min(precision.values()) >= LEAST_OF_A_KIND[0], "\n".join(wrong)
    assert min(recall.values()) >= LEAST_OF_A_KIND[1], "\n".join(wrong)


def test_the_corpus_is_large_and_holds_every_kind() -> None:
    assert set(MASK_KINDS) == set(get_args(PersonalData))
    by_kind = Counter(one.kind for one in VALUES)
    assert len(VALUES) == len({one.value for one in VALUES}) > 450
    assert by_kind["none"] > 300
    assert all(by_kind[kind] >= 20 for kind in MASK_KINDS)


def test_the_page_on_privacy_tells_of_this_corpus_and_these_kinds() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"(?m)^\| `(\w+)` \| .* \| .* \|$", page.partition("###")[0]) == list(MASK_KINDS)
    none = sum(one.kind == "none" for one in VALUES)
    assert f"{len(VALUES)} labelled values, {len(VALUES) - none} of a kind and {none} that only look like one" in page
    Privacy.model_validate(YAML(typ="safe").load(page.split("```yaml")[1].partition("```")[0])["privacy"])


# from 2001, when seconds had ten digits, to the end of 2038
@given(st.integers(10**15, 2_177_452_799_999_999), st.uuids(), st.binary(min_size=16))
def test_no_time_or_hash_is_taken_for_personal_data(microseconds: int, uuid: UUID, digest: bytes) -> None:
    times = [str(microseconds * 1_000 // unit) for unit in (1, 1_000, 1_000_000, 1_000_000_000)]
    moment = datetime.fromtimestamp(microseconds / 1_000_000, UTC)
    written = [moment.isoformat(), str(moment), *map(moment.strftime, FORMS_OF_TIME)]
    assert not [text for text in (*times, *written, str(uuid), digest.hex()) if found(text)]


def test_a_card_is_found_as_a_json_number_and_a_time_is_not() -> None:
    masker = Masker(MASK_KINDS)
    assert masker.number(4111111111111111, []) == masker.number(4111111111111111.0, []) == "[payment_card]"
    plain = [1604188995199, 1604188995199688, 1604188995199688123, 4006381333931, 4.2e15, 1e300, 0.5, -5]
    assert [masker.number(number, []) for number in plain] == plain
    assert Masker(["email"]).number(4111111111111111, []) == 4111111111111111


def test_few_random_numbers_pass_for_cards() -> None:
    passed = sum(is_payment_card(str(number)) for number in range(10**15, 10**16, 10**11 + 7))
    assert passed / 90_000 < 0.04


def test_what_stands_around_a_find_stays() -> None:
    masker = Masker(MASK_KINDS)
    told = {
        "from ann@example.com, 203.0.113.7:8080": "from [email], [ip_address]:8080",
        "203.0.113.0/24": "[ip_address]/24",
        "https://ann:hunter2@example.com/x": "https://[secret]@example.com/x",
        "Authorization: Bearer 0123456789abcdef0123": "Authorization: [secret]",
        "IBAN DE89 3704 0044 0532 0130 00, thanks": "IBAN [iban], thanks",
        "fe80::1%eth0": "[ip_address]%eth0",
    }
    assert {value: masker.text(value, []) for value in told} == told


def test_only_what_was_asked_for_is_masked() -> None:
    text = "ann@example.com +1 (555) 123-4567 203.0.113.7"
    assert Masker(["phone"]).text(text, []) == "ann@example.com [phone] 203.0.113.7"
    assert Masker([]).text(text, []) == text
    for kind in MASK_KINDS:
        assert {kind} >= set().union(*(found(value, Masker([kind])) for value in POSITIVE))


def test_a_hash_is_the_same_however_the_value_is_written_and_another_with_another_salt() -> None:
    masker, other = Masker(MASK_KINDS, "hash", "one"), Masker(MASK_KINDS, "hash", "two")
    alike = [
        ("4111 1111 1111 1111", "4111111111111111"),
        ("ANN@example.com", "ann%40example.com"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("DE89 3704 0044 0532 0130 00", "de89370400440532013000"),
        ("+1 (555) 123-4567", "+1.555.123.4567"),
    ]
    for one, another in alike:
        hashed = masker.text(one, [])
        assert hashed is not None
        assert len(hashed) == 32
        assert hashed == masker.text(another, []) != other.text(one, [])
    with pytest.raises(ValueError, match="salt"):
        Masker(MASK_KINDS, "hash")


def test_dropping_gives_up_the_whole_value() -> None:
    notes: list[str] = []
    assert Masker(MASK_KINDS, "drop").text("from ann@example.com", notes) is None
    assert notes == ["masked:email"]


def test_a_value_is_covered_because_of_its_name_whatever_it_holds() -> None:
    notes: list[str] = []
    assert Masker([]).cover("Ann", notes) == "[masked]"
    assert Masker([], "drop").cover("Ann", notes) is None
    one, other = (Masker(["email"], "hash", salt).cover("Ann", notes) for salt in ("one", "two"))
    assert one is not None
    assert len(one) == 32
    assert one != other
    assert notes == ["masked:property"] * 4


def test_no_letter_of_what_was_masked_remains() -> None:
    for value in POSITIVE:
        notes: list[str] = []
        masked = Masker(MASK_KINDS).text(value, notes)
        if len(notes) != 1 or masked is None:
            continue
        before, after = masked.split(f"[{notes[0].removeprefix('masked:')}]")
        core = value[len(before) : len(value) - len(after)]
        assert value == before + core + after
        assert len(core) >= 3
        assert core not in (Masker(MASK_KINDS).text(f"{value}\n{value}, {value}", []) or "")


@given(PIECES)
def test_masking_twice_is_masking_once(value: str) -> None:
    for masker in (Masker(MASK_KINDS), Masker(MASK_KINDS, "hash", "salt")):
        once = masker.text(value, [])
        assert once is not None
        notes: list[str] = []
        assert masker.text(once, notes) == once
        assert notes == []


@given(
    st.lists(PIECES, min_size=1, max_size=3), st.integers() | st.floats(allow_nan=False), st.sampled_from(MASK_KINDS)
)
def test_the_first_look_never_misses_what_the_second_would_mask(values: list[str], number: float, kind: str) -> None:
    for masker in (Masker(MASK_KINDS), Masker([kind])):  # type: ignore[list-item]
        notes: list[str] = []
        for value in values:
            masker.text(value, notes)
        if notes:
            assert masker.may_hold("\n".join(values))
            assert masker.may_hold(json.dumps({"a": values}))
            assert masker.may_hold(json.dumps([{value: 1} for value in values], ensure_ascii=False))
        if masker.number(number, []) != number:
            assert masker.may_hold(json.dumps(number))


@given(st.integers(12, 18), st.integers(0, 10**19))
def test_the_first_look_sees_cards_among_numbers(digits: int, number: int) -> None:
    masker = Masker(["payment_card"])
    card = next(
        n for n in range(4 * 10**digits + number % 10**digits, 10**19) if is_payment_card(str(n)) or n % 100 == 0
    )
    for written in (card, float(card)):
        if masker.number(written, []) != written:
            assert masker.may_hold(json.dumps({"n": written}))


@pytest.mark.parametrize(
    "piece",
    [
        *("a", "a.", "a@", "a@b.", "@", "%40", "b.", "a@b.co:x"),
        *("1", "1 ", "+1", "+1-", "1-", "0", "01 ", "(0", "0049 ", "555-", "12 34 ", "tel:1", "%2B1", "61 2 "),
        *("4111 ", "4111111111111112 ", "123-45-", "ssn:1"),
        *("1.", "1.1.1.", "300.1.2.3 ", ":", "::", "a:", "1::", "ffff:", "1.2.3.4:"),
        *("DE", "DE12", "DE12 ", "DE89370400440532013000", "d1 "),
        *(
            "eyJ",
            "eyJ.",
            "eyJhbGciOiJub25lIn0.",
            "eyJhbGciOiJub25lIn0.a.b ",
            "sk_live_",
            "ghp_",
            "SG.",
            "SG.aaaaaaaaaaaaaaaaaaaa.",
        ),
        *(
            "bearer ",
            "bearer a",
            "://",
            "://a:",
            "://a:b",
            "-----BEGIN ",
            "-----BEGIN PRIVATE KEY-----",
            "AIza",
            "ya29.",
        ),
    ],
)
def test_a_long_text_costs_no_more_than_its_length(piece: str) -> None:
    for text in (piece * (LONG // len(piece)), "@ 123456789 sk_live_ ::..." + piece * (LONG // len(piece)) + "@!"):
        began = time.process_time()
        Masker(MASK_KINDS).text(text, [])
        assert time.process_time() - began < LONG_SECONDS


def leaves(node: Any) -> Iterator[str]:
    """Yield every text within JSON, numbers as they are written, without the names of members."""
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from leaves(child)
    elif node is not None and not isinstance(node, bool):
        yield str(node)


@pytest.mark.parametrize(
    ("data", "most"),
    [
        ("ga4_merch_store_events/ga4_events.jsonl.gz", {}),
        ("stackexchange_activity/events.parquet", {}),
        ("retentioneering_ecom_synthetic/ecom_25000users_seed7.parquet", {}),
        # commits and fork descriptions hold addresses of people and of machines; one hostname looks like both
        ("github_events/2021-07-21-few-hours.jsonl.gz", {"email": 800, "ip_address": 5}),
        ("github_events/githubActivities-2016-07-07.jsonl.gz", {"email": 2_250, "ip_address": 5}),
        # add-ons are named like e-mail addresses, and pings tell resolvers
        ("mozilla_telemetry_pings/pings.jsonl.gz", {"email": 300, "ip_address": 15}),
    ],
)
def test_real_events_are_not_taken_for_personal_data(
    shared: Callable[[str], Path], data: str, most: dict[str, int]
) -> None:
    path = shared(f"data/{data}")
    masker = Masker(MASK_KINDS)
    notes: list[str] = []
    for event in rows(path):
        for value in leaves(event):
            masker.text(value, notes)
    counts = Counter(note.removeprefix("masked:") for note in notes)
    assert set(counts) <= set(most), counts
    assert all(counts[kind] <= most[kind] for kind in counts), counts


def rows(path: Path) -> list[Any]:
    """Return the first events of a file."""
    if path.suffix == ".parquet":
        first: list[Any] = pq.read_table(path).slice(0, 3_000).to_pylist()
        return first
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(3_000), strict=False)]
