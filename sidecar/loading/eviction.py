"""The warning of a Redis that may evict what only it has: by `check`, by changes of wallets, and at a node's start."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from sidecar.edge.redis.inspection import Inspection, inspect

if TYPE_CHECKING:
    from sidecar.config.settings import Settings

REDIS_SECONDS: Final = 5


def eviction_warnings(seen: Inspection, stored: str) -> list[str]:
    """`stored`: the data that only this Redis has, for the sentence."""
    if seen.maxmemory_policy in {"", "noeviction"}:
        return []
    return [f"redis: maxmemory-policy is {seen.maxmemory_policy}: it may evict {stored}; set noeviction"]


async def evictions_of(settings: Settings) -> list[str]:
    """The warnings of the Redis that settings name; none where it cannot be asked."""
    if settings.redis is None:
        return []
    try:
        async with asyncio.timeout(REDIS_SECONDS):
            return eviction_warnings(await inspect(settings.redis.endpoint, REDIS_SECONDS), "counters and wallets")
    except (RedisError, OSError, TimeoutError):
        return []
