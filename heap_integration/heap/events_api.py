"""Heap's bulk track API: https://developers.heap.io/reference/bulk-track."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import orjson

from heap_integration.heap.answers import TIMEOUT, post

TRACK_PATH = "/api/track"
# Heap takes at most this many events in a request.
BATCH_EVENTS = 1000


def bulk_track_body(app_id: str, payloads: Sequence[bytes]) -> bytes:
    """Return the body of a bulk request: ``payloads`` are the events as JSON objects."""
    return b'{"app_id":%b,"events":[%b]}' % (orjson.dumps(app_id), b",".join(payloads))


class EventsApi:
    """Sends events to one Heap environment, named by its app id."""

    def __init__(self, url: str, app_id: str, client: httpx.Client | None = None) -> None:
        self.url = url.rstrip("/") + TRACK_PATH
        self.app_id = app_id
        self._client = client or httpx.Client(timeout=TIMEOUT)

    def track(self, payloads: Sequence[bytes]) -> None:
        """Send up to 1000 events; to return means that Heap has acknowledged all of them.

        Raises:
            HeapBusy, HeapUnavailable: the same request may pass later.
            HeapRejected: something in the request is wrong; none of it was taken.
            HeapRefused: the credentials are refused.
        """
        post(self._client, self.url, bulk_track_body(self.app_id, payloads))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
