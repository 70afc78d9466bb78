"""The first attempt of each request, on Redis: one key per customer and Idempotency-Key, which the first attempt sets.

Only the digest of a header is stored. Each question is one command, which is never sent twice; while the store is known
to be away, nothing is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Any

from sidecar.core.errors import StoreError
from sidecar.core.identity import Identity
from sidecar.core.limits import account_stem, escaped
from sidecar.edge.redis.wire import command, ignore
from sidecar.ports import Commands

Done = Callable[[bool | StoreError], None]

# `SET … NX GET` would do, but Redis 6 takes only one of the two.
_FIRST = """
local held = redis.call('GET', KEYS[1])
if held then return held == ARGV[1] and 1 or 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_FORGET = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_AWAY = StoreError("redis: the first attempt is not looked up, because redis has just failed several times in a row")


class RedisRetries:
    """`ports.Retries` on Redis. `is_away()`: the store has just failed, so no request waits for it."""

    def __init__(self, commands: Commands, is_away: Callable[[], bool]) -> None:
        self._send = commands.send
        self._is_away = is_away

    def first(self, identity: Identity, key: bytes, window_us: int, id: bytes, done: Done) -> None:
        if self._is_away():
            return done(_AWAY)
        name = retry_key(identity, key)
        packed = command("EVAL", _FIRST, 1, name, id, -(-window_us // 1000))
        return self._send(name, packed, partial(_on_reply, done))

    def forget(self, identity: Identity, key: bytes, id: bytes) -> None:
        """A key that is not deleted expires with its window; until then a further attempt counts as a retry."""
        if not self._is_away():
            name = retry_key(identity, key)
            self._send(name, command("EVAL", _FORGET, 1, name, id), ignore)


def retry_key(identity: Identity, key: bytes) -> str:
    """The key of the first attempt."""
    customer, digest = escaped(identity.customer), sha256(key).hexdigest().upper()
    return f"{account_stem(identity.account)}:retry:{customer}:{digest}"


def _on_reply(done: Done, reply: Any) -> None:
    done(reply if type(reply) is StoreError else reply == 1)
