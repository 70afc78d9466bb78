"""The world in memory: a double of every port, so that a test of the gateway needs no server and no clock.

Doubles answer at once, or hold their answers until the test lets them go, and keep what they were told. They decide by
the same rule as the real ones (core/decision) and know nothing of any technology.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sidecar.core.counter import Checks, escaped, id_us, left_at
from sidecar.core.decision import Decision, Write, reserve, settle
from sidecar.core.errors import StoreError, UpstreamError
from sidecar.core.http import Request, ResponseHead, read_response
from sidecar.core.identity import Identity, digest
from sidecar.core.price import wallet as wallets
from sidecar.core.price.wallet import Grant, Wallet
from sidecar.core.record import Alert, Ids
from sidecar.core.record.alert import window_alert
from sidecar.ports import Caller, Client, Clock, Counters, Journal, Keys, Leg, Probe, Upstream

SOURCE = "//sidecar/test/1"


class HandClock(Clock):
    """`ports.Clock` that moves only when it is turned. `step` moves the wall clock alone, as NTP would."""

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
        """Set the wall clock forth or back."""
        self._now_us += us


def minted() -> Callable[[int], bytes]:
    """A mint whose ids are the same in every run."""
    return Ids(0).mint


class Held:
    """Calls that a test may hold back: `holding` keeps them in order, `let_go` makes them."""

    def __init__(self) -> None:
        self.holding = False
        self._calls: list[Callable[[], None]] = []

    @property
    def waiting(self) -> int:
        """How many calls are held."""
        return len(self._calls)

    def answer(self, call: Callable[[], None]) -> None:
        """Make the call, now or when the test says so."""
        if self.holding:
            self._calls.append(call)
        else:
            call()

    def let_go(self, most: int | None = None) -> None:
        """Make the calls that are held, the first `most` of them."""
        calls, self._calls = self._calls[:most], self._calls[most:] if most is not None else []
        for call in calls:
            call()


class KeyBook(Held, Keys):
    """`ports.Keys` from a dictionary. `fails` is what it answers instead, while it is set."""

    def __init__(self, pepper: bytes = b"") -> None:
        super().__init__()
        self.pepper = pepper
        self.asked: list[bytes] = []
        self.fails: StoreError | None = None
        self._known: dict[bytes, Identity] = {}

    def register(self, credential: str, identity: Identity) -> Identity:
        """From now on `credential` stands for `identity`."""
        self._known[digest(credential.encode(), self.pepper)] = identity
        return identity

    def revoke(self, credential: str) -> None:
        """From now on `credential` stands for nobody."""
        del self._known[digest(credential.encode(), self.pepper)]

    def find(self, digest: bytes, done: Callable[[Identity | StoreError | None], None]) -> None:
        self.asked.append(digest)
        found = self.fails or self._known.get(digest)
        self.answer(lambda: done(found))


class CounterBook(Held, Counters):
    """`ports.Counters` on a dictionary, which is never cleaned. `fails` is answered instead, while it is set."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__()
        self.state: dict[str, Any] = {}
        self.settled: list[tuple[bytes, tuple[int, ...]]] = []
        self.fails: StoreError | None = None
        self._clock = clock

    def reserve(self, id: bytes, checks: Checks, done: Callable[[Decision | StoreError], None]) -> None:
        self._reserve(id, checks, done, force=False)

    def force(self, id: bytes, checks: Checks, done: Callable[[Decision | StoreError], None]) -> None:
        self._reserve(id, checks, done, force=True)

    def settle(
        self, id: bytes, checks: Checks, truth: Sequence[int], failed: Callable[[StoreError], None] | None = None
    ) -> None:
        if self.fails is not None:
            return failed(self.fails) if failed is not None else None
        self.settled.append((id, tuple(truth)))
        now_us = self._clock.now_us()
        return self._apply(settle(self.state, id, checks, truth, now_us, now_us - id_us(id)))

    def fund(self, customer: str, unit: str, nanos: int) -> None:
        """Grant `nanos` nano-units to a customer's wallet, for ever."""
        now_us, wallet_key, ledger_key = self._clock.now_us(), *self._money(customer, unit)
        ledger = self.state.setdefault(ledger_key, {})
        grant = Grant(f"grant-{len(ledger)}", 0, 0, 0, nanos, nanos, made_us=now_us)
        self.state[wallet_key], postings = wallets.add(self.state.get(wallet_key, Wallet()), grant, now_us)
        for each in postings:
            ledger[max(ledger, default=0) + 1] = (*each, wallets.balance(self.state[wallet_key]))

    def balance(self, customer: str, unit: str) -> int:
        """What the customer's wallet has left, in nano-units."""
        held: Wallet = self.state.get(self._money(customer, unit)[0], Wallet())
        return wallets.balance(held)

    def postings(self, customer: str, unit: str) -> list[tuple[str, str, int, int]]:
        """The ledger: kind, the exchange's or the grant's id, change, balance after it."""
        return list(self.state.get(self._money(customer, unit)[1], {}).values())

    def used(self, limit: str) -> int:
        """The units that all counters of a limit hold (windows, quotas, priced), or the slots taken (concurrency)."""
        values = [value for key, value in self.state.items() if key.split(":")[2] == limit]
        return sum(len(value) if isinstance(value, dict) else value for value in values)

    @staticmethod
    def _money(customer: str, unit: str) -> tuple[str, str]:
        stem = f"sc:{{{escaped(customer)}}}"
        return f"{stem}:wallet:{escaped(unit)}", f"{stem}:ledger:{escaped(unit)}"

    def _reserve(
        self, id: bytes, checks: Checks, done: Callable[[Decision | StoreError], None], *, force: bool
    ) -> None:
        if self.fails is not None:
            failure = self.fails
            return self.answer(lambda: done(failure))
        now_us = self._clock.now_us()
        checks = checks if force or checks.holds(now_us) else checks.at(now_us)
        decision, writes = reserve(self.state, id, checks, now_us, force=force)
        self._apply(writes)
        found = decision if decision is not None else StoreError("no window of these limits holds the time")
        return self.answer(lambda: done(found))

    def _apply(self, writes: list[Write]) -> None:
        for key, member, value, _ in writes:
            if member is None:
                self.state[key] = value
            elif value is None:
                self.state.get(key, {}).pop(member, None)
            else:
                self.state.setdefault(key, {})[member] = value


class RetryBook(Held):
    """`ports.Retries` on a dictionary that forgets nothing by itself. `fails` is answered instead, while it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.firsts: dict[tuple[str, bytes], bytes] = {}
        self.windows: list[int] = []
        self.fails: StoreError | None = None

    def first(
        self, identity: Identity, key: bytes, window_us: int, id: bytes, done: Callable[[bool | StoreError], None]
    ) -> None:
        self.windows.append(window_us)
        found = self.fails or self.firsts.setdefault((identity.customer, key), id) == id
        self.answer(lambda: done(found))

    def forget(self, identity: Identity, key: bytes, id: bytes) -> None:
        if self.firsts.get((identity.customer, key)) == id:
            del self.firsts[identity.customer, key]


class AlertBook(Held):
    """`ports.Alerts` on a set: each alert of a window is handed over until it is written. `written` are its keys."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def look(self, decision: Decision, done: Callable[[Alert], None]) -> None:
        checks = decision.checks
        for index, _ in checks.alerting:
            limit = checks.limits[index]
            for percent in limit.alerts:
                if decision.remaining[index] <= left_at(limit.amount, percent) and limit.kind != "balance":
                    self._tell(window_alert(decision, index, percent), done)

    def wrote(self, alert: Alert) -> None:
        self.written.append(alert.key)

    def _tell(self, alert: Alert, done: Callable[[Alert], None]) -> None:
        if alert.key not in self.written:
            self.answer(lambda: done(alert))


class Written(NamedTuple):
    """One entry of a journal. `stream` is "open", "records" or "denials"."""

    stream: str
    id: bytes
    key: str
    body: bytes


class MemoryJournal(Held, Journal):
    """`ports.Journal` in a list. `full` refuses new exchanges; `broken` writes nothing and says so.

    While `holding`, entries are written but not yet safe: `then` waits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Written] = []
        self.full = False
        self.broken = False
        self._numbers: Counter[str] = Counter()

    def accepting(self) -> bool:
        return not self.full

    def open(self, id: bytes, body: bytes, then: Callable[[bool], None]) -> None:
        self._write(Written("open", id, "", body), then)

    def close(
        self, stream: str, id: bytes, key: str, write: Callable[[str, int], bytes], then: Callable[[bool], None]
    ) -> None:
        self._numbers[stream] += 1
        self._write(Written(stream, id, key, write(SOURCE, self._numbers[stream])), then)

    def of(self, stream: str) -> list[Written]:
        """The entries of one stream."""
        return [entry for entry in self.entries if entry.stream == stream]

    def _write(self, entry: Written, then: Callable[[bool], None]) -> None:
        written = not self.broken
        if written:
            self.entries.append(entry)
        self.answer(lambda: then(written))


class Tally(Probe):
    """`ports.Probe` that keeps what it was told."""

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
    """`ports.Upstream` that waits for the test: each exchange is a `Call` in `calls`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.forgotten: list[Caller] = []

    def send(self, request: Request, head: bytes, caller: Caller) -> None:
        self.calls.append(Call(request, head, caller))

    def forget(self, caller: Caller) -> None:
        self.forgotten.append(caller)


class Call(Leg):
    """One exchange as the upstream sees it, and `ports.Leg` once the test says that it is connected."""

    def __init__(self, request: Request, head: bytes, caller: Caller) -> None:
        self.request = request
        self.head = head
        self.caller = caller
        self.body = b""
        self.trailers: list[tuple[bytes, bytes]] | None = None
        self.cancelled = self.reading_paused = False

    def connect(self) -> Call:
        """A connection carries the head now."""
        self.caller.on_leg(self)
        return self

    def respond(self, status: int = 200, body: bytes = b"", *fields: tuple[bytes, bytes]) -> None:
        """Give a whole answer at once."""
        self.begin(status, (b"Content-Length", b"%d" % len(body)), *fields)
        self.go_on(body, done=True)

    def begin(self, status: int, *fields: tuple[bytes, bytes]) -> ResponseHead:
        """Give the head of an answer; `go_on` follows."""
        head = read_response((status, b"", 1), list(fields), self.request.method)
        self.caller.on_interim(head) if status < 200 and status != 101 else self.caller.on_response(head)
        return head

    def go_on(self, data: bytes, *, done: bool = False) -> None:
        """Give more of the body."""
        self.caller.on_response_body(data, done)

    def fail(self, error: UpstreamError) -> None:
        """The exchange cannot be completed."""
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
    """`ports.Client` that keeps what it was sent. `ended` is "", "kept", "closed" or "cut"."""

    def __init__(self, peer: str = "192.0.2.7", *, tls: bool = False) -> None:
        self.peer = peer
        self.tls = tls
        self.sent = b""
        self.interims: list[bytes] = []
        self.ended = ""
        self.tunnelled = self.reading_paused = False

    def interim(self, head: bytes) -> None:
        self.interims.append(head)

    def write(self, data: bytes) -> None:
        self.sent += data

    def finish(self, *, close: bool) -> None:
        self.ended = "closed" if close else "kept"

    def skips(self) -> bool:
        return False

    def cut(self) -> None:
        self.ended = "cut"

    def tunnel(self) -> None:
        self.tunnelled = True

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False

    @property
    def status(self) -> int:
        """The status that was sent, 0 for none."""
        return int(self.sent[9:12] or b"0")
