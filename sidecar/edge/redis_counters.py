"""The counters on Redis: one script call per decision, prepared once per window and sent as one join of bytes.

The scripts are the rule of core/decision, held to it by a test; nothing is decided here. A command is repeated only
where the server said that it did nothing: NOSCRIPT, or a window that is not that of its clock, which is the only one.
"""

from __future__ import annotations

from functools import partial
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sidecar.core.counter import COUNT_MAX, expiry_us, id_us, pace_of, previous_ceiling, shift_of
from sidecar.core.decision import MARK_LIFE_US, Decision, changes_nothing, shadowed_of
from sidecar.core.errors import StoreError
from sidecar.ports import Counters

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.core.counter import Checks
    from sidecar.core.policy import Limit
    from sidecar.core.price import Price
    from sidecar.ports import Clock, Commands

    Done = Callable[[Decision | StoreError], None]

_STALE = -1
_COUNT_ROLE = {("deny", "enforce"): 0, ("deny", "shadow"): 2, ("deny", "soft"): 2}  # any other may pass


class _Script:
    """The Lua files beside this one, as one text, by its digest; in full where a server does not know it."""

    def __init__(self, *names: str) -> None:
        source = b"".join(Path(__file__).with_name(name).read_bytes() for name in names)
        self.words = _bulks("EVALSHA", sha1(source).hexdigest())  # noqa: S324 - Redis's own name for a script
        self._full = _bulks("EVAL", source.decode())

    def in_full(self, packed: bytes) -> bytes:
        """The same command with the script's text in place of its digest."""
        return packed.replace(self.words, self._full, 1)


class _Wire:
    """The commands of one Checks, cut where the id goes: its bucket in the name of the marks, and all of it later.

    `instead` is the same question in the windows of Redis's clock, where that is not ours.
    """

    __slots__ = ("as_held", "forced", "head", "instead", "purses", "scripts", "settle_head", "settle_keys", "slot_key",
                 "tail")  # fmt: skip

    def __init__(self, checks: Checks) -> None:
        by_kind = [(limit.kind, keys) for limit, keys in zip(checks.limits, checks.keys, strict=True)]
        counters = [key for kind, keys in by_kind if kind not in _APART for key in keys]
        apart = [key for name in _APART for kind, keys in by_kind if kind == name for key in keys]
        keys = [*counters, *apart]
        purses = _places(checks, keys)
        words = [word for index in range(len(by_kind)) for word in _asked(checks, index, purses)]
        self.slot_key = checks.marks
        self.scripts = _PAID if checks.payers else _PLAIN
        self.head = _head(self.scripts.reserve, checks, 1 + len(keys), 3 + len(words))
        packed = _bulks(*keys)
        self.tail = b"\r\n" + packed + _bulks(0, len(counters), *words) + b"$26\r\n"
        self.forced = b"\r\n" + packed + _bulks(1, len(counters), *words) + b"$26\r\n"
        settled = [key for kind, keys in by_kind for key in (keys if kind == "balance" else keys[:1])]
        self.purses = _places(checks, settled)
        as_held = [_owed(checks, index, cost, 0, self.purses) for index, cost in enumerate(checks.costs)]
        self.settle_head = _head(self.scripts.settle, checks, 1 + len(settled), 2 + sum(map(len, as_held)))
        self.settle_keys = b"\r\n" + _bulks(*settled) + b"$26\r\n"
        self.as_held = [_bulks(*owed) for owed in as_held]
        self.instead: Checks | None = None


class RedisCounters(Counters):
    """`Counters` on Redis. `clock` tells how old an id is and nothing else: the time that decides is Redis's.

    `unsettled` counts settles that the store did not take.
    """

    def __init__(self, commands: Commands, clock: Clock) -> None:
        self._send = commands.send
        self._now_us = clock.now_us
        self.unsettled = 0

    def reserve(self, id: bytes, checks: Checks, done: Done) -> None:
        """Ask all of `checks`, all or none, in one step. The decision's checks are in the windows of Redis's clock."""
        wire = checks.wire or _wired(checks)
        sent = checks
        if wire.instead is not None:
            sent = wire.instead
            wire = sent.wire or _wired(sent)
        packed = b"".join((wire.head, id[:7], wire.tail, id, b"\r\n"))
        self._send(wire.slot_key, packed, partial(self._replied, packed, checks, sent, done))

    def force(self, id: bytes, checks: Checks, done: Done) -> None:
        """Reserve without asking, in the windows of `checks` even if they have passed. Once for an id, as ever."""
        wire = checks.wire or _wired(checks)
        packed = b"".join((wire.head, id[:7], wire.forced, id, b"\r\n"))
        self._send(wire.slot_key, packed, partial(self._replied, packed, checks, checks, done))

    def settle(
        self, id: bytes, checks: Checks, truth: Sequence[int], failed: Callable[[StoreError], None] | None = None
    ) -> None:
        """Replace what was reserved by `truth[i]` units. Where it changes nothing, nothing is sent."""
        if changes_nothing(checks, truth):
            return
        wire = checks.wire or _wired(checks)
        age_us = self._now_us() - id_us(id)
        owed = [
            as_held if units == cost else _bulks(*_owed(checks, index, units, age_us, wire.purses))
            for index, (as_held, units, cost) in enumerate(zip(wire.as_held, truth, checks.costs, strict=True))
        ]
        gone = b"\r\n$1\r\n1\r\n" if age_us > MARK_LIFE_US else b"\r\n$1\r\n0\r\n"
        packed = b"".join((wire.settle_head, id[:7], wire.settle_keys, id, gone, *owed))
        self._send(wire.slot_key, packed, partial(self._settled, packed, wire, failed))

    def _replied(self, packed: bytes, asked: Checks, sent: Checks, done: Done, reply: Any) -> None:
        if type(reply) is StoreError:
            if reply.detail.startswith("NOSCRIPT"):
                again = sent.wire.scripts.reserve.in_full(packed)
                self._send(asked.marks, again, partial(self._replied, again, asked, sent, done))
            else:
                done(reply)
        elif reply[0] == _STALE:
            self._in_its_window(packed, asked, reply[1], done)
        else:
            done(_decision(sent, reply))

    def _in_its_window(self, packed: bytes, asked: Checks, now_us: int, done: Done) -> None:
        """Ask again, once, in the windows of Redis's clock; later callers with these checks start from there."""
        checks = asked.wire.instead = asked.at(now_us)
        wire = checks.wire or _wired(checks)
        id_ = packed[-28:-2]
        again = b"".join((wire.head, id_[:7], wire.tail, id_, b"\r\n"))
        self._send(wire.slot_key, again, partial(self._replied_again, checks, done))

    @staticmethod
    def _replied_again(checks: Checks, done: Done, reply: Any) -> None:
        if type(reply) is StoreError:
            done(reply)
        elif reply[0] == _STALE:
            done(StoreError("redis: its clock left two windows within one decision"))
        else:
            done(_decision(checks, reply))

    def _settled(self, packed: bytes, wire: _Wire, failed: Callable[[StoreError], None] | None, reply: Any) -> None:
        if type(reply) is not StoreError:
            return
        if reply.detail.startswith("NOSCRIPT"):
            again = wire.scripts.settle.in_full(packed)
            self._send(wire.slot_key, again, partial(self._settled, again, wire, failed))
            return
        self.unsettled += 1
        if failed is not None:
            failed(reply)


def _decision(checks: Checks, reply: list[int]) -> Decision:
    mask = reply[2]
    return Decision(checks, reply[1], reply[3::2], reply[4::2], reply[0] - 1, shadowed_of(mask) if mask else ())


def _wired(checks: Checks) -> _Wire:
    wire = checks.wire = _Wire(checks)
    return wire


def _places(checks: Checks, keys: Sequence[str]) -> tuple[int, ...]:
    """Where in KEYS, after the bucket of marks, the purse begins that each limit pays from or is; 0 for none."""
    payers = [index if limit.kind == "balance" else -1 for index, limit in enumerate(checks.limits)]
    payers = [max(pair) for pair in zip(payers, checks.payers or payers, strict=True)]
    return tuple(keys.index(checks.keys[payer][0]) + 2 if payer >= 0 else 0 for payer in payers)


def _asked(checks: Checks, index: int, purses: tuple[int, ...]) -> list[str | int]:
    """What reserve.lua is told of one limit."""
    limit, cost, kind = checks.limits[index], checks.costs[index], _letter(checks.limits[index], purses[index])
    first: list[str | int] = [kind, _COUNT_ROLE.get((limit.over, limit.stage), 1), cost, limit.amount]
    if kind == "r":
        pace = pace_of(limit, cost)
        return [*first, *pace.cost, *pace.burst, pace.step, pace.parts, pace.ceiling_us]
    if kind == "c":
        return [*first, limit.period_us]
    if kind == "b":
        return [*first, limit.period_us, purses[index]]
    start_us, end_us = checks.starts_us[index], checks.ends_us[index]
    window = [start_us, end_us, expiry_us(limit, start_us, end_us) // 1000]
    if kind == "p":
        return [*first, *window, price_word(limit.price), purses[index]]
    if limit.kind == "priced":
        first[1] = 1  # nobody pays for it, and it refuses nobody
    return [*first, *window, *([limit.period_us // 1000, previous_ceiling(limit)] if kind == "w" else ())]


def _letter(limit: Limit, purse: int) -> str:
    if limit.fixed or (limit.kind == "priced" and not purse):
        return "q"
    return _LETTERS[limit.kind]


_LETTERS = {"rate": "r", "window": "w", "quota": "q", "concurrency": "c", "priced": "p", "balance": "b"}
_APART = ("concurrency", "balance")  # their keys follow those of the counters, in this order


def price_word(price: Price | None) -> str:
    """A price as balance.lua reads it: kind, included, per, then up_to (0: open) and nanos of each tier."""
    if price is None:
        return "g,0,1,0,0"
    tiers = [(tier.up_to or 0, tier.nanos) for tier in price.tiers] or [(0, price.nanos)]
    figures = [price.included, price.per, *(figure for tier in tiers for figure in tier)]
    return ",".join([_PRICES[price.kind], *map(str, figures)])


_PRICES = {"per_unit": "g", "graduated": "g", "volume": "v", "package": "k"}


def _owed(checks: Checks, index: int, truth: int, age_us: int, purses: tuple[int, ...]) -> tuple[str | int, ...]:
    """What settle.lua is told of one limit."""
    limit, cost, kind = checks.limits[index], checks.costs[index], _letter(checks.limits[index], purses[index])
    owed = min(truth, COUNT_MAX) - cost
    if kind in {"b", "c"}:
        return (kind,)
    if kind == "r":
        pace = pace_of(limit, cost)
        return ("r", *shift_of(limit, cost, owed, age_us), pace.parts, pace.ceiling_us)
    expire_ms = expiry_us(limit, checks.starts_us[index], checks.ends_us[index]) // 1000
    return (
        ("p", owed, expire_ms, cost, price_word(limit.price), purses[index]) if kind == "p" else ("q", owed, expire_ms)
    )


def _head(script: _Script, checks: Checks, keys: int, words: int) -> bytes:
    """A command up to where the bucket of the id completes the first key's name."""
    name = checks.marks.encode("ascii")
    return b"*%d\r\n%b%b$%d\r\n%b" % (3 + keys + words, script.words, _bulks(keys), len(name) + 7, name)


def _bulks(*words: str | int) -> bytes:
    packed = [str(word).encode() for word in words]
    return b"\r\n".join([*[b"$%d\r\n%b" % (len(word), word) for word in packed], b""])


class _Scripts(NamedTuple):
    reserve: _Script
    settle: _Script


_PLAIN = _Scripts(_Script("reserve.lua"), _Script("settle.lua"))
_PAID = _Scripts(_Script("balance.lua", "reserve.lua"), _Script("balance.lua", "settle.lua"))
