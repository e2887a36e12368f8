"""Calls of Segment-style clients become events that keep all they were told but the write key."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from heap_integration.events.event import Event, Refusal
from heap_integration.events.keys import event_key
from heap_integration.events.sources.landed import Landed
from heap_integration.events.sources.segment import NOT_FOR_HEAP, event_from_segment, read_landed

RECEIVED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def track(**members: Any) -> dict[str, Any]:
    return {"type": "track", "event": "Order Completed", "userId": "u1", "properties": {"total": 3}} | members


def event(found: Event | Refusal | None) -> Event:
    assert isinstance(found, Event), found
    return found


def landed(body: dict[str, Any], identifier: str = "line-1") -> Landed:
    return Landed(identifier, RECEIVED, "shop", "segment", "", body)


def test_each_type_of_call_is_read() -> None:
    tracked = event(event_from_segment(track(timestamp="2026-01-02T03:04:05Z", messageId="m-1", context={"ip": "::1"})))
    assert (tracked.type, tracked.name, tracked.user_id) == ("track", "Order Completed", "u1")
    assert (tracked.message_id, tracked.timestamp, tracked.context) == ("m-1", RECEIVED, {"ip": "::1"})
    page = event(event_from_segment({"type": "page", "name": "Home", "anonymousId": "a1", "userId": None}))
    assert (page.type, page.name, page.user_id, page.anonymous_id) == ("page", "Home", None, "a1")
    screen = event(event_from_segment({"type": "screen", "userId": 42}))
    assert (screen.type, screen.name, screen.user_id) == ("screen", "", "42")
    user = event(event_from_segment({"type": "identify", "userId": "u1", "traits": {"plan": "pro"}}))
    assert (user.type, user.traits) == ("identify", {"plan": "pro"})
    group = event(event_from_segment({"type": "group", "groupId": 7, "traits": {"name": "Acme"}}))
    assert (group.type, group.user_id, group.context, group.traits) == (
        "group",
        None,
        {"groupId": "7"},
        {"name": "Acme"},
    )
    alias = event(event_from_segment({"type": "alias", "userId": "u1", "previousId": "a1"}))
    assert (alias.type, alias.user_id, alias.context) == ("alias", "u1", {"previousId": "a1"})


def test_a_call_without_a_type_is_known_by_what_it_holds() -> None:
    for call, kind in (
        ({"event": "x", "userId": "u"}, "track"),
        ({"previousId": "a", "userId": "u"}, "alias"),
        ({"groupId": "g", "traits": {"a": 1}}, "group"),
        ({"traits": {"a": 1}, "userId": "u"}, "identify"),
    ):
        assert event(event_from_segment(call)).type == kind
    assert event_from_segment({"userId": "u"}) == Refusal("no type")


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (track(userId=None, anonymousId=" "), "no user: neither userId nor anonymousId"),
        (track(event=None), "no event name"),
        (track(type="dance"), "type 'dance' is none of track, identify, page, screen, group, alias"),
        (track(userId={"id": 1}), "{'id': 1} is neither text nor a number"),
        (track(properties=[1]), "properties is not an object: [1]"),
        (track(timestamp="soon"), "timestamp 'soon' can't be read"),
        ({"type": "group", "userId": "u1"}, "no group: groupId is missing"),
        ({"type": "alias", "userId": "u1"}, "an alias needs userId and previousId"),
    ],
)
def test_what_is_no_call_is_refused_in_words(call: dict[str, Any], reason: str) -> None:
    assert event_from_segment(call) == Refusal(reason)


@pytest.mark.parametrize(
    ("integrations", "reason"),
    [
        ({"Heap": False}, NOT_FOR_HEAP),
        ({"All": False}, NOT_FOR_HEAP),
        ({"All": False, "heap": True}, ""),
        ({"All": False, "Heap": {"app": 1}}, ""),
        ({"All": True, "Heap": False}, NOT_FOR_HEAP),
        ({"Heap": None, "Mixpanel": False}, ""),
        ("none", ""),
        (None, ""),
    ],
)
def test_a_call_that_leaves_out_heap_is_kept_and_not_sent(integrations: object, reason: str) -> None:
    assert event(event_from_segment(track(integrations=integrations))).suppressed == reason


def test_a_batch_gives_each_call_what_it_says_for_all() -> None:
    shared = {"ip": "::1", "app": {"name": "shop"}}
    calls = [track(messageId="m-1"), track(messageId="m-2", context={"ip": "::2"}, integrations={"Heap": True})]
    body = {"type": "batch", "batch": calls, "context": shared, "integrations": {"Heap": False}, "writeKey": "5ekret"}
    first, second = map(event, read_landed(landed(body)))
    assert first.context == {**shared, "integrations": {"Heap": False}}
    assert first.suppressed == NOT_FOR_HEAP
    assert second.context == {"ip": "::2", "app": {"name": "shop"}, "integrations": {"Heap": True}}
    assert second.suppressed == ""


def test_the_write_key_is_kept_nowhere() -> None:
    single = event(next(read_landed(landed(track(writeKey="5ekret")))))
    (refused,) = read_landed(landed({"type": "batch", "writeKey": "5ekret", "batch": [{"writeKey": "5ekret"}]}))
    assert isinstance(refused, Refusal)
    assert "5ekret" not in f"{single}{refused}"


def test_two_like_calls_without_an_id_are_two_events_and_one_line_read_again_is_the_same() -> None:
    body = {"type": "batch", "batch": [track(), track()]}
    first, again, other = (
        [event_key(event(each)) for each in read_landed(line)]
        for line in (landed(body), landed(body), landed(body, "line-2"))
    )
    assert first == again
    assert len({*first, *other}) == 4
    singles = [event_key(event(next(read_landed(landed(track(), name))))) for name in ("line-1", "line-2")]
    assert len(set(singles)) == 2


def test_a_call_with_an_id_is_the_same_event_in_whatever_line() -> None:
    keys = {
        event_key(event(each))
        for line in (
            landed(track(messageId="m-1")),
            landed({"type": "batch", "batch": [track(messageId="m-1")]}, "other"),
        )
        for each in read_landed(line)
    }
    assert len(keys) == 1


def test_a_batch_that_is_none_is_refused_as_a_whole() -> None:
    def only(**members: Any) -> Event | Refusal | None:
        (found,) = read_landed(landed({"type": "batch", **members}))
        return found

    assert only(batch=[]) is None
    assert only(batch={"0": track()}) == only() == Refusal("batch is not a list of calls")
    assert only(batch=[track()], context=["x"]) == Refusal("context is not an object: ['x']")
    crowd = only(batch=[{}] * 2_000, context={"text": "x" * 10_000})
    assert crowd == Refusal("the context that the batch's calls share is too large for so many calls")
    assert only(batch=[{}] * 50_001) == Refusal("the batch holds more than 50,000 calls")
