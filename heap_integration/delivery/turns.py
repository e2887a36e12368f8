"""How many requests may be under way at once: fewer after a busy answer, more again while all goes well."""

from __future__ import annotations

import random
import threading
import time

# So many requests have to pass before the number is tried again that was refused last; twice as many after each time
# that it is refused again.
FIRST_RUN, LONGEST_RUN = 100, 1_600


class Turns:
    """Turns to send, shared by all workers of one delivery.

    A busy answer halves how many may be under way (``allowed``, from ``most`` down to 1). The number grows one by one:
    soon below the one that was refused, and only after a long run without a busy answer beyond it. As long as the
    other side asks to be left alone nobody gets a turn; where it doesn't say how long and only one request is under
    way already, pauses double from ``first_wait`` to ``longest_wait`` seconds.
    """

    def __init__(self, most: int, *, first_wait: float, longest_wait: float) -> None:
        self.allowed = most
        self._most = most
        self._first_wait = self._wait = first_wait
        self._longest_wait = longest_wait
        self._under_way = 0
        self._opens = 0.0
        # A request that was under way when the number was halved says nothing about the new number.
        self._number = 0
        self._passed = 0
        self._refused = most + 1
        self._run = FIRST_RUN
        self._closed = False
        self._changed = threading.Condition()

    def take(self) -> int | None:
        """Wait for a turn and return its number; ``None`` once it is closed."""
        with self._changed:
            while not self._closed:
                wait = self._opens - time.monotonic()
                if wait <= 0 and self._under_way < self.allowed:
                    self._under_way += 1
                    return self._number
                self._changed.wait(wait if wait > 0 else None)
        return None

    def end(self, turn: int, *, passed: bool = False) -> None:
        """Give a turn back."""
        with self._changed:
            self._under_way -= 1
            if passed and turn == self._number:
                self._passed += 1
                self._grow()
            self._changed.notify_all()

    def busy(self, turn: int, after: float | None) -> float:
        """Give back a turn that was answered busy, and return the seconds until somebody gets a turn again."""
        with self._changed:
            self._under_way -= 1
            now = time.monotonic()
            if turn == self._number:
                if self.allowed == 1 and not after:
                    after = self._growing()
                self._halve()
            if after:
                self._opens = max(self._opens, now + after)
            self._changed.notify_all()
            return max(self._opens - now, 0.0)

    def close(self) -> None:
        """Let nobody wait or start any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _grow(self) -> None:
        run = self.allowed if self.allowed + 1 < self._refused else self._run
        if self.allowed < self._most and self._passed >= run:
            self.allowed += 1
            self._passed = 0

    def _halve(self) -> None:
        self._run = min(self._run * 2, LONGEST_RUN) if self.allowed == self._refused else FIRST_RUN
        self._refused = self.allowed
        self.allowed = max(self.allowed // 2, 1)
        self._passed = 0
        self._number += 1

    def _growing(self) -> float:
        """Return a pause, longer than the last where little has passed since, with chance so that processes part."""
        wait = self._wait
        self._wait = min(wait * 2, self._longest_wait) if self._passed < FIRST_RUN else max(wait / 2, self._first_wait)
        return wait * random.uniform(0.5, 1)  # noqa: S311 - chance, not secrecy
