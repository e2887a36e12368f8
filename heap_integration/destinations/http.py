"""Calls to a vendor's API: one meaning for answers everywhere, and no secret in any message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from heap_integration.delivery.records import BatchRejected, NotAuthorised, RetryLater

if TYPE_CHECKING:
    import httpx

TIMEOUT_SECONDS, CONNECT_SECONDS = 30.0, 10.0
SHOWN = 300
BUSY = (429, 503)
REFUSED = (401, 403)
TIMED_OUT = 408


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
        self._secrets = [secret for secret in secrets if secret]
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

    def failure(self, answer: httpx.Response) -> RetryLater | NotAuthorised | BatchRejected:
        """Return what an answer without success means."""
        words = f"{self.vendor} answered {answer.status_code}: {self._clean(answer.text) or answer.reason_phrase}"
        if answer.status_code in BUSY:
            after = answer.headers.get("retry-after", "")
            return RetryLater(words, after=float(after) if after.isdigit() else None, busy=True)
        if answer.is_server_error or answer.status_code == TIMED_OUT:
            return RetryLater(words)
        if answer.status_code in REFUSED:
            return NotAuthorised(f"{words}. {self._key_advice}")
        return BatchRejected(words)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _told(self, error: Exception) -> str:
        return self._clean(str(error)) or type(error).__name__

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return text[:SHOWN].strip()
