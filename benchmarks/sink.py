"""An HTTP server that only counts: ``python benchmarks/sink.py`` prints its address and serves until killed."""

from __future__ import annotations

import asyncio

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"


class Counter(asyncio.Protocol):
    """One connection. POST counts requests and events, GET tells the counts and starts anew."""

    requests = 0
    events = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where the answers go."""
        self.transport = transport
        self.head = b""
        self.missing = 0
        self.parts: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        if not self.missing:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data, self.head = self.head[:end].lower(), self.head[end + 4 :], b""
            if head.startswith(b"get"):
                self.answer(b'{"requests": %d, "events": %d}' % (Counter.requests, Counter.events))
                Counter.requests = Counter.events = 0
                return
            self.missing = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        self.parts.append(data)
        self.missing -= len(data)
        if self.missing <= 0:
            Counter.requests += 1
            Counter.events += b"".join(self.parts).count(b'"idempotency_key":')
            self.parts, self.missing = [], 0
            self.answer(b"{}")

    def answer(self, body: bytes) -> None:
        """Answer 200."""
        self.transport.write(ANSWER % (len(body), body))  # type: ignore[attr-defined]


async def serve() -> None:
    """Serve on a free port of this machine."""
    server = await asyncio.get_running_loop().create_server(Counter, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
