"""API keys in Redis, asked only for what the cache before it does not know.

One question at a time is on its way, and it carries all digests that were asked for meanwhile: a herd is one call, and
a store that is away holds one connection. A change is told to all who watch, and so is that one may have been missed.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Protocol

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from sidecar.core.errors import StoreError
from sidecar.core.identity import Identity, KeyRecord, read_record
from sidecar.ports import Keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from sidecar.ports import Clock

    Done = Callable[[Identity | StoreError | None], None]

KEY = "sc:key:"  # + hex digest → the KeyRecord as JSON; the truth
INDEX = "sc:keys"  # hash: key id → hex digest
CHANGED = "sc:keys:changed"  # channel: the hex digest of a key that was written

TIMEOUT_S = 0.05
_BATCH = 512
_WAITING = 20_000  # digests; more than that is refused at once, so that an outage does not eat the memory
_FAILURES = 3  # in a row, and the store is left alone for
_REST_S = 1.0
_SILENCE_S = 2.0  # without a message, the channel is asked whether it still lives


_NO_ANSWER = (RedisError, RedisClusterException, OSError, TimeoutError)


class Endpoint(Protocol):
    """A Redis: `mode` is single, sentinel or cluster; `hosts` the servers, or the sentinels that know `service`."""

    @property
    def mode(self) -> str: ...
    @property
    def tls(self) -> bool: ...
    @property
    def hosts(self) -> Sequence[tuple[str, int]]: ...
    @property
    def db(self) -> int: ...
    @property
    def username(self) -> str | None: ...
    @property
    def password(self) -> str | None: ...
    @property
    def service(self) -> str: ...


def connect(endpoint: Endpoint, timeout_s: float, ssl: Mapping[str, Any] | None = None) -> Redis | RedisCluster:
    """A redis-py client with its retries off. `ssl` are redis-py's own `ssl_…` arguments. Connects on first use."""
    options: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0), "socket_timeout": timeout_s, "socket_connect_timeout": timeout_s,
        **({"ssl": True, **(ssl or {})} if endpoint.tls else {}),
    }  # fmt: skip
    user: dict[str, Any] = {"username": endpoint.username, "password": endpoint.password}
    if endpoint.mode == "cluster":
        return RedisCluster(startup_nodes=[ClusterNode(*host) for host in endpoint.hosts], **user, **options)
    if endpoint.mode == "sentinel":
        make: Any = Sentinel  # untyped in redis-py
        sentinel = make(list(endpoint.hosts), sentinel_kwargs=options, db=endpoint.db, **user, **options)
        master: Redis = sentinel.master_for(endpoint.service)
        return master
    host, port = endpoint.hosts[0]
    return Redis(host=host, port=port, db=endpoint.db, **user, **options)


async def disconnect(redis: Redis | RedisCluster) -> None:
    """Close all that `connect` opened; a client of Sentinel's master leaves the sentinels' own connections open."""
    await redis.aclose()
    manager = getattr(getattr(redis, "connection_pool", None), "sentinel_manager", None)
    for sentinel in manager.sentinels if manager is not None else ():
        await sentinel.aclose()


class RedisKeys(Keys):
    """The keys of one Redis (single, TLS, Sentinel's master or Cluster: as the client was made). Is `ports.Keys`.

    The client's retries are to be off. `watch` runs until it is cancelled; the rest needs no task of its own.
    """

    def __init__(self, redis: Redis | RedisCluster, clock: Clock, timeout_s: float = TIMEOUT_S) -> None:
        self._redis: Any = redis
        self._clock = clock
        self._timeout_s = timeout_s
        self._waiting: dict[bytes, list[Done]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._failures = 0
        self._rest_until_us = 0

    def find(self, digest: bytes, done: Done) -> None:
        """The identity, None where unknown, revoked or past its end; StoreError in one timeout, or at once."""
        waiting = self._waiting.get(digest)
        if waiting is not None:
            waiting.append(done)
        elif self._clock.mono_us() < self._rest_until_us:
            done(StoreError("the key store did not answer just now"))
        elif len(self._waiting) >= _WAITING:
            done(StoreError("too many keys are being looked up"))
        else:
            self._waiting[digest] = [done]
            if self._asking is None:
                self._asking = asyncio.get_running_loop().create_task(self._ask_all())

    async def close(self) -> None:
        """Stop asking; whoever still waits is answered with StoreError."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        self._answer(self._waiting, StoreError("the key store was closed"))

    async def _ask_all(self) -> None:
        try:
            while self._waiting:
                batch = {digest: self._waiting.pop(digest) for digest in list(self._waiting)[:_BATCH]}
                await self._ask(batch)
        finally:
            self._asking = None

    async def _ask(self, batch: dict[bytes, list[Done]]) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                pipeline = self._redis.pipeline(transaction=False)
                for digest in batch:
                    pipeline.get(KEY + digest.hex())
                found = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - redis-py raises KeyError for lost slots; nobody may be left waiting
            self._rest_after_failure()
            # Those who came meanwhile have waited too; they are not made to wait for another timeout.
            waiting, self._waiting = self._waiting, {}
            self._answer(batch | waiting, _no_answer(error))
        except asyncio.CancelledError:
            self._answer(batch, StoreError("the key store was closed"))
            raise
        else:
            self._failures = 0
            for (digest, waiters), raw in zip(batch.items(), found, strict=True):
                self._answer({digest: waiters}, self._identity(raw))

    def _rest_after_failure(self) -> None:
        self._failures += 1
        if self._failures >= _FAILURES:
            self._rest_until_us = self._clock.mono_us() + int(_REST_S * 1_000_000)

    def _answer(self, waiting: dict[bytes, list[Done]], answer: Identity | StoreError | None) -> None:
        """Each in a call of its own: one who raises does not leave the others waiting."""
        loop = asyncio.get_running_loop()
        for waiters in waiting.values():
            for done in waiters:
                loop.call_soon(done, answer)

    def _identity(self, raw: bytes | RedisError | None) -> Identity | StoreError | None:
        if raw is None:
            return None
        if isinstance(raw, RedisError):
            return _no_answer(raw)
        record = _record(raw)
        if record is None:
            return StoreError("the key store holds a damaged record")
        identity = record.identity()
        if identity is not None and identity.expires_us and self._clock.now_us() >= identity.expires_us:
            return None
        return identity

    # --- Changes -----------------------------------------------------------------------------------------------------

    async def watch(self, changed: Callable[[bytes | None], None]) -> None:
        """Call `changed` with the digest of each key that is written, or with None where messages may have been missed.

        That is after every (re)connect, as soon as the subscription stands. A silent connection is noticed in 4 s.
        """
        while True:
            try:
                await self._listen(changed)
            except _NO_ANSWER:
                await asyncio.sleep(_REST_S / 4)

    async def _listen(self, changed: Callable[[bytes | None], None]) -> None:
        await self._redis.initialize()  # a cluster's channel does not learn the slots by itself
        async with self._redis.pubsub() as channel:
            await channel.subscribe(CHANGED)
            pinged = False
            while True:
                message = await channel.get_message(timeout=_SILENCE_S)
                if message is not None:
                    pinged = False
                    if message["type"] in {"message", "subscribe"}:  # the latter also where redis-py itself reconnected
                        changed(_told(message))
                elif pinged:
                    raise TimeoutError
                else:
                    pinged = True
                    await channel.ping()

    # --- The register ------------------------------------------------------------------------------------------------

    async def put(self, *records: KeyRecord) -> None:
        """Write these keys over those of the same ids and hashes, and tell all who watch. StoreError: no answer.

        The record first, then the index: what was cut short can be sent again, and an unlisted key is the worst of it.
        """
        try:
            for record in records:
                name = record.digest.hex()
                await self._redis.set(KEY + name, json.dumps(record.stored()))
                await self._redis.hset(INDEX, record.id, name)
                await self._redis.publish(CHANGED, name)
        except _NO_ANSWER as error:
            raise _no_answer(error, maybe_applied=True) from None

    async def records(self) -> AsyncIterator[KeyRecord]:
        """All keys, in no order. StoreError: it did not answer."""
        try:
            async for _, name in self._redis.hscan_iter(INDEX, count=_BATCH):
                raw = await self._redis.get(KEY + _text(name))
                record = _record(raw) if raw is not None else None
                if record is not None:
                    yield record
        except _NO_ANSWER as error:
            raise _no_answer(error) from None

    async def record(self, id: str) -> KeyRecord | None:
        """The key of this id. StoreError: it did not answer."""
        try:
            name = await self._redis.hget(INDEX, id)
            raw = await self._redis.get(KEY + _text(name)) if name is not None else None
        except _NO_ANSWER as error:
            raise _no_answer(error) from None
        return _record(raw) if raw is not None else None


def _no_answer(error: Exception, *, maybe_applied: bool = False) -> StoreError:
    """Named by its class alone: a message of redis-py can hold the command, and so the hash."""
    return StoreError(f"the key store did not answer: {type(error).__name__}", maybe_applied=maybe_applied)


def _record(raw: bytes | str) -> KeyRecord | None:
    """What Redis holds; None where it is no record."""
    try:
        values = json.loads(raw)
    except ValueError:
        return None
    return read_record(values)[0] if isinstance(values, dict) else None


def _told(message: dict[str, Any]) -> bytes | None:
    if message["type"] != "message":
        return None
    try:
        return bytes.fromhex(_text(message["data"]))
    except ValueError:
        return None


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode("ascii", "replace")
