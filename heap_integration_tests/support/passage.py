"""A server that passes requests on to another, and keeps what was said on both sides."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import SplitResult, urlsplit

import httpx

ABOUT_THE_CONNECTION = ("connection", "content-length", "host", "transfer-encoding")


@dataclass(frozen=True)
class Exchange:
    """A request and its answer."""

    method: str
    address: SplitResult
    headers: dict[str, str]
    body: bytes
    status: int
    answer: bytes


@dataclass
class Passage:
    """What has passed so far, in the order of the answers."""

    url: str = ""
    exchanges: list[Exchange] = field(default_factory=list)


@contextmanager
def passage(to: str) -> Iterator[Passage]:
    """Serve on a free port of this machine, and pass everything on to the server at ``to``."""
    kept = Passage()
    client = httpx.Client(base_url=to, timeout=60, trust_env=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            sent = {name: value for name, value in headers.items() if name not in ABOUT_THE_CONNECTION}
            answer = client.request(self.command, self.path, headers=sent, content=body)
            kept.exchanges.append(
                Exchange(self.command, urlsplit(self.path), headers, body, answer.status_code, answer.content)
            )
            self.send_response(answer.status_code)
            self.send_header("content-type", answer.headers.get("content-type", "text/plain"))
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PUT = do_DELETE = _pass_on

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
        client.close()
