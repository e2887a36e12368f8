"""What Heap's write endpoints share: a JSON body goes there, and their answers mean the same."""

from __future__ import annotations

import re

import httpx
from httpx import codes

TIMEOUT = httpx.Timeout(60, connect=10)
WRONG_CONTENT = (codes.BAD_REQUEST, codes.REQUEST_ENTITY_TOO_LARGE, codes.UNPROCESSABLE_ENTITY)

# postBody.events[17].properties should be object
_POSITION = re.compile(r"(postBody\.(?:events|users|accounts))\[(\d{1,9})\]")


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
    """Heap says that the request is wrong (400), in its own words.

    ``position`` is the place of the wrong item in the request's list, from 0, where Heap names one.
    """

    def __init__(self, reason: str, position: int | None = None) -> None:
        super().__init__(reason)
        self.position = position


def post(client: httpx.Client, url: str, body: bytes) -> None:
    """Send a request; to return means that Heap has acknowledged all of it.

    What the body of a success says is not read: it is ``{}`` here and ``OK`` there.

    Raises:
        HeapBusy, HeapUnavailable: the same request may pass later.
        HeapRejected: something in the request is wrong; none of it was taken.
        HeapRefused: the credentials are refused.
    """
    try:
        answer = client.post(url, content=body, headers={"content-type": "application/json"})
    except httpx.RequestError as error:
        raise HeapUnavailable(f"no answer from {url}: {error or type(error).__name__}") from error
    if not answer.is_success:
        raise _failure(answer)


def _failure(answer: httpx.Response) -> Exception:
    # No log and no table takes every letter of what a proxy may answer.
    told = "".join(letter if letter.isprintable() else " " for letter in answer.text[:300]).strip()
    words = f"Heap answered {answer.status_code}: {told or answer.reason_phrase}"
    if answer.status_code in WRONG_CONTENT:
        found = _POSITION.search(words)
        # The place is in the way where reasons are counted.
        return HeapRejected(_POSITION.sub(r"\1[]", words), int(found[2]) if found else None)
    if answer.status_code == codes.TOO_MANY_REQUESTS:
        after = answer.headers.get("retry-after", "")
        return HeapBusy(words, float(after) if re.fullmatch("[0-9]{1,9}", after) else None)
    if answer.is_server_error or answer.status_code == codes.REQUEST_TIMEOUT:
        return HeapUnavailable(words)
    return HeapRefused(f"{words}. Check the app id and the region of this environment")
