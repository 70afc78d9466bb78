"""The counts of a worker: plain integers, read at scrape. Nothing here formats or locks."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from sidecar.control.stats import BOUNDS_US, Histogram
from sidecar.ports import Probe

_BOUNDS: Final = BOUNDS_US
_NEAR: Final = bytes(
    bisect_left(BOUNDS_US, us) for us in range(4096)
)  # the bucket of a duration in µs, precomputed for the short ones
_CLASSES: Final = 10  # of statuses: the hundreds of three digits


class Figures(Probe):
    """`ports.Probe`. Keys of `requests` are (route, status class), of `denials` (limit, shadow)."""

    __slots__ = ("_answers", "_buckets", "_sum_us", "counts", "denials")

    def __init__(self) -> None:
        self._answers: dict[str, list[int]] = {}
        self._buckets = [0] * (len(_BOUNDS) + 1)
        self._sum_us = 0
        self.denials: dict[tuple[str, bool], int] = {}
        self.counts: dict[str, int] = {}

    @property
    def requests(self) -> dict[tuple[str, int], int]:
        answers = self._answers.items()
        return {(route, kind): n for route, kinds in answers for kind, n in enumerate(kinds) if n}

    @property
    def added_us(self) -> Histogram:
        return {"buckets": list(self._buckets), "sum_us": self._sum_us}

    def answered(self, route: str, status: int, added_us: int) -> None:
        kinds = self._answers.get(route)
        if kinds is None:
            kinds = self._answers[route] = [0] * _CLASSES
        kinds[status // 100] += 1
        bucket = _NEAR[added_us] if 0 <= added_us < len(_NEAR) else bisect_left(_BOUNDS, added_us)
        self._buckets[bucket] += 1
        self._sum_us += added_us

    def denied(self, limit: str, *, shadow: bool) -> None:
        key = (limit, shadow)
        self.denials[key] = self.denials.get(key, 0) + 1

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
