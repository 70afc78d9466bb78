"""Moves what version 0.1 kept in Redis to the names that this version gives its keys.

A key and its new name have the same hash tag, so a move is one script on the node that has the key, and it may be
interrupted and repeated. Where both names have a value, because nodes of both versions counted, units and slots are
added up; a rate keeps the later of its two times. Values that cannot be added up, such as wallets, stay under their old
name and are reported.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import RedisClusterException, RedisError

from sidecar.core.errors import StoreError
from sidecar.core.limits import current_key
from sidecar.edge.redis.markers import GROUPS, is_outdated, marker_keys, migrated

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis, RedisCluster

_AT_ONCE: Final = 32  # moves under way
_SCANNED: Final = 1_000  # keys by one call of SCAN
_WORDS: Final = {"r": "rates", "w": "windows", "q": "quotas", "s": "slots"}

_MOVE: Final = """
local was, is = KEYS[1], KEYS[2]
if redis.call('EXISTS', was) == 0 then return 'gone' end
if redis.call('RENAMENX', was, is) == 1 then return 'moved' end
local expiry = math.max(redis.call('PTTL', was), redis.call('PTTL', is))
if ARGV[1] == 'windows' or ARGV[1] == 'quotas' then
  redis.call('INCRBY', is, redis.call('GET', was))
elseif ARGV[1] == 'slots' then
  redis.call('ZUNIONSTORE', is, 2, is, was, 'AGGREGATE', 'MAX')
elseif ARGV[1] == 'rates' then
  local before, now = redis.call('GET', was), redis.call('GET', is)
  if tonumber(string.match(before, '^%d+')) > tonumber(string.match(now, '^%d+')) then
    redis.call('SET', is, before)
  end
else
  return 'kept'
end
if expiry > 0 then redis.call('PEXPIRE', is, expiry) end
redis.call('DEL', was)
return 'moved'
"""


class Migration(NamedTuple):
    """`outdated`: the number of keys with a name of version 0.1, by content; `conflicts`: those that stayed."""

    outdated: dict[str, int]
    conflicts: tuple[str, ...]


async def migrate_keys(
    client: Redis | RedisCluster, *, is_cluster: bool, only_count: bool, progress: Callable[[int], None]
) -> Migration:
    """Move all keys of version 0.1, or only count them. `progress` gets the number of keys that were read.

    StoreError: Redis did not answer. A repeated call moves the keys that are left.
    """
    outdated: Counter[str] = Counter()
    conflicts: list[str] = []
    pending: list[tuple[str, str]] = []

    async def move_pending() -> None:
        done = await asyncio.gather(*[_move(client, *names) for names in pending])
        conflicts.extend([name for name in done if name is not None])
        pending.clear()

    try:
        read = 0
        async for key in client.scan_iter("sc:{*", count=_SCANNED):
            read += 1
            if read % _SCANNED == 0:
                progress(read)
            name = key.decode()
            now = current_key(name)
            if now == name:
                continue
            outdated[_word_of(now)] += 1
            pending.append((name, now))
            if only_count:
                pending.clear()
            elif len(pending) >= _AT_ONCE:
                await move_pending()
        await move_pending()
        if markers := await _outdated_markers(client, is_cluster=is_cluster):
            outdated["markers"] = len(markers)
        if not only_count and not conflicts:
            for key, marker in markers.items():
                await client.set(key, migrated(marker), xx=True)
    except (RedisError, RedisClusterException, OSError) as error:
        raise StoreError(f"redis: {error}") from None
    return Migration(dict(outdated), tuple(conflicts))


def _word_of(key: str) -> str:
    name = key.partition("}:")[2]
    return _WORDS.get(name[0], "alerts") if name[1:2] == "=" else name.partition(":")[0]


async def _move(client: Any, was: str, now: str) -> str | None:
    """Move a key; its name where it has to stay."""
    word = _word_of(now)
    if word == "held":  # before the move: where this ends in between, the next call repeats both
        for id_, hold in (await client.hgetall(was)).items():
            await client.hset(was, id_, " ".join([current_key(part) for part in hold.decode().split(" ")]))
    done = await client.eval(_MOVE, 2, was, now, word)
    return was if done == b"kept" else None


async def _outdated_markers(client: Any, *, is_cluster: bool) -> dict[str, bytes]:
    """The markers of version 0.1. Nodes of this version treat the counters beside them as lost."""
    markers = {key: await client.get(key) for key in marker_keys(GROUPS if is_cluster else 1)}
    return {key: marker for key, marker in markers.items() if marker is not None and is_outdated(marker)}
