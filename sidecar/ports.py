"""The interfaces between the gateway and the edges.

Edges implement them, decorators wrap them, `app` connects them. Interfaces that every request uses are base classes
instead of Protocols: compiled, their methods are called through a table, without a lookup by name.

A method that may have to wait takes a callback. It is called exactly once, and before the method returns if the answer
is known. On the data path a callback costs a seventh of a coroutine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sidecar.core.decision import Decision
from sidecar.core.decision.peek import Peeked
from sidecar.core.errors import StoreError, UpstreamError
from sidecar.core.http import Problem, ResponseHead
from sidecar.core.http.forward import Field, UpstreamHead
from sidecar.core.identity import Identity
from sidecar.core.limits import Checks
from sidecar.core.native import mypyc_attr
from sidecar.core.record import Alert, Denied, Facts
from sidecar.core.record.changes import History


@mypyc_attr(allow_interpreted_subclasses=True)
class Clock:
    """`now_us`: wall time, µs since the Unix epoch. `mono_us`: monotonic µs, for durations and deadlines."""

    __slots__ = ()

    def now_us(self) -> int:
        raise NotImplementedError

    def mono_us(self) -> int:
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Keys:
    """The registered API keys, by the SHA-256 digest of the credential."""

    __slots__ = ()

    def known(self, digest: bytes) -> Identity | None:  # noqa: ARG002 - used by implementations
        """The identity, if it is known without waiting; None: call `find`."""
        return None

    def was_known(self, digest: bytes) -> bool:  # noqa: ARG002 - as above
        """Whether the key was good when it was last looked up, as far as this is remembered."""
        return False

    def find(self, digest: bytes, done: Callable[[Identity | StoreError | None], None]) -> None:
        """Call `done` with the identity, None (unknown or revoked), or StoreError (the store did not answer)."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Counters:
    """The counters, in memory or on Redis. All calls are idempotent by exchange id (26 ASCII bytes)."""

    __slots__ = ()

    def try_local(self, id: bytes, checks: Checks) -> Decision | None:  # noqa: ARG002 - as above
        """`reserve` from units that this worker has leased; None if it has too few, and nothing is reserved."""
        return None

    def reserve(self, id: bytes, checks: Checks, done: Callable[[Decision | StoreError], None]) -> None:
        """Reserve for all of `checks`, or for none, in one atomic step."""
        raise NotImplementedError

    def charge_unconditionally(self, id: bytes, checks: Checks, done: Callable[[Decision | StoreError], None]) -> None:
        """Reserve for a request that was admitted during an outage. It is counted even if that exceeds the limit.

        A rate that denies is filled beyond its burst, so the caller leaves out the units that have leaked since then.
        """
        raise NotImplementedError

    def settle(
        self,
        id: bytes,
        checks: Checks,
        actual: Sequence[int],
        failed: Callable[[StoreError], None] | None = None,
    ) -> None:
        """Replace the reserved units by `actual[i]`, in the windows that they are counted in; free slots. Never waits.

        `failed` is called if the store did not confirm it. It is safe to settle again.
        """
        raise NotImplementedError

    def extend(self, exchanges: Sequence[tuple[bytes, Checks]]) -> None:
        """Postpone the expiry of the slots, holds and marks of open exchanges. Never waits.

        A lost extension does no harm (`core.decision.extension`).
        """
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class CountersWrapper(Counters):
    """The base of counters that wrap others: it passes on what it does not decide itself."""

    def __init__(self, inner: Counters) -> None:
        self._inner = inner

    def charge_unconditionally(self, id: bytes, checks: Checks, done: Callable[[Decision | StoreError], None]) -> None:
        self._inner.charge_unconditionally(id, checks, done)

    def settle(
        self, id: bytes, checks: Checks, actual: Sequence[int], failed: Callable[[StoreError], None] | None = None
    ) -> None:
        self._inner.settle(id, checks, actual, failed)

    def extend(self, exchanges: Sequence[tuple[bytes, Checks]]) -> None:
        self._inner.extend(exchanges)


@mypyc_attr(allow_interpreted_subclasses=True)
class Local(Counters):
    """Counters in memory, whose single values can be read, stored and deleted."""

    __slots__ = ()

    def peek(self, key: str) -> Any:
        """The value of a key of `Checks.keys`, None if it has no value."""
        raise NotImplementedError

    def put(self, key: str, value: Any, expire_us: int) -> None:
        """Store a value that `peek` returned."""
        raise NotImplementedError

    def forget(self, keys: Sequence[str]) -> None:
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Peeks:
    """Asks the counters how much of limits is left."""

    __slots__ = ()

    def peek(self, checks: Checks, done: Callable[[Peeked | StoreError], None]) -> None:
        """Call `done` with the figures of `checks`, whose costs are 0, in the windows of now. Nothing is reserved."""
        raise NotImplementedError


class Retries(Protocol):
    """Finds the first attempt of a request that has an Idempotency-Key: later attempts are not billed.

    `key` (bytes of any length) identifies the request. Only its digest is stored, per customer.
    """

    def first(
        self, identity: Identity, key: bytes, window_us: int, id: bytes, done: Callable[[bool | StoreError], None]
    ) -> None:
        """True if no other exchange was first with `key` in the last `window_us`. A repeated `id` stays first."""

    def forget(self, identity: Identity, key: bytes, id: bytes) -> None:
        """The exchange `id` was first and is not billed, so the next attempt may be first. Never waits."""


class Alerts(Protocol):
    """Alerts at thresholds of limits (`Limit.alerts`), each once per period over all workers."""

    def evaluate(self, decision: Decision, done: Callable[[Alert], None]) -> None:
        """Call `done`, now or later, for each threshold that is passed and that this worker has to record.

        Called with each decision, and again with its settled form (`core.decision.settled`). Needed only if
        `decision.checks.alerting`. Decisions of an outage cause no alerts.
        """

    def wrote(self, alert: Alert) -> None:
        """The record of `alert` is in the journal. Otherwise a worker may record it again, a minute after `done`."""


class Commands(Protocol):
    """Raw Redis commands, in order.

    `packed` is one RESP command. It is sent to the node that owns the slot of `slot_key`. Replies arrive in order, and
    the commands of one loop tick are one write. An error reply is a StoreError with its name as `reason` and its text
    as `detail`; a timeout or a lost connection is a StoreError with the reason NO_REPLY.
    """

    def send(self, slot_key: str, packed: bytes, done: Callable[[Any | StoreError], None]) -> None: ...
    def flush(self) -> None:
        """Write the commands of this tick now."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Journal:
    """The durable log of this worker. `then(True)` is called when the entry is as durable as `durability` requires."""

    __slots__ = ()

    def on_acknowledged(self, call: Callable[[], None]) -> None:
        """Set `call`, which follows each batch of `then`s: the entries of a tick are written and confirmed together."""
        raise NotImplementedError

    def withheld(self) -> bool:
        """Within a `then(False)`: whether the record will say `withheld`. False: it may be read as it was written."""
        raise NotImplementedError

    def accepting(self) -> bool:
        """False if the journal is full or broken and `on_full: reject` requires that new requests are refused."""
        raise NotImplementedError

    def open(self, id: bytes, body: bytes, then: Callable[[bool], None]) -> None:
        """Write an OPEN entry: the exchange is about to reach the upstream. `body` is JSON."""
        raise NotImplementedError

    def close(
        self, stream: str, id: bytes, key: str, write: Callable[[str, int], bytes], then: Callable[[bool], None]
    ) -> None:
        """Write the record that ends an exchange, or a record without an exchange.

        `stream` is "records" or "denials", `key` the partition key. `write(source, sequence)` returns the record's
        bytes; `sequence` is the next number of that stream.
        """
        raise NotImplementedError

    def deny(self, id: bytes, denied: Denied, write: Callable[[str, int], bytes]) -> None:
        """Write the record of a denial, or count it for a summary if there are too many. Never waits."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Probe:
    """Counts for metrics: plain integers that are read at scrape."""

    __slots__ = ()

    def answered(self, route: str, status: int, added_us: int) -> None:
        raise NotImplementedError

    def denied(self, limit: str, *, shadow: bool) -> None:
        raise NotImplementedError

    def count(self, name: str) -> None:
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Client:
    """The client's side of one exchange, implemented by the listener. Writes after a disconnect are no-ops.

    `peer` is the client's address, `tls` whether the connection is encrypted. `stalled`: it reads more slowly than its
    answer is written (`Exchange.on_client_paused`).
    """

    __slots__ = ()

    peer: str
    tls: bool
    stalled: bool

    def interim(self, head: ResponseHead) -> None:
        """Forward a 1xx head. Nothing is sent if the client's protocol version has no 1xx."""
        raise NotImplementedError

    def respond(self, head: ResponseHead, request_id: bytes, fields: Sequence[Field]) -> None:
        """Start the answer with the upstream's head and more fields. The head is sent together with the next bytes.

        After a 101 the bytes are raw, in `body` and `Exchange.on_body`.
        """
        raise NotImplementedError

    def body(self, data: bytes) -> None:
        """Send a part of the answer's body. b"" sends the head."""
        raise NotImplementedError

    def end(self, data: bytes, trailers: list[Field]) -> None:
        """Complete the answer with the last bytes of its body. The client may then send its next request."""
        raise NotImplementedError

    def refuse(self, problem: Problem, request_id: bytes, fields: Sequence[Field]) -> None:
        """Send a problem as the complete answer, instead of `respond`."""
        raise NotImplementedError

    def cut(self) -> None:
        """Abort an answer that cannot be completed, so that the client cannot take it for a complete one."""
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
        """Send body bytes, without framing."""
        raise NotImplementedError

    def end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        raise NotImplementedError

    def cancel(self) -> None:
        """Close the connection, and make no more calls: the client has disconnected or the answer was refused."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        raise NotImplementedError

    def resume_reading(self) -> None:
        raise NotImplementedError


class Caller(Facts):
    """The callbacks of an upstream to an exchange, which also has the facts for its record."""

    __slots__ = ()

    def replayable(self) -> bool:
        """True while all body bytes sent so far are still buffered, so that a safe retry can send them again."""
        raise NotImplementedError

    def on_leg(self, leg: Leg) -> None:
        """The head is sent on a connection: write the body from its start. Called again for a retry."""
        raise NotImplementedError

    def on_retry(self) -> None:
        """The connection is lost and a retry follows: buffer the body until the next `on_leg`."""
        raise NotImplementedError

    def on_interim(self, head: ResponseHead) -> None:
        raise NotImplementedError

    def on_response(self, head: ResponseHead) -> None:
        """The final head. `on_response_body` always follows in the same loop turn, perhaps with b""."""
        raise NotImplementedError

    def on_response_body(self, data: bytes, done: bool) -> None:
        raise NotImplementedError

    def on_response_trailers(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The trailers. Called before `on_response_body` with `done`."""
        raise NotImplementedError

    def on_upstream_failed(self, error: UpstreamError) -> None:
        """Final. Before the head, answer with the error's status; after it, cut the client's connection."""
        raise NotImplementedError

    def on_upstream_paused(self) -> None:
        raise NotImplementedError

    def on_upstream_resumed(self) -> None:
        raise NotImplementedError


class Exchange(Caller):
    """The callbacks of the listener for one request, which `serve` made."""

    __slots__ = ()

    @property
    def half_close(self) -> bool:
        """Whether a client that has closed its side of the connection still waits for the answer."""
        raise NotImplementedError

    def on_body(self, data: bytes) -> None:
        raise NotImplementedError

    def on_body_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        raise NotImplementedError

    def on_body_broken(self, problem: Problem) -> None:
        """The body is malformed, too long or too slow: refuse if there is no answer yet, else cut the connection."""
        raise NotImplementedError

    def on_client_gone(self) -> None:
        raise NotImplementedError

    def on_client_paused(self) -> None:
        raise NotImplementedError

    def on_client_resumed(self) -> None:
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Upstream:
    """A named upstream API: several addresses, pooled connections, one safe retry."""

    __slots__ = ()

    def send(self, head: UpstreamHead, caller: Caller) -> None:
        """Start the exchange, with `caller.id` as the request id. Never blocks: `caller` receives all events."""
        raise NotImplementedError

    def forget(self, caller: Caller) -> None:
        """Drop a caller that has no leg yet: it receives no more events."""
        raise NotImplementedError


class Entry(Protocol):
    """One frame read from a journal. `id` and `key` are ASCII; `str(position_after)` is where the next frame starts."""

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
    """The target of records. It commits them together with each worker's journal position, both or neither.

    Every method raises SinkError if the sink failed. It is then unknown what was committed: the caller opens the sink
    again and continues from the positions that `open` returns. A position is an opaque string.
    """

    async def open(self) -> Mapping[str, str]:
        """Become the only writer. Returns the committed position of each worker."""

    async def commit(self, entries: Sequence[Entry], positions: Mapping[str, str]) -> None:
        """Commit `entries` and `positions` (by worker) as one. RefusedError names entries that it can never accept."""

    async def close(self) -> None:
        """Release the sink within a few seconds, in whatever state it is. Never fails."""


class Originals(Protocol):
    """Finds a record that an operator wants to change, where records are stored."""

    async def find(self, id: str) -> History | None:
        """The record with this id (26 characters) and all its corrections and voids; None: there is no such record.

        SinkError: the records cannot be read.
        """

    def unread(self, id: str) -> str:
        """Names the files that may have this record or changes of it and cannot be read, and the remedy; "": none."""
