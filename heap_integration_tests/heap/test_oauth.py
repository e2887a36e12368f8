"""Heap's OAuth is asked as documented, and what it answers is told without secrets."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from heap_integration.heap.oauth import OAuth, OAuthRefused, OAuthUnavailable, Tokens, in_words

SECRETS = ("cl1ent-5ecret", "acce55-t0ken", "0ne-time-c0de")
CLIENT_SECRET, ACCESS, CODE = SECRETS
REDIRECT = "http://127.0.0.1:8475/callback"
TOKENS = Tokens(ACCESS, "7a36ae58-c4b9-11eb-8529-0242ac130003")


def oauth(answer: Callable[[httpx.Request], httpx.Response]) -> OAuth:
    client = httpx.Client(transport=httpx.MockTransport(answer))
    return OAuth("https://heapanalytics.com/", "client", CLIENT_SECRET, client)


def always(status: int, content: Any) -> OAuth:
    return oauth(lambda _: httpx.Response(status, text=content if isinstance(content, str) else json.dumps(content)))


def test_a_customer_is_sent_to_heap_with_everything_in_the_address() -> None:
    address = urlsplit(always(200, {}).authorize_url(REDIRECT, "st&te"))
    assert (address.scheme, address.netloc, address.path) == (
        "https",
        "heapanalytics.com",
        "/api/partner/oauth/authorize",
    )
    assert parse_qs(address.query) == {
        "client_id": ["client"],
        "state": ["st&te"],
        "response_type": ["code"],
        "redirect_uri": [REDIRECT],
        "scope": ["segment"],
    }


def test_a_code_becomes_tokens_and_tokens_name_the_customer() -> None:
    asked: list[httpx.Request] = []

    def heap(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if request.method == "POST":
            return httpx.Response(
                200, json={"access_token": ACCESS, "id_token": TOKENS.id_token, "token_type": "Bearer", "more": 1}
            )
        moment = "2026-01-02T03:04:05Z"
        return httpx.Response(
            200, json={"env_id": 12, "authorized_by": "ann@x.io", "authorized_at_utc": moment, "partner_app_id": "p"}
        )

    client = oauth(heap)
    tokens = client.exchange(CODE, REDIRECT)
    customer = client.customer(tokens)
    assert tokens == TOKENS
    assert (customer.env_id, customer.authorized_by, customer.authorized_at) == (
        "12",
        "ann@x.io",
        "2026-01-02T03:04:05Z",
    )
    assert [request.url.path for request in asked] == [
        "/api/partner/oauth/token",
        f"/api/partner/v1/metadata/{TOKENS.id_token}",
    ]
    assert json.loads(asked[0].content) == {
        "grant_type": "authorization_code",
        "code": CODE,
        "redirect_uri": REDIRECT,
        "client_id": "client",
        "client_secret": CLIENT_SECRET,
    }
    assert asked[1].headers["authorization"] == f"Bearer {ACCESS}"


@pytest.mark.parametrize(
    ("status", "content", "kind", "words"),
    [
        (400, {"error": "invalid_grant"}, OAuthRefused, "the code has expired, or was used before"),
        (401, {"error": "invalid_client"}, OAuthRefused, "the client secret is wrong"),
        (200, {"error": "invalid_grant"}, OAuthRefused, "expired"),
        (400, {"error": "<b>new\x1b"}, OAuthRefused, "Heap says bnew"),
        (400, {"error": {"deep": 1}}, OAuthRefused, "Heap answered 400"),
        (404, "not here", OAuthRefused, "Heap answered 404"),
        (302, "", OAuthRefused, "Heap answered 302"),
        (500, {"error": "invalid_grant"}, OAuthUnavailable, "Heap answered 500"),
        (429, "", OAuthUnavailable, "Heap answered 429"),
        (200, "<html>", OAuthUnavailable, "Heap answered 200 without anything"),
        (200, {"access_token": ACCESS}, OAuthUnavailable, "holds no tokens"),
        (200, {"access_token": "", "id_token": "x"}, OAuthUnavailable, "holds no tokens"),
        (200, {"access_token": ACCESS, "id_token": "x", "token_type": "mac"}, OAuthUnavailable, "holds no tokens"),
    ],
)
def test_a_failure_is_told_in_words(status: int, content: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words) as failed:
        always(status, content).exchange(CODE, REDIRECT)
    assert not any(secret in repr(failed.value) for secret in SECRETS)


def test_a_customer_without_an_environment_is_none() -> None:
    with pytest.raises(OAuthUnavailable, match="which environment"):
        always(200, {"authorized_by": "ann"}).customer(TOKENS)


def test_no_answer_is_told_without_what_was_asked() -> None:
    def falls(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"{request.content!r} {request.headers!r}")

    for ask in (lambda: oauth(falls).exchange(CODE, REDIRECT), lambda: oauth(falls).customer(TOKENS)):
        with pytest.raises(OAuthUnavailable, match=r"^no answer from https://heapanalytics.com: ConnectError$"):
            ask()
    unsendable = Tokens("tokén", TOKENS.id_token)
    with pytest.raises(OAuthUnavailable, match="UnicodeEncodeError"):
        always(200, {}).customer(unsendable)


def test_tokens_and_errors_show_nothing_secret() -> None:
    assert ACCESS not in repr(TOKENS)
    assert in_words("") == "Heap says no, without a reason"
