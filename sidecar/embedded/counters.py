"""The counters of a node without Redis, for other processes: each call is a request to its worker (`listener`).

StoreError: the worker did not answer, or its journal does not take a change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

from sidecar.core.decision.packed import pack
from sidecar.core.decision.peek import Peeked, WalletFigures
from sidecar.core.errors import StoreError
from sidecar.core.limits import Checks
from sidecar.core.record.adjustments import Adjustment
from sidecar.core.record.changes import Change
from sidecar.edge.clock import SystemClock
from sidecar.embedded.listener import Ask, Json, checked

T = TypeVar("T")
_AT_ONCE: Final = 10_000  # counters in one request
_BYTES: Final = 1 << 20  # of their keys in one request, of which a worker reads 4 MB


class EmbeddedCounterValues:
    """The counters of one node, as `edge.redis.counter_values.CounterValues`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def now_us(self) -> int:
        """The clock of this machine, which decides which windows are open."""
        return SystemClock().now_us()

    async def read(self, keys: Sequence[str]) -> list[int]:
        """The units of counters; 0 of one that the node does not have."""
        values: list[int] = []
        for some in _batched(keys, len):
            values += checked(await self._ask({"do": "values", "keys": some}))["values"]
        return values

    async def set(self, counters: Iterable[tuple[str, int, int]], *, is_exact: bool) -> list[int]:
        """Set (key, units, when it may be dropped in µs); the units before. Only with `is_exact` is one lowered."""
        before: list[int] = []
        for some in _batched(counters, lambda each: len(each[0])):
            before += checked(await self._ask({"do": "set", "sets": some, "exact": is_exact}))["before"]
        return before


def _batched(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    batch: list[T] = []
    length = 0
    for each in items:
        if batch and (len(batch) >= _AT_ONCE or length + size(each) > _BYTES):
            yield batch
            batch, length = [], 0
        batch.append(each)
        length += size(each)
    if batch:
        yield batch


class EmbeddedPeeks:
    """Asks one node how much of limits is left, as `edge.redis.peeks.RedisPeeks`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def peek(self, checks: Checks) -> Peeked:
        """The figures of `checks`, whose costs are 0, in the windows of the worker's clock."""
        for _ in range(2):
            answer = checked(await self._ask({"do": "peek", "checks": pack(checks)}))
            now_us = answer["now_us"]
            if "remaining" in answer:
                wallets = {index: WalletFigures(*figures) for index, figures in answer["wallets"]}
                return Peeked(checks, now_us, tuple(answer["remaining"]), tuple(answer["reset_us"]), wallets)
            checks = checks.at(now_us)
        raise StoreError("the worker's clock left two windows within one question")


def adjust_request(adjustment: Adjustment, change: Change, period_us: int) -> Json:
    """The request that settles the adjustment of a change in the windows at `period_us`."""
    identity = adjustment.checks.identity
    return {
        "do": "adjust",
        "id": change.id.decode(),
        "key_id": identity.key_id,
        "subject": identity.subject,
        "customer": identity.customer,
        "plan": identity.plan,
        "zone": identity.zone,
        "anchor_us": identity.anchor_us,
        "route": change.original["data"]["route"],
        "at_us": period_us,
        "units": {
            check.limit.id: units for check, units in zip(adjustment.checks.entries, adjustment.actual, strict=True)
        },
    }
