"""Test doubles of all ports, in memory, so that a test of the gateway needs no server and no real clock.

A double answers at once, or holds its answers until the test releases them, and stores the calls that it receives.
Doubles decide by the same rule as the real counters (core/decision).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sidecar.core.decision import Decision, Write, extend, reserve, settle
from sidecar.core.errors import StoreError, UpstreamError
from sidecar.core.http import Problem, ResponseHead, read_response
from sidecar.core.http.forward import Field, UpstreamHead, response_fields
from sidecar.core.http.problem import problem_body
from sidecar.core.identity import Identity, digest
from sidecar.core.limits import Checks, id_us, left_at, wallet_keys
from sidecar.core.limits.base import WALLET
from sidecar.core.price import wallet as wallets
from sidecar.core.price.wallet import Grant, Wallet
from sidecar.core.record import Alert, Denied, Ids
from sidecar.core.record.alert import window_alert
from sidecar.ports import Caller, Client, Clock, Counters, Journal, Keys, Leg, Probe, Upstream

SOURCE = "//sidecar/test/1"


class HandClock(Clock):
    """`ports.Clock` that the test advances by `turn`. `step` changes only the wall clock, as NTP does."""

    def __init__(self, now_us: int = 1_763_692_406_000_000) -> None:
        self._now_us = now_us
        self._mono_us = 0

    def now_us(self) -> int:
        return self._now_us

    def mono_us(self) -> int:
        return self._mono_us

    def turn(self, us: int) -> None:
        """Let `us` pass (≥ 0)."""
        self._now_us += us
        self._mono_us += us

    def step(self, us: int) -> None:
        """Move the wall clock forward or back."""
        self._now_us += us


def minted() -> Callable[[int], bytes]:
    """A mint that makes the same ids in every run."""
    return Ids(0).mint


class Held:
    """Calls that a test can delay: while `holding` they are queued in order, `let_go` makes them."""

    def __init__(self) -> None:
        self.holding = False
        self._calls: list[Callable[[], None]] = []

    @property
    def waiting(self) -> int:
        """The number of queued calls."""
        return len(self._calls)

    def answer(self, call: Callable[[], None]) -> None:
        """Make the call, now or at `let_go`."""
        if self.holding:
            self._calls.append(call)
        else:
            call()

    def let_go(self, most: int | None = None) -> None:
        """Make the queued calls, or the first `most` of them."""
        calls, self._calls = self._calls[:most], self._calls[most:] if most is not None else []
        for call in calls:
            call()


class KeyBook(Held, Keys):
    """`ports.Keys` on a dictionary. While `fails` is set, it is the answer."""

    def __init__(self, pepper: bytes = b"") -> None:
        super().__init__()
        self.pepper = pepper
        self.requested: list[bytes] = []
        self.fails: StoreError | None = None
        self._known: dict[bytes, Identity] = {}

    def register(self, credential: str, identity: Identity) -> Identity:
        """Register `credential` for `identity`."""
        self._known[digest(credential.encode(), self.pepper)] = identity
        return identity

    def revoke(self, credential: str) -> None:
        """Remove `credential`."""
        del self._known[digest(credential.encode(), self.pepper)]

    def find(self, digest: bytes, done: Callable[[Identity | StoreError | None], None]) -> None:
        self.requested.append(digest)
        result = self.fails or self._known.get(digest)
        self.answer(lambda: done(result))


def apply_writes(state: dict[str, Any], writes: Iterable[Write]) -> None:
    """Apply the changes that the rule returns to a state of plain values. Expired values stay in it."""
    for key, member, value, _ in writes:
        if member is None:
            state[key] = value
        elif value is None:
            state.get(key, {}).pop(member, None)
        else:
            state.setdefault(key, {})[member] = value


class CounterBook(Held, Counters):
    """`ports.Counters` on a dictionary, of which nothing expires. While `fails` is set, it is the answer."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__()
        self.state: dict[str, Any] = {}
        self.settled: list[tuple[bytes, tuple[int, ...]]] = []
        self.fails: StoreError | None = None
        self._clock = clock

    def reserve(self, id: bytes, checks: Checks, done: Callable[[Decision | StoreError], None]) -> None:
        self._reserve(id, checks, done, force=False)

    def charge_unconditionally(self, id: bytes, checks: Checks, done: Callable[[Decision | StoreError], None]) -> None:
        self._reserve(id, checks, done, force=True)

    def settle(
        self, id: bytes, checks: Checks, actual: Sequence[int], failed: Callable[[StoreError], None] | None = None
    ) -> None:
        if self.fails is not None:
            return failed(self.fails) if failed is not None else None
        self.settled.append((id, tuple(actual)))
        now_us = self._clock.now_us()
        return apply_writes(self.state, settle(self.state, id, checks, actual, now_us, now_us - id_us(id)))

    def extend(self, exchanges: Sequence[tuple[bytes, Checks]]) -> None:
        now_us = self._clock.now_us()
        for id_, checks in exchanges if self.fails is None else ():
            apply_writes(self.state, extend(self.state, id_, checks, now_us, now_us - id_us(id_)))

    def fund(self, customer: str, name: str, amount: int) -> None:
        """Grant an amount to a customer's wallet, without expiry. `name` is its unit and scale: usd, or credits.2."""
        now_us, (wallet_key, ledger_key, *_) = self._clock.now_us(), wallet_keys(customer, name)
        ledger = self.state.setdefault(ledger_key, {})
        grant = Grant(f"grant-{len(ledger)}", 0, 0, 0, amount, amount, made_us=now_us)
        self.state[wallet_key], postings = wallets.add(self.state.get(wallet_key, Wallet()), grant, now_us)
        for each in postings:
            ledger[max(ledger, default=0) + 1] = (*each, wallets.balance(self.state[wallet_key]))

    def balance(self, customer: str, name: str) -> int:
        """The balance of the customer's wallet."""
        wallet: Wallet = self.state.get(wallet_keys(customer, name)[0], Wallet())
        return wallets.balance(wallet)

    def postings(self, customer: str, name: str) -> list[tuple[str, str, int, int]]:
        """The ledger: kind, id of the exchange or grant, change, balance after it."""
        return list(self.state.get(wallet_keys(customer, name)[1], {}).values())

    def used(self, limit: str) -> int:
        """The units in all counters of a limit (windows, quotas, priced), or its used slots (concurrency)."""
        values = [value for key, value in self.state.items() if key.split(":")[2].partition("=")[2] == limit]
        return sum(len(value) if isinstance(value, dict) else value for value in values)

    def _reserve(
        self, id: bytes, checks: Checks, done: Callable[[Decision | StoreError], None], *, force: bool
    ) -> None:
        if self.fails is not None:
            failure = self.fails
            return self.answer(lambda: done(failure))
        now_us = self._clock.now_us()
        checks = checks if force or checks.covers(now_us) else checks.at(now_us)
        decision, writes = reserve(self.state, id, checks, now_us, force=force)
        apply_writes(self.state, writes)
        result = decision if decision is not None else StoreError("the limits have no window at this time")
        return self.answer(lambda: done(result))


class RetryBook(Held):
    """`ports.Retries` on a dictionary, of which nothing expires. While `fails` is set, it is the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.firsts: dict[tuple[str, bytes], bytes] = {}
        self.windows: list[int] = []
        self.fails: StoreError | None = None

    def first(
        self, identity: Identity, key: bytes, window_us: int, id: bytes, done: Callable[[bool | StoreError], None]
    ) -> None:
        self.windows.append(window_us)
        result = self.fails or self.firsts.setdefault((identity.customer, key), id) == id
        self.answer(lambda: done(result))

    def forget(self, identity: Identity, key: bytes, id: bytes) -> None:
        if self.firsts.get((identity.customer, key)) == id:
            del self.firsts[identity.customer, key]


class AlertBook(Held):
    """`ports.Alerts` on a list: each alert of a window is passed on until it is written. `written` has the keys."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def evaluate(self, decision: Decision, done: Callable[[Alert], None]) -> None:
        checks = decision.checks
        for index, _ in checks.alerting:
            check = checks.entries[index]
            limit = check.limit
            for percent in limit.alerts:
                if decision.remaining[index] <= left_at(limit.amount, percent) and check.kind.stored_as != WALLET:
                    self._pass_on(window_alert(decision, index, percent), done)

    def wrote(self, alert: Alert) -> None:
        self.written.append(alert.key)

    def _pass_on(self, alert: Alert, done: Callable[[Alert], None]) -> None:
        if alert.key not in self.written:
            self.answer(lambda: done(alert))


class Written(NamedTuple):
    """One entry of a journal. `stream` is "open", "records" or "denials"."""

    stream: str
    id: bytes
    key: str
    body: bytes


class MemoryJournal(Held, Journal):
    """`ports.Journal` in a list. While `full`, it accepts no exchanges; while `broken`, writes fail (`then(False)`).

    While `holding`, entries are written but not confirmed: `then` waits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Written] = []
        self.full = False
        self.broken = False
        self._numbers: Counter[str] = Counter()
        self._on_acknowledged: Callable[[], None] = lambda: None

    def on_acknowledged(self, call: Callable[[], None]) -> None:
        self._on_acknowledged = call

    def withheld(self) -> bool:
        return True

    def accepting(self) -> bool:
        return not self.full

    def open(self, id: bytes, body: bytes, then: Callable[[bool], None]) -> None:
        self._write(Written("open", id, "", body), then)

    def close(
        self, stream: str, id: bytes, key: str, write: Callable[[str, int], bytes], then: Callable[[bool], None]
    ) -> None:
        self._numbers[stream] += 1
        self._write(Written(stream, id, key, write(SOURCE, self._numbers[stream])), then)

    def deny(self, id: bytes, denied: Denied, write: Callable[[str, int], bytes]) -> None:
        self.close("denials", id, denied.customer, write, lambda _written: None)

    def of(self, stream: str) -> list[Written]:
        """The entries of one stream."""
        return [entry for entry in self.entries if entry.stream == stream]

    def _write(self, entry: Written, then: Callable[[bool], None]) -> None:
        written = not self.broken
        if written:
            self.entries.append(entry)
        self.answer(lambda: then(written))
        if not self.holding:
            self._on_acknowledged()

    def let_go(self, most: int | None = None) -> None:
        """Make the queued calls, as one batch."""
        super().let_go(most)
        self._on_acknowledged()


class Tally(Probe):
    """`ports.Probe` that stores its calls."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, int, int]] = []
        self.denials: list[tuple[str, bool]] = []
        self.counts: Counter[str] = Counter()

    def answered(self, route: str, status: int, added_us: int) -> None:
        self.answers.append((route, status, added_us))

    def denied(self, limit: str, *, shadow: bool) -> None:
        self.denials.append((limit, shadow))

    def count(self, name: str) -> None:
        self.counts[name] += 1


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
