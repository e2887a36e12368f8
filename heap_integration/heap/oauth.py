"""Heap's OAuth for partners: a customer allows an integration to get their segments.

See https://developers.heap.io/docs/creating-a-new-heap-integration-partners.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    import httpx

AUTHORIZE_PATH = "/api/partner/oauth/authorize"
TOKEN_PATH = "/api/partner/oauth/token"  # noqa: S105 - a path
METADATA_PATH = "/api/partner/v1/metadata/"
# The only scope there is.
SCOPE = "segment"
TIMEOUT_SECONDS = 30.0

_WORDS = {
    "access_denied": "it was not allowed in Heap",
    "invalid_grant": "the code has expired, or was used before",
    "invalid_client": "the client id or the client secret is wrong",
    "invalid_scope": "the integration may not ask for segments",
    "unauthorized_client": "the integration is not allowed to ask",
    "redirect_uri_mismatch": "the redirect address is not the one that is registered",
}


class OAuthRefused(Exception):
    """Heap says no; why, in words that hold nothing secret."""


class OAuthUnavailable(Exception):
    """There was no answer that can be used; trying again may help."""


@dataclass(frozen=True)
class Tokens:
    """What Heap hands out for good: the key to a customer's data, and the id that its webhooks name the customer by."""

    access_token: str = field(repr=False)
    id_token: str


class Customer(BaseModel):
    """Which Heap environment was connected, by whom and when, as Heap says it."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    env_id: str = Field(min_length=1)
    authorized_by: str = ""
    authorized_at: str = Field("", alias="authorized_at_utc")


class _Granted(BaseModel):
    model_config = ConfigDict(extra="ignore")

    access_token: str = Field(min_length=1)
    id_token: str = Field(min_length=1)
    token_type: str = Field("bearer", pattern=r"(?i)^bearer$")


def in_words(error: str) -> str:
    """Return what an error code of OAuth means; one that isn't known is shown without what no code holds."""
    known = re.sub(r"[^\w .-]", "", error)[:100].strip()
    return _WORDS.get(known) or f"Heap says {known or 'no, without a reason'}"


class OAuth:
    """The code flow of one integration, named by its client id."""

    def __init__(self, url: str, client_id: str, client_secret: str, client: httpx.Client | None = None) -> None:
        import httpx

        self._url = url.rstrip("/")
        self._client_id = client_id
        self._client_secret = client_secret
        self._client = client or httpx.Client(timeout=TIMEOUT_SECONDS)

    def authorize_url(self, redirect_uri: str, state: str) -> str:
        """Return where a customer allows it; Heap sends their browser to ``redirect_uri`` with a code and ``state``."""
        query = {
            "client_id": self._client_id,
            "state": state,
            "response_type": "code",
            "redirect_uri": redirect_uri,
            "scope": SCOPE,
        }
        return f"{self._url}{AUTHORIZE_PATH}?{urlencode(query)}"

    def exchange(self, code: str, redirect_uri: str) -> Tokens:
        """Return the tokens for a code, which is good once and for a short time.

        Raises:
            OAuthRefused: the code, the client or the redirect address is wrong.
            OAuthUnavailable: there was no usable answer.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": self._client_id,
            "client_secret": self._client_secret,
        }
        try:
            granted = _Granted.model_validate(self._ask("POST", TOKEN_PATH, json=form))
        except ValidationError:
            raise OAuthUnavailable("Heap's answer holds no tokens") from None
        return Tokens(granted.access_token, granted.id_token)

    def customer(self, tokens: Tokens) -> Customer:
        """Return who was connected.

        Raises:
            OAuthRefused: the tokens are not good any more.
            OAuthUnavailable: there was no usable answer.
        """
        bearer = {"authorization": f"Bearer {tokens.access_token}"}
        try:
            return Customer.model_validate(
                self._ask("GET", METADATA_PATH + quote(tokens.id_token, safe=""), headers=bearer)
            )
        except ValidationError:
            raise OAuthUnavailable("Heap's answer does not say which environment was connected") from None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, method: str, path: str, **request: Any) -> Any:
        import httpx

        try:
            answer = self._client.request(method, self._url + path, **request)
        except (httpx.RequestError, ValueError) as error:
            # Its words may repeat a header.
            raise OAuthUnavailable(f"no answer from {self._url}: {type(error).__name__}") from None
        try:
            content = answer.json()
        except ValueError:
            content = None
        if answer.is_success and isinstance(content, dict):
            # Some answer an error of OAuth with 200.
            if "error" not in content:
                return content
        elif answer.is_success or answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise OAuthUnavailable(f"Heap answered {answer.status_code} without anything that can be used")
        told = content.get("error") if isinstance(content, dict) else None
        raise OAuthRefused(in_words(told) if isinstance(told, str) else f"Heap answered {answer.status_code}")
