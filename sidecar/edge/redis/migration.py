"""Moves what version 0.1 kept in Redis to the names that this version gives its keys.

A key and its new name have the same hash tag, so a move is one script on the node that has the key: it may be
interrupted, repeated, and run twice at once. Where both names have a value, because nodes of both versions counted,
units and slots are added up; a rate keeps the later of its two times, and a first attempt the earlier of its two ids.
A value that cannot be added up, such as a wallet, and one that is not what its name says stay under the old name and
are reported; all other keys are moved all the same.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import ResponseError

from sidecar.core.errors import StoreError
from sidecar.core.limits import current_key
from sidecar.edge.redis.endpoint import NO_ANSWER, describe
from sidecar.edge.redis.markers import GROUPS, is_outdated, marker_keys, migrated

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis, RedisCluster

_AT_ONCE: Final = 200  # moves in one write
_SCANNED: Final = 1_000  # keys by one call of SCAN
_REPORTED: Final = 100  # keys that stay, by name
_CODES: Final = {"r": "rates", "w": "windows", "q": "quotas", "s": "slots", "b": "balances"}
# Content of a key → its type in Redis, and the pattern of Lua of its value.
_CONTENTS: Final = {
    "rates": ("string", "^%d+ ?%d*$"),
    "windows": ("string", "^%d+$"),
    "quotas": ("string", "^%d+$"),
    "balances": ("string", ""),
    "slots": ("zset", ""),
    "alert": ("string", ""),
    "retry": ("string", ""),
    "wallet": ("hash", ""),
    "ledger": ("stream", ""),
    "holds": ("zset", ""),
    "held": ("hash", ""),
    "granted": ("hash", ""),
}

# KEYS  old name | new name      ARGV  1: move, 0: only report | content | type | pattern of a value, or ""
# Reply gone | moved | both | value | old TYPE | new TYPE
_MOVE: Final = """
local call, was, is, content = redis.call, KEYS[1], KEYS[2], ARGV[2]
local types = { call('TYPE', was).ok, call('TYPE', is).ok }
if types[1] == 'none' then return 'gone' end
if types[1] ~= ARGV[3] then return 'old ' .. types[1] end
local alone = types[2] == 'none'
if not alone and types[2] ~= ARGV[3] then return 'new ' .. types[2] end
local before = types[1] == 'string' and call('GET', was)
local now = types[2] == 'string' and call('GET', is)
for _, value in ipairs({ before or '0', now or '0' }) do
  if ARGV[4] ~= '' and not string.match(value, ARGV[4]) then return 'value' end
  if ARGV[4] ~= '' and tonumber(string.match(value, '^%d+')) > 2 ^ 53 then return 'value' end
end
local sums = { windows = 1, quotas = 1, slots = 1, rates = 1, alert = 1, retry = 1 }
if not alone and not sums[content] then return 'both' end
if ARGV[1] == '0' then return 'moved' end

if alone then
  if content == 'held' then -- a hold names the counters of priced limits that it is given back to
    local held = call('HGETALL', was)
    for n = 1, #held, 2 do
      call('HSET', was, held[n], (string.gsub(held[n + 1], '(sc:{[^}]*}:)([^=: ]+:)', '%1q=%2')))
    end
  end
  call('RENAME', was, is)
  return 'moved'
end
local expiry = math.max(call('PTTL', was), call('PTTL', is))
if content == 'slots' then
  call('ZUNIONSTORE', is, 2, is, was, 'AGGREGATE', 'MAX')
elseif content == 'windows' or content == 'quotas' then
  call('INCRBY', is, before)
elseif content == 'rates' then
  if tonumber(string.match(before, '^%d+')) > tonumber(string.match(now, '^%d+')) then call('SET', is, before) end
elseif content == 'alert' and before == 'told' or content == 'retry' and before < now then
  call('SET', is, before)
end
if expiry > 0 then call('PEXPIRE', is, expiry) end
call('DEL', was)
return 'moved'
"""
_REPLACE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end"


class Conflict(NamedTuple):
    """A key that has to stay under its old name, and why."""

    key: str
    reason: str


class Migration(NamedTuple):
    """`moved`: the number of keys that were moved, or would be, by content; `stayed`: of those that cannot be moved.

    `conflicts` are the first 100 of these. `nodes`: the connections of nodes, of any version, at the end.
    """

    moved: dict[str, int]
    stayed: int
    conflicts: tuple[Conflict, ...]
    nodes: int


async def migrate_keys(
    client: Redis | RedisCluster, *, is_cluster: bool, only_count: bool, progress: Callable[[int], None]
) -> Migration:
    """Move all keys of version 0.1, or only count them. `progress` gets the number of keys that were read.

    StoreError: Redis did not answer, or refused a command. A repeated call moves the keys that are left.
    """
    moves = _Moves(client, only_count=only_count)
    try:
        await moves.run(progress)
        if only_count or not moves.stayed:
            await _move_markers(client, moves, is_cluster=is_cluster)
        return Migration(dict(moves.moved), moves.stayed, tuple(moves.conflicts), await _nodes(client))
    except NO_ANSWER as error:
        moved = moves.moved.total()
        rest = f". {moved} of its keys are moved; run this again for the others" if moved and not only_count else ""
        raise StoreError(f"redis: {describe(error)}{rest}") from None


async def is_migration_due(client: Redis | RedisCluster, *, is_cluster: bool) -> bool:
    """Whether keys have names of version 0.1, as the markers say. StoreError: Redis did not answer."""
    try:
        return bool(await _outdated_markers(client, is_cluster=is_cluster))
    except NO_ANSWER as error:
        raise StoreError(f"redis: {describe(error)}") from None


class _Moves:
    """The moves of one run, and what became of them."""

    def __init__(self, client: Any, *, only_count: bool) -> None:
        self._client = client
        self.only_count = only_count
        self.moved: Counter[str] = Counter()
        self.stayed = 0
        self.conflicts: list[Conflict] = []

    async def run(self, progress: Callable[[int], None]) -> None:
        read, pending = 0, dict[str, str]()
        async for key in self._client.scan_iter("sc:{*", count=_SCANNED):
            read += 1
            if read % _SCANNED == 0:
                progress(read)
            name = key.decode("ascii", "replace")  # our names are ASCII: another one is nobody's key of version 0.1
            if key.isascii() and (now := current_key(name)) != name:
                pending[name] = now
            if len(pending) == _AT_ONCE:
                await self._move(pending)
                pending = {}
        await self._move(pending)

    async def _move(self, names: dict[str, str]) -> None:
        """Move keys, each to its new name."""
        if not names:
            return
        pipeline = self._client.pipeline(transaction=False)
        for was, now in names.items():
            content = _content_of(now)
            pipeline.execute_command("EVAL", _MOVE, 2, was, now, int(not self.only_count), content, *_CONTENTS[content])
        replies = await pipeline.execute(raise_on_error=False)
        for (was, now), reply in zip(names.items(), replies, strict=True):
            self._note(was, now, reply)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply

    def _note(self, was: str, now: str, reply: Any) -> None:
        content = _content_of(now)
        if reply == b"moved":
            self.moved[content] += 1
        elif isinstance(reply, bytes) and reply != b"gone":
            self.stayed += 1
            if len(self.conflicts) < _REPORTED:
                self.conflicts.append(Conflict(was, _reason(reply.decode(), content, now)))


def _content_of(key: str) -> str:
    name = key.partition("}:")[2]
    return _CODES.get(name[0], "balances") if name[1:2] == "=" else name.partition(":")[0]


def _reason(reply: str, content: str, now: str) -> str:
    which, _, its_type = reply.partition(" ")
    wanted = _CONTENTS[content][0]
    reasons = {
        "both": f"{now} has a value as well, and {content} cannot be added up",
        "value": f"its value or that of {now} is not a number as {content} have it",
        "old": f"its type is {its_type}, that of {content} is {wanted}",
        "new": f"the type of {now} is {its_type}, that of {content} is {wanted}",
    }
    return reasons[which]


async def _move_markers(client: Any, moves: _Moves, *, is_cluster: bool) -> None:
    """Note in the markers that all keys have the names of this version, unless a node has changed one meanwhile."""
    if markers := await _outdated_markers(client, is_cluster=is_cluster):
        moves.moved["markers"] = len(markers)
    for key, marker in markers.items():
        if not moves.only_count:
            await client.eval(_REPLACE, 1, key, marker, migrated(marker))


async def _outdated_markers(client: Any, *, is_cluster: bool) -> dict[str, bytes]:
    """The markers of version 0.1. Nodes of this version treat the counters beside them as lost."""
    keys = marker_keys(GROUPS if is_cluster else 1)
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.get(key)
    markers = zip(keys, await pipeline.execute(), strict=True)
    return {key: marker for key, marker in markers if marker is not None and is_outdated(marker)}


async def _nodes(client: Any) -> int:
    """The number of connections of nodes to one server of Redis; 0 as well where the user may not ask for it."""
    try:
        return sum(each["name"].startswith("sidecar") for each in await client.client_list())
    except ResponseError:
        return 0
