"""A call reaches no internal address, whatever it is called, unless somebody allowed it."""

from __future__ import annotations

import gzip
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from heap_integration.destinations.addresses import (
    ANSWER_BYTES,
    AddressRefused,
    Answer,
    Caller,
    NoAnswer,
    allowed,
    is_internal,
    reached,
)
from heap_integration_tests.support.endpoint import Endpoint, Reply, endpoint

INTERNAL = (
    "127.0.0.1",
    "10.1.1.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "168.63.129.16",
    "0.0.0.0",
    "100.64.0.1",
    "192.0.0.9",
    "192.88.99.1",
    "198.18.0.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001:0:4136:e378::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1%lo",
    "fec0::1",
    "ff02::1",
)
# Other ways to write 127.0.0.1, and what leads there.
THIS_MACHINE = (
    "127.0.0.1",
    "localhost",
    "LOCALHOST",
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "0x7f000001",
    "0.0.0.0",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
)


@pytest.fixture
def here() -> Iterator[Endpoint]:
    with endpoint() as served:
        yield served


def call(url: str, *allow: str) -> Answer:
    caller = Caller(url, allow)
    try:
        return caller.post(b"{}", {})
    finally:
        caller.close()


@pytest.mark.parametrize("address", INTERNAL)
def test_addresses_that_are_no_place_on_the_internet_are_internal(address: str) -> None:
    assert is_internal(reached(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "64:ff9b::101:101"])
def test_addresses_of_the_internet_are_not(address: str) -> None:
    assert not is_internal(reached(address))


@given(st.ip_addresses(v=4))
def test_an_ipv6_address_that_stands_for_an_ipv4_one_is_judged_like_it(address: ipaddress.IPv4Address) -> None:
    for prefix in ("::ffff:", "64:ff9b::"):
        assert is_internal(reached(f"{prefix}{address}")) == is_internal(address)


@pytest.mark.parametrize("host", THIS_MACHINE)
def test_this_machine_is_not_called_whatever_it_is_called(here: Endpoint, host: str) -> None:
    with pytest.raises(AddressRefused, match="is an internal address: add it to allow_addresses"):
        call(here.url(host))
    with pytest.raises(AddressRefused):
        Caller(here.url(host, "https")).greet()
    assert here.calls == []


def test_what_is_no_address_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"this can't be called: Invalid IPv4 address: '0177\.0\.0\.1'"):
        Caller("http://0177.0.0.1/", ["127.0.0.1"])


@pytest.mark.parametrize(
    ("host", "entry"),
    [
        ("127.0.0.1", "127.0.0.0/8"),
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("LocalHost", "LOCALHOST."),
        ("localhost", "127.0.0.1/32"),
        ("[::ffff:127.0.0.1]", "127.0.0.1"),
    ],
)
def test_what_is_allowed_is_called(here: Endpoint, host: str, entry: str) -> None:
    assert call(here.url(host), "10.0.0.0/8", entry).status == 200
    assert len(here.calls) == 1


@pytest.mark.parametrize("entry", ["127.0.0.2", "10.0.0.0/8", "example.com", "::1"])
def test_to_allow_something_else_allows_nothing(here: Endpoint, entry: str) -> None:
    with pytest.raises(AddressRefused):
        call(here.url("localhost"), entry)
    assert here.calls == []


@pytest.mark.parametrize(
    "entry", ["10.0.0.0/33", "256.1.1.1", "0x7f.1", "a b", "-x", "", "http://host", "*.host", "host:80"]
)
def test_an_entry_that_is_neither_a_network_nor_a_host_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"is neither a network like .* nor a host"):
        allowed([entry])


def answers(monkeypatch: pytest.MonkeyPatch, host: str, *addresses: list[str]) -> list[str]:
    """Let the machine's resolver answer so for a host, each time with the next list; return what it was asked."""
    real, asked, left = socket.getaddrinfo, list[str](), list(addresses)

    def getaddrinfo(name: Any, port: Any, *more: Any, **options: Any) -> Any:
        asked.append(name)
        if name != host:
            return real(name, port, *more, **options)
        found = left.pop(0) if len(left) > 1 else left[0]
        return [each for address in found for each in real(address, port, *more, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_name_server_that_changes_its_mind_leads_nowhere_else(
    here: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    with endpoint(host="127.0.0.2", port=here.port) as good:
        asked = answers(monkeypatch, "rebinding.example", ["127.0.0.2"], ["127.0.0.1"])
        assert call(good.url("rebinding.example"), "127.0.0.2").status == 200
        assert (len(good.calls), here.calls, asked.count("rebinding.example")) == (1, [], 1)
        with pytest.raises(AddressRefused, match=r"rebinding.example \(127.0.0.1\)"):
            call(good.url("rebinding.example"), "127.0.0.2")
    assert here.calls == []


def test_of_several_addresses_the_open_ones_are_tried(here: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    with endpoint(host="127.0.0.2", port=here.port) as good:
        answers(monkeypatch, "many.example", ["127.0.0.1", "127.0.0.3", "127.0.0.2"])
        assert call(good.url("many.example"), "127.0.0.2", "127.0.0.3").status == 200
        assert (len(good.calls), here.calls) == (1, [])


def test_the_internet_is_not_called_without_encryption(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "plain.example", ["93.184.215.14"])
    with pytest.raises(AddressRefused, match="without encryption: use https"):
        call("http://plain.example/hook", "10.0.0.0/8")


def test_redirects_are_answers_and_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    with endpoint() as inside, endpoint(lambda _: Reply(307, headers={"location": inside.url()})) as outside:
        answer = call(outside.url(), "127.0.0.1")
        assert (answer.status, answer.headers["location"]) == (307, inside.url())
        assert (len(outside.calls), inside.calls) == (1, [])


def test_a_long_answer_is_not_read_and_a_packed_one_not_inflated() -> None:
    packed = gzip.compress(b"0" * 10 * ANSWER_BYTES)
    cut = {"content-length": "5", "connection": "close"}
    for reply in (Reply(body=b"0" * 2 * ANSWER_BYTES), Reply(headers=cut)):
        with endpoint(lambda _, reply=reply: reply) as served, pytest.raises(NoAnswer):  # type: ignore[misc]
            call(served.url(), "127.0.0.1")
    with endpoint(lambda _: Reply(body=packed, headers={"content-encoding": "gzip"})) as served:
        assert call(served.url(), "127.0.0.1").body == packed


def test_a_host_that_is_not_there_is_no_answer() -> None:
    with endpoint() as served:
        gone = served.url()
    with pytest.raises(NoAnswer, match="refused"):
        call(gone, "127.0.0.1")
    with pytest.raises(NoAnswer, match=r"nowhere\.invalid can't be resolved"):
        call("https://nowhere.invalid/hook")


@pytest.fixture
def certified(tmp_path: Path) -> Callable[[str], ssl.SSLContext]:
    """Return a server's side of TLS for a host; the authority's certificate lies in ``authority.pem``."""

    def made(host: str) -> ssl.SSLContext:
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        (tmp_path / "authority.pem").write_bytes(pem)
        form = serialization.PrivateFormat.PKCS8
        secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        (tmp_path / "server.pem").write_bytes(secret + pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "server.pem")
        return context

    return made


def test_certificates_are_verified_for_the_host_that_was_named(
    certified: Callable[[str], ssl.SSLContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with endpoint(tls=certified("localhost")) as served:
        url = served.url("localhost", "https")
        for way in (lambda: call(url, "localhost"), lambda: Caller(url, ["localhost"]).greet()):
            with pytest.raises(NoAnswer, match="certificate verify failed"):
                way()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        assert call(url, "localhost").status == 200
        assert Caller(url, ["localhost"]).greet() == "localhost at 127.0.0.1, its certificate is good"
        with pytest.raises(NoAnswer, match="certificate is not valid for"):
            call(served.url("127.0.0.1", "https"), "127.0.0.1")
        assert len(served.calls) == 1
