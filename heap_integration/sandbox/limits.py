"""Leaky buckets: the rate limits of the services."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

_FORGET_ABOVE = 50_000


class LeakyBuckets:
    """One bucket a key; each holds ``capacity`` and empties at ``capacity`` in ``seconds``."""

    def __init__(self, capacity: float, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity = capacity
        self._rate = capacity / seconds
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}

    def fits(self, amounts: Mapping[str, int]) -> bool:
        """Say whether every key has room for its amount; takes nothing."""
        now = self._clock()
        return all(self._level(key, now) + amount <= self.capacity for key, amount in amounts.items())

    def take(self, amounts: Mapping[str, int]) -> None:
        """Pour the amounts in."""
        now = self._clock()
        for key, amount in amounts.items():
            self._levels[key] = (self._level(key, now) + amount, now)
        if len(self._levels) > _FORGET_ABOVE:
            self._levels = {key: entry for key, entry in self._levels.items() if self._level(key, now) > 0}

    def clear(self) -> None:
        """Empty every bucket."""
        self._levels.clear()

    def _level(self, key: str, now: float) -> float:
        level, at = self._levels.get(key, (0.0, now))
        return max(0.0, level - (now - at) * self._rate)
