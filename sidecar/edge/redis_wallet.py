"""Wallets on Redis, as those see them who fill and audit them: each change, and each look, is one script.

A change of the balance and its posting are one step, so there is no instant at which the ledger does not sum to the
balance. Grants are idempotent by id: whoever got no answer may ask again. Requests burn in reserve.lua and settle.lua.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import RedisClusterException, RedisError, ResponseError

from sidecar.core.counter import escaped
from sidecar.core.errors import StoreError
from sidecar.core.price.wallet import Grant, Wallet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis, RedisCluster

EVERY = 1_000_000  # more postings than a ledger holds
_NO_ANSWER = (RedisError, RedisClusterException, OSError, TimeoutError)
_GRANT = "g:"


class Posted(NamedTuple):
    """A posting (core.price.wallet) as the ledger holds it. `balance`: what the wallet held after it, less its debt.

    `place` is its own in the stream: ms since the epoch, a hyphen, and a number among those of that ms.
    """

    place: str
    kind: str
    id: str
    delta: int
    balance: int

    @property
    def at_ms(self) -> int:
        """When it was posted, by Redis's clock."""
        return int(self.place.partition("-")[0])


class Change(NamedTuple):
    """What a script did, in its words (wallet_change.lua), with how many nano-units, and what the wallet is now."""

    done: str
    moved: int
    now_us: int
    wallet: Wallet


class Book(NamedTuple):
    """A wallet and its ledger at one instant.

    `held`: nano-units held by exchange. `granted`: the last 1,000 grants by id as they were given, `remaining` all of
    the amount, whatever became of them.
    """

    now_us: int
    wallet: Wallet
    held: dict[str, int]
    granted: dict[str, Grant]
    postings: tuple[Posted, ...]


class RedisWallet:
    """The wallet of a customer in one unit. StoreError: Redis did not answer; the change may have been made."""

    def __init__(self, redis: Redis | RedisCluster, customer: str, unit: str) -> None:
        self._redis: Any = redis
        stem, last = f"sc:{{{escaped(customer)}}}:", f":{escaped(unit)}"
        self._wallet, self._ledger, self._held, self._granted = (
            f"{stem}{name}{last}" for name in ("wallet", "ledger", "held", "granted")
        )

    async def grant(self, grant: Grant) -> Change:
        """Add a grant; `remaining` and `made_us` are the store's to say. Debt is paid first.

        done: made, there (made before with these figures), other (made before with other figures), past (it has
        expired), many (64 grants are not used up yet), full (the balance would reach 2^51 nano-units).
        """
        given = grant.priority, grant.starts_us, grant.expires_us, grant.amount
        return await self._change("grant", grant.id, *given, grant.rollover_max, grant.rollover_until_us)

    async def void(self, id: str) -> Change:
        """Take what is left of a grant. done: void, gone (used up, expired or void before), unknown."""
        return await self._change("void", id)

    async def sweep(self) -> Change:
        """Only look after what has expired, as every other change does first. done: swept."""
        return await self._change("sweep")

    async def read(self, postings: int = 0) -> Book:
        """The wallet as it stands, with the last `postings` of its ledger (`EVERY`: all that it keeps)."""
        keys = (self._wallet, self._ledger, self._held, self._granted)
        now_us, wallet, held, granted, ledger = await self._run(_READ, keys, postings)
        return Book(
            now_us,
            _wallet(_pairs(wallet)),
            {name: int(text.split()[0]) for name, text in _pairs(held).items()},
            {name: _given(name, text) for name, text in _pairs(granted).items()},
            tuple(_posted(place, fields) for place, fields in ledger),
        )

    async def replace(self, book: Book, wallet: Wallet) -> bool:
        """Put `wallet` in the place of what stands; False where something was posted since `book` was read."""
        fields: list[str | int] = ["debt", wallet.debt, "carried", wallet.carried]
        for grant in wallet.grants:
            fields += [_GRANT + grant.id, " ".join(map(str, grant[1:]))]
        last = book.postings[-1].place if book.postings else ""
        return bool(await self._run(_REPLACE, (self._wallet, self._ledger), last, *fields))

    async def _change(self, *words: str | int) -> Change:
        done, now_us, moved, fields = await self._run(_CHANGE, (self._wallet, self._ledger, self._granted), *words)
        return Change(done.decode(), moved, now_us, _wallet(_pairs(fields)))

    async def _run(self, script: str, keys: Sequence[str], *words: str | int) -> Any:
        try:
            return await self._redis.eval(script, len(keys), *keys, *words)
        except ResponseError as error:
            raise StoreError(f"the wallet's store refused: {str(error)[:200]}") from None
        except _NO_ANSWER as error:
            raise StoreError(f"the wallet's store did not answer: {type(error).__name__}", maybe_applied=True) from None


def _pairs(flat: Sequence[bytes]) -> dict[str, str]:
    texts = [each.decode() for each in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _wallet(fields: dict[str, str]) -> Wallet:
    grants = [
        _grant(name.removeprefix(_GRANT), figures.split())
        for name, figures in sorted(fields.items())
        if name.startswith(_GRANT)
    ]
    return Wallet(tuple(grants), int(fields.get("debt", 0)), int(fields.get("carried", 0)))


def _grant(id: str, figures: list[str]) -> Grant:
    if len(figures) != len(Grant._fields) - 1:
        raise StoreError(f"the wallet's grant {id} is damaged in the store: it has {len(figures)} figures")
    return Grant(id, *map(int, figures))


def _given(id: str, text: str) -> Grant:
    """A grant as it was given: when, and the figures of the command."""
    made_us, priority, starts_us, expires_us, amount, rollover_max, rollover_until_us = map(int, text.split())
    return Grant(id, priority, starts_us, expires_us, amount, amount, rollover_max, rollover_until_us, made_us)


def _posted(place: bytes, flat: Sequence[bytes]) -> Posted:
    fields = _pairs(flat)
    return Posted(place.decode(), fields["kind"], fields["id"], int(fields["delta"]), int(fields["balance"]))


_CHANGE = Path(__file__).with_name("wallet_change.lua").read_text()
_REPLACE = Path(__file__).with_name("wallet_replace.lua").read_text()
_READ = Path(__file__).with_name("wallet_read.lua").read_text()
