"""The registered API keys in Redis, for commands of operators: each key by its hash, and an index of ids.

Every change is published, so that workers forget the key (edge/redis/revocations.py). The gateway only looks keys up
(edge/redis/keys.py).
"""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import RedisClusterException, RedisError

from sidecar.core.errors import StoreError, StoreReason
from sidecar.core.identity import KeyRecord, read_record
from sidecar.edge.redis.endpoint import describe_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence

    from sidecar.edge.redis.endpoint import Client

T = TypeVar("T")

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

        The records are written before the index: an interrupted call can be repeated, and at worst leaves keys
        unlisted. Batches of commands leave in one write each, so that thousands of keys take a second.
        """
        if not records:
            return
        named = {record.digest.hex(): record for record in records}
        try:
            await self._all([("SET", KEY + name, json.dumps(record.stored())) for name, record in named.items()])
            await self._redis.hset(INDEX, mapping={record.id: name for name, record in named.items()})
            await self._all([("PUBLISH", CHANGED, name) for name in named])
        except _NO_ANSWER as error:
            raise _no_answer(error, StoreReason.NO_REPLY) from None

    async def records(self) -> AsyncIterator[KeyRecord]:
        """All keys, in no order."""
        try:
            names: list[str] = []
            async for _, name in self._redis.hscan_iter(INDEX, count=_BATCH):
                names.append(text_of(name))
                if len(names) == _BATCH:
                    for record in await self._read(names):
                        yield record
                    names.clear()
            for record in await self._read(names):
                yield record
        except _NO_ANSWER as error:
            raise _no_answer(error) from None

    async def matching(self, ids: Collection[str], hashes: Collection[str]) -> list[KeyRecord]:
        """The keys with one of these ids or hashes (as `KeyRecord.hash`), in no order."""
        try:
            listed = [name for some in batched(ids, _BATCH) for name in await self._redis.hmget(INDEX, list(some))]
            known = [text_of(name) for name in listed if name is not None]
            given = [name.removeprefix("sha256:") for name in hashes]
            names = list(dict.fromkeys([*known, *given]))
            return [record for some in batched(names, _BATCH) for record in await self._read(some)]
        except _NO_ANSWER as error:
            raise _no_answer(error) from None

    async def _read(self, names: Sequence[str]) -> list[KeyRecord]:
        raws = await self._all([("GET", KEY + name) for name in names])
        return [record for raw in raws if raw is not None and (record := record_of(raw)) is not None]

    async def _all(self, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        """The replies to `commands`, which leave in batches. On a cluster each node gets its own."""
        replies: list[Any] = []
        for some in batched(commands, _BATCH):
            pipeline = self._redis.pipeline(transaction=False)
            for command in some:
                pipeline.execute_command(*command)
            replies += await pipeline.execute()
        return replies


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most `size` items."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


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
    return StoreError(f"the key store {describe_error(error)}", reason)
