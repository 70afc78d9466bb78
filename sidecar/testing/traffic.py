"""Both sides of the gateway: an upstream that a test answers, and a client that stores its answer."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.core.errors import UpstreamError
from sidecar.core.http import Problem, ResponseHead, read_response
from sidecar.core.http.forward import Field, UpstreamHead, response_fields
from sidecar.core.http.problem import problem_body
from sidecar.ports import Caller, Client, Leg, Upstream


class ScriptedUpstream(Upstream):
    """`ports.Upstream` that the test answers: each exchange is a `Call` in `calls`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.forgotten: list[Caller] = []

    def send(self, head: UpstreamHead, caller: Caller) -> None:
        self.calls.append(Call(head, caller))

    def forget(self, caller: Caller) -> None:
        self.forgotten.append(caller)


class Call(Leg):
    """One exchange at the upstream. Is the `ports.Leg` of the exchange after `connect`."""

    def __init__(self, head: UpstreamHead, caller: Caller) -> None:
        self.head = head
        self.caller = caller
        self.body = b""
        self.trailers: list[tuple[bytes, bytes]] | None = None
        self.cancelled = self.reading_paused = False

    def connect(self) -> Call:
        """Report to the exchange that its head is sent on a connection."""
        self.caller.on_leg(self)
        return self

    def respond(self, status: int = 200, body: bytes = b"", *fields: tuple[bytes, bytes]) -> None:
        """Send a complete answer."""
        self.begin(status, (b"Content-Length", b"%d" % len(body)), *fields)
        self.send_body(body, done=True)

    def begin(self, status: int, *fields: tuple[bytes, bytes]) -> ResponseHead:
        """Send the head of an answer; `send_body` follows."""
        head = read_response((status, b"", 1), list(fields), self.head.method)
        self.caller.on_interim(head) if status < 200 and status != 101 else self.caller.on_response(head)
        return head

    def send_body(self, data: bytes, *, done: bool = False) -> None:
        """Send a part of the body; `done`: the last."""
        self.caller.on_response_body(data, done)

    def fail(self, error: UpstreamError) -> None:
        """Report that the exchange failed."""
        self.caller.on_upstream_failed(error)

    def write(self, data: bytes) -> None:
        self.body += data

    def end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        self.trailers = trailers

    def cancel(self) -> None:
        self.cancelled = True

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False


class PaperClient(Client):
    """`ports.Client` that stores an answer. `ended` is "", "complete" or "cut".

    `fields` are those of the head, in order; `content` is the body, or the JSON of a problem. As on a connection, the
    head becomes visible together with the next bytes.
    """

    def __init__(self, peer: str = "192.0.2.7", *, tls: bool = False) -> None:
        self.peer = peer
        self.tls = tls
        self.status = 0
        self.request_id = b""
        self.fields: list[Field] = []
        self.content = b""
        self.trailers: list[Field] = []
        self.interims: list[ResponseHead] = []
        self.ended = ""
        self.reading_paused = self.stalled = False
        self._head: tuple[int, bytes, list[Field]] | None = None

    def interim(self, head: ResponseHead) -> None:
        self.interims.append(head)

    def respond(self, head: ResponseHead, request_id: bytes, fields: Sequence[Field]) -> None:
        self._head = (head.status, request_id, [*response_fields(head), *fields])
        if head.status == 101:
            self.body(b"")

    def body(self, data: bytes) -> None:
        if self._head is not None:
            self.status, self.request_id, self.fields = self._head
            self._head = None
        self.content += data

    def end(self, data: bytes, trailers: list[Field]) -> None:
        self.body(data)
        self.trailers = trailers
        self.ended = "complete"

    def refuse(self, problem: Problem, request_id: bytes, fields: Sequence[Field]) -> None:
        self._head = (problem.status, request_id, [*problem.headers, *fields])
        self.end(problem_body(problem, request_id.decode()), [])

    def cut(self) -> None:
        self.ended = "cut"

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False
