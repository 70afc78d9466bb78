"""Shows what is left of limits on Redis, by peek.lua, which writes nothing. StoreError: Redis did not answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import NoScriptError

from sidecar.core.decision.peek import ID, Peeked, WalletFigures
from sidecar.core.errors import StoreError, StoreReason
from sidecar.core.limits import Checks
from sidecar.core.limits.base import WALLET
from sidecar.edge.redis.counters import evaluation_words
from sidecar.edge.redis.endpoint import NO_ANSWER, Client, describe
from sidecar.edge.redis.scripts import PLAIN, WITH_WALLETS

_STALE: Final = -1
_FIGURES: Final = 4  # of each wallet: its place, held, expiring, expires_us


class RedisPeeks:
    """Asks one Redis how much of limits is left."""

    def __init__(self, client: Client) -> None:
        self._redis: Any = client

    async def peek(self, checks: Checks) -> Peeked:
        """The figures of `checks`, whose costs are 0, in the windows of Redis's clock."""
        try:
            for _ in range(2):
                reply = await self._run(checks)
                if reply[0] != _STALE:
                    return _peeked(checks, reply)
                checks = checks.at(reply[1])
        except NO_ANSWER as error:
            raise StoreError(f"redis: {describe(error)}; repeat the command", StoreReason.NO_REPLY) from None
        raise StoreError("redis: its clock left two windows within one question")

    async def _run(self, checks: Checks) -> Sequence[int]:
        script = (WITH_WALLETS if checks.has_wallet else PLAIN).peek
        keys, counters, words = evaluation_words(checks)
        arguments = (1 + len(keys), checks.bucket(ID), *keys, 0, counters, *words, ID)
        try:
            reply: Sequence[int] = await self._redis.execute_command("EVALSHA", script.digest, *arguments)
        except NoScriptError:
            reply = await self._redis.execute_command("EVAL", script.text, *arguments)
        return reply


def _peeked(checks: Checks, reply: Sequence[int]) -> Peeked:
    end = 3 + 2 * len(checks.entries)
    keys, _, _ = evaluation_words(checks)
    by_key = {
        keys[reply[start] - 2]: WalletFigures(*reply[start + 1 : start + _FIGURES])
        for start in range(end, len(reply), _FIGURES)
    }
    wallets = {
        index: by_key[check.keys[0]] for index, check in enumerate(checks.entries) if check.kind.stored_as == WALLET
    }
    return Peeked(checks, reply[1], tuple(reply[3:end:2]), tuple(reply[4:end:2]), wallets)
