"""Heap's user properties, account properties and identify: https://developers.heap.io/reference/bulk-add-user-properties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import orjson

from heap_integration.heap.answers import TIMEOUT, post

USER_PROPERTIES_PATH = "/api/add_user_properties"
ACCOUNT_PROPERTIES_PATH = "/api/add_account_properties"
IDENTIFY_PATH = "/api/v1/identify"
# Heap takes at most this many users, or accounts, in a request.
BATCH_PROFILES = 1000
# The ids that Heap's own SDKs give to people: whole numbers of 53 bits.
LARGEST_USER_ID = 2**53 - 1


class ProfilesApi:
    """Tells one Heap environment, named by its app id, about people and accounts.

    All calls raise what ``answers.post`` does. Sent twice, each changes nothing the second time.
    """

    def __init__(self, url: str, app_id: str, client: httpx.Client | None = None) -> None:
        self.url = url.rstrip("/")
        self.app_id = app_id
        self._client = client or httpx.Client(timeout=TIMEOUT)

    def add_user_properties(self, users: Sequence[dict[str, Any]]) -> None:
        """Set properties of up to 1000 users, each ``{"identity", "properties"}``; the last value wins.

        An identity that Heap doesn't know becomes a user. No property may be called ``id``, however
        capitalised; ``email`` is Heap's built-in.
        """
        self._post(USER_PROPERTIES_PATH, {"users": users})

    def add_account_properties(self, accounts: Sequence[dict[str, Any]]) -> None:
        """Set properties of up to 1000 accounts, each ``{"account_id", "properties"}``; the last value wins.

        Without effect until Heap's settings name the user property that holds the account's id.
        """
        self._post(ACCOUNT_PROPERTIES_PATH, {"accounts": accounts})

    def identify(self, user_id: int, identity: str, timestamp: str) -> None:
        """Make the anonymous ``user_id`` (0 to 2**53 - 1) the user with this identity, with all its events.

        Heap answers 200 also where it drops the call: for a user id that has another identity already,
        and from the eleventh user id of one identity within a month on.
        """
        self._post(IDENTIFY_PATH, {"user_id": str(user_id), "identity": identity, "timestamp": timestamp})

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _post(self, path: str, body: dict[str, Any]) -> None:
        post(self._client, self.url + path, orjson.dumps({"app_id": self.app_id} | body))
