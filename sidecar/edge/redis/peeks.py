"""Asks Redis how much of limits is left, by peek.lua, which writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from redis.exceptions import NoScriptError

from sidecar.core.decision.peek import ID, Peeked, WalletFigures
from sidecar.core.errors import StoreError, StoreReason
from sidecar.core.limits import Checks
from sidecar.core.limits.base import WALLET
from sidecar.edge.redis.counters import evaluation_words
from sidecar.edge.redis.endpoint import NO_ANSWER, Client, describe
from sidecar.edge.redis.scripts import PLAIN, WITH_WALLETS, Script
from sidecar.edge.redis.wire import command
from sidecar.ports import Commands, Peeks

Done = Callable[[Peeked | StoreError], None]

_STALE: Final = -1
_TWO_WINDOWS: Final = "redis: its clock left two windows within one question"
_FIGURES: Final = 4  # of each wallet: its place, held, expiring, expires_us


class RedisPeeks(Peeks):
    """`Peeks` on Redis, over the connection of a worker: StoreError is an answer."""

    def __init__(self, commands: Commands) -> None:
        self._send = commands.send

    def peek(self, checks: Checks, done: Done) -> None:
        self._ask(checks, done, "EVALSHA", is_repeated=False)

    def _ask(self, checks: Checks, done: Done, how: str, *, is_repeated: bool) -> None:
        script = _script(checks)
        text = script.digest if how == "EVALSHA" else script.text
        packed = command(how, text, *_arguments(checks))
        self._send(checks.marks, packed, partial(self._replied, checks, done, how, is_repeated))

    def _replied(self, checks: Checks, done: Done, how: str, is_repeated: bool, reply: Any) -> None:
        if isinstance(reply, StoreError):
            if reply.reason is StoreReason.NO_SCRIPT and how == "EVALSHA":
                return self._ask(checks, done, "EVAL", is_repeated=is_repeated)
            return done(reply)
        try:
            answer = _peeked(checks, reply) if reply[0] != _STALE else None
        except (LookupError, TypeError, ValueError) as error:
            return done(StoreError(f"redis: its answer cannot be read: {error!r}", StoreReason.UNREADABLE))
        if answer is not None:
            return done(answer)
        if is_repeated:
            return done(StoreError(_TWO_WINDOWS))
        return self._ask(checks.at(reply[1]), done, how, is_repeated=True)


class ClientPeeks:
    """Asks one Redis how much of limits is left, over a client of redis-py. StoreError: Redis did not answer."""

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
        raise StoreError(_TWO_WINDOWS)

    async def _run(self, checks: Checks) -> Sequence[int]:
        script, arguments = _script(checks), _arguments(checks)
        try:
            reply: Sequence[int] = await self._redis.execute_command("EVALSHA", script.digest, *arguments)
        except NoScriptError:
            reply = await self._redis.execute_command("EVAL", script.text, *arguments)
        return reply


def _script(checks: Checks) -> Script:
    return (WITH_WALLETS if checks.has_wallet else PLAIN).peek


def _arguments(checks: Checks) -> list[str | bytes | int]:
    keys, counters, words = evaluation_words(checks)
    return [1 + len(keys), checks.bucket(ID), *keys, 0, counters, *words, ID]


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
