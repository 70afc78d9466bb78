"""A counter is a limit x scope x window: the stored number. Here are their names, and what a request asks of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sidecar.core.policy import Limit


@dataclass(slots=True, eq=False)
class Checks:
    """What requests of one identity, terms and costs ask of the counters; the same object until `until_us`.

    `costs[i]` units are asked of `limits[i]` in the window `starts_us[i] <= now < ends_us[i]` (0 and 0 where the kind
    has no window), counted under `keys[i]` (one or two Redis keys). `wire` belongs to the store: its packed form.
    """

    customer: str
    limits: tuple[Limit, ...]
    costs: tuple[int, ...]
    keys: tuple[tuple[str, ...], ...]
    windows: tuple[str, ...]
    starts_us: tuple[int, ...]
    ends_us: tuple[int, ...]
    until_us: int
    slots: bool = False  # holds a concurrency slot, so it must be settled in every ending
    wire: Any = None
