"""Data that an earlier version wrote: whether this version reads it, and the move of keys in Redis."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.core.errors import SidecarError, StoreError
from sidecar.edge.journal.reader import JournalReader
from sidecar.edge.keys.file_keys import KeyFile
from sidecar.edge.redis.endpoint import connect, disconnect
from sidecar.edge.redis.migration import is_migration_due, migrate_keys
from sidecar.embedded.folders import check_states

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.config.sections import Redis
    from sidecar.config.settings import Settings

_REDIS_TIMEOUT_S = 10.0  # a fork of Redis, for persistence, stops it for a while
_READ_BYTES = 1 << 20  # of each journal: a version is the same from its begin to its end


def migrate(settings: Settings, *, only_check: bool, progress: Callable[[int], None]) -> dict[str, Any]:
    """A report as plain data; keys in Redis are moved unless `only_check`. StoreError: Redis did not answer.

    `redis` is None without one, else it has the number of `outdated` keys by content, which are or would be moved, the
    number of those that `stayed`, the first of them in `conflicts`, and the number of connections of `nodes`.
    `journals` (by worker), `key_file` and `state` have the fault that was found, or "".
    """
    report: dict[str, Any] = {"redis": None, "journals": _journals(settings), "key_file": None, "state": ""}
    if settings.keys.file is not None:
        report["key_file"] = {"path": str(settings.keys.file), "fault": _fault(KeyFile(settings.keys.file).records)}
    if settings.redis is None:
        report["state"] = _fault(lambda: check_states(settings.journal.dir))
    else:
        report["redis"] = asyncio.run(_redis(settings.redis, only_check, progress))
    return report


async def is_due(redis: Redis, timeout_s: float) -> bool:
    """Whether Redis has keys of version 0.1. StoreError: it did not answer."""
    client = connect(redis.endpoint, timeout_s)
    try:
        async with asyncio.timeout(timeout_s):
            return await is_migration_due(client, is_cluster=redis.endpoint.mode == "cluster")
    except TimeoutError:
        raise StoreError(f"redis: no answer within {timeout_s:g} s") from None
    finally:
        await disconnect(client)


def _journals(settings: Settings) -> dict[str, str]:
    folders = sorted(path.parent for path in settings.journal.dir.glob("*/epoch"))
    return {
        folder.name: _fault(partial(JournalReader(folder.parent, folder.name).read, _READ_BYTES)) for folder in folders
    }


def _fault(read: Callable[[], Any]) -> str:
    try:
        read()
    except (SidecarError, OSError) as error:
        return str(error)
    return ""


async def _redis(redis: Redis, only_count: bool, progress: Callable[[int], None]) -> dict[str, Any]:
    client: Any = connect(redis.endpoint, _REDIS_TIMEOUT_S)
    is_cluster = redis.endpoint.mode == "cluster"
    try:
        done = await migrate_keys(client, is_cluster=is_cluster, only_count=only_count, progress=progress)
    finally:
        await disconnect(client)
    return {
        "servers": ",".join([f"{host}:{port}" for host, port in redis.endpoint.hosts]),
        "outdated": done.moved,
        "stayed": done.stayed,
        "conflicts": [conflict._asdict() for conflict in done.conflicts],
        "nodes": done.nodes,
    }
