"""The registered API keys in Redis, for commands of operators: each key by its hash, and an index of ids.

Every change is published, so that workers forget the key (edge/redis/revocations.py). The gateway only looks keys up
(edge/redis/keys.py).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisClusterException, RedisError

from sidecar.core.errors import StoreError, StoreReason
from sidecar.core.identity import KeyRecord, read_record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sidecar.edge.redis.endpoint import Client

KEY = "sc:key:"  # + hex digest → the KeyRecord as JSON
INDEX = "sc:keys"  # hash: key id → hex digest
CHANGED = "sc:keys:changed"  # channel: the hex digest of a key that was written
_BATCH = 512
_NO_ANSWER = (RedisError, RedisClusterException, OSError, TimeoutError)


class KeyRegistry:
    """Reads and writes all keys of one Redis. StoreError: it did not answer."""

    def __init__(self, client: Client) -> None:
        self._redis: Any = client

    async def put(self, *records: KeyRecord) -> None:
        """Write these keys over those of the same ids and hashes, and publish each change.

        The record is written before the index: an interrupted call can be repeated, and at worst leaves a key unlisted.
        """
        try:
            for record in records:
                name = record.digest.hex()
                await self._redis.set(KEY + name, json.dumps(record.stored()))
                await self._redis.hset(INDEX, record.id, name)
                await self._redis.publish(CHANGED, name)
        except _NO_ANSWER as error:
            raise _no_answer(error, StoreReason.NO_REPLY) from None

    async def records(self) -> AsyncIterator[KeyRecord]:
        """All keys, in no order."""
        try:
            async for _, name in self._redis.hscan_iter(INDEX, count=_BATCH):
                raw = await self._redis.get(KEY + text_of(name))
                record = record_of(raw) if raw is not None else None
                if record is not None:
                    yield record
        except _NO_ANSWER as error:
            raise _no_answer(error) from None

    async def record(self, id: str) -> KeyRecord | None:
        """The key of this id."""
        try:
            name = await self._redis.hget(INDEX, id)
            raw = await self._redis.get(KEY + text_of(name)) if name is not None else None
        except _NO_ANSWER as error:
            raise _no_answer(error) from None
        return record_of(raw) if raw is not None else None


def record_of(raw: bytes | str) -> KeyRecord | None:
    """The record that Redis holds; None where it cannot be read."""
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return read_record(values)[0] if isinstance(values, dict) else None


def text_of(raw: bytes | str) -> str:
    """A name as text, whether or not the client decodes."""
    return raw if isinstance(raw, str) else raw.decode("ascii", "replace")


def _no_answer(error: Exception, reason: StoreReason = StoreReason.AWAY) -> StoreError:
    """With the name of its class only: a message of redis-py can hold the command, and so the hash."""
    return StoreError(f"the key store did not answer: {type(error).__name__}", reason)
