"""Reads and sets counters of windows on Redis, thousands at a time. StoreError: Redis did not answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from redis.asyncio import RedisCluster

from sidecar.core.errors import StoreError, StoreReason
from sidecar.edge.redis.endpoint import NO_ANSWER, Client, describe

T = TypeVar("T")
_AT_ONCE: Final = 500  # commands in one write
_SET: Final = Path(__file__).with_name("lua").joinpath("counters_set.lua").read_text()


class CounterValues:
    """The counters of one Redis."""

    def __init__(self, client: Client) -> None:
        self._redis: Any = client

    async def now_us(self) -> int:
        """The clock of Redis, which decides which windows are open."""
        try:
            await self._redis.initialize()
            where = {"target_nodes": self._redis.get_random_node()} if isinstance(self._redis, RedisCluster) else {}
            seconds, us = await self._redis.time(**where)
        except NO_ANSWER as error:
            raise _no_answer(error) from None
        return int(seconds) * 1_000_000 + int(us)

    async def read(self, keys: Sequence[str]) -> list[int]:
        """The units of counters; 0 of one that Redis does not have."""
        return [int(value or 0) for value in await self._all([("GET", key) for key in keys])]

    async def set(self, counters: Iterable[tuple[str, int, int]], *, is_exact: bool) -> list[int]:
        """Set (key, units, when it may be dropped in µs); the units before. Only with `is_exact` is one lowered."""
        exact = int(is_exact)
        commands = [("EVAL", _SET, 1, key, units, expires_us // 1000, exact) for key, units, expires_us in counters]
        return [int(before) for before in await self._all(commands)]

    async def _all(self, commands: Sequence[tuple[str | int, ...]]) -> list[Any]:
        replies: list[Any] = []
        try:
            for some in _batched(commands):
                pipeline = self._redis.pipeline(transaction=False)
                for command in some:
                    pipeline.execute_command(*command)
                replies += await pipeline.execute()
        except NO_ANSWER as error:
            raise _no_answer(error) from None
        return replies


def _batched(items: Iterable[T]) -> Iterable[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        yield some


def _no_answer(error: Exception) -> StoreError:
    return StoreError(f"redis: {describe(error)}; repeat the command", StoreReason.NO_REPLY)
