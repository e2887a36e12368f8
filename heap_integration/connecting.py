"""Connects an environment to its Heap customer: the browser allows it, a loopback address takes the code."""

from __future__ import annotations

import html
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy.exc import SQLAlchemyError

from heap_integration.delivery.ledger import in_words as database_words
from heap_integration.heap.oauth import OAuth, OAuthRefused, OAuthUnavailable, Tokens, in_words

if TYPE_CHECKING:
    from heap_integration.environment import Environment
    from heap_integration.environment_settings import OAuthSettings
    from heap_integration.store import Store

WAIT_SECONDS = 300.0
# How long a client may take over its request, and the page may wait for what Heap says.
CLIENT_SECONDS, PAGE_SECONDS = 10.0, 120.0
KEPT = "heap connection"
MAKE_A_KEY = 'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:18px system-ui,sans-serif;max-width:36em;margin:20vh auto;padding:0 1em}}</style>
<h1>{title}</h1><p>{words}</p></html>"""
_HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    # The page's address holds the code.
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "connection": "close",
}


class ConnectFailed(Exception):
    """The environment was not connected, nothing was kept; the message says why and holds nothing secret."""


class ConnectionUnreadable(ValueError):
    """What is kept of a connection can't be read with this key."""


@dataclass(frozen=True)
class Connection:
    """A customer of Heap who lets this environment have their segments."""

    env_id: str
    id_token: str
    authorized_by: str
    authorized_at: str
    access_token: str = field(repr=False)


def connect(
    environment: Environment,
    store: Store,
    variables: Mapping[str, str],
    *,
    open_browser: Callable[[str], object],
    wait: float = WAIT_SECONDS,
) -> Connection:
    """Let somebody allow it in Heap, and keep the connection in the store, in place of an earlier one.

    ``open_browser`` is given the address to open. What is kept is encrypted, but for the id that the receiver
    knows the customer by. ``wait`` is in seconds.

    Raises:
        ValueError: the environment's settings or its key don't allow it; nothing was begun.
        MissingSecret: the variable of a secret isn't set.
        ConnectFailed: it was denied, took too long, or connects another environment of Heap.
    """
    settings, cipher = _settings(environment), _cipher(environment, variables)
    oauth = OAuth(environment.heap.account_url, settings.client_id, settings.client_secret.value(variables))
    with closing(oauth), _listening(settings) as redirects, _in_words():
        store.recall(KEPT)
        state = secrets.token_urlsafe(32)
        address = oauth.authorize_url(settings.redirect_uri, state)
        # A browser of the terminal comes back only when it is closed, and it waits for our page.
        threading.Thread(target=open_browser, args=(address,), daemon=True).start()
        redirect = redirects.wait(wait)
        with redirect.answered():
            connection = _connection(environment, oauth, _code(redirect.query, state), settings.redirect_uri)
            _keep(store, environment.name, connection, cipher)
    return connection


def disconnect(store: Store) -> bool:
    """Forget the connection, and return whether there was one; Heap itself isn't told."""
    was = store.recall(KEPT) is not None
    store.remember(KEPT, None)
    return was


def connected_id_token(store: Store) -> str | None:
    """Return the id by which the connected customer's pages are known; it needs no key."""
    kept = store.recall(KEPT)
    return str(kept["id_token"]) if kept else None


def connection_of(environment: Environment, store: Store, variables: Mapping[str, str]) -> Connection | None:
    """Return the connection, ``None`` where there is none.

    Raises:
        ConnectionUnreadable: it was made with another key.
        ValueError: the environment's settings or its key don't allow it.
        MissingSecret: the variable of the key isn't set.
    """
    kept = store.recall(KEPT)
    if not kept:
        return None
    try:
        return Connection(**json.loads(_cipher(environment, variables).decrypt(kept["sealed"])))
    except InvalidToken:
        variable = _settings(environment).token_key.env
        raise ConnectionUnreadable(
            f"the connection to Heap was made with another key than the one in {variable}: "
            f"put that one back, or run heap-integration connect {environment.name}"
        ) from None


def prove(environment: Environment, store: Store, variables: Mapping[str, str]) -> str:
    """Ask Heap whether the connection still holds, and say in words whom it connects.

    Raises:
        ConnectFailed: there is none, or Heap doesn't take it any more.
        ValueError: see ``connection_of``.
        MissingSecret: the variable of a secret isn't set.
    """
    again = f"run heap-integration connect {environment.name}"
    connection = connection_of(environment, store, variables)
    if connection is None:
        raise ConnectFailed(f"not connected to Heap: {again}")
    settings = _settings(environment)
    oauth = OAuth(environment.heap.account_url, settings.client_id, settings.client_secret.value(variables))
    with closing(oauth):
        try:
            customer = oauth.customer(Tokens(connection.access_token, connection.id_token))
        except OAuthRefused as refused:
            raise ConnectFailed(f"Heap does not take the connection any more ({refused}): {again}") from None
        except OAuthUnavailable as error:
            raise ConnectFailed(str(error)) from None
    return f"connected to Heap environment {customer.env_id}, allowed by {customer.authorized_by or 'somebody'}"


def _settings(environment: Environment) -> OAuthSettings:
    pages = environment.heap.segment_sync
    if pages is None or pages.oauth is None:
        raise ValueError(f"environment {environment.name} has no heap.segment_sync.oauth: it says what to connect")
    return pages.oauth


def _cipher(environment: Environment, variables: Mapping[str, str]) -> Fernet:
    held = _settings(environment).token_key
    key = held.value(variables)
    # Fernet itself leaves out what isn't base64.
    if not re.fullmatch(r"[A-Za-z0-9_-]{43}=", key):
        raise ValueError(f"the key in {held.env} is none; this makes one: {MAKE_A_KEY}")
    return Fernet(key)


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except OAuthRefused as refused:
        raise ConnectFailed(str(refused)) from None
    except OAuthUnavailable as error:
        raise ConnectFailed(f"{error}. Try again later") from None
    except SQLAlchemyError as error:
        raise ConnectFailed(f"the store can't be used: {database_words(error)}") from None


def _code(query: Mapping[str, str], state: str) -> str:
    """Return the code of a redirect that answers our question."""
    error = query.get("error")
    ours = secrets.compare_digest(query.get("state", "").encode(), state.encode())
    # Heap doesn't say whether an error bears the state; either way it is the end.
    if not ours and (error is None or "state" in query):
        raise ConnectFailed("the browser came back with the answer to another question: start again")
    if error is not None:
        raise ConnectFailed(in_words(error))
    if not query.get("code"):
        raise ConnectFailed("the browser came back without a code: start again")
    return query["code"]


def _connection(environment: Environment, oauth: OAuth, code: str, redirect_uri: str) -> Connection:
    tokens = oauth.exchange(code, redirect_uri)
    customer = oauth.customer(tokens)
    if customer.env_id != environment.heap.app_id:
        raise ConnectFailed(
            f"the environment that was allowed in Heap is {customer.env_id}, and {environment.name} is "
            f"{environment.heap.app_id}: choose that one in Heap and start again. Nothing was kept here; "
            "take the integration out of the other one in Heap"
        )
    return Connection(
        env_id=customer.env_id,
        id_token=tokens.id_token,
        authorized_by=customer.authorized_by,
        authorized_at=customer.authorized_at,
        access_token=tokens.access_token,
    )


def _keep(store: Store, environment: str, connection: Connection, cipher: Fernet) -> None:
    sealed = cipher.encrypt(json.dumps(asdict(connection)).encode()).decode()
    store.remember(KEPT, {"environment": environment, "id_token": connection.id_token, "sealed": sealed})


class _Redirect:
    """The browser that came back, which waits for a page."""

    def __init__(self, query: Mapping[str, str]) -> None:
        self.query = query
        self._page = ""
        self._made, self._shown = threading.Event(), threading.Event()

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Show how what is done within ended."""
        title, words = "Not connected", "Something failed: the terminal says what."
        try:
            with _in_words():
                yield
            title, words = "Connected", "You may close this window."
        except ConnectFailed as failed:
            words = str(failed)
            raise
        finally:
            self._page = _PAGE.format(title=html.escape(title), words=html.escape(words))
            self._made.set()
            self._shown.wait(CLIENT_SECONDS)

    def show(self, write: Callable[[int, str], None]) -> None:
        """Write the page once it is made."""
        try:
            if self._made.wait(PAGE_SECONDS):
                write(200, self._page)
        finally:
            self._shown.set()


class _Redirects:
    """The one redirect that is taken."""

    def __init__(self) -> None:
        self._taken: _Redirect | None = None
        self._lock = threading.Lock()
        self._there = threading.Event()

    def take(self, query: Mapping[str, str]) -> _Redirect | None:
        """Take a redirect, unless one was taken before."""
        with self._lock:
            if self._taken is not None:
                return None
            self._taken = _Redirect(query)
        self._there.set()
        return self._taken

    def wait(self, seconds: float) -> _Redirect:
        """Return the redirect once it is there."""
        self._there.wait(seconds)
        if self._taken is None:
            raise ConnectFailed(f"nobody came back from Heap within {seconds:g} seconds: start again")
        return self._taken


@contextmanager
def _listening(settings: OAuthSettings) -> Iterator[_Redirects]:
    """Serve the redirect address for as long as it is needed, for this machine alone."""
    redirects, path = _Redirects(), urlsplit(settings.redirect_uri).path or "/"

    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_SECONDS

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            if asked.path != path:
                self.write(404, "There is nothing here.")
                return
            redirect = redirects.take(
                {name: values[0] for name, values in parse_qs(asked.query, keep_blank_values=True).items()}
            )
            if redirect is None:
                self.write(409, "Heap has answered before: the terminal says what came of it.")
            else:
                redirect.show(self.write)

        def write(self, status: int, page: str) -> None:
            body = page.encode()
            self.send_response(status)
            for name, value in {**_HEADERS, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: addresses hold codes."""

    class Server(ThreadingHTTPServer):
        # Browsers open connections that they don't use.
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing of clients that hang up."""

    try:
        server = Server(("127.0.0.1", settings.redirect_port), Handler)
    except OSError as error:
        raise ConnectFailed(
            f"port {settings.redirect_port} of this machine can't be used ({error.strerror}): end what uses it, or set "
            "another heap.segment_sync.oauth.redirect_port and register its address in Heap"
        ) from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield redirects
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
