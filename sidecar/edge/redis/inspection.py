"""An inspection of a Redis for `sidecar check`: version, rights of its user, persistence. Nothing is changed.

Each command that the sidecar needs is queued in a transaction, which is then discarded: Redis judges the permission
when it queues a command.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import RedisError, ResponseError

from sidecar.edge.redis.topology import Dialer, SentinelDialer
from sidecar.edge.redis.wire import server_error

if TYPE_CHECKING:
    from sidecar.edge.redis.endpoint import Endpoint

KEY: Final = "sc:check"
_FORBIDDEN: Final = server_error("NOPERM").reason

# Every command that the sidecar sends or that its scripts call, with arguments that Redis can queue.
COMMANDS: Final[tuple[tuple[str, ...], ...]] = (
    ("EVAL", "return 1", "1", KEY), ("EVALSHA", "0" * 40, "1", KEY), ("TIME",),
    ("GET", KEY), ("MGET", KEY), ("SET", KEY, "1"), ("PEXPIRE", KEY, "1"), ("PEXPIREAT", KEY, "1"),
    ("HGET", KEY, "f"), ("HMGET", KEY, "f"), ("HGETALL", KEY), ("HKEYS", KEY), ("HLEN", KEY), ("HEXISTS", KEY, "f"),
    ("HSET", KEY, "f", "1"), ("HDEL", KEY, "f"), ("HSCAN", KEY, "0"),
    ("XADD", KEY, "*", "f", "1"), ("XLEN", KEY), ("XRANGE", KEY, "-", "+"), ("XREVRANGE", KEY, "+", "-"),
    ("XTRIM", KEY, "MAXLEN", "1"), ("ZADD", KEY, "1", "m"), ("ZCOUNT", KEY, "0", "1"),
    ("ZRANGEBYSCORE", KEY, "0", "1"), ("ZREM", KEY, "m"), ("ZREMRANGEBYSCORE", KEY, "0", "1"),
    ("PUBLISH", KEY, "1"), ("EXISTS", KEY), ("SCAN", "0"), ("DEL", KEY),
)  # fmt: skip


class Inspection(NamedTuple):
    """A Redis that answers: its version, the commands that its user lacks, and figures ("" where they are not shown).

    `snapshots`: the value of `save`. `append_only`: 1 with an append-only file, 0 without.
    """

    version: str
    missing: list[str]
    maxmemory_policy: str
    append_only: str
    snapshots: str


async def inspect(endpoint: Endpoint, timeout_s: float) -> Inspection:
    """Inspect the Redis, of a cluster its first node. redis-py's errors, OSError: it cannot be reached."""
    dialer = Dialer(endpoint, connect_us=round(timeout_s * 1e6))
    sentinel = endpoint.mode == "sentinel"
    connection: Any = await (SentinelDialer(endpoint, dialer).connect() if sentinel else dialer.connect())
    try:
        await _ask(connection, "PING")
        missing = await _missing(connection)
        info = _pairs(await _ask_if_permitted(connection, "INFO"))
        save = await _ask_if_permitted(connection, "CONFIG", "GET", "save")
        return Inspection(
            info.get("redis_version", ""),
            missing,
            info.get("maxmemory_policy", ""),
            info.get("aof_enabled", ""),
            _text(save[1]) or "no" if save else "",
        )
    finally:
        await connection.disconnect(nowait=True)


async def _missing(connection: Any) -> list[str]:
    try:
        await _ask(connection, "MULTI")
    except ResponseError:
        return []  # without transactions nothing can be said
    missing = []
    for command in COMMANDS:
        try:
            await _ask(connection, *command)
        except ResponseError as error:
            if server_error(f"NOPERM {error}").reason is _FORBIDDEN and "permission" in str(error):
                missing.append(command[0])
    with suppress(RedisError):
        await _ask(connection, "DISCARD")
    return missing


async def _ask(connection: Any, *command: str) -> Any:
    await connection.send_command(*command)
    return await connection.read_response()


async def _ask_if_permitted(connection: Any, *command: str) -> Any:
    try:
        return await _ask(connection, *command)
    except ResponseError:
        return None


def _pairs(text: Any) -> dict[str, str]:
    lines = _text(text).splitlines() if text else []
    return {name: value for name, _, value in (line.partition(":") for line in lines)}


def _text(raw: Any) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
