"""What the gateway needs of the world, as small interfaces.

Edges implement them, decorators wrap them, `app` introduces them. What every request asks is a base class and no
Protocol: compiled, a call of it is a jump and no look-up by name.

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
from sidecar.core.native import mypyc_attr
from sidecar.core.policy import Policy, Route, Tap
from sidecar.core.record import Alert, Facts, Totals


@mypyc_attr(allow_interpreted_subclasses=True)
class Clock:
    """`now_us`: wall time, µs since the Unix epoch. `mono_us`: µs that never step, for durations and deadlines."""

    __slots__ = ()

    def now_us(self) -> int:
        raise NotImplementedError

    def mono_us(self) -> int:
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Keys:
    """The registered API keys, found by the SHA-256 digest of the credential."""

    __slots__ = ()

    def known(self, digest: bytes) -> Identity | None:  # noqa: ARG002 - of those that implement it
        """The identity, where it can be told without waiting; None where `find` has to be asked."""
        return None

    def find(self, digest: bytes, done: Callable[[Identity | StoreError | None], None]) -> None:
        """The identity, None where the key is unknown or revoked, StoreError where the store did not answer."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Counters:
    """The counters, in memory or on Redis. All calls are idempotent by exchange id (26 ASCII bytes)."""

    __slots__ = ()

    def spend(self, id: bytes, checks: Checks) -> Decision | None:  # noqa: ARG002 - as above
        """`reserve` by units that are in hand already; None where there are none, and nothing has been done."""
        return None

    def reserve(self, id: bytes, checks: Checks, done: Callable[[Decision | StoreError], None]) -> None:
        """Ask all of `checks`, all or none, in one step."""
        raise NotImplementedError

    def force(self, id: bytes, checks: Checks, done: Callable[[Decision | StoreError], None]) -> None:
        """Reserve without asking: for what was let through while the store was away. Counted past the limit as well.

        A rate is filled to its burst and no further: what would have leaked away since then is not owed.
        """
        raise NotImplementedError

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
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Local(Counters):
    """Counters in memory, which forget a wallet when they are told to."""

    __slots__ = ()

    def forget(self, keys: Sequence[str]) -> None:
        raise NotImplementedError


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


@mypyc_attr(allow_interpreted_subclasses=True)
class Journal:
    """The durable log of this worker. `then(True)` is called once the entry is as safe as `durability` says."""

    __slots__ = ()

    def accepting(self) -> bool:
        """False where the journal is full or broken and `on_full: reject` says to refuse new requests."""
        raise NotImplementedError

    def open(self, id: bytes, body: bytes, then: Callable[[bool], None]) -> None:
        """Write an OPEN entry: the exchange is about to reach the upstream. `body` is JSON."""
        raise NotImplementedError

    def close(
        self, stream: str, id: bytes, key: str, write: Callable[[str, int], bytes], then: Callable[[bool], None]
    ) -> None:
        """Write the record that ends an exchange, or stands alone.

        `stream` is "records" or "denials"; `key` the partition key; `write(source, sequence)` gives the record's
        bytes, with the next number of that stream.
        """
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Probe:
    """Plain integers that a collector reads at scrape."""

    __slots__ = ()

    def answered(self, route: str, status: int, added_us: int) -> None:
        raise NotImplementedError

    def denied(self, limit: str, *, shadow: bool) -> None:
        raise NotImplementedError

    def count(self, name: str) -> None:
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Client:
    """The downstream side of one exchange, as the listener offers it. Writes after the client is gone are no-ops.

    `peer` is the connection's other address, `tls` whether it is encrypted.
    """

    __slots__ = ()

    peer: str
    tls: bool

    def interim(self, head: bytes) -> None:
        """Pass a 1xx head on. Nothing is sent to HTTP/1.0 clients."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Send bytes of the answer as they are: heads and framing are the gateway's."""
        raise NotImplementedError

    def finish(self, *, close: bool) -> None:
        """The answer is complete: take the next request, or close once all is flushed."""
        raise NotImplementedError

    def skips(self) -> bool:
        """What is left of the request's body is short and sure to come: the connection can go on without it."""
        raise NotImplementedError

    def cut(self) -> None:
        """The answer cannot be completed: abort the connection, never end it cleanly."""
        raise NotImplementedError

    def tunnel(self) -> None:
        """A 101 was sent: from now on bytes pass raw through `Exchange.on_body`."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        raise NotImplementedError

    def resume_reading(self) -> None:
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Leg:
    """One request on one upstream connection."""

    __slots__ = ()

    def write(self, data: bytes) -> None:
        """Body bytes, unframed; the leg frames them by length or in chunks."""
        raise NotImplementedError

    def end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        raise NotImplementedError

    def cancel(self) -> None:
        """The client is gone or the answer was refused: close the connection, call nothing any more."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        raise NotImplementedError

    def resume_reading(self) -> None:
        raise NotImplementedError


class Connection(Leg):
    """A leg as its pool sees it: one connection, which carries one exchange after the other."""

    __slots__ = ("address", "attempt", "closed", "head", "idle_since", "request", "served", "transport")

    address: Any  # where it leads, as the pool knows it
    closed: bool
    idle_since: float  # on the loop's clock, s
    served: int  # exchanges so far, the one under way included
    transport: Any  # asyncio's
    # Of the exchange.
    request: Request
    head: bytes
    attempt: int

    def start(self, request: Request, head: bytes, caller: Caller, attempt: int) -> None:
        """Carry this request now: the head goes out, then `caller` writes the body."""
        raise NotImplementedError

    def sweep(self, now: float) -> None:
        """Called a few times a second by the one wheel: no timer per request."""
        raise NotImplementedError


class Caller(Facts):
    """What the upstream tells the exchange, which is also the facts of it."""

    __slots__ = ()

    def replayable(self) -> bool:
        """True while every body byte handed on so far is still held, so that a safe retry can send it again."""
        raise NotImplementedError

    def on_leg(self, leg: Leg) -> None:
        """A connection carries the head now; write the body from its start. Called again for a retry."""
        raise NotImplementedError

    def on_retry(self) -> None:
        """That connection is lost, and another is looked for: hold what comes of the body until it is there."""
        raise NotImplementedError

    def on_interim(self, head: ResponseHead) -> None:
        raise NotImplementedError

    def on_response(self, head: ResponseHead) -> None:
        """The final head; `on_response_body` always follows in the same turn, if only with b""."""
        raise NotImplementedError

    def on_response_body(self, data: bytes, done: bool) -> None:
        raise NotImplementedError

    def on_response_trailers(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """Trailers, told before the `done` of the body they end."""
        raise NotImplementedError

    def on_upstream_failed(self, error: UpstreamError) -> None:
        """Final: before the head, the error's status is to be answered; after it, the client's connection is cut."""
        raise NotImplementedError

    def on_upstream_paused(self) -> None:
        raise NotImplementedError

    def on_upstream_resumed(self) -> None:
        raise NotImplementedError


class Exchange(Caller):
    """What the listener tells the gateway about one request, after `serve` made it."""

    __slots__ = ()

    def on_body(self, data: bytes) -> None:
        raise NotImplementedError

    def on_body_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        raise NotImplementedError

    def on_body_broken(self, problem: Problem) -> None:
        """The body's framing was wrong, too long or too slow: refuse if nothing was answered yet, else cut."""
        raise NotImplementedError

    def on_client_gone(self) -> None:
        raise NotImplementedError

    def on_client_paused(self) -> None:
        raise NotImplementedError

    def on_client_resumed(self) -> None:
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Upstream:
    """A named API behind us: several addresses, pooled connections, one safe retry."""

    __slots__ = ()

    def send(self, request: Request, head: bytes, caller: Caller) -> None:
        """Start the exchange with the rebuilt request head. Never blocks; everything comes back through `caller`."""
        raise NotImplementedError

    def forget(self, caller: Caller) -> None:
        """The caller wants nothing any more, and has no leg yet."""
        raise NotImplementedError


class Owner(Upstream):
    """An upstream as its connections see it. Times are of the loop's clock, in s; `heads` are those judged before."""

    __slots__ = ("between_bytes_s", "first_byte_s", "heads", "now", "total_s")

    first_byte_s: float
    between_bytes_s: float
    total_s: float
    now: float
    heads: dict[bytes, ResponseHead]

    def release(self, leg: Connection, *, reusable: bool) -> None:
        """The connection carries nothing any more."""
        raise NotImplementedError

    def lost(self, leg: Connection, caller: Caller, error: UpstreamError, *, untouched: bool) -> None:
        """The exchange failed. `untouched`: not one byte of an answer was seen."""
        raise NotImplementedError


class House:
    """What all exchanges of a worker share: the ports, the policy in force, and what is prepared once for many.

    A base class and no Protocol: there is one, and every step of every exchange asks it for something.
    """

    clock: Clock
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
