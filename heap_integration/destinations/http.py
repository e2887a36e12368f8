"""Calls to a vendor's API: one meaning for answers everywhere, and no secret in any message."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from heap_integration.delivery.records import BatchRejected, NotAuthorised, RetryLater

if TYPE_CHECKING:
    import httpx
    from stamina import Attempt

TIMEOUT_SECONDS, CONNECT_SECONDS = 30.0, 10.0
PAGE_SECONDS = 600.0
SHOWN = 300
BUSY = (429, 503)
REFUSED = (401, 403)
TIMED_OUT = 408
NOT_FOUND = 404


class Api:
    """The API of one vendor at ``url``; ``secrets`` are texts that no message may hold.

    Raises:
        ValueError: a header can't be sent; it isn't repeated.
    """

    def __init__(
        self,
        vendor: str,
        url: str,
        *,
        headers: Mapping[str, str],
        secrets: Sequence[str],
        key_advice: str,
        client: httpx.Client | None = None,
    ) -> None:
        # Listing the assets of an environment needs no HTTP.
        import httpx

        # No header can hold these, and what complains about that repeats the whole header.
        for value in (*headers.values(), *secrets):
            if not value or not value.isascii() or not value.isprintable() or value != value.strip():
                raise ValueError(f"the {vendor} key holds characters that no key has: copy it again, without spaces")
        self.vendor = vendor
        self._url = url.rstrip("/")
        # Where one is a part of another, the longer one goes first.
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)
        self._key_advice = key_advice
        self._client = client or httpx.Client(timeout=httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS))
        self._client.headers.update(headers)

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Return the answer, whatever its status says.

        Raises:
            RetryLater: there was no answer.
        """
        import httpx

        try:
            return self._client.request(method, self._url + path, **request)
        except httpx.RequestError as error:
            raise RetryLater(f"no answer from {self.vendor}: {self._told(error)}") from error

    def call(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Return the answer of a call that succeeded.

        Raises:
            RetryLater: no answer, a server's fault, or the vendor asks for patience.
            NotAuthorised: the credentials are refused.
            BatchRejected: any other refusal, in the vendor's words.
        """
        answer = self.ask(method, path, **request)
        if not answer.is_success:
            raise self.failure(answer)
        return answer

    def json(self, answer: httpx.Response) -> Any:
        """Return what an answer holds.

        Raises:
            RetryLater: it isn't JSON, as when a proxy answers for the vendor.
        """
        try:
            return answer.json()
        except ValueError as error:
            raise RetryLater(f"{self.vendor}'s answer is not JSON") from error

    def object(self, answer: httpx.Response) -> dict[str, Any]:
        """Return the object that an answer holds.

        Raises:
            RetryLater: it isn't one.
        """
        found = self.json(answer)
        if not isinstance(found, dict):
            raise RetryLater(f"{self.vendor}'s answer is no object")
        return found

    def is_unknown(self, answer: httpx.Response) -> bool:
        """Say whether the vendor answers that it has no such thing; whoever else is at an address explains no 404."""
        return answer.status_code == NOT_FOUND and self._is_object(answer)

    def failure(self, answer: httpx.Response) -> RetryLater | NotAuthorised | BatchRejected:
        """Return what an answer without success means."""
        words = f"{self.vendor} answered {answer.status_code}: {self._clean(answer.text) or answer.reason_phrase}"
        if answer.status_code in BUSY:
            return RetryLater(words, after=retry_after(answer.headers), busy=True)
        if answer.is_redirect:
            place = self._clean(answer.headers.get("location", "")) or "nowhere"
            return NotAuthorised(
                f"{self.vendor} answered {answer.status_code} and points to {place}: redirects are not followed"
            )
        if answer.is_server_error or answer.status_code == TIMED_OUT:
            return RetryLater(words)
        if answer.status_code in REFUSED:
            return NotAuthorised(f"{words}. {self._key_advice}")
        if answer.status_code == NOT_FOUND and not self._is_object(answer):
            words = f"{self.vendor} answered 404, and not as {self.vendor} does"
            return NotAuthorised(f"{words}: check its address in this environment's settings")
        return BatchRejected(words)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _is_object(self, answer: httpx.Response) -> bool:
        try:
            return bool(self.object(answer))
        except RetryLater:
            return False

    def _told(self, error: Exception) -> str:
        return self._clean(str(error)) or type(error).__name__

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return shown(text)


def attempts() -> Iterable[Attempt]:
    """Return the attempts to get one page of a list, as in ``for attempt in attempts(): with attempt: ...``."""
    import stamina

    return stamina.retry_context(on=_passes, attempts=6, timeout=PAGE_SECONDS, wait_max=30)


def _passes(error: Exception) -> bool | float:
    # Whatever its timeout is, stamina waits as long as it is told to.
    if not isinstance(error, RetryLater) or (error.after or 0.0) > PAGE_SECONDS:
        return False
    return error.after or True


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return for how many seconds an answer wants to be left alone, if it says so in seconds."""
    after = headers.get("retry-after", "")
    return float(after) if re.fullmatch("[0-9]{1,9}", after) else None


def shown(text: str) -> str:
    """Return the beginning of what somebody else wrote, without what a line of a log or a table can't hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:SHOWN]).strip()
