"""An API whose odd answers take long to read, beside ordinary ones: `python -m benchmarks.odd PORT`.

GET /odd/<name>   one of ANSWERS
any other         200 with 1 KiB, once the request's body is here
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Callable

import uvloop

ORDINARY = b"x" * 1024


def _bomb() -> bytes:
    """300 MB of `[`, compressed."""
    deflate = zlib.compressobj(9)
    return b"".join([*(deflate.compress(b"[" * 1_000_000) for _ in range(300)), deflate.flush()])


# The fields of the head, and the body.
ANSWERS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "bomb": ("Content-Type: application/json\r\nContent-Encoding: deflate", _bomb),
    "elements": ("Content-Type: application/json", lambda: b"[" + b"{}," * 300_000 + b"{}]"),
    "events": ("Content-Type: text/event-stream", lambda: b"data: {}\n\n" * 500_000),
    "nested": ("Content-Type: application/json", lambda: b"[" * 200_000),
}


def rendered(fields: str, body: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Api(asyncio.Protocol):
    """One connection. Requests are not pipelined, and their bodies have a length."""

    def __init__(self, answers: dict[bytes, bytes]) -> None:
        self.answers = answers
        self.received = b""
        self.answer = b""
        self.left = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.answer:
            self.received += data
            head, ended, data = self.received.partition(b"\r\n\r\n")
            if not ended:
                return
            self.answer = self.answers.get(head.split(b" ", 2)[1], self.answers[b""])
            lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            self.left = int(lengths[0]) if lengths else 0
        self.left -= len(data)
        if self.left <= 0:
            self.transport.write(self.answer)
            self.received = self.answer = b""


async def serve(port: int) -> None:
    answers = {f"/odd/{name}".encode(): rendered(fields, body()) for name, (fields, body) in ANSWERS.items()}
    answers[b""] = rendered("Content-Type: text/plain", ORDINARY)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Api(answers), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
