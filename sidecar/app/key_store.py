"""The API keys of one worker, in a file or on the Redis of the counters."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.app.stores import MS, CounterStore, StoreFigures
from sidecar.control.probe import Figures
from sidecar.core.identity import Identity
from sidecar.edge.keys.file_keys import FileKeys
from sidecar.edge.keys.key_cache import CacheBounds, KeyCache
from sidecar.edge.redis.endpoint import Client, connect, disconnect
from sidecar.edge.redis.keys import RedisKeys
from sidecar.edge.redis.revocations import Revocations
from sidecar.ports import Clock, Keys

if TYPE_CHECKING:
    from sidecar.config.settings import Settings

REDIS_CLIENT_TIMEOUT_S = 1.0  # no request waits for this client: it carries revocations


class KeyStore:
    """The API keys of a worker, cached."""

    def __init__(self, settings: Settings, clock: Clock, figures: Figures, counters: CounterStore) -> None:
        keys = settings.keys
        self._file: FileKeys | None = None
        self._revocations: Revocations | None = None
        self._client: Client | None = None
        self._retired: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None
        if keys.file is not None:
            self._file = FileKeys(keys.file, clock)
            store: Keys = self._file
        else:
            assert settings.redis is not None  # noqa: S101 - settings reject the other case
            assert counters.wire is not None  # noqa: S101 - as above
            assert counters.breaker is not None  # noqa: S101 - as above
            self._on = settings.redis
            self._client = connect(self._on.endpoint, REDIS_CLIENT_TIMEOUT_S)
            self._revocations = Revocations(self._client)
            store = RedisKeys(counters.wire, counters.breaker.ask, clock)
        bounds = CacheBounds(
            known=keys.cache_size, ttl_us=keys.cache_ttl_ms * MS, unknown_ttl_us=keys.unknown_ttl_ms * MS
        )
        self.port = KeyCache(store, clock, figures, bounds)

    def start(self) -> None:
        """Begin to listen for revocations."""
        if self._revocations is not None:
            watch = self._revocations.watch(self._changed)
            self._watch = asyncio.get_running_loop().create_task(watch, name="keys watch")

    def figures(self) -> StoreFigures:
        """The figures of the keys for metrics: on Redis, whether revocations are received."""
        channel = self._revocations
        if channel is None:
            return StoreFigures({}, {})
        return StoreFigures(
            {"keys_subscriptions_lost": channel.lost_subscriptions}, {"keys_unsubscribed": int(not channel.subscribed)}
        )

    def _changed(self, digest: bytes | None) -> None:
        self.port.clear() if digest is None else self.port.forget(digest)

    def read(self, path: Path | None = None) -> dict[bytes, Identity]:
        """The current keys of the file (or of `path`), {} without one. May be called in a thread.

        PolicyError: the file is invalid.
        """
        return self._file.read(path) if self._file is not None else {}

    def swap_in(self, keys: dict[bytes, Identity]) -> None:
        """Replace all known keys by `keys`, a result of `read`."""
        if self._file is not None:
            self._file.swap_in(keys)
            self.port.clear()

    def reconnect(self) -> None:
        """With TLS, subscribe to revocations on a new client: a client reads its certificates only once."""
        if self._revocations is not None and self._client is not None and self._on.endpoint.tls:
            task = asyncio.get_running_loop().create_task(_retire(self._client), name="keys reconnect")
            self._retired.add(task)
            task.add_done_callback(self._retired.discard)
            self._client = connect(self._on.endpoint, REDIS_CLIENT_TIMEOUT_S)
            self._revocations.use(self._client)

    async def aclose(self) -> None:
        for task in self._retired:
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait({self._watch})
        if self._client is not None:
            await disconnect(self._client)


async def _retire(client: Client) -> None:
    """Disconnect `client` after its last commands are answered, also if this task is cancelled."""
    try:
        await asyncio.sleep(2 * REDIS_CLIENT_TIMEOUT_S)
    finally:
        await disconnect(client)
