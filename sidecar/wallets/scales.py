"""Finds wallets that the scale of their unit hides: a request pays from the wallet in the policy's scale and no other.

After a change of a unit's digits the credit is in wallets that no request reads. Nothing is lost and nothing is read
in a wrong scale, but operators have to know where the credit is.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from sidecar.core.decision.saved import writes_of
from sidecar.core.errors import SidecarError
from sidecar.core.limits import scale_of, wallet_name, wallet_of
from sidecar.core.price.decimals import DIGITS
from sidecar.core.price.wallet import Wallet, balance, expire_grants
from sidecar.core.words import counted
from sidecar.edge.clock import SystemClock
from sidecar.edge.memory.state_file import read_slices
from sidecar.edge.redis.endpoint import connect, disconnect
from sidecar.edge.redis.wallet import all_wallets
from sidecar.embedded.folders import newest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from sidecar.config.sections import Redis
    from sidecar.config.settings import Settings
    from sidecar.wallets.opening import Wallets

LOOK_S: Final = 10.0  # for a walk over the keys of Redis
_NAMED: Final = 3  # customers in one warning


async def other_balances(wallets: Wallets, customer: str, unit: str, digits: int) -> dict[int, int]:
    """The balances of a customer's other wallets in a unit, by their digits, without those of 0. StoreError."""
    balances = {}
    for other in range(DIGITS + 1):
        if other != digits:
            book = await wallets(customer, wallet_name(unit, other)).read()
            balances[other] = _balance(book.wallet, book.now_us)
    return {other: amount for other, amount in balances.items() if amount}


async def scale_warnings(settings: Settings, scales: Mapping[str, int]) -> list[str]:
    """Warnings of wallets that have a balance in one of the units of `scales`, with other digits than there."""
    if not scales:
        return []

    def is_other(name: str) -> bool:
        unit, digits = scale_of(name)
        return scales.get(unit, digits) != digits

    try:
        async with asyncio.timeout(LOOK_S):
            if settings.redis is not None:
                others = await _on_redis(settings.redis, is_other)
            else:
                others = await asyncio.to_thread(_in_state, settings.journal.dir, is_other)
    except (SidecarError, TimeoutError) as error:
        reason = str(error) or f"no end after {LOOK_S:.0f} s"
        return [f"wallets: not all could be checked for another scale of their unit: {reason}"]
    return _described(others, scales)


async def _on_redis(redis: Redis, is_wanted: Callable[[str], bool]) -> list[tuple[str, Wallet]]:
    client = connect(redis.endpoint, LOOK_S)
    try:
        return await all_wallets(client, is_wanted)
    finally:
        await disconnect(client)


def _in_state(directory: Path, is_wanted: Callable[[str], bool]) -> list[tuple[str, Wallet]]:
    """Those of the state of a node without Redis, which is at most `journal.state` old."""
    slices, _ = read_slices(newest(directory))
    rows: list[list[Any]] = [row for each in slices for row in each.rows if row[0] == "wallet"]
    return [(row[1], value) for row in rows if is_wanted(wallet_of(row[1])[1]) for _, _, value, _ in writes_of(row)]


def _described(others: Iterable[tuple[str, Wallet]], scales: Mapping[str, int]) -> list[str]:
    """`others`: the key of each wallet, and the wallet."""
    now_us = SystemClock().now_us()
    customers: dict[str, list[str]] = defaultdict(list)
    for key, wallet in others:
        customer, name = wallet_of(key)
        if _balance(wallet, now_us):
            customers[name].append(customer)
    return [_warning(name, sorted(names), scales) for name, names in sorted(customers.items())]


def _warning(name: str, customers: list[str], scales: Mapping[str, int]) -> str:
    unit, digits = scale_of(name)
    named = ", ".join(customers[:_NAMED]) + ", …" * (len(customers) > _NAMED)
    return (
        f"unit {unit}: requests use wallets with {scales[unit]} digits, but balances with {digits} digits are left in "
        f"{counted(len(customers), 'wallet')} ({named}): docs/wallets.md says how to move them"
    )


def _balance(wallet: Wallet, now_us: int) -> int:
    return balance(expire_grants(wallet, now_us)[0])
