"""What a worker counts: plain integers in dictionaries, read when somebody asks. Nothing here formats or locks."""

from __future__ import annotations

from bisect import bisect_left

from sidecar.control.stats import BOUNDS_US, Histogram, empty_histogram


class Figures:
    """`ports.Probe`. Keys of `requests` are (route, status class), of `denials` (limit, shadow)."""

    __slots__ = ("added_us", "counts", "denials", "requests")

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.denials: dict[tuple[str, bool], int] = {}
        self.counts: dict[str, int] = {}
        self.added_us: Histogram = empty_histogram()

    def answered(self, route: str, status: int, added_us: int) -> None:
        key = (route, status // 100)
        self.requests[key] = self.requests.get(key, 0) + 1
        histogram = self.added_us
        histogram["buckets"][bisect_left(BOUNDS_US, added_us)] += 1
        histogram["sum_us"] += added_us

    def denied(self, limit: str, *, shadow: bool) -> None:
        key = (limit, shadow)
        self.denials[key] = self.denials.get(key, 0) + 1

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
