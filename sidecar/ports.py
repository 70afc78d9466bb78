"""What the gateway needs of the world, as small Protocols.

Edges implement them, decorators wrap them, `app` introduces them.

Everything that may have to wait takes a callback, called once, at once where the answer is known: on the data path a
callback costs a seventh of a coroutine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sidecar.core.counter import Checks
from sidecar.core.decision import Decision
from sidecar.core.errors import StoreError, UpstreamError
from sidecar.core.http import Problem, Request, ResponseHead
from sidecar.core.identity import Identity
from sidecar.core.policy import Policy, Route, Tap
from sidecar.core.record import Alert, Totals


class Clock(Protocol):
    """`now_us`: wall time, µs since the Unix epoch. `mono_us`: µs that never step, for durations and deadlines."""

    def now_us(self) -> int: ...
    def mono_us(self) -> int: ...


class Keys(Protocol):
    """The registered API keys, found by the SHA-256 digest of the credential."""

    def find(self, digest: bytes, done: Callable[[Identity | StoreError | None], None]) -> None:
        """The identity, None where the key is unknown or revoked, StoreError where the store did not answer."""


class Counters(Protocol):
    """The counters, in memory or on Redis. All calls are idempotent by exchange id (26 ASCII bytes)."""

    def reserve(self, id: bytes, checks: Checks, done: Callable[[Decision | StoreError], None]) -> None:
        """Ask all of `checks`, all or none, in one step."""

    def force(self, id: bytes, checks: Checks, done: Callable[[Decision | StoreError], None]) -> None:
        """Reserve without asking: for what was let through while the store was away. Counted past the limit as well.

        A rate is filled to its burst and no further: what would have leaked away since then is not owed.
        """

    def settle(
        self,
        id: bytes,
        checks: Checks,
        truth: Sequence[int],
        failed: Callable[[StoreError], None] | None = None,
    ) -> None:
        """Replace what was reserved by `truth[i]` units, in the windows that held it; free the slots. Never waits.

        `failed` is called where the store did not take it; asking again is safe.
        """


class Retries(Protocol):
    """Which attempt of a request that names itself by an Idempotency-Key is the first: the others cost nothing.

    A key (bytes, any length) is what the gateway takes for the same request; only its digest is kept, per customer.
    """

    def first(
        self, identity: Identity, key: bytes, window_us: int, id: bytes, done: Callable[[bool | StoreError], None]
    ) -> None:
        """True where no other exchange was first with `key` in the last `window_us`; the same id is first again."""

    def forget(self, identity: Identity, key: bytes, id: bytes) -> None:
        """The exchange `id` was first and came to nothing that is billed, so the next may be first. Never waits."""


class Alerts(Protocol):
    """Thresholds of limits (`Limit.alerts`), each told once a period over all workers."""

    def look(self, decision: Decision, done: Callable[[Alert], None]) -> None:
        """Call `done`, now or later, for each alert that stands passed and is this worker's to write down.

        Asked of each decision, and again of what its settle makes of it (`core.decision.settled`).
        Worth a call only where `decision.checks.alerting`. Figures of a store that is away tell nothing.
        """

    def wrote(self, alert: Alert) -> None:
        """Its record is in the journal: nobody tells it again. Without this another may, a minute after `done`."""


class Commands(Protocol):
    """Raw Redis commands, in order.

    `packed` is one RESP command, sent to the node that owns `slot_key`'s slot; replies come in order, commands of one
    loop tick leave in one write. An error that the server answers is a StoreError whose `detail` starts with its code
    ("NOSCRIPT …"); a timeout or a lost connection is one with `maybe_applied=True`.
    """

    def send(self, slot_key: str, packed: bytes, done: Callable[[Any | StoreError], None]) -> None: ...


class Journal(Protocol):
    """The durable log of this worker. `then(True)` is called once the entry is as safe as `durability` says."""

    def accepting(self) -> bool:
        """False where the journal is full or broken and `on_full: reject` says to refuse new requests."""

    def open(self, id: bytes, body: bytes, then: Callable[[bool], None]) -> None:
        """Write an OPEN entry: the exchange is about to reach the upstream. `body` is JSON."""

    def close(
        self, stream: str, id: bytes, key: str, write: Callable[[str, int], bytes], then: Callable[[bool], None]
    ) -> None:
        """Write the record that ends an exchange, or stands alone.

        `stream` is "records" or "denials"; `key` the partition key; `write(source, sequence)` gives the record's
        bytes, with the next number of that stream.
        """


class Probe(Protocol):
    """Plain integers that a collector reads at scrape."""

    def answered(self, route: str, status: int, added_us: int) -> None: ...
    def denied(self, limit: str, *, shadow: bool) -> None: ...
    def count(self, name: str) -> None: ...


class Client(Protocol):
    """The downstream side of one exchange, as the listener offers it. Writes after the client is gone are no-ops.

    `peer` is the connection's other address, `tls` whether it is encrypted.
    """

    peer: str
    tls: bool

    def interim(self, head: bytes) -> None:
        """Pass a 1xx head on. Nothing is sent to HTTP/1.0 clients."""

    def write(self, data: bytes) -> None:
        """Send bytes of the answer as they are: heads and framing are the gateway's."""

    def finish(self, *, close: bool) -> None:
        """The answer is complete: take the next request, or close once all is flushed."""

    def skips(self) -> bool:
        """What is left of the request's body is short and sure to come: the connection can go on without it."""

    def cut(self) -> None:
        """The answer cannot be completed: abort the connection, never end it cleanly."""

    def tunnel(self) -> None:
        """A 101 was sent: from now on bytes pass raw through `Exchange.on_body`."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Exchange(Protocol):
    """What the listener tells the gateway about one request, after `serve` made it."""

    def on_body(self, data: bytes) -> None: ...
    def on_body_end(self, trailers: list[tuple[bytes, bytes]]) -> None: ...
    def on_body_broken(self, problem: Problem) -> None:
        """The body's framing was wrong, too long or too slow: refuse if nothing was answered yet, else cut."""

    def on_client_gone(self) -> None: ...
    def on_client_paused(self) -> None: ...
    def on_client_resumed(self) -> None: ...


class Leg(Protocol):
    """One request on one upstream connection."""

    def write(self, data: bytes) -> None:
        """Body bytes, unframed; the leg frames them by length or in chunks."""

    def end(self, trailers: list[tuple[bytes, bytes]]) -> None: ...
    def cancel(self) -> None:
        """The client is gone or the answer was refused: close the connection, call nothing any more."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Caller(Protocol):
    """What the upstream tells the exchange."""

    def replayable(self) -> bool:
        """True while every body byte handed on so far is still held, so that a safe retry can send it again."""

    def on_leg(self, leg: Leg) -> None:
        """A connection carries the head now; write the body from its start. Called again for a retry."""

    def on_retry(self) -> None:
        """That connection is lost, and another is looked for: hold what comes of the body until it is there."""

    def on_interim(self, head: ResponseHead) -> None: ...
    def on_response(self, head: ResponseHead) -> None:
        """The final head; `on_response_body` always follows in the same turn, if only with b""."""

    def on_response_body(self, data: bytes, done: bool) -> None: ...
    def on_response_trailers(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """Trailers, told before the `done` of the body they end."""

    def on_upstream_failed(self, error: UpstreamError) -> None:
        """Final: before the head, the error's status is to be answered; after it, the client's connection is cut."""

    def on_upstream_paused(self) -> None: ...
    def on_upstream_resumed(self) -> None: ...


class Upstream(Protocol):
    """A named API behind us: several addresses, pooled connections, one safe retry."""

    def send(self, request: Request, head: bytes, caller: Caller) -> None:
        """Start the exchange with the rebuilt request head. Never blocks; everything comes back through `caller`."""

    def forget(self, caller: Caller) -> None:
        """The caller wants nothing any more, and has no leg yet."""


class House:
    """What all exchanges of a worker share: the ports, the policy in force, and what is prepared once for many.

    A base class and no Protocol: there is one, and every step of every exchange asks it for something.
    """

    now_us: Callable[[], int]
    mono_us: Callable[[], int]
    keys: Keys
    counters: Counters
    retries: Retries
    alerts: Alerts
    journal: Journal
    probe: Probe
    policy: Policy
    pepper: bytes
    totals: Totals
    draining: bool  # from now on every answer says that it is its connection's last

    mint: Callable[[int], bytes]  # a new id, dated in ms: of the request, the reservation and the record
    unheard: set[Any]  # exchanges whose answer is read on though their client has left

    def checks(self, arrival: Any, request: Request, now_us: int, tap: Tap | None = None) -> Checks:
        """What this request asks of the counters; the same object for all of a window. `tap`: of its body."""
        raise NotImplementedError

    def upstream(self, route: Route) -> Upstream:
        raise NotImplementedError

    def is_loop(self, request: Request) -> bool:
        raise NotImplementedError

    def head_up(self, exchange: Any) -> bytes:
        """The head for the upstream: without the credential, with who we are."""
        raise NotImplementedError

    def head_down(self, exchange: Any, head: ResponseHead) -> bytes:
        """The head for the client; decides `exchange.chunked` and `exchange.close_after`."""
        raise NotImplementedError

    def limit_fields(self, decision: Decision) -> bytes:
        """The RateLimit field lines, b"" where they are off."""
        raise NotImplementedError

    def shadowed(self, decision: Decision) -> None:
        """Count what would have been denied."""
        raise NotImplementedError

    def started(self) -> None:
        raise NotImplementedError

    def finished(self, exchange: Any) -> None:
        """Called once per exchange, when nothing of it is open any more."""
        raise NotImplementedError


class Entry(Protocol):
    """One frame read back from a journal. `id` and `key` are ASCII; `str(position_after)` is where to read on."""

    @property
    def type(self) -> int: ...
    @property
    def stream(self) -> str: ...
    @property
    def sequence(self) -> int: ...
    @property
    def id(self) -> bytes: ...
    @property
    def key(self) -> bytes: ...
    @property
    def body(self) -> bytes: ...
    @property
    def position_after(self) -> Any: ...


class RecordSink(Protocol):
    """Where records go, together with how far each worker's journal has been carried there: both or neither.

    Every method raises SinkError where the sink failed; after it nothing is known, and the caller opens again and goes
    by the positions that `open` gives. A position is an opaque string.
    """

    async def open(self) -> Mapping[str, str]:
        """Become the only writer, and tell the committed position of each worker."""

    async def commit(self, entries: Sequence[Entry], positions: Mapping[str, str]) -> None:
        """Write `entries` and `positions` (by worker) as one. RefusedError names entries that can never be taken."""

    async def close(self) -> None:
        """Let go within a few seconds, whatever state the sink is in. Never fails."""
