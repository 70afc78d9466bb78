"""The stores of a node without Redis: counters, wallets, first attempts and written alerts, as rows and notes.

A row is an entry of a store at an instant; a note is a change that no exchange made, written to the journal. `saver`
writes rows, and `replay` reads them back with all entries of the journal after them. A request of another process
(`listener`) is a question or a change, as JSON:

    {"do": "values", "keys": […]}                          the units of counters
    {"do": "peek", "checks": …}                            what is left of limits (`core.decision.peek`)
    {"do": "set", "sets": [[key, units, expires_us], …], "exact": false}    raises counters; `exact`: lowers them too
    {"do": "adjust", "id": …, "units": {"monthly": -3}, …} what a correction adds (`core.record.settlement`)
    {"do": "read" | "grant" | "void" | "sweep" | "replace", "customer": …, "unit": …, …}    a wallet
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson

from sidecar.core.decision.packed import unpack
from sidecar.core.decision.peek import peek
from sidecar.core.decision.saved import Row, writes_of
from sidecar.core.limits import Checks
from sidecar.core.limits.base import WALLET
from sidecar.core.limits.keys import beside_wallet, current_key, marks_stem_beside
from sidecar.core.policy import Policy
from sidecar.core.price.book import Change, WalletSnapshot
from sidecar.core.price.wallet import Grant, Wallet
from sidecar.core.record.settlement import Settlements
from sidecar.edge.memory.alerts import MemoryAlerts
from sidecar.edge.memory.counters import MemoryCounters
from sidecar.edge.memory.retries import MemoryRetries
from sidecar.edge.memory.wallet import MemoryWallet
from sidecar.ports import Clock

Then = Callable[[bool], None]
Note = Callable[[bytes, Then], None]
Json = dict[str, Any]
IsNew = Callable[[str], bool]

ADJUSTED_MAX = 10_000  # ids that are remembered
_NOTHING = Wallet()
_OF_COUNTERS = frozenset({"adjust", "set"})


class EmbeddedState:
    """The stores of a node without Redis. `note` writes a note to the journal, and is called back once it is there."""

    def __init__(self, clock: Clock, note: Note) -> None:
        self._clock = clock
        self._note = note
        self.counters = MemoryCounters(clock)
        self.retries = MemoryRetries(clock, self._note_retry)
        self.alerts = MemoryAlerts(clock, self._topped, self._note_alert)
        self._settlements: Settlements | None = None
        self.adjusted: dict[str, None] = {}  # ids of changes whose adjustment was made, oldest first
        self.posted: dict[str, int] = {}  # the key of a wallet → the number of the last posting that is on the stream

    def use(self, policy: Policy) -> Settlements:
        """Read corrections by the limits of `policy`."""
        self._settlements = Settlements(policy)
        return self._settlements

    # As rows.

    def rows_beside(self) -> Iterator[Row]:
        """The rows of the other stores."""
        for digest, id_, until_us in self.retries.held():
            yield ["retry", digest.hex(), until_us, id_.decode()]
        for counter, percents in self.alerts.written():
            yield ["alert", counter, 0, percents]
        for key, number in self.posted.items():
            yield ["posted", key, 0, number]
        for change in self.adjusted:
            yield ["adjusted", change, 0]

    def restore(self, row: Row, now_us: int) -> None:
        """Restore the entry of a row."""
        kind, key, expire_us, *values = row
        if kind == "retry":
            self.retries.restore(bytes.fromhex(key), values[0].encode(), expire_us)
        elif kind == "alert":
            self.alerts.restore(current_key(key), values[0])
        elif kind == "posted":
            self._restore_posted(key, values[0])
        elif kind == "adjusted":
            self.adjusted[key] = None
        else:
            self.counters.store(current_key(key), writes_of(row), now_us)

    def _restore_posted(self, key: str, number: int) -> None:
        """Postings that a replay repeats have new numbers: none of them is taken for one that is on the stream."""
        ledger = self.counters.state.get(beside_wallet(key, "ledger"), {})
        self.posted[key] = min(number, next(reversed(ledger), 0))

    # As notes.

    def replay(self, note: Json, is_new: IsNew) -> bytes:
        """Apply a note; returns the id of the exchange whose first attempt it was, else b"".

        `is_new`: whether the rows that were restored of the account with these marks are older than the note.
        """
        if "retry" in note:
            digest, id_, until_us = note["retry"]
            self.retries.restore(bytes.fromhex(digest), id_.encode(), until_us)
            return str(id_).encode()
        if "alert" in note:
            counter, percent = note["alert"]
            self.alerts.restore(current_key(counter), [percent])
        elif "wallet" in note:
            self._change_wallet(note["wallet"])
        elif "counters" in note:
            self._change_counters(note["counters"], is_new)
        return b""

    # Requests.

    def answer(self, request: Json) -> Json | None:
        """The answer to a question; None: the request is a change."""
        if request["do"] == "read":
            return self.read(request)._asdict()
        if request["do"] == "values":
            return {"values": [self.counters.state.get(key, 0) for key in request["keys"]]}
        if request["do"] == "peek":
            return self._peek(unpack(request["checks"]))
        return None

    def change(self, request: Json, then: Callable[[Json], None], failed: Callable[[], None]) -> None:
        """Make a change, and call `then` with its answer once it is in the journal; `failed`: it is not."""
        if request["do"] == "adjust" and request["id"] in self.adjusted:
            return then({"adjusted": [], "known": True})
        dated = request | {"now_us": self._clock.now_us()}
        if request["do"] in _OF_COUNTERS:
            kind, (answer, wallets) = "counters", self._change_counters(dated)
        else:
            kind, answer, wallets = "wallet", _answer_of(self._change_wallet(dated)), [self._wallet(request).key]
        for key in wallets:
            self.counters.charged(key)
        return self._note(
            orjson.dumps({kind: dated}, default=tuple), lambda written: then(answer) if written else failed()
        )

    def read(self, request: Json) -> WalletSnapshot:
        """A wallet with its last postings."""
        return self._wallet(request).read(request["postings"], self._clock.now_us())

    def _change_counters(self, request: Json, is_new: IsNew = lambda _marks: True) -> tuple[Json, list[str]]:
        """The answer, and the keys of the wallets that were charged."""
        if request["do"] == "set":
            wanted = [each for each in request["sets"] if is_new(marks_stem_beside(each[0]))]
            return {"before": [self._set(request, *each) for each in wanted]}, []
        settlement = self._settlements.adjustment(request) if self._settlements is not None else None
        if settlement is None:
            return {"adjusted": []}, []
        checks = settlement.checks
        self._note_adjusted(request["id"])
        if is_new(checks.marks):
            self.counters.replay_settle(settlement.id, checks, settlement.actual, request["now_us"])
        wallets = [check.keys[0] for check in checks.entries if check.kind.stored_as == WALLET]
        return {"adjusted": [limit.id for limit in checks.limits]}, wallets

    def _note_adjusted(self, id_: str) -> None:
        self.adjusted[id_] = None
        while len(self.adjusted) > ADJUSTED_MAX:
            del self.adjusted[next(iter(self.adjusted))]

    def _peek(self, checks: Checks) -> Json:
        now_us = self._clock.now_us()
        peeked = peek(self.counters.state.of(checks), checks, now_us)
        if peeked is None:
            return {"now_us": now_us}
        figures = {"remaining": peeked.remaining, "reset_us": peeked.reset_us}
        return {"now_us": now_us, **figures, "wallets": list(peeked.wallets.items())}

    def _set(self, request: Json, key: str, units: int, expires_us: int) -> int:
        before: int = self.counters.state.get(key, 0)
        if units > before or request["exact"]:
            self.counters.store(key, [(key, None, units, expires_us)], request["now_us"])
        return before

    def _change_wallet(self, request: Json) -> Change | bool:
        wallet, now_us = self._wallet(request), request["now_us"]
        match request["do"]:
            case "grant":
                return wallet.grant(Grant(*request["grant"]), now_us)
            case "void":
                return wallet.void(request["grant"], now_us)
            case "sweep":
                return wallet.expire_grants(now_us)
            case "replace":
                return wallet.replace(request["last"], wallet_of(request["wallet"]), now_us)
        raise ValueError(f"{request['do']!r} is not a change of a wallet")

    def _wallet(self, request: Json) -> MemoryWallet:
        return MemoryWallet(self.counters.state, self.counters.store, request["customer"], request["unit"])

    def _topped(self, key: str) -> tuple[int, int, str]:
        wallet: Wallet = self.counters.state.get(key, _NOTHING)
        return wallet.topped

    def _note_retry(self, digest: bytes, id_: bytes, until_us: int) -> None:
        self._note(orjson.dumps({"retry": [digest.hex(), id_.decode(), until_us]}), _noted)

    def _note_alert(self, counter: str, percent: int) -> None:
        self._note(orjson.dumps({"alert": [counter, percent]}), _noted)


def wallet_of(values: Iterable[Any]) -> Wallet:
    """A wallet from its fields as JSON has them."""
    grants, debt, carried, (made_us, amount, grant) = values
    return Wallet(tuple(Grant(*each) for each in grants), debt, carried, (made_us, amount, grant))


def _answer_of(made: Change | bool) -> Json:
    return {"replaced": made} if isinstance(made, bool) else made._asdict()


def _noted(_written: bool) -> None:
    """Nobody waits for it."""
