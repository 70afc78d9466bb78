"""The counters on Redis: one script call per decision, whose bytes are prepared once per window.

The scripts implement the rule of core/decision, as a test verifies; nothing is decided here. A command is repeated only
if the server replied that it changed nothing: NOSCRIPT, or a window that does not match Redis's clock, the only clock
that decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from sidecar.core.decision import MARK_LIFE_US, Decision, changes_nothing
from sidecar.core.errors import StoreError, StoreReason
from sidecar.core.limits import Checks, Derived, id_us
from sidecar.core.limits.base import COUNT, RATE, SLOTS, WALLET, Check
from sidecar.edge.redis.scripts import EXTEND, PLAIN, WITH_WALLETS, Script
from sidecar.edge.redis.wire import bulks, ignore
from sidecar.ports import Clock, Commands, Counters

Done = Callable[[Decision | StoreError], None]

_STALE = -1
EXTENDED_MAX = 500  # exchanges per command
_ORDER: Final = ({COUNT, RATE}, {SLOTS}, {WALLET})  # of KEYS: the counters are first, since one command reads them all


class _Wire:
    """The commands of one Checks as bytes, cut where the id is inserted: its bucket in the key of marks, then the id.

    `instead`: the same checks in the windows of Redis's clock, if those differ from ours.
    """

    __slots__ = ("as_reserved", "forced", "head", "instead", "payers", "scripts", "settle_head", "settle_keys",
                 "slot_key", "tail", "unreserved", "wallets")  # fmt: skip

    def __init__(self, checks: Checks) -> None:
        entries = checks.entries
        keys, counters, words = evaluation_words(checks)
        self.slot_key = checks.marks
        self.scripts = WITH_WALLETS if checks.has_wallet else PLAIN
        self.head = _head(self.scripts.reserve, checks, 1 + len(keys), 3 + len(words))
        packed = bulks(*keys)
        self.tail = b"\r\n" + packed + bulks(0, counters, *words) + b"$26\r\n"
        self.forced = b"\r\n" + packed + bulks(1, counters, *words) + b"$26\r\n"
        settled = [
            key for check in entries for key in (check.keys if check.kind.stored_as == WALLET else check.keys[:1])
        ]
        self.wallets = _wallet_places(entries, settled)
        as_reserved = [
            _settle_words(check, check.cost, 0, place) for check, place in zip(entries, self.wallets, strict=True)
        ]
        self.settle_head = _head(self.scripts.settle, checks, 1 + len(settled), 2 + sum(map(len, as_reserved)))
        self.settle_keys = b"\r\n" + bulks(*settled) + b"$26\r\n"
        self.as_reserved = [bulks(*words) for words in as_reserved]
        self.unreserved = not any(checks.costs)
        self.payers = tuple([check.keys[0] for check in entries if check.kind.stored_as == WALLET])
        self.instead: Checks | None = None


_WIRES: Final = Derived(_Wire, by_costs=True)


class RedisCounters(Counters):
    """`Counters` on Redis. `clock` is used for the age of ids only: Redis's clock decides.

    `unsettled` counts settles that failed. `charged` is called with a wallet's key before each call that may change it.
    """

    def __init__(self, commands: Commands, clock: Clock) -> None:
        self._send = commands.send
        self._now_us = clock.now_us
        self.unsettled = 0
        self.charged: Callable[[str], None] = ignore
        self._round = 0
        self._unanswered = [0, 0]  # settles without a reply, by the round in which they were sent

    def end_round(self) -> bool:
        """Whether all settles sent before the last True have a reply. Then a new round begins. About once a second."""
        if self._unanswered[1 - self._round]:
            return False
        self._round = 1 - self._round
        return True

    @property
    def unanswered(self) -> int:
        """Settles without a reply."""
        return self._unanswered[0] + self._unanswered[1]

    def reserve(self, id: bytes, checks: Checks, done: Done) -> None:
        """Reserve all of `checks` or none, in one step. The decision's checks have the windows of Redis's clock."""
        wire = _WIRES.of(checks)
        sent = checks
        if wire.instead is not None:
            sent = wire.instead
            wire = _WIRES.of(sent)
        for key in wire.payers:
            self.charged(key)
        packed = b"".join((wire.head, id[:7], wire.tail, id, b"\r\n"))
        self._send(wire.slot_key, packed, partial(self._replied, packed, checks, sent, done))

    def charge_unconditionally(self, id: bytes, checks: Checks, done: Done) -> None:
        """Charge past the limits too, in the windows of `checks` even if they have passed. Once per id."""
        wire = _WIRES.of(checks)
        packed = b"".join((wire.head, id[:7], wire.forced, id, b"\r\n"))
        self._send(wire.slot_key, packed, partial(self._replied, packed, checks, checks, done))

    def settle(
        self, id: bytes, checks: Checks, actual: Sequence[int], failed: Callable[[StoreError], None] | None = None
    ) -> None:
        """Replace the reserved units by `actual[i]`. If that changes nothing, nothing is sent."""
        if changes_nothing(checks, actual):
            return
        wire = _WIRES.of(checks)
        age_us = self._now_us() - id_us(id)
        words = [
            as_reserved if units == check.cost else bulks(*_settle_words(check, units, age_us, place))
            for check, as_reserved, units, place in zip(
                checks.entries, wire.as_reserved, actual, wire.wallets, strict=True
            )
        ]
        gone = b"\r\n$1\r\n1\r\n" if wire.unreserved or age_us > MARK_LIFE_US else b"\r\n$1\r\n0\r\n"
        packed = b"".join((wire.settle_head, id[:7], wire.settle_keys, id, gone, *words))
        self._unanswered[self._round] += 1
        for key in wire.payers:
            self.charged(key)
        self._send(wire.slot_key, packed, partial(self._settled, packed, wire, failed, self._round))

    def extend(self, exchanges: Sequence[tuple[bytes, Checks]]) -> None:
        """Send one command per bucket of marks, and one per set of slots or holds with all of its exchanges.

        The next extension is sent before the marks and slots expire, so a failure needs no reaction.
        """
        now_us = self._now_us()
        buckets: dict[str, None] = {}
        sets: dict[tuple[str, str, int], list[tuple[bytes, str, int]]] = {}
        for id_, checks in exchanges:
            bucket = checks.bucket(id_)
            buckets[bucket] = None
            gone = int(now_us - id_us(id_) > MARK_LIFE_US)
            for check in checks.entries:
                if (hold := check.kind.hold_set(check)) is not None:
                    sets.setdefault((*hold, check.limit.period_us), []).append((id_, bucket, gone))
        for bucket in buckets:
            self._send(bucket, b"*3\r\n" + bulks("PEXPIRE", bucket, MARK_LIFE_US // 1000), ignore)
        for (kind, key, period_us), held in sets.items():
            for start in range(0, len(held), EXTENDED_MAX):
                some = held[start : start + EXTENDED_MAX]
                words = bulks(*[each for id_, _, gone in some for each in (id_.decode(), gone)])
                head = b"*%d\r\n%b" % (6 + 3 * len(some), EXTEND.words)
                packed = head + bulks(1 + len(some), key, *[bucket for _, bucket, _ in some], kind, period_us) + words
                self._send(key, packed, partial(self._extended, key, packed))

    def _extended(self, key: str, packed: bytes, reply: Any) -> None:
        if type(reply) is StoreError and reply.reason is StoreReason.NO_SCRIPT:
            self._send(key, EXTEND.in_full(packed), ignore)

    def _replied(self, packed: bytes, checks: Checks, sent: Checks, done: Done, reply: Any) -> None:
        if type(reply) is StoreError:
            if packed and reply.reason is StoreReason.NO_SCRIPT:
                again = _WIRES.of(sent).scripts.reserve.in_full(packed)
                self._send(checks.marks, again, partial(self._replied, again, checks, sent, done))
            else:
                done(reply)
            return
        try:
            if reply[0] != _STALE:
                outcome: Decision | StoreError = _decision(sent, reply)
            elif packed:
                self._in_its_window(packed, checks, reply[1], done)
                return
            else:  # of the repetition
                outcome = StoreError("redis: its clock left two windows within one decision")
        except Exception as error:  # noqa: BLE001 - not a reply of our scripts; the caller needs an answer anyway
            outcome = _unreadable(error)
        done(outcome)

    def _in_its_window(self, packed: bytes, checks: Checks, now_us: int, done: Done) -> None:
        """Repeat it once in the windows of Redis's clock; later calls with these checks begin with those."""
        current = _WIRES.of(checks).instead = checks.at(now_us)
        wire = _WIRES.of(current)
        id_ = packed[-28:-2]
        again = b"".join((wire.head, id_[:7], wire.tail, id_, b"\r\n"))
        self._send(wire.slot_key, again, partial(self._replied, b"", current, current, done))

    def _settled(
        self, packed: bytes, wire: _Wire, failed: Callable[[StoreError], None] | None, sent_in: int, reply: Any
    ) -> None:
        if type(reply) is StoreError and reply.reason is StoreReason.NO_SCRIPT:
            again = wire.scripts.settle.in_full(packed)
            self._send(wire.slot_key, again, partial(self._settled, again, wire, failed, sent_in))
            return
        self._unanswered[sent_in] -= 1
        if type(reply) is not StoreError:
            return
        self.unsettled += 1
        if failed is not None:
            failed(reply)


def _decision(checks: Checks, reply: list[int]) -> Decision:
    return Decision(checks, reply[1], reply[3::2], reply[4::2], reply[0] + 64 * reply[2])


def _unreadable(error: Exception) -> StoreError:
    return StoreError(f"redis: its answer cannot be read: {type(error).__name__}", StoreReason.UNREADABLE)


def evaluation_words(checks: Checks) -> tuple[list[str], int, list[str | int]]:
    """The words of evaluate.lua: KEYS behind the bucket of marks, how many are counters, and ARGV behind that."""
    entries = checks.entries
    by_type = [[key for check in entries if check.kind.stored_as in some for key in check.keys] for some in _ORDER]
    keys = [key for some in by_type for key in some]
    places = _wallet_places(entries, keys)
    words = [word for check, place in zip(entries, places, strict=True) for word in _reserve_words(check, place)]
    return keys, len(by_type[0]), words


def _wallet_places(entries: Sequence[Check], keys: Sequence[str]) -> tuple[int, ...]:
    """For each limit the index in KEYS, after the bucket of marks, of its wallet's first key; 0: it has no wallet.

    A balance's wallet is its own; a priced limit's is that of its payer.
    """
    wallets = [check if check.kind.stored_as == WALLET else None for check in entries]
    payers = [
        own or (entries[check.payer] if check.payer >= 0 else None) for own, check in zip(wallets, entries, strict=True)
    ]
    return tuple([keys.index(payer.keys[0]) + 2 if payer is not None else 0 for payer in payers])


def _reserve_words(check: Check, wallet: int) -> list[str | int]:
    """The arguments of one limit for evaluate.lua."""
    arm, words = check.kind.reserve_words(check, wallet)
    return [arm, check.role, check.cost, check.limit.amount, *words]


def _settle_words(check: Check, actual: int, age_us: int, wallet: int) -> list[str | int]:
    """The arguments of one limit for settle.lua."""
    arm, words = check.kind.settle_words(check, actual, age_us, wallet)
    return [arm, *words]


def _head(script: Script, checks: Checks, keys: int, words: int) -> bytes:
    """A command up to the end of the first key's name, which the bucket of the id completes."""
    name = checks.marks.encode("ascii")
    return b"*%d\r\n%b%b$%d\r\n%b" % (3 + keys + words, script.words, bulks(keys), len(name) + 7, name)
