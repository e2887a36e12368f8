"""Heap's bulk track API: https://developers.heap.io/reference/bulk-track."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import orjson
from httpx import codes

TRACK_PATH = "/api/track"
# Heap takes at most this many events in a request.
BATCH_EVENTS = 1000
WRONG_CONTENT = (codes.BAD_REQUEST, codes.REQUEST_ENTITY_TOO_LARGE, codes.UNPROCESSABLE_ENTITY)


class HeapRefused(Exception):
    """Heap refuses the request whatever it holds: the credentials or the address are wrong."""


class HeapBusy(Exception):
    """Heap asks for patience (429); ``after`` is how many seconds, where it says so."""

    def __init__(self, reason: str, after: float | None) -> None:
        super().__init__(reason)
        self.after = after


class HeapUnavailable(Exception):
    """No usable answer: a server's fault, a timeout, a broken connection."""


class HeapRejected(Exception):
    """Heap says that the request is wrong (400), in its own words."""


def bulk_track_body(app_id: str, payloads: Sequence[bytes]) -> bytes:
    """Return the body of a bulk request: ``payloads`` are the events as JSON objects."""
    return b'{"app_id":%b,"events":[%b]}' % (orjson.dumps(app_id), b",".join(payloads))


class EventsApi:
    """Sends events to one Heap environment, named by its app id."""

    def __init__(self, url: str, app_id: str, client: httpx.Client | None = None) -> None:
        self.url = url.rstrip("/") + TRACK_PATH
        self.app_id = app_id
        self._client = client or httpx.Client(timeout=httpx.Timeout(60, connect=10))

    def track(self, payloads: Sequence[bytes]) -> None:
        """Send up to 1000 events; to return means that Heap has acknowledged all of them.

        Raises:
            HeapBusy, HeapUnavailable: the same request may pass later.
            HeapRejected: something in the request is wrong; none of it was taken.
            HeapRefused: the credentials are refused.
        """
        try:
            answer = self._client.post(
                self.url,
                content=bulk_track_body(self.app_id, payloads),
                headers={"content-type": "application/json"},
            )
        except httpx.TransportError as error:
            raise HeapUnavailable(f"no answer from {self.url}: {error or type(error).__name__}") from error
        if not answer.is_success:
            raise _failure(answer)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _failure(answer: httpx.Response) -> Exception:
    words = f"Heap answered {answer.status_code}: {answer.text[:300].strip() or answer.reason_phrase}"
    if answer.status_code in WRONG_CONTENT:
        return HeapRejected(words)
    if answer.status_code == codes.TOO_MANY_REQUESTS:
        after = answer.headers.get("retry-after", "")
        return HeapBusy(words, float(after) if after.isdigit() else None)
    if answer.is_server_error or answer.status_code == codes.REQUEST_TIMEOUT:
        return HeapUnavailable(words)
    return HeapRefused(f"{words}. Check the app id and the region of this environment")
