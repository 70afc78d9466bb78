"""Administration of wallets on Redis: each change, and each read of a balance, is one script call.

A script changes the balance and adds its posting in one step, so the ledger always sums to the balance. Grants are
idempotent by id, so a caller without a reply may repeat one. Requests are charged by reserve.lua and settle.lua.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from sidecar.core.errors import StoreError, StoreReason
from sidecar.core.limits import wallet_keys, wallet_of
from sidecar.core.price.book import Change, Posted, WalletSnapshot
from sidecar.core.price.wallet import Grant, Wallet, balance
from sidecar.edge.redis.endpoint import NO_ANSWER, describe
from sidecar.edge.redis.unread_wallets import UNREAD, token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from redis.asyncio import Redis, RedisCluster

_GRANT = "g:"
_SCANNED = 1_000  # keys by one call of SCAN
_PAGE = 500  # postings, which take Redis a third of a millisecond
_ATTEMPTS = 20


class RedisWallet:
    """The wallet of a customer: `name` is its unit and scale (`wallet_name`).

    StoreError: Redis did not answer; the change may have been made.
    """

    def __init__(self, redis: Redis | RedisCluster, customer: str, name: str, account: str = "") -> None:
        self._redis: Any = redis
        self._keys = wallet_keys(customer, name, account)
        self._wallet, self._ledger, _, self._held, self._granted = self._keys

    async def grant(self, grant: Grant) -> Change:
        """Add a grant; the store sets `remaining` and `made_us`. Debt is paid first.

        `Change.done`: made, there (made before with the same figures), other (made before with other figures), past (it
        has expired), many (64 grants are not used up yet), full (all grants would exceed AMOUNT_MAX).
        """
        given = grant.priority, grant.starts_us, grant.expires_us, grant.amount
        return await self._change("grant", grant.id, *given, grant.rollover_max, grant.rollover_until_us)

    async def void(self, id: str) -> Change:
        """Remove the rest of a grant. `Change.done`: void, gone (used up, expired or void before), unknown."""
        return await self._change("void", id)

    async def expire_grants(self) -> Change:
        """Expire grants and release holds past their time, as every other change does first. `Change.done`: swept."""
        return await self._change("sweep")

    async def read(self, postings: int = 0) -> WalletSnapshot:
        """The current wallet, with the last `postings` of its ledger (`EVERY`: all that are stored)."""
        for _ in range(_ATTEMPTS):
            now_us, fields, held, first, last = await self._run(_READ, (self._wallet, self._ledger, self._held))
            posted = await self._postings(first.decode(), last.decode(), postings)
            if posted is not None:
                granted = _texts(await _answer(self._redis.hgetall(self._granted)))
                return WalletSnapshot(
                    now_us,
                    _wallet(_pairs(fields)),
                    {name: int(text.split()[0]) for name, text in _pairs(held).items()},
                    {name: given_of(name, text) for name, text in granted.items()},
                    posted,
                )
        raise StoreError("the wallet's ledger was trimmed during each read; try again when there are fewer requests")

    async def _postings(self, first: str, last: str, count: int) -> tuple[Posted, ...] | None:
        """The last `count` postings up to `last`, oldest first; None if some were trimmed during the read."""
        posted: list[Posted] = []
        end, wanted = last, count if last else 0
        while len(posted) < wanted and (not posted or posted[-1].place != first):
            page = self._redis.xrevrange(self._ledger, end, "-", count=min(_PAGE, wanted - len(posted)))
            rows = await _answer(page)
            if not rows:
                return None
            posted += [posted_of(place, _texts(fields)) for place, fields in rows]
            end = f"({posted[-1].place}"
        return tuple(reversed(posted))

    async def replace(self, book: WalletSnapshot, wallet: Wallet) -> bool:
        """Replace the stored wallet; False if something was posted since `book` was read."""
        fields: list[str | int] = ["debt", wallet.debt, "carried", wallet.carried]
        for grant in wallet.grants:
            fields += [_GRANT + grant.id, " ".join(map(str, grant[1:]))]
        last = book.postings[-1].place if book.postings else ""
        return bool(await self._run(_REPLACE, (self._wallet, self._ledger), last, *fields))

    async def restore(self, wallet: Wallet, granted: Sequence[Grant], *, replaces: bool) -> str:
        """Store a wallet that was made from the stream, with the grants whose ids are known.

        done; full: it is not empty, and only with `replaces` it is replaced; unread: postings of it are not on the
        stream yet, so they would be lost.
        """
        time_us, topped, id_ = wallet.topped
        fields: list[str | int] = ["debt", wallet.debt] if wallet.debt else []
        for grant in wallet.grants:
            fields += [_GRANT + grant.id, " ".join(map(str, grant[1:]))]
        if id_:
            fields += ["topped", f"{time_us} {topped} {id_}"]
        known = [word for grant in granted for word in (grant.id, _given(grant))]
        words = int(replaces), balance(wallet), len(fields), *fields, *known
        answer: bytes = await self._run(_RESTORE, self._keys, *words)
        return answer.decode()

    async def _change(self, *words: str | int) -> Change:
        note = token(0, secrets.token_hex(8))  # of long ago, so that it is found at once
        await _answer(self._redis.hset(UNREAD, self._wallet, note))
        done, now_us, moved, fields = await self._run(_CHANGE, self._keys, *words)
        return Change(done.decode(), moved, now_us, _wallet(_pairs(fields)))

    async def _run(self, script: str, keys: Sequence[str], *words: str | int) -> Any:
        return await _answer(self._redis.eval(script, len(keys), *keys, *words))


async def all_wallets(redis: Redis | RedisCluster, is_wanted: Callable[[str], bool]) -> list[tuple[str, Wallet]]:
    """The key and the content of each wallet whose name `is_wanted`, found by a walk over all keys of Redis.

    StoreError: Redis did not answer.
    """
    client: Any = redis
    try:
        keys = client.scan_iter("sc:{*}:wallet:*", count=_SCANNED)
        wanted = {key.decode() async for key in keys if is_wanted(wallet_of(key.decode())[1])}  # some come twice
    except NO_ANSWER as error:
        raise StoreError(f"the wallet's store did not answer: {describe(error)}", StoreReason.NO_REPLY) from None
    return [(key, _wallet(_texts(await _answer(client.hgetall(key))))) for key in sorted(wanted)]


async def _answer(reply: Awaitable[Any]) -> Any:
    try:
        return await reply
    except ResponseError as error:
        raise StoreError(f"the wallet's store refused: {str(error)[:200]}") from None
    except NO_ANSWER as error:
        raise StoreError(f"the wallet's store did not answer: {describe(error)}", StoreReason.NO_REPLY) from None


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


def given_of(id: str, text: str) -> Grant:
    """A grant as it was made: the time, and the figures of the command."""
    made_us, priority, starts_us, expires_us, amount, rollover_max, rollover_until_us = map(int, text.split())
    return Grant(id, priority, starts_us, expires_us, amount, amount, rollover_max, rollover_until_us, made_us)


def _given(grant: Grant) -> str:
    """The text that `given_of` reads."""
    figures = grant.made_us, grant.priority, grant.starts_us, grant.expires_us, grant.amount
    return " ".join(map(str, (*figures, grant.rollover_max, grant.rollover_until_us)))


def posted_of(place: bytes, fields: Mapping[str, str]) -> Posted:
    """A posting of the ledger. KeyError, ValueError: it is not one of ours."""
    figures = int(fields["delta"]), int(fields["balance"])
    return Posted(place.decode(), fields["kind"], fields["id"], *figures, fields.get("charges", ""))


def _script(*names: str) -> str:
    return "".join(Path(__file__).with_name("lua").joinpath(name).read_text() for name in names)


_CHANGE = _script("wallet.lua", "wallet_change.lua")
_REPLACE = _script("wallet_replace.lua")
_READ = _script("wallet_read.lua")
_RESTORE = _script("wallet_restore.lua")
