"""Wallets on Redis, as those see them who fill and audit them: each change, and each look at a balance, is one script.

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
    from collections.abc import Awaitable, Mapping, Sequence

    from redis.asyncio import Redis, RedisCluster

EVERY = 1_000_000  # more postings than a ledger holds
_NO_ANSWER = (RedisError, RedisClusterException, OSError, TimeoutError)
_GRANT = "g:"
_PAGE = 500  # postings: a third of a millisecond of Redis's time
_ATTEMPTS = 20


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
    """A wallet and its ledger at one instant, with what else is known of it the moment after.

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
        self._keys = tuple(f"{stem}{name}{last}" for name in ("wallet", "ledger", "holds", "held", "granted"))
        self._wallet, self._ledger, _, self._held, self._granted = self._keys

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
        for _ in range(_ATTEMPTS):
            now_us, fields, first, last = await self._run(_READ, (self._wallet, self._ledger))
            found = await self._postings(first.decode(), last.decode(), postings)
            if found is not None:
                held = _texts(await _answer(self._redis.hgetall(self._held)))
                granted = _texts(await _answer(self._redis.hgetall(self._granted)))
                return Book(
                    now_us,
                    _wallet(_pairs(fields)),
                    {name: int(text.split()[0]) for name, text in held.items()},
                    {name: _given(name, text) for name, text in granted.items()},
                    found,
                )
        raise StoreError("the ledger was trimmed each time while it was read; try again when it is quieter")

    async def _postings(self, first: str, last: str, count: int) -> tuple[Posted, ...] | None:
        """The last `count` postings up to `last`, oldest first; None where some were trimmed meanwhile."""
        found: list[Posted] = []
        end, wanted = last, count if last else 0
        while len(found) < wanted and (not found or found[-1].place != first):
            page = self._redis.xrevrange(self._ledger, end, "-", count=min(_PAGE, wanted - len(found)))
            rows = await _answer(page)
            if not rows:
                return None
            found += [_posted(place, _texts(fields)) for place, fields in rows]
            end = f"({found[-1].place}"
        return tuple(reversed(found))

    async def replace(self, book: Book, wallet: Wallet) -> bool:
        """Put `wallet` in the place of what stands; False where something was posted since `book` was read."""
        fields: list[str | int] = ["debt", wallet.debt, "carried", wallet.carried]
        for grant in wallet.grants:
            fields += [_GRANT + grant.id, " ".join(map(str, grant[1:]))]
        last = book.postings[-1].place if book.postings else ""
        return bool(await self._run(_REPLACE, (self._wallet, self._ledger), last, *fields))

    async def _change(self, *words: str | int) -> Change:
        done, now_us, moved, fields = await self._run(_CHANGE, self._keys, *words)
        return Change(done.decode(), moved, now_us, _wallet(_pairs(fields)))

    async def _run(self, script: str, keys: Sequence[str], *words: str | int) -> Any:
        return await _answer(self._redis.eval(script, len(keys), *keys, *words))


async def _answer(asked: Awaitable[Any]) -> Any:
    try:
        return await asked
    except ResponseError as error:
        raise StoreError(f"the wallet's store refused: {str(error)[:200]}") from None
    except _NO_ANSWER as error:
        raise StoreError(f"the wallet's store did not answer: {type(error).__name__}", maybe_applied=True) from None


def _pairs(flat: Sequence[bytes]) -> dict[str, str]:
    return _texts(dict(zip(flat[::2], flat[1::2], strict=True)))


def _texts(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}


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


def _posted(place: bytes, fields: Mapping[str, str]) -> Posted:
    return Posted(place.decode(), fields["kind"], fields["id"], int(fields["delta"]), int(fields["balance"]))


def _script(*names: str) -> str:
    return "".join(Path(__file__).with_name(name).read_text() for name in names)


_CHANGE = _script("balance.lua", "wallet_change.lua")
_REPLACE = _script("wallet_replace.lua")
_READ = _script("wallet_read.lua")
