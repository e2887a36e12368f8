"""Somebody allows it in Heap, and from then on the environment takes this customer's segments and no others."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from cryptography.fernet import Fernet
from markdown_it import MarkdownIt
from ruamel.yaml import YAML

from heap_integration.connecting import (
    ConnectFailed,
    Connection,
    ConnectionUnreadable,
    connect,
    connected_id_token,
    connection_of,
    disconnect,
    prove,
)
from heap_integration.environment import Environment
from heap_integration.sandbox.settings import DEVELOPMENT
from heap_integration.settings import MissingSecret
from heap_integration.store import Store, StoreError
from heap_integration_tests.sandbox.conftest import SECOND
from heap_integration_tests.support.commands import run
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

KEY = Fernet.generate_key().decode()
SECRET = DEVELOPMENT.heap_client_secret.get_secret_value()
with socket.create_server(("127.0.0.1", 0)) as _free:
    PORT: int = _free.getsockname()[1]
VARIABLES = {"CLIENT_SECRET": SECRET, "TOKEN_KEY": KEY, "HOOK": "h"}
BROWSER = """\
import sys, urllib.request
page = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1]).read()
open(sys.argv[0] + ".page", "wb").write(page)
"""


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    environments = (DEVELOPMENT.model_copy(update={"heap_redirect_uri": f"http://127.0.0.1:{PORT}/callback"}), SECOND)
    with running_sandbox(tmp_path / "sandbox", environments=environments) as running:
        yield running


def environment(url: str, app_id: str = DEVELOPMENT.app_id, **oauth: Any) -> Environment:
    client: dict[str, Any] = {"client_id": DEVELOPMENT.heap_client_id, "client_secret": {"env": "CLIENT_SECRET"}}
    client |= {"token_key": {"env": "TOKEN_KEY"}, "redirect_port": PORT}
    pages = {"webhook_secret": {"env": "HOOK"}, "oauth": client | oauth}
    heap = {"app_id": app_id, "base_url": url, "segment_sync": pages}
    return Environment.model_validate({"name": "test", "heap": heap})


class Browser:
    """A person's browser: follows what it is sent, and keeps the pages it was shown."""

    def __init__(self, detour: Callable[[str], list[str]] = lambda address: [address]) -> None:
        self.pages: list[httpx.Response] = []
        self._detour = detour
        self._thread: threading.Thread | None = None

    def open(self, address: str) -> None:
        """Open an address, or what the person does instead."""
        self._thread = threading.current_thread()
        with httpx.Client(follow_redirects=True, trust_env=False, timeout=20) as client:
            for each in self._detour(address):
                self.pages.append(client.get(each))

    def close(self) -> list[httpx.Response]:
        """Return the pages once all are there."""
        if self._thread:
            self._thread.join(20)
        return self.pages


def redirected(address: str, **answer: str) -> str:
    """Return where Heap would send the browser with that answer."""
    (redirect,) = parse_qs(urlsplit(address).query)["redirect_uri"]
    return f"{redirect}?{urlencode(answer)}"


def state_of(address: str) -> str:
    return parse_qs(urlsplit(address).query)["state"][0]


def connected(there: Environment, store: Store, browser: Browser | None = None, **more: Any) -> Connection:
    return connect(there, store, VARIABLES, open_browser=(browser or Browser()).open, **more)


def failure(there: Environment, store: Store, browser: Browser, **more: Any) -> str:
    """Return why it fails, after looking that the page says the same and that nothing was kept."""
    with pytest.raises(ConnectFailed) as failed:
        connected(there, store, browser, **more)
    told = str(failed.value)
    assert connected_id_token(store) is None
    assert SECRET not in told
    for page in browser.close()[-1:]:
        assert "Not connected" in page.text
        assert told.replace("'", "&#x27;") in page.text
    return told


def test_a_connection_is_made_kept_encrypted_and_proved(sandbox: RunningSandbox, store: Store, tmp_path: Path) -> None:
    there, browser = environment(sandbox.url), Browser()
    made = connected(there, store, browser)
    (page,) = browser.close()
    assert (made.env_id, made.authorized_by) == (DEVELOPMENT.app_id, "sandbox@example.com")
    assert "Connected" in page.text
    assert page.headers["referrer-policy"] == "no-referrer"
    assert connection_of(there, store, VARIABLES) == made
    assert connected_id_token(store) == made.id_token
    assert prove(there, store, VARIABLES) == (
        f"connected to Heap environment {DEVELOPMENT.app_id}, allowed by sandbox@example.com"
    )
    assert made.access_token not in repr(made)
    kept = b"".join(file.read_bytes() for file in tmp_path.glob("store.db*"))
    assert made.id_token.encode() in kept
    assert made.access_token.encode() not in kept
    assert b"sandbox@example.com" not in kept


def test_to_connect_again_replaces_and_to_disconnect_forgets(sandbox: RunningSandbox, store: Store) -> None:
    there = environment(sandbox.url)
    first, second = connected(there, store), connected(there, store)
    assert first.access_token != second.access_token
    assert connection_of(there, store, VARIABLES) == second
    assert disconnect(store)
    assert not disconnect(store)
    assert (connected_id_token(store), connection_of(there, store, VARIABLES)) == (None, None)
    with pytest.raises(ConnectFailed, match="not connected to Heap: run heap-integration connect test"):
        prove(there, store, VARIABLES)


def test_who_says_no_in_heap_is_not_connected(sandbox: RunningSandbox, store: Store) -> None:
    for answer in ({"error": "access_denied"}, {"error": "access_denied", "state": "ours"}):

        def says_no(address: str, answer: dict[str, str] = answer) -> list[str]:
            given = answer | ({"state": state_of(address)} if "state" in answer else {})
            return [redirected(address, **given)]

        assert failure(environment(sandbox.url), store, Browser(says_no)) == "it was not allowed in Heap"


@pytest.mark.parametrize("state", ["", "other", "é"])
def test_the_answer_to_another_question_is_not_believed(sandbox: RunningSandbox, store: Store, state: str) -> None:
    for answer in ({"code": "c"}, {"error": "x", "code": "c"}):
        browser = Browser(lambda address, answer=answer: [redirected(address, state=state, **answer)])  # type: ignore[misc]
        told = failure(environment(sandbox.url), store, browser)
        assert told == "the browser came back with the answer to another question: start again"


def test_an_answer_without_a_code_is_none(sandbox: RunningSandbox, store: Store) -> None:
    browser = Browser(lambda address: [redirected(address, state=state_of(address))])
    assert "without a code" in failure(environment(sandbox.url), store, browser)


def test_a_code_that_was_used_or_made_up_is_refused_by_heap(sandbox: RunningSandbox, store: Store) -> None:
    browser = Browser(lambda address: [redirected(address, state=state_of(address), code="stolen")])
    assert failure(environment(sandbox.url), store, browser) == "the code has expired, or was used before"


def test_a_code_that_comes_too_late_is_refused_by_heap(tmp_path: Path, store: Store) -> None:
    def dawdles(address: str) -> list[str]:
        with httpx.Client(trust_env=False) as client:
            back = client.get(address).headers["location"]
        time.sleep(0.1)
        return [back]

    with running_sandbox(tmp_path / "hasty", code_seconds=0.05) as hasty:
        told = failure(environment(hasty.url), store, Browser(dawdles))
    assert told == "the code has expired, or was used before"


def test_another_environment_of_heap_is_refused_and_not_kept(sandbox: RunningSandbox, store: Store) -> None:
    there = environment(sandbox.url, app_id=SECOND.app_id)
    told = failure(there, store, Browser())
    assert told.startswith(
        f"the environment that was allowed in Heap is {DEVELOPMENT.app_id}, and test is {SECOND.app_id}"
    )


def test_an_earlier_connection_survives_a_failure(sandbox: RunningSandbox, store: Store) -> None:
    there = environment(sandbox.url)
    made = connected(there, store)
    with pytest.raises(ConnectFailed):
        connected(there, store, Browser(lambda address: [redirected(address, error="access_denied")]))
    assert connection_of(there, store, VARIABLES) == made


def test_only_the_first_redirect_counts(sandbox: RunningSandbox, store: Store) -> None:
    def wanders(address: str) -> list[str]:
        (redirect,) = parse_qs(urlsplit(address).query)["redirect_uri"]
        return [redirect.replace("/callback", "/favicon.ico"), redirect.replace("/callback", "/"), address]

    browser = Browser(wanders)
    assert connected(environment(sandbox.url), store, browser).env_id == DEVELOPMENT.app_id
    assert [page.status_code for page in browser.close()] == [404, 404, 200]

    sandbox.fault(kind="latency", path="/api/partner/oauth/token", seconds=0.5, next=1)
    late = Browser(lambda address: [redirected(address, error="access_denied")])

    def two(address: str) -> None:
        first = threading.Thread(target=browser.open, args=(address,))
        first.start()
        while not sandbox.state()["faults"][0]["hits"]:
            time.sleep(0.01)
        late.open(address)
        first.join()

    connect(environment(sandbox.url), store, VARIABLES, open_browser=two)
    browser.close()
    assert [page.status_code for page in late.close()] == [409]


def test_nobody_comes_back(sandbox: RunningSandbox, store: Store) -> None:
    assert failure(environment(sandbox.url), store, Browser(lambda _: []), wait=0.1) == (
        "nobody came back from Heap within 0.1 seconds: start again"
    )


def test_a_client_that_says_nothing_does_not_keep_the_browser_out(sandbox: RunningSandbox, store: Store) -> None:
    silent = socket.socket()

    def detour(address: str) -> list[str]:
        silent.connect(("127.0.0.1", PORT))
        return [address]

    with silent:
        assert connected(environment(sandbox.url), store, Browser(detour)).env_id == DEVELOPMENT.app_id


def test_a_port_in_use_is_told(sandbox: RunningSandbox, store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        there = environment(sandbox.url, redirect_port=port)
        told = failure(there, store, Browser())
    assert told.startswith(f"port {port} of this machine can't be used (Address already in use)")


def test_the_redirect_address_may_be_registered_under_another_name(tmp_path: Path, store: Store) -> None:
    registered = f"http://localhost:{PORT}/api/oauth-redirect/"
    heap = DEVELOPMENT.model_copy(update={"heap_redirect_uri": registered})
    with running_sandbox(tmp_path / "localhost", environments=(heap,)) as sandbox:
        named = environment(sandbox.url, redirect_address=registered)
        assert connected(named, store).env_id == DEVELOPMENT.app_id
        disconnect(store)
        browser = Browser()
        with pytest.raises(ConnectFailed, match="nobody came back"):
            connected(environment(sandbox.url), store, browser, wait=1)
        assert browser.close()[0].status_code == 400


def test_heap_that_is_away_is_told(store: Store) -> None:
    browser = Browser(lambda address: [redirected(address, state=state_of(address), code="c")])
    told = failure(environment("http://127.0.0.1:1"), store, browser)
    assert told == "no answer from http://127.0.0.1:1: ConnectError. Try again later"


@pytest.mark.parametrize("key", ["a passphrase", KEY[:-1], f"{KEY}\n\x00"], ids=["no key", "cut", "with more"])
def test_a_key_that_is_none_is_refused_before_anything_begins(store: Store, key: str) -> None:
    there, browser = environment("http://127.0.0.1:1"), Browser()
    with pytest.raises(ValueError, match=r"the key in TOKEN_KEY is none; this makes one: .*generate_key") as refused:
        connect(there, store, VARIABLES | {"TOKEN_KEY": key}, open_browser=browser.open)
    assert key not in str(refused.value)
    with pytest.raises(MissingSecret, match="TOKEN_KEY"):
        connect(there, store, {"CLIENT_SECRET": SECRET}, open_browser=browser.open)
    assert browser.pages == []


def test_another_key_reads_nothing_and_the_receiver_needs_none(sandbox: RunningSandbox, store: Store) -> None:
    there = environment(sandbox.url)
    made = connected(there, store)
    other = VARIABLES | {"TOKEN_KEY": Fernet.generate_key().decode()}
    with pytest.raises(ConnectionUnreadable, match="another key than the one in TOKEN_KEY"):
        connection_of(there, store, other)
    assert connected_id_token(store) == made.id_token


def test_a_store_that_cannot_be_used_is_told(sandbox: RunningSandbox, tmp_path: Path, store: Store) -> None:
    store.close()
    (tmp_path / "store.db").write_bytes(b"not a database" * 1_000)
    for rest in tmp_path.glob("store.db-*"):
        rest.unlink()
    browser = Browser()
    with pytest.raises(ConnectFailed, match="the store can't be used: file is not a database"):
        connected(environment(sandbox.url), store, browser)
    assert browser.pages == []
    with pytest.raises(StoreError):
        Store(f"sqlite:///{tmp_path}/store.db")


def test_the_settings_of_the_documentation_are_valid() -> None:
    page = Path(__file__).parents[1] / "docs/connect.md"
    (text,) = (token.content for token in MarkdownIt().parse(page.read_text()) if token.info == "yaml")
    example = Environment.model_validate({"name": "production"} | YAML(typ="safe").load(text))
    assert example.heap.segment_sync is not None
    assert example.heap.segment_sync.oauth is not None
    assert f"`{example.heap.segment_sync.oauth.redirect_uri}`" in page.read_text()


def project(tmp_path: Path, sandbox: RunningSandbox, oauth: bool = True) -> Path:
    folder = tmp_path / "environments/test"
    folder.mkdir(parents=True)
    client = f"client_id: {DEVELOPMENT.heap_client_id}, redirect_port: {PORT}"
    client += ", client_secret: {env: CLIENT_SECRET}, token_key: {env: TOKEN_KEY}"
    pages = f"webhook_secret: {{env: HOOK}}{f', oauth: {{{client}}}' if oauth else ''}"
    (folder / "environment.yaml").write_text(
        f'heap: {{app_id: "{DEVELOPMENT.app_id}", base_url: "{sandbox.url}", segment_sync: {{{pages}}}}}\n'
        "destinations: {webhooks: [{name: crm, url: https://example.com, secret: {env: CRM}}]}\n"
    )
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in VARIABLES.items()))
    return tmp_path


def test_the_commands_connect_and_disconnect(sandbox: RunningSandbox, tmp_path: Path) -> None:
    root, script = project(tmp_path, sandbox), tmp_path / "browser.py"
    script.write_text(BROWSER)
    made = run(root, "connect", "test", BROWSER=f"{sys.executable} {script} %s")
    told = made.out.decode()
    assert made.code == 0, made.err
    assert told.startswith(
        f"connected test to Heap environment {DEVELOPMENT.app_id}, allowed by sandbox@example.com at 20"
    )
    assert f"{sandbox.url}/api/partner/oauth/authorize?client_id=" in made.err
    assert "Connected" in (tmp_path / "browser.py.page").read_text()
    gone = [run(root, "disconnect", "test").out.decode() for _ in range(2)]
    assert gone[0].startswith("disconnected test: take the integration out in Heap too")
    assert gone[1] == "test was not connected\n"


def test_without_a_browser_the_address_is_printed_and_giving_up_is_a_failure(
    sandbox: RunningSandbox, tmp_path: Path
) -> None:
    root = project(tmp_path, sandbox)
    ended = run(root, "connect", "test", "--no-browser", "--wait", "1", BROWSER="false %s")
    assert ended.code == 1
    assert "Open this address" in ended.err
    assert "error: test is not connected: nobody came back from Heap within 1 seconds" in ended.err
    assert "Traceback" not in ended.err


def test_an_environment_that_says_nothing_of_an_integration_is_a_mistake_of_use(
    sandbox: RunningSandbox, tmp_path: Path
) -> None:
    ended = run(project(tmp_path, sandbox, oauth=False), "connect", "test")
    assert (ended.code, "test has no heap.segment_sync.oauth" in ended.err) == (2, True)


def test_a_webhook_is_enabled_by_its_name(sandbox: RunningSandbox, tmp_path: Path) -> None:
    root = project(tmp_path, sandbox)
    with_store = Store(f"sqlite:///{root}/data/test.db")
    with_store.remember("webhook crm gone", ["https://example.com", "2026-01-02T03:04:05+00:00"])
    with_store.close()
    told = [run(root, "enable-webhook", "crm", "-e", "test").out.decode() for _ in range(2)]
    assert told == ["crm is called again from the next sync on\n", "crm was not disabled\n"]
    unknown = run(root, "enable-webhook", "cmr", "-e", "test")
    assert (unknown.code, "test has no webhook 'cmr'; there are: crm" in unknown.err) == (2, True)
    assert os.environ.get("CRM") is None
