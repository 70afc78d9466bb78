"""Redis commands on one raw connection: what one loop tick sends is one write, and a reply belongs to its position.

redis-py makes the connection (TLS, AUTH, SELECT) and hands its transport over. `send` answers every `done` exactly
once and never waits for a connection: without one the answer is a StoreError at once. A command is never sent twice.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple, cast

import hiredis
from redis.asyncio.connection import AbstractConnection

from sidecar.core.errors import StoreError, StoreReason
from sidecar.ports import Clock

Done = Callable[[Any], None]
Connect = Callable[[], Awaitable["AbstractConnection"]]

LATENCY_BOUNDS_US: Final = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000)

_log = logging.getLogger(__name__)
_MORE: Final = object()
_CANCEL_AGAIN_S: Final = 0.1
# Raised inside a script, Redis 6 wraps the code: "ERR Error running script …: -READONLY You can't write …"
_FAILED_OVER: Final = re.compile(r"(?:^|-)(READONLY|MASTERDOWN)\b")
# Inside a script, Redis 7 writes the second text in place of the code.
_FORBIDDEN: Final = re.compile(r"(?:^|-)(NOPERM|NOAUTH|WRONGPASS)\b|can't run this command or subcommand")


_REASONS: Final = {
    "NOSCRIPT": StoreReason.NO_SCRIPT,
    "MOVED": StoreReason.MOVED,
    "ASK": StoreReason.ASK,
    "CLUSTERDOWN": StoreReason.UNSERVED,
}


async def end_task(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task until it is done: `wait_for` (Python 3.11) swallows a cancel that comes as its awaitable ends."""
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=_CANCEL_AGAIN_S)


def bulks(*words: str | int) -> bytes:
    """Words as bulk strings of the Redis protocol."""
    packed = [str(word).encode() for word in words]
    return b"\r\n".join([*[b"$%d\r\n%b" % (len(word), word) for word in packed], b""])


def command(*words: str | bytes | int) -> bytes:
    """A command in the Redis protocol."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type] # its stub knows commands of one word only
    return packed


def ignore(_reply: Any) -> None:
    """For a command whose reply changes nothing."""


class WireOptions(NamedTuple):
    """Bounds of one connection.

    `timeout_us`: a reply later than this is a StoreError; `late_us`: a reply later than this ends the connection;
    `backlog`: commands that may await replies at once, timed-out ones included; `backoff_us`, `backoff_cap_us`:
    the first and the longest pause between attempts to connect, jittered down to half.
    """

    timeout_us: int = 50_000
    late_us: int = 1_000_000
    backlog: int = 8_192
    backoff_us: int = 20_000
    backoff_cap_us: int = 1_000_000


class WireStats:
    """Plain integers for the collector; one object may serve every connection of a topology.

    `connected` is a gauge, `latency_buckets[i]` counts replies within LATENCY_BOUNDS_US[i] (the last: beyond all).
    """

    __slots__ = (
        "connected", "errors", "forbidden", "forbidden_last", "latency_buckets", "latency_sum_us", "losses", "refused",
        "timeouts",
    )  # fmt: skip

    def __init__(self) -> None:
        self.connected = self.errors = self.latency_sum_us = 0
        self.losses = self.refused = self.timeouts = self.forbidden = 0
        self.forbidden_last = ""  # the last reply that the user may not run a command
        self.latency_buckets = [0] * (len(LATENCY_BOUNDS_US) + 1)

    def observe(self, replies: int, latency_us: int) -> None:
        self.latency_buckets[bisect_left(LATENCY_BOUNDS_US, latency_us)] += replies
        self.latency_sum_us += replies * latency_us


def server_error(detail: str) -> StoreError:
    """The error of a server's reply, with the reason that belongs to its code."""
    reason = _REASONS.get(detail.partition(" ")[0])
    if reason is None and _FORBIDDEN.search(detail):
        reason = StoreReason.FORBIDDEN
    if reason is None:
        reason = StoreReason.FAILED_OVER if _FAILED_OVER.search(detail) else StoreReason.REFUSED
    return StoreError(detail, reason)


def _nothing() -> None:
    """The default: no callback."""


class RedisWire:
    """The `Commands` port on one server, reconnecting by itself. `connect` finds the server anew each time."""

    def __init__(
        self, connect: Connect, clock: Clock, options: WireOptions | None = None, stats: WireStats | None = None
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._options = options or WireOptions()
        self.stats = stats or WireStats()
        self._line: _Line | None = None
        self._away = StoreError("redis: not connected yet")
        self._task: asyncio.Task[None] | None = None
        self.groups = 1
        self.connected: Callable[[], None] = _nothing  # called with each new connection, before anything is sent on it

    def nodes(self) -> dict[str, int]:
        """There is one node, and one marker on it."""
        return {"": 0}

    def node(self, _slot_key: str) -> str:
        """The node that holds a key."""
        return ""

    @property
    def ready(self) -> bool:
        """Connected, and no reply is overdue."""
        return self._line is not None and not self._line.overdue

    @property
    def away(self) -> str:
        """Why there is no connection, or the reason of the last loss."""
        return self._away.detail

    def start(self) -> None:
        """Connect in the background, and again after every loss, until `aclose`."""
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="redis wire")

    def send(self, slot_key: str, packed: bytes, done: Done) -> None:
        """Send one packed RESP command with the tick's others; `done` gets the reply, or a StoreError."""
        line = self._line
        if line is None:
            self.stats.refused += 1
            done(self._away)
        else:
            line.send(packed, done)

    def flush(self) -> None:
        """Write what this tick has sent so far, without waiting for its end."""
        if self._line is not None:
            self._line.flush()

    async def aclose(self) -> None:
        """Refuse new commands, wait for outstanding replies (at most `timeout_us`), close."""
        line, self._away = self._let_go(), StoreError("redis: closed")
        await end_task(self._task)
        made = self._let_go()
        if made is not None:  # after all
            made.end("redis: closed")
            await made.gone()
        if line is not None:
            try:
                await line.drain()
            finally:
                line.end("redis: closed")
            await line.gone()

    def _let_go(self) -> _Line | None:
        line, self._line = self._line, None
        return line

    async def _keep(self) -> None:
        pause_us = self._options.backoff_us
        while True:
            try:
                connection = await self._connect()
            except Exception as error:  # noqa: BLE001 - whatever redis-py raises, the next attempt may succeed
                self._note_away(f"redis: cannot connect: {error}")
            else:
                line = self._take_over(connection)
                await line.lost.wait()
                if line.answered:
                    pause_us = self._options.backoff_us
            await asyncio.sleep(pause_us * random.uniform(0.5, 1.0) / 1e6)  # noqa: S311 - spreads reconnects
            pause_us = min(pause_us * 2, self._options.backoff_cap_us)

    def _take_over(self, connection: AbstractConnection) -> _Line:
        """redis-py keeps no hold of the transport; its writer is kept alive, since its finaliser would close it."""
        writer, connection._writer, connection._reader = connection._writer, None, None
        assert writer is not None  # noqa: S101 - connect() returned
        line = _Line(writer, self._clock, self._options, self.stats, self._on_lost)
        writer.transport.set_protocol(cast("asyncio.Protocol", line))
        self._line = line
        self.stats.connected += 1
        _log.info("redis: connected")
        self.connected()
        return line

    def _on_lost(self, line: _Line, reason: str) -> None:
        self.stats.connected -= 1
        if self._line is line:  # else it was closed on purpose
            self.stats.losses += 1
            self._line = None
            self._note_away(reason)

    def _note_away(self, reason: str) -> None:
        if reason != self._away.detail:
            _log.warning("%s", reason)
            self._away = StoreError(reason)


class _Line:
    """One connection, from the hand-over to its loss: an `asyncio.Protocol` by its methods.

    `_waiting` are the callers whose replies have yet to come, oldest first. A batch is what one tick sent:
    [sent at, replies outstanding]. Batches that timed out move from `_batches` to `_late`, and their callers fail;
    as they are always the oldest, the next replies to come are theirs, and are thrown away: no one gets another's.
    """

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        clock: Clock,
        options: WireOptions,
        stats: WireStats,
        on_lost: Callable[[_Line, str], None],
    ) -> None:
        self._writer = writer
        self._transport = writer.transport
        self._mono_us = clock.mono_us
        self._options = options
        self._stats = stats
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=server_error, notEnoughData=_MORE)
        self._out: list[bytes] = []
        self._waiting: deque[Done] = deque()
        self._batches: deque[list[int]] = deque()
        self._late: deque[list[int]] = deque()
        self._late_replies = 0
        self._timer: asyncio.TimerHandle | None = None
        self._drained: asyncio.Event | None = None
        self._closed = asyncio.Event()
        self._failed_over = ""
        self.lost = asyncio.Event()
        self.answered = False
        self._timed_out = StoreError(f"redis: no reply within {options.timeout_us} µs", StoreReason.NO_REPLY)
        self._full = StoreError(f"redis: {options.backlog} commands await replies already")

    @property
    def overdue(self) -> bool:
        return bool(self._late)

    def send(self, packed: bytes, done: Done) -> None:
        if len(self._waiting) + self._late_replies >= self._options.backlog:
            self._stats.refused += 1
            done(self._full)
            return
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append(packed)
        self._waiting.append(done)

    def flush(self) -> None:
        out = self._out
        if not out:  # written already, or lost between the send and its tick: then its callers got an error
            return
        if self._transport.is_closing():  # uvloop raises on a write to a closed handle
            self.end("redis: connection closed")
            return
        self._out = []
        self._batches.append([self._mono_us(), len(out)])
        self._transport.write(b"".join(out))
        if self._timer is None:
            self._timer = self._loop.call_later(self._options.timeout_us / 1e6, self._on_timer)

    def data_received(self, data: bytes) -> None:
        now_us = self._mono_us()
        try:
            self._reader.feed(data)
            replies = self._replies()
        except (hiredis.HiredisError, IndexError) as error:
            self.end(f"redis: protocol error: {error}")
            return
        self._account(replies, now_us)
        if self._failed_over:
            self.end(f"redis: {self._failed_over}")
        self._note_drained()

    def _replies(self) -> int:
        """Deliver all complete replies; returns how many were on time. IndexError: a reply without a command."""
        gets, waiting, replies = self._reader.gets, self._waiting, 0
        while (reply := gets()) is not _MORE:
            if self._late:
                self._discard()
                continue
            done = waiting.popleft()
            replies += 1
            if type(reply) is StoreError:
                self._note_error(reply)
            self._answer(done, reply)
        return replies

    def _answer(self, done: Done, reply: Any) -> None:
        try:
            done(reply)
        except Exception as error:  # noqa: BLE001 - one caller's bug must not shift everyone else's replies
            self._loop.call_exception_handler({"message": "redis: a reply's callback failed", "exception": error})

    def _note_error(self, error: StoreError) -> None:
        self._stats.errors += 1
        if error.reason is StoreReason.FORBIDDEN:
            self._stats.forbidden += 1
            self._stats.forbidden_last = error.detail
        elif error.reason is StoreReason.FAILED_OVER:
            self._failed_over = f"not the master any more ({error.detail})"

    def _discard(self) -> None:
        batch = self._late[0]
        batch[1] -= 1
        self._late_replies -= 1
        if not batch[1]:
            self._late.popleft()

    def _account(self, replies: int, now_us: int) -> None:
        if replies and not self._failed_over:
            self.answered = True
        while replies and self._batches:
            batch = self._batches[0]
            taken = min(replies, batch[1])
            self._stats.observe(taken, now_us - batch[0])
            replies -= taken
            batch[1] -= taken
            if not batch[1]:
                self._batches.popleft()

    def _on_timer(self) -> None:
        self._timer = None
        now_us, options = self._mono_us(), self._options
        while self._batches and now_us - self._batches[0][0] >= options.timeout_us:
            self._expire(self._batches.popleft())
        if self._late and now_us - self._late[0][0] >= options.late_us:
            self.end(f"redis: no reply for {options.late_us} µs")
        elif self._late or self._batches:
            due_us = [now_us + options.timeout_us]  # at the latest: it must be armed for what is sent until then
            due_us += [self._batches[0][0] + options.timeout_us] if self._batches else []
            due_us += [self._late[0][0] + options.late_us] if self._late else []
            self._timer = self._loop.call_later(max(min(due_us) - now_us, 1_000) / 1e6, self._on_timer)
        self._note_drained()

    def _expire(self, batch: list[int]) -> None:
        self._late.append(batch)
        self._late_replies += batch[1]
        self._stats.timeouts += batch[1]
        for _ in range(batch[1]):
            self._answer(self._waiting.popleft(), self._timed_out)

    def eof_received(self) -> None:
        """The server is done: what is left of the connection is closed."""

    def pause_writing(self) -> None:
        """Nothing to pause: what is sent is bounded by `backlog`."""

    def resume_writing(self) -> None:
        """As above."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()
        self.end(f"redis: connection lost: {exc or 'closed by the server'}")

    def end(self, reason: str) -> None:
        """Close the connection and answer all waiting calls; only unwritten commands are certainly not applied."""
        if self.lost.is_set():
            return
        self.lost.set()
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        self._on_lost(self, reason)
        unsent, self._out = len(self._out), []
        maybe, surely = StoreError(reason, StoreReason.NO_REPLY), StoreError(reason)
        while self._waiting:
            self._answer(self._waiting.popleft(), maybe if len(self._waiting) >= unsent else surely)
        self._note_drained()

    async def drain(self) -> None:
        """Wait until no call waits; a timer bounds it."""
        self._drained = asyncio.Event()
        self._note_drained()
        await self._drained.wait()

    async def gone(self) -> None:
        """Wait until the transport is closed, at most a second (uvloop #552: some losses are never reported)."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), 1)

    def _note_drained(self) -> None:
        if self._drained is not None and not self._waiting:
            self._drained.set()
