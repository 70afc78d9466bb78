"""Gives quota and wallet back when a record is corrected or void, by the settle of an exchange.

The record is written first: what is billed is decided by it alone. If the store does not answer, the counters stay as
they are, which the answer says, and the command can be repeated: the store knows the id of the change for two days.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sidecar.core.errors import SidecarError, StoreError, StoreReason
from sidecar.core.identity import Identity
from sidecar.core.instants import us_of
from sidecar.core.limits import account_stem, wallet_name
from sidecar.core.limits.base import WALLET
from sidecar.core.price.decimals import decimal_of
from sidecar.core.record.adjustments import Adjustment, adjustment_of
from sidecar.core.record.changes import Change
from sidecar.edge.clock import SystemClock
from sidecar.edge.redis.counters import RedisCounters
from sidecar.edge.redis.topology import Wire, wire
from sidecar.edge.redis.unread_wallets import UNREAD, note_command, token
from sidecar.edge.redis.wire import RedisWire, WireOptions, command, ignore
from sidecar.embedded.access import open_state
from sidecar.embedded.counters import adjust_request
from sidecar.embedded.listener import checked
from sidecar.keys.registers import open_keys
from sidecar.loading.documents import load_policies
from sidecar.ports import Commands
from sidecar.wallets.opening import open_wallets

if TYPE_CHECKING:
    from sidecar.config.sections import Redis
    from sidecar.config.settings import Settings

TIMEOUT_S: Final = 5.0
_RETRY_S: Final = 0.02
REPEATED_US: Final = 86_400_000_000
_MARK_MS: Final = 2 * REPEATED_US // 1000
_CLOCKS_US: Final = 300_000_000  # by which clocks may differ
_POSTINGS: Final = 100  # the newest ones of a wallet, among which that of the change is


def find_adjustment(settings: Settings, change: Change) -> Adjustment | str:
    """The adjustment of a change, or the reason why it has not one."""
    data = change.original["data"]
    key = open_keys(settings).find(data["key_id"])
    if key is None:
        return f"the key {data['key_id']} is not registered any more, so the customer's periods are not known"
    stored = replace(key, status="active").identity()  # of a revoked key too
    assert stored is not None  # noqa: S101 - it is active
    plan = str(data["plan"]).partition("@")[0]
    subject = str(change.original.get("subject") or change.customer)
    identity = Identity(data["key_id"], subject, change.customer, plan, stored.zone, stored.anchor_us)
    adjustment = adjustment_of(load_policies(settings).policy, identity, change, _period_us(change))
    return adjustment or "no limit with a window counted it"


def _period_us(change: Change) -> int:
    return us_of(change.period_time)


class Adjusted(NamedTuple):
    """The result in words: what was given back, or why nothing was. `is_done`: a repetition would change nothing."""

    text: str
    is_done: bool = True


def is_repeatable(recorded_us: int, now_us: int) -> bool:
    """Whether the store still knows if it has adjusted a change that was recorded at `recorded_us`."""
    return -_CLOCKS_US <= now_us - recorded_us < REPEATED_US


async def adjust(settings: Settings, change: Change, repeat: str = "repeat the command") -> Adjusted:
    """Adjust the counters, once for a change within REPEATED_US. Never fails for want of the store.

    `repeat`: how to try again, in words.
    """
    try:
        adjustment = await asyncio.to_thread(find_adjustment, settings, change)
        if isinstance(adjustment, str):
            return Adjusted(f"nothing given back: {adjustment}")
        if settings.redis is None:
            is_known = await _ask_node(settings, change, adjustment)
        else:
            is_known = await _settle(settings.redis, change.id, adjustment)
    except SidecarError as error:
        return Adjusted(f"nothing given back yet: {error}; {repeat} within a day", is_done=False)
    units = ", ".join(f"{limit} {number:+}" for limit, number in adjustment.units.items())
    paid = await _paid_back(settings, change, adjustment)
    skipped = f"; not {', '.join(adjustment.skipped)}: counted in another window" if adjustment.skipped else ""
    done = "counters of its period had changed before" if is_known else "counters of its period changed"
    return Adjusted(f"{done}: {units or 'none'}{skipped}{paid}")


async def _paid_back(settings: Settings, change: Change, adjustment: Adjustment) -> str:
    """In words, the amounts by which wallets have changed, by their newest postings; "" where they cannot be read."""
    limits = [check.limit for check in adjustment.checks.entries if check.kind.stored_as == WALLET]
    amounts = []
    with suppress(SidecarError):
        async with open_wallets(settings) as wallets:
            for limit in limits:
                book = await wallets(change.customer, wallet_name(limit.unit, limit.digits)).read(_POSTINGS)
                delta = sum(posted.delta for posted in book.postings if posted.id == change.id.decode())
                if delta:
                    amounts.append(f"{limit.unit} {'+' * (delta > 0)}{decimal_of(delta, limit.digits)}")
    return f"; wallet {', '.join(amounts)}" if amounts else ""


async def _ask_node(settings: Settings, change: Change, adjustment: Adjustment) -> bool:
    """Whether the node had adjusted it before. StoreError: its worker does not answer, or has other limits."""
    async with open_state(settings.journal.dir, lambda: load_policies(settings).policy) as ask:
        answer = checked(await ask(adjust_request(adjustment, change, _period_us(change))))
    is_known = bool(answer.get("known"))
    if not answer["adjusted"] and not is_known:
        raise StoreError("the policy of the node's worker has none of these limits: reload it")
    return is_known


class _Awaited(Commands):
    """Commands whose replies can be awaited together."""

    def __init__(self, inner: Wire) -> None:
        self._inner = inner
        self._pending = 0
        self.answered = asyncio.Event()

    def send(self, slot_key: str, packed: bytes, done: Callable[[Any | StoreError], None]) -> None:
        def replied(reply: Any | StoreError) -> None:
            done(reply)  # it may send again: a script that Redis does not know yet
            self._pending -= 1
            if not self._pending:
                self.answered.set()

        self._pending += 1
        self._inner.send(slot_key, packed, replied)

    def flush(self) -> None:
        self._inner.flush()


def _note_unread(commands: Commands, key: str) -> None:
    """Have the postings of the wallet at `key` read soon by a worker, since no worker charges it."""
    commands.send(UNREAD, note_command(key, token(0, token_hex(8))), ignore)


async def _call(connection: Wire, key: str, *words: str | int) -> Any:
    """The reply to one command about `key`. StoreError: Redis does not answer, or refuses."""
    replies: list[Any] = []
    commands = _Awaited(connection)
    commands.send(key, command(words[0], key, *words[1:]), replies.append)
    await commands.answered.wait()
    if isinstance(replies[0], StoreError):
        raise replies[0]
    return replies[0]


async def _settle(redis: Redis, id_: bytes, adjustment: Adjustment) -> bool:
    """Whether it had been settled before. StoreError: Redis does not answer, or refuses.

    Until it is connected nothing is sent, and it is tried again.
    """
    clock = SystemClock()
    options = WireOptions(timeout_us=int(TIMEOUT_S * 1_000_000))
    connection = wire(redis.endpoint, lambda connect: RedisWire(connect, clock, options))
    connection.start()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                try:
                    return await _settle_once(connection, id_, adjustment)
                except StoreError as error:
                    if error.reason is not StoreReason.AWAY:
                        raise
                await asyncio.sleep(_RETRY_S)
    except TimeoutError:
        raise StoreError("Redis did not answer", StoreReason.NO_REPLY) from None
    finally:
        await connection.aclose()


async def _settle_once(connection: Wire, id_: bytes, adjustment: Adjustment) -> bool:
    """The mark of an exchange lives for three minutes; one of its own says for two days that a change is settled."""
    mark = f"{account_stem(adjustment.checks.identity.account)}:adjusted:{id_.decode()}"
    if await _call(connection, mark, "GET") is not None:
        return True
    failures: list[StoreError] = []
    commands = _Awaited(connection)
    counters = RedisCounters(commands, SystemClock())
    counters.charged = partial(_note_unread, commands)
    counters.settle(id_, adjustment.checks, adjustment.actual, failures.append)
    await commands.answered.wait()
    if failures:
        raise failures[0]
    await _call(connection, mark, "SET", 1, "PX", _MARK_MS)
    return False
