"""HTTP calls to addresses that somebody else chose: never to this machine or a network behind it, unless allowed."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpcore

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

CONNECT_SECONDS, TIMEOUT_SECONDS = 10.0, 30.0
# An answer may come in many small pieces, each in time.
ANSWER_SECONDS = 60.0
ANSWER_BYTES = 1_000_000

# RFC 6052: what stands for an IPv4 address where only IPv6 is spoken.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Not everywhere in Python's registry of addresses that aren't global: the IANA special-purpose registries, the tunnels
# that carry an IPv4 address inside, and the address at which Azure's machines are told their secrets.
_INTERNAL: tuple[IPNetwork, ...] = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",
        "192.88.99.0/24",
        "168.63.129.16/32",
        "::/96",
        "::ffff:0:0:0/96",
        "64:ff9b:1::/48",
        "2001::/23",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
    )
)
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


class AddressRefused(Exception):
    """The address lies where no call may go; the message says which it is and how it would be allowed."""


class NoAnswer(Exception):
    """Nobody answered, or not in a way that can be read."""


@dataclass(frozen=True)
class Allowed:
    """Networks and hosts that may be called though they are internal; a host by its name alone."""

    networks: tuple[IPNetwork, ...] = ()
    hosts: frozenset[str] = frozenset()

    def holds(self, host: str, address: IPAddress) -> bool:
        """Say whether somebody allowed this host, or the address that it has now."""
        return host in self.hosts or any(address in network for network in self.networks)


def allowed(entries: Iterable[str]) -> Allowed:
    """Read a list of networks (``10.0.0.0/8``), addresses and hosts.

    Raises:
        ValueError: an entry is none of these.
    """
    networks, hosts = list[IPNetwork](), set[str]()
    for entry in entries:
        try:
            networks.append(ipaddress.ip_network(entry, strict=False))
        except ValueError:
            host = _name(entry)
            # Nothing that ends in a number is a host's name: it is an address that can't be read.
            if not _HOST.fullmatch(host) or re.fullmatch(r"[0-9]+|0x[0-9a-f]*", host.rpartition(".")[2]):
                raise ValueError(f"{entry!r} is neither a network like 10.0.0.0/8 nor a host") from None
            hosts.add(host)
    return Allowed(tuple(networks), frozenset(hosts))


def reached(address: str) -> IPAddress:
    """Return where a connection to an address ends: the IPv4 address that an IPv6 one stands for, if it does."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return parsed.ipv4_mapped
        if parsed in _NAT64:
            return ipaddress.IPv4Address(parsed.packed[-4:])
    return parsed


def is_internal(address: IPAddress) -> bool:
    """Say whether an address belongs to no place on the public internet."""
    special = not address.is_global or address.is_multicast or address.is_reserved
    return special or any(address in network for network in _INTERNAL)


@dataclass(frozen=True)
class Guard:
    """Decides where a connection may go, by the address that is connected to.

    ``plain`` calls are not encrypted: they go to addresses that are allowed by name only.
    """

    allowed: Allowed = Allowed()
    plain: bool = False

    def open_for(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host that may be called, in the resolver's order.

        Raises:
            AddressRefused: it has none.
            OSError: it can't be resolved.
        """
        found = dict.fromkeys(str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        good = [address for address in found if self._is_open(_name(host), reached(address))]
        if good:
            return good
        where = host if host in found else f"{host} ({', '.join(found)})"
        if any(not is_internal(reached(address)) for address in found):
            raise AddressRefused(f"{where} is called without encryption: use https, or add it to allow_addresses")
        raise AddressRefused(f"{where} is an internal address: add it to allow_addresses if it may be called")

    def _is_open(self, host: str, address: IPAddress) -> bool:
        return self.allowed.holds(host, address) or not (self.plain or is_internal(address))


@dataclass(frozen=True)
class Answer:
    """The status, the headers (names in small letters) and the body of an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Caller:
    """Calls one address, ``url``, as its guard allows; connections are kept and shared by threads.

    Names are resolved at each connection and the address that was looked at is the one that is connected to, so that no
    second answer of a name server can lead elsewhere. Redirects are not followed, the machine's proxies not used, and
    certificates always verified (``SSL_CERT_FILE`` names other authorities than the built-in ones).

    Raises:
        ValueError: the address, or an entry of ``allow_addresses``, can't be read.
    """

    def __init__(self, url: str, allow_addresses: Iterable[str] = (), connections: int = 4) -> None:
        # Listing the assets of an environment needs no HTTP.
        import httpcore
        import httpx

        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"this can't be called: {error}") from None
        self._url = httpcore.URL(
            scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path
        )
        self._tls: ssl.SSLContext = httpx.create_ssl_context()
        self._network = _network(Guard(allowed(allow_addresses), plain=self._url.scheme == b"http"))
        self._pool = httpcore.ConnectionPool(
            ssl_context=self._tls, max_connections=connections, network_backend=self._network
        )

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Return the answer to a body, whatever its status.

        Raises:
            AddressRefused: the address may not be called.
            NoAnswer: there was none within the time, or it is longer than a megabyte.
        """
        import httpcore

        times = {"connect": CONNECT_SECONDS, "read": TIMEOUT_SECONDS, "write": TIMEOUT_SECONDS, "pool": TIMEOUT_SECONDS}
        sent = {"host": self._host(), "accept-encoding": "identity", **headers}
        try:
            with self._pool.stream(
                "POST",
                self._url,
                headers=[(name.encode(), value.encode()) for name, value in sent.items()],
                content=body,
                extensions={"timeout": times},
            ) as answer:
                names = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
                return Answer(answer.status, names, _limited(answer))
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise NoAnswer(_words(error)) from error

    def greet(self) -> str:
        """Connect, prove the certificate, send nothing, and return the address in words.

        Raises:
            AddressRefused: the address may not be called.
            NoAnswer: nobody is there, or their certificate isn't good for the host.
        """
        import httpcore

        host, secure = self._url.host.decode(), self._url.scheme == b"https"
        port = self._url.port or (443 if secure else 80)
        try:
            stream = self._network.connect_tcp(host, port, timeout=CONNECT_SECONDS)
            try:
                if secure:
                    stream = stream.start_tls(self._tls, server_hostname=host, timeout=CONNECT_SECONDS)
                peer = stream.get_extra_info("server_addr")
            finally:
                stream.close()
        except (httpcore.TimeoutException, httpcore.NetworkError) as error:
            raise NoAnswer(_words(error)) from error
        return f"{host} at {peer[0]}, " + ("its certificate is good" if secure else "not encrypted")

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _host(self) -> str:
        host = self._url.host.decode()
        host = f"[{host}]" if ":" in host else host
        return host if self._url.port is None else f"{host}:{self._url.port}"


def _network(guard: Guard) -> httpcore.NetworkBackend:
    import httpcore

    class Guarded(httpcore.SyncBackend):
        def connect_tcp(self, host: str, port: int, *options: Any, **more: Any) -> httpcore.NetworkStream:
            try:
                addresses = guard.open_for(host, port)
            except OSError as error:
                raise httpcore.ConnectError(f"{host} can't be resolved: {error.strerror}") from error
            for address in addresses[:-1]:
                try:
                    return super().connect_tcp(address, port, *options, **more)
                except (httpcore.ConnectError, httpcore.ConnectTimeout):
                    continue
            return super().connect_tcp(addresses[-1], port, *options, **more)

    return Guarded()


def _limited(answer: httpcore.Response) -> bytes:
    body, until = bytearray(), time.monotonic() + ANSWER_SECONDS
    for piece in answer.iter_stream():
        body += piece
        if len(body) > ANSWER_BYTES:
            raise NoAnswer(f"the answer is longer than {ANSWER_BYTES:,} bytes")
        if time.monotonic() > until:
            raise NoAnswer(f"the answer took longer than {ANSWER_SECONDS:g} s")
    return bytes(body)


def _name(host: str) -> str:
    return host.lower().rstrip(".").removeprefix("[").removesuffix("]")


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
