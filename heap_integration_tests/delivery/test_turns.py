"""A delivery finds out how many requests at once the other side takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_integration.delivery.engine import DeliveryStopped, Patience, Tally, deliver
from heap_integration.delivery.ledger import Ledger
from heap_integration.delivery.pace import Pace
from heap_integration.delivery.records import Limits, Outcome, Record, RetryLater, Status
from heap_integration.delivery.turns import Turns
from heap_integration.store import Store

QUICK = Patience(attempts=3, seconds=30, first_wait=0.02, longest_wait=0.2)


@dataclass
class Counter:
    """A server with ``places``: who comes while all are taken is sent away, and a request takes ``seconds``."""

    url: str
    places: int
    seconds: float
    retry_after: int | None = None
    inside: int = 0
    most_inside: int = 0
    served: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self) -> int:
        with self.lock:
            if self.inside >= self.places:
                self.refused.append(time.monotonic())
                return 429 if self.retry_after else 503
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        time.sleep(self.seconds)
        with self.lock:
            self.inside -= 1
            self.served.append(time.monotonic())
        return 200


@contextmanager
def counter(places: int, seconds: float = 0.02, retry_after: int | None = None) -> Iterator[Counter]:
    """Serve on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(status := found.serve())
            if status == 429:
                self.send_header("retry-after", str(found.retry_after))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Counter(f"http://127.0.0.1:{server.server_address[1]}/", places, seconds, retry_after)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


class Customer:
    """Sends one record a request."""

    def __init__(self, url: str, concurrency: int) -> None:
        self.limits = Limits(concurrency=concurrency)
        self.url = url
        self.client = httpx.Client(trust_env=False, timeout=30)

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        answer = self.client.get(self.url)
        if not answer.is_success:
            after = answer.headers.get("retry-after")
            raise RetryLater("full", after=float(after) if after else None, busy=True)
        return [Outcome(record.key, Status.ACCEPTED) for record in batch]


def run(store: Store, to: Customer, records: int, patience: Patience = QUICK) -> Tally:
    items = [Record(number.to_bytes(16, "big"), number) for number in range(records)]
    try:
        return deliver(items, to, Ledger(store, "test"), pace=Pace(store, "test", ()), patience=patience)
    finally:
        to.client.close()


def test_a_side_with_few_places_is_kept_busy_and_hardly_ever_refuses(store: Store) -> None:
    with counter(places=3) as shop:
        began = time.monotonic()
        assert run(store, Customer(shop.url, concurrency=16), 400).accepted == 400
        elapsed = time.monotonic() - began
    # Sixteen meet the closed door once; what follows is a rare try.
    assert len(shop.refused) < 40
    assert len([at for at in shop.refused if at > shop.served[100]]) < 8
    assert 400 * shop.seconds / (3 * elapsed) > 0.5


def test_when_one_is_asked_to_wait_all_wait(store: Store) -> None:
    with counter(places=2, retry_after=1) as shop:
        assert run(store, Customer(shop.url, concurrency=6), 12).accepted == 12
    answers = sorted([*shop.served, *shop.refused])
    first = min(shop.refused)
    assert not [at for at in answers if first + 0.4 < at < first + 1.0]
    assert max(answers) > first + 1.0


def test_a_side_that_has_room_again_is_used_again(store: Store) -> None:
    with counter(places=1, seconds=0.004) as shop:
        shop_opens = threading.Timer(0.5, lambda: setattr(shop, "places", 8))
        shop_opens.start()
        assert run(store, Customer(shop.url, concurrency=8), 900).accepted == 900
    assert shop.most_inside >= 4


def test_a_side_that_stays_full_ends_the_delivery_and_with_it_all_who_wait(store: Store) -> None:
    patience = Patience(attempts=3, seconds=0.5, first_wait=0.02, longest_wait=0.1)
    with counter(places=0) as shop, pytest.raises(DeliveryStopped, match="full"):
        run(store, Customer(shop.url, concurrency=8), 100, patience)
    assert len(shop.refused) < 60


@given(most=st.integers(1, 32), busy=st.lists(st.booleans(), max_size=300))
def test_never_more_than_allowed_are_under_way_and_always_one_may_be(most: int, busy: list[bool]) -> None:
    turns = Turns(most, first_wait=1e-9, longest_wait=1e-8)
    under_way: list[int] = []
    for refused in busy:
        while len(under_way) < turns.allowed:
            turn = turns.take()
            assert turn is not None
            under_way.append(turn)
        before = turns.allowed
        if refused:
            turns.busy(under_way.pop(0), None)
            assert turns.allowed in (before, max(before // 2, 1))
        else:
            turns.end(under_way.pop(0), passed=True)
            assert turns.allowed in (before, before + 1)
        assert 1 <= turns.allowed <= most


def test_those_who_were_refused_together_count_as_one_refusal() -> None:
    turns = Turns(16, first_wait=0.001, longest_wait=0.002)
    taken = [turns.take() or 0 for _ in range(16)]
    for turn in taken:
        turns.busy(turn, None)
    assert turns.allowed == 8


def test_who_waits_for_a_turn_is_let_go_when_it_is_over() -> None:
    turns = Turns(1, first_wait=0.001, longest_wait=0.002)
    assert turns.take() == 0
    threading.Timer(0.05, turns.close).start()
    assert turns.take() is None
