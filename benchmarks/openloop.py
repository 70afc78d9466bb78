"""An open loop: requests are due at a constant rate, whatever the answers do, and a latency counts from the moment
the request was due. So a stall is felt by every request that it delayed, not by one of them.

A program of its own (PORT RATE SECONDS CONNECTIONS KEY), because it must share no thread with anything: one select
loop, no timer coarser than select's µs. Prints all latencies as JSON, in µs. A request that fails ends it, unless
`count` is its last argument: then it prints {"us": latencies, "failures": one text each}, the warm-up's failures too.
"""

from __future__ import annotations

import ctypes
import gc
import json
import select
import socket
import sys
import time

REQUEST = b"GET /bench HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Api-Key: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
GRACE_NS = 2_000_000_000
PR_SET_TIMERSLACK = 29  # prctl(2): by default the kernel wakes a sleeper up to 50 µs late


class FailedRequestError(Exception):
    """A request was not answered, or with another status than 200; the message says how."""


class Caller:
    """One keep-alive connection with at most one request on its way, due at `due_ns`."""

    __slots__ = ("due_ns", "port", "received", "sock")

    def __init__(self, port: int) -> None:
        self.port = port
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.due_ns = 0

    def answered(self) -> bool:
        """Read what is there; whether the answer is whole. FailedRequestError: it is no 200, or does not come."""
        try:
            chunk = self.sock.recv(65536)
        except OSError as error:
            raise FailedRequestError(str(error)) from error
        if not chunk:
            raise FailedRequestError("the connection was closed in the middle of the run")
        self.received += chunk
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise FailedRequestError(f"answered {head.splitlines()[0]!r}")
        if len(body) < length_of(head):
            return False
        self.received = b""
        return True


def length_of(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise SystemExit("an answer without Content-Length")


def run(request: bytes, idle: list[Caller], rate: int, seconds: int, failures: list[str] | None = None) -> list[int]:
    """Latencies in ns, one for each request that was due. One that fails is added to `failures`; without them it is
    SystemExit.
    """
    failed = [] if failures is None else failures
    before = len(failed)
    total, step_ns = rate * seconds, 1_000_000_000 // rate
    found: list[int] = []
    busy: dict[socket.socket, Caller] = {}
    sent, clock = 0, time.perf_counter_ns
    start_ns = clock() + 10_000_000
    while len(found) + len(failed) - before < total:
        now = clock()
        while sent < total and idle and start_ns + sent * step_ns <= now:
            caller = idle.pop(0)  # in turn, so that all connections are in use, not the last few
            caller.due_ns = start_ns + sent * step_ns
            caller.sock.send(request)
            busy[caller.sock] = caller
            sent += 1
        wait_ns = start_ns + sent * step_ns - clock() if idle and sent < total else 100_000_000
        for sock in select.select(list(busy), (), (), max(wait_ns, 0) / 1e9)[0]:
            caller = busy[sock]
            try:
                if caller.answered():
                    found.append(clock() - caller.due_ns)
                    idle.append(busy.pop(sock))
            except FailedRequestError as failure:
                if failures is None:
                    raise SystemExit(str(failure)) from failure
                failed.append(str(failure))
                del busy[sock]
                sock.close()
                idle.append(Caller(caller.port))
        if clock() > start_ns + seconds * 1_000_000_000 + GRACE_NS:
            unanswered = total - len(found) - len(failed) + before
            if failures is None:
                raise SystemExit(f"{unanswered} of {total} requests were not answered in time")
            failed += ["not answered in time"] * unanswered
            idle += renewed(busy)
    return found


def renewed(busy: dict[socket.socket, Caller]) -> list[Caller]:
    """New connections in the place of those whose answer did not come in time."""
    for sock in busy:
        sock.close()
    return [Caller(caller.port) for caller in busy.values()]


def main() -> None:
    port, rate, seconds, connections = map(int, sys.argv[1:5])
    idle = [Caller(port) for _ in range(connections)]
    request = REQUEST % sys.argv[5].encode()
    failures: list[str] | None = [] if sys.argv[6:] == ["count"] else None
    run(request, idle, rate, 1, failures)  # warm-up: connections, caches
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    gc.disable()  # a collection here would be counted against the proxy
    latencies_us = [ns // 1000 for ns in run(request, idle, rate, seconds, failures)]
    json.dump(latencies_us if failures is None else {"us": latencies_us, "failures": failures}, sys.stdout)


if __name__ == "__main__":
    main()
