"""The registered API keys for commands: all keys of a key file, or of the Redis of the counters.

A change of a file is atomic. In Redis keys are written in batches: a change that was cut short can be repeated.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sidecar.core.errors import PolicyError, SidecarError
from sidecar.core.identity import PREFIX, RANDOM_BYTES, TEST, KeyRecord, digest, has_valid_checksum, make_key, stored
from sidecar.edge.keys.file_keys import KeyFile
from sidecar.edge.redis.endpoint import connected
from sidecar.edge.redis.key_registry import KeyRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence

    from sidecar.config.settings import Settings

_TIMEOUT_S = 5.0  # longer than the gateway's 50 ms: no request waits
_BATCH = 1_000
SHORTEST = 8  # characters of a key from elsewhere


def _ignore(_records: Sequence[KeyRecord]) -> None:
    """Nobody asked for what was written."""


class Register(Protocol):
    """Where keys are registered."""

    def records(self) -> list[KeyRecord]:
        """All keys."""

    def matching(self, ids: Collection[str], hashes: Collection[str]) -> list[KeyRecord]:
        """The keys with one of these ids or hashes."""

    def put(self, *records: KeyRecord, written: Callable[[Sequence[KeyRecord]], None] = _ignore) -> None:
        """Write these keys over those of the same ids. `written` gets the keys of each step that is complete."""


class FileRegister:
    """The keys of the file that `settings` name. PolicyError: the file is missing or invalid."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.keys.file or Path("keys.yaml")
        self._ascribe = settings.ascribe

    def records(self) -> list[KeyRecord]:
        try:
            return KeyFile(self._path).records()
        except PolicyError as error:
            raise PolicyError(self._ascribe(error.faults)) from None

    def matching(self, ids: Collection[str], hashes: Collection[str]) -> list[KeyRecord]:
        records = self.records() if self._path.exists() else []
        return [record for record in records if record.id in ids or record.hash in hashes]

    def put(self, *records: KeyRecord, written: Callable[[Sequence[KeyRecord]], None] = _ignore) -> None:
        try:
            KeyFile(self._path).put(*records)
        except PolicyError as error:
            raise PolicyError(self._ascribe(error.faults)) from None
        written(records)


class RedisRegister:
    """The keys in Redis; each call opens and closes a connection. StoreError: Redis did not answer."""

    def __init__(self, settings: Settings) -> None:
        if settings.redis is None:
            raise SidecarError("keys.redis needs redis.url: set it, or name a key file with keys.file")
        self._redis = settings.redis

    def records(self) -> list[KeyRecord]:
        async def work() -> list[KeyRecord]:
            async with self._keys() as keys:
                return sorted([record async for record in keys.records()], key=lambda record: record.id)

        return asyncio.run(work())

    def matching(self, ids: Collection[str], hashes: Collection[str]) -> list[KeyRecord]:
        async def work() -> list[KeyRecord]:
            async with self._keys() as keys:
                return await keys.matching(ids, hashes)

        return asyncio.run(work())

    def put(self, *records: KeyRecord, written: Callable[[Sequence[KeyRecord]], None] = _ignore) -> None:
        async def work() -> None:
            async with self._keys() as keys:
                for start in range(0, len(records), _BATCH):
                    await keys.put(*records[start : start + _BATCH])
                    written(records[start : start + _BATCH])

        asyncio.run(work())

    @asynccontextmanager
    async def _keys(self) -> AsyncIterator[KeyRegistry]:
        async with connected(self._redis.endpoint, _TIMEOUT_S) as client:
            yield KeyRegistry(client)


class HashedKeys(NamedTuple):
    """The registered keys, and the pepper of their hashes."""

    register: Register
    pepper: bytes

    def hash_of(self, credential: str) -> str:
        """The hash of a key, as it is stored."""
        return stored(digest(credential.encode(), self.pepper))

    def find(self, id: str) -> KeyRecord | None:
        """The key with this id."""
        return next((record for record in self.register.matching({id}, ()) if record.id == id), None)

    def get(self, id: str) -> KeyRecord:
        """The key with this id. SidecarError: no key has it."""
        if (record := self.find(id)) is None:
            raise SidecarError(f"no key has the id {id}; `sidecar keys list` shows all ids")
        return record


def open_keys(settings: Settings) -> HashedKeys:
    """The keys of the settings' `keys`, in a file or in Redis."""
    pepper = settings.keys.pepper.get_secret_value().encode() if settings.keys.pepper else b""
    if settings.keys.redis:
        return HashedKeys(RedisRegister(settings), pepper)
    return HashedKeys(FileRegister(settings), pepper)


# --- Keys and ids of them --------------------------------------------------------------------------------------------


def make_credential(*, test: bool) -> str:
    """A new API key."""
    return make_key(secrets.token_bytes(RANDOM_BYTES), PREFIX + TEST if test else PREFIX)


def make_id() -> str:
    """A random id for a key."""
    return f"k_{secrets.token_hex(6)}"


def credential_fault(credential: str) -> str:
    """Why a key from elsewhere cannot be registered; "" where it can."""
    if len(credential) < SHORTEST:
        return f"has fewer than {SHORTEST} characters: it can be guessed"
    if not credential.isprintable() or credential != credential.strip():
        return "has blanks around it, or control characters: no request can carry it"
    if has_valid_checksum(credential.encode()) is False:
        return "begins as keys of `sidecar keys new` do, and its checksum is wrong: it would be refused"
    return ""
