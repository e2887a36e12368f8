"""Personal data is found by its form; order numbers, times and bar codes are left alone."""

from __future__ import annotations

import json

import pytest

from heap_integration.events.mask import MASK_KINDS, Masker, is_payment_card

POSITIVE = {
    "email": [
        "ann.lee@example.com",
        "Write to Ann.Lee+news@mail.example.co.uk, please",
        "https://example.com/reset?email=ann%40example.com&x=1",
        "mailto:o'brien@example.org",
        "jörg@müller.de",
    ],
    "phone": [
        "+15551234567",
        "+1 (555) 123-4567",
        "call +49 30 1234567 now",
        "+44 20 7946 0958",
        "+33-1-23-45-67-89",
        "0049 30 1234567",
        "(555) 234-5678",
        "555-234-5678",
        "555.234.5678",
        "1-555-234-5678",
        "01 23 45 67 89",
        "020 7946 0958",
        "(020) 7946 0958",
        "01632 960 983",
        "07911 123456",
        "030/1234567",
        "0171 1234567",
        "+1\u00a0555\u00a0234\u00a05678",
    ],
    "payment_card": [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "card 12 4111 1111 1111 1111",
        "5555555555554444",
        "2223003122003222",
        "378282246310005",
        "3782 822463 10005",
        "6011111111111117",
        "3530111333300000",
        "6200000000000005",
        "30569309025904",
        "4222222222222",
    ],
    "ssn": ["123-45-6789", "SSN: 123 45 6789.", "(123-45-6789)"],
}

NEGATIVE = [
    # times, as text
    "1604188995199",
    "1604188995199688",
    "1604188995199688123",
    "2024-01-01 08:40:41",
    "2024-01-01T08:40:41.123456Z",
    "20240101084041",
    "01.02.2024 10:30",
    # order, invoice, parcel and part numbers
    "ORD-2024-000123",
    "order 1234567890",
    "5551234567",
    "111-2345678-1234567",
    "1Z999AA10123456784",
    "INV/2024/00012345",
    "978-3-16-148410-0",
    "4006381333931",
    "4111111111111112",
    "411111111111111",
    "4111111111111111222",
    "SKU-123-45-67890",
    "900-12-3456",
    "000-12-3456",
    "123-00-4567",
    # ids and hashes
    "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
    "a4111111111111111b",
    "46173767.7418972312",
    "sess_119296",
    # numbers
    "0.4111111111111111",
    "192.168.100.100",
    "10.15.7.4240",
    "+1234567",
    "3.14159265358979",
    # not addresses
    "git@github.com:owner/repo.git",
    "logo@2x.png",
    "@handle",
    "left-pad@1.3.0",
    "a @ b.com",
]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in POSITIVE.items() for text in texts])
def test_it_is_found(kind: str, text: str) -> None:
    masker = Masker(MASK_KINDS)
    notes: list[str] = []
    masked = masker.text(text, notes)
    assert notes == [f"masked:{kind}"]
    assert masked is not None
    assert f"[{kind}]" in masked
    assert masker.may_hold(json.dumps({"a": text}, ensure_ascii=False))


@pytest.mark.parametrize("text", NEGATIVE)
def test_it_is_left_alone(text: str) -> None:
    notes: list[str] = []
    assert Masker(MASK_KINDS).text(text, notes) == text
    assert notes == []


def test_a_card_is_found_as_a_json_number_and_a_time_is_not() -> None:
    masker = Masker(MASK_KINDS)
    assert masker.number(4111111111111111, []) == masker.number(4111111111111111.0, []) == "[payment_card]"
    assert [masker.number(number, []) for number in (1604188995199, 1604188995199688, 4006381333931, -5)] == [
        1604188995199,
        1604188995199688,
        4006381333931,
        -5,
    ]
    assert Masker(["email"]).number(4111111111111111, []) == 4111111111111111


def test_few_random_numbers_pass_for_cards() -> None:
    passed = sum(is_payment_card(str(number)) for number in range(10**15, 10**16, 10**11 + 7))
    assert passed / 90_000 < 0.04


def test_only_what_was_asked_for_is_masked() -> None:
    text = "ann@example.com +1 (555) 123-4567"
    assert Masker(["phone"]).text(text, []) == "ann@example.com [phone]"
    assert Masker([]).text(text, []) == text


def test_a_hash_is_the_same_however_the_value_is_written_and_another_with_another_salt() -> None:
    masker = Masker(MASK_KINDS, "hash", "one")
    spaced, plain = (masker.text(card, []) for card in ("4111 1111 1111 1111", "4111111111111111"))
    assert spaced == plain
    assert plain is not None
    assert len(plain) == 32
    assert plain != Masker(MASK_KINDS, "hash", "two").text("4111111111111111", [])
    assert masker.text("ANN@example.com", []) == masker.text("ann@example.com", [])
    with pytest.raises(ValueError, match="salt"):
        Masker(MASK_KINDS, "hash")


def test_dropping_gives_up_the_whole_value() -> None:
    notes: list[str] = []
    assert Masker(MASK_KINDS, "drop").text("from ann@example.com", notes) is None
    assert notes == ["masked:email"]


def test_a_long_text_costs_no_more_than_its_length() -> None:
    for text in ("a" * 200_000 + "@", "1 " * 100_000, "+1" + "-" * 200_000, "a." * 100_000 + "@" + "b." * 100_000):
        Masker(MASK_KINDS).text(text, [])
