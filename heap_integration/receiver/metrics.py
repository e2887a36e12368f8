"""What the receiver counts, for Prometheus and for its own log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

PREFIX = "heap_receiver_"
# From a sync that others had asked for already to a disk that hangs.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The counts of one application.

    Counting is adding to plain counters, because it happens with each request; Prometheus gets them when
    it asks. All labels are names from the settings, statuses, or kinds of refusals: nothing that a
    client sends becomes one.
    """

    def __init__(self, held_bytes: Callable[[], int], clock: Callable[[], float] = time.time) -> None:
        self._answers: Counter[tuple[str, str]] = Counter()
        self._reported: Counter[tuple[str, str]] = Counter()
        self._refused: Counter[tuple[str, str]] = Counter()
        self._lines: Counter[tuple[str, str]] = Counter()
        self._calls: Counter[tuple[str, str]] = Counter()
        self._bytes: Counter[tuple[str, str]] = Counter()
        self._clock = clock
        self._registry = CollectorRegistry()
        self._registry.register(_Collected(self._families))
        self._durable = Histogram(
            f"{PREFIX}durable_write_seconds",
            "Time from a line's being ready to its being durable",
            registry=self._registry,
            buckets=SECONDS,
        )
        self._last_durable = Gauge(
            f"{PREFIX}last_durable_timestamp_seconds",
            "When something was last made durable, 0 before",
            registry=self._registry,
        )
        held = Gauge(f"{PREFIX}held_bytes", "Bodies in memory that aren't durable yet", registry=self._registry)
        held.set_function(held_bytes)

    def answered(self, source: str, status: int) -> None:
        """Count an answer."""
        self._answers[source, str(status)] += 1

    def refused(self, source: str, reason: str) -> None:
        """Count a request, or a call of a batch, that is not used."""
        self._refused[source, reason] += 1

    def landed(self, source: str, calls: int, size: int, seconds: float, suppressed: bool) -> None:
        """Count a durable line of ``size`` bytes with ``calls`` calls in it."""
        key = (source, "suppressed" if suppressed else "kept")
        self._lines[key] += 1
        self._calls[key] += calls
        self._bytes[key] += size
        self._durable.observe(seconds)
        self._last_durable.set(self._clock())

    def stored(self) -> None:
        """Note that something else than a line has become durable."""
        self._last_durable.set(self._clock())

    def text(self) -> tuple[bytes, str]:
        """Return all of it in Prometheus's text format, and that format's content type."""
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    def news(self) -> str:
        """Return in words how many answers were given since the last time; empty if none were."""
        news = self._answers - self._reported
        self._reported = self._answers.copy()
        return ", ".join(f"{source} {status}: {n}" for (source, status), n in sorted(news.items()))

    def _families(self) -> Iterator[CounterMetricFamily]:
        switched = ("source", "stream")
        yield _family("requests", "Requests answered", ("source", "status"), self._answers)
        yield _family("refused", "Requests, and calls of batches, not to be used", ("source", "reason"), self._refused)
        yield _family("landed_lines", "Lines made durable", switched, self._lines)
        yield _family("landed_calls", "Calls in those lines, a batch counted by its calls", switched, self._calls)
        yield _family("landed_bytes", "Bytes of those lines", switched, self._bytes)


class _Collected(Collector):
    def __init__(self, families: Callable[[], Iterator[CounterMetricFamily]]) -> None:
        self._families = families

    def collect(self) -> Iterator[CounterMetricFamily]:
        return self._families()


def _family(
    name: str, description: str, labels: tuple[str, str], counts: Counter[tuple[str, str]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(PREFIX + name, description, labels=labels)
    for values, count in sorted(counts.items()):
        family.add_metric(values, count)
    return family
