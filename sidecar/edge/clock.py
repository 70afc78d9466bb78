"""The system's clocks. The wall clock may step, so it dates records; durations and deadlines use the other one."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns, time_ns
from typing import Final

from sidecar.ports import Clock

_WALL_NS: Final[Callable[[], int]] = time_ns
_STEADY_NS: Final[Callable[[], int]] = perf_counter_ns


class SystemClock(Clock):
    """`ports.Clock`: µs since the Unix epoch, and µs that never step."""

    __slots__ = ()

    def now_us(self) -> int:
        return _WALL_NS() // 1000

    def mono_us(self) -> int:
        return _STEADY_NS() // 1000
