"""Userflow, whose public API knows users and their attributes but no segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import httpx
from httpx import codes

from heap_integration.delivery.records import (
    BatchRejected,
    Limits,
    MemberChange,
    NotAuthorised,
    Outcome,
    Record,
    RetryLater,
    Status,
)

VERSION = "2020-01-03"
LIST_ATTRIBUTE = "heap_segments"
UNKNOWN_USER = "no such user in Userflow, and create_users is off"

Membership = Literal["boolean", "list"]


class UserflowClient:
    """The users of one Userflow environment, which the API key selects.

    See https://docs.userflow.com/docs/api.

    Raises:
        ValueError: the key can't be one; it isn't repeated.
    """

    def __init__(self, url: str, api_key: str, client: httpx.Client | None = None) -> None:
        # No header can hold these, and what complains about that repeats the whole header.
        if not api_key or not api_key.isascii() or not api_key.isprintable() or api_key != api_key.strip():
            raise ValueError("the Userflow API key holds characters that no key has: copy it again, without spaces")
        self._key = api_key
        self._client = client or httpx.Client(timeout=httpx.Timeout(30, connect=10))
        self._client.headers["authorization"] = f"Bearer {api_key}"
        self._client.headers["userflow-version"] = VERSION
        self._url = url.rstrip("/")

    def find_user(self, user: str) -> dict[str, Any] | None:
        """Return a user, or ``None`` where Userflow knows none of that id."""
        # These lead to another address than a user's.
        if user in {"", ".", ".."}:
            return None
        answer = self._call("GET", f"/users/{quote(user, safe='')}")
        if answer.status_code == codes.NOT_FOUND:
            return None
        try:
            found: dict[str, Any] = self._checked(answer).json()
        except ValueError as error:
            raise RetryLater("Userflow's answer is not JSON") from error
        return found

    def upsert_user(self, user: str, attributes: dict[str, Any]) -> None:
        """Set attributes of a user; those not named stay, and an unknown user is created."""
        self._checked(self._call("POST", "/users", {"id": user, "attributes": attributes}))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            return self._client.request(method, self._url + path, json=body)
        except httpx.RequestError as error:
            raise RetryLater(f"no answer from Userflow: {self._told(error)}") from error

    def _told(self, error: Exception) -> str:
        return str(error).replace(self._key, "[key]") or type(error).__name__

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        if not answer.is_success:
            text = answer.text.replace(self._key, "[key]")[:300].strip()
            raise _failure(answer, f"Userflow answered {answer.status_code}: {text or answer.reason_phrase}")
        return answer


def _failure(answer: httpx.Response, words: str) -> Exception:
    if answer.status_code in (codes.TOO_MANY_REQUESTS, codes.SERVICE_UNAVAILABLE):
        after = answer.headers.get("retry-after", "")
        return RetryLater(words, after=float(after) if after.isdigit() else None, busy=True)
    if answer.is_server_error:
        return RetryLater(words)
    if answer.status_code in (codes.UNAUTHORIZED, codes.FORBIDDEN):
        return NotAuthorised(f"{words}. Check the Userflow API key of this environment")
    return BatchRejected(words)


@dataclass(frozen=True)
class MembershipSender:
    """Writes membership of a segment as a user attribute, one user a call.

    ``boolean`` sets ``heap_segment_<slug>`` to true, and to false when somebody leaves; ``list``
    keeps the segment's name in the list attribute ``heap_segments``. Setting is idempotent, so a call
    that is repeated after a crash changes nothing.
    """

    client: UserflowClient
    slug: str
    segment_name: str
    membership: Membership = "boolean"
    create_users: bool = False
    concurrency: int = 4

    @property
    def limits(self) -> Limits:
        """One user a call; Userflow publishes no numbers, so the pace follows its 429 and 503."""
        return Limits(batch_records=1, concurrency=self.concurrency)

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """Send one change; see ``Sender.send``."""
        return [self._send(record.key, record.payload) for record in batch]

    def _send(self, key: bytes, change: MemberChange) -> Outcome:
        may_create = self.create_users and change.member
        user = None if may_create and self.membership == "boolean" else self.client.find_user(change.identity)
        if user is None and not may_create:
            # Who isn't there is no member: a removal has reached its end.
            return Outcome(key, Status.REJECTED, UNKNOWN_USER) if change.member else Outcome(key, Status.ACCEPTED)
        attributes = self._attributes(change, (user or {}).get("attributes") or {})
        if attributes:
            self.client.upsert_user(change.identity, attributes)
        return Outcome(key, Status.ACCEPTED)

    def _attributes(self, change: MemberChange, known: dict[str, Any]) -> dict[str, Any]:
        if self.membership == "boolean":
            return {f"heap_segment_{self.slug}": change.member}
        # Whether a repeated append doubles an entry isn't documented, so it isn't repeated.
        if (self.segment_name in (known.get(LIST_ATTRIBUTE) or [])) == change.member:
            return {}
        return {LIST_ATTRIBUTE: {"append" if change.member else "remove": [self.segment_name]}}
