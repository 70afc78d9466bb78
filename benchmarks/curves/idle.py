"""Connections that were used once and are kept: PORT COUNT KEY opens them, says `ready`, and holds them until its end.

A program of its own, so that no descriptor of the harness is spent on them. One request each, one after the other:
what many at once would need belongs to no idle connection.
"""

from __future__ import annotations

import signal
import socket
import sys

REQUEST = b"GET /bench HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Api-Key: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"


def one(port: int, request: bytes) -> socket.socket:
    """A connection whose first answer has come in whole."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    sock.sendall(request)
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some(sock)
    head, _, body = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"answered {head.splitlines()[0]!r}")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    left = length - len(body)
    while left > 0:
        left -= len(_some(sock))
    return sock


def _some(sock: socket.socket) -> bytes:
    return sock.recv(1 << 16) or sys.exit("the connection was closed before its answer was whole")


def main() -> None:
    port, count = int(sys.argv[1]), int(sys.argv[2])
    held = [one(port, REQUEST % sys.argv[3].encode()) for _ in range(count)]
    print(f"ready {len(held)}", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
