"""A decision, with the figures of every limit that was asked."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.core.limits import LIMITS_MAX, Checks


class Decision:
    """Allow or deny, with the figures of every limit asked, in the order of `checks.limits`.

    `remaining[i]` is what is left after this request (below zero where `over: allow` or a debt went past the limit);
    `reset_us[i]` the µs from `now_us` until there is more: for `rate` until the burst is whole again (on a denial by
    this limit: until a request of this cost passes), else until the window ends (sliding: until the request would
    pass). A priced limit has 0 to start with, so -`remaining[i]` is its count; a balance's is an amount, and nobody
    knows when there is more: 0. `verdict` is that of evaluate.py, and says two things: `violated`, the index of the
    first enforced limit that denied, else -1, and `shadowed`, the indexes that would have denied in `stage: shadow` or
    `soft`. `mode` is exact, leased, degraded or local. `unknown` says of a denial why the counters could not be asked:
    "away" (the store does not answer) or "lost" (it came back empty); the figures then mean nothing but that
    `violated` denies. Refused requests consume nothing.
    """

    __slots__ = (
        "allowed", "checks", "mode", "now_us", "remaining", "reset_us", "shadowed", "unknown", "verdict", "violated",
    )  # fmt: skip

    def __init__(
        self,
        checks: Checks,
        now_us: int,
        remaining: Sequence[int],
        reset_us: Sequence[int],
        verdict: int = 0,
        mode: str = "exact",
    ) -> None:
        self.checks = checks
        self.now_us = now_us
        self.remaining = remaining
        self.reset_us = reset_us
        self.verdict = verdict
        self.violated = verdict % 64 - 1 if verdict else -1
        self.allowed = self.violated < 0
        self.shadowed: tuple[int, ...] = _shadowed(verdict // 64) if verdict >= 64 else ()
        self.mode = mode
        self.unknown = ""


def _shadowed(mask: int) -> tuple[int, ...]:
    return tuple([index for index in range(LIMITS_MAX) if mask >> index & 1])
