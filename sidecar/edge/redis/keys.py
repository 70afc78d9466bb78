"""Look-ups of API keys in Redis, over the connections, timeout and breaker of the counters.

Concurrent look-ups of one key are one command, and those of one loop tick leave in one write. The cache before it
(edge/keys/key_cache.py) asks only for what it does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from sidecar.core.errors import StoreError, StoreReason
from sidecar.core.identity import Identity
from sidecar.edge.redis.key_registry import KEY, record_of
from sidecar.edge.redis.wire import command
from sidecar.ports import Clock, Commands, Keys

Done = Callable[[Identity | StoreError | None], None]

Reply = Callable[[Any], None]
Guard = Callable[[Callable[[Reply], None], Reply], None]
"""`guard(ask, done)` calls `ask(done)`, or answers StoreError at once while the store is known to fail."""


class RedisKeys(Keys):
    """`ports.Keys` on Redis."""

    def __init__(self, commands: Commands, guard: Guard, clock: Clock) -> None:
        self._commands = commands
        self._guard = guard
        self._clock = clock
        self._waiting: dict[bytes, list[Done]] = {}

    def find(self, digest: bytes, done: Done) -> None:
        """The identity; None where unknown, revoked or expired; StoreError within one timeout. Never in this call."""
        waiting = self._waiting.get(digest)
        if waiting is not None:
            waiting.append(done)
            return
        self._waiting[digest] = [done]
        name = KEY + digest.hex()
        self._guard(partial(self._commands.send, name, command("GET", name)), partial(self._answer, digest))

    def _answer(self, digest: bytes, reply: Any) -> None:
        """Each caller is called by the loop: one that raises does not leave the others waiting."""
        waiting, loop = self._waiting.pop(digest), asyncio.get_running_loop()
        try:
            answer = self._read(reply)
        except Exception as error:  # noqa: BLE001 - nobody may be left waiting
            answer = StoreError(f"the key store holds a damaged record: {type(error).__name__}", StoreReason.UNREADABLE)
        for done in waiting:
            loop.call_soon(done, answer)

    def _read(self, reply: Any) -> Identity | StoreError | None:
        if reply is None:
            return None
        if isinstance(reply, StoreError):  # without its text, which may hold the hash
            return StoreError(f"the key store did not answer: {reply.reason.label}", reply.reason)
        record = record_of(reply)
        if record is None:
            return StoreError("the key store holds a damaged record", StoreReason.UNREADABLE)
        identity = record.identity()
        if identity is not None and identity.expires_us and self._clock.now_us() >= identity.expires_us:
            return None
        return identity
