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
    knows when there is more: 0. `violated` is the index of the first enforced limit that denied, else -1; `shadowed`
    the indexes that would have denied in `stage: shadow` or `soft`. `mode` is exact, leased, degraded or local.
    `unknown` says of a denial why the counters could not be asked: "away" (the store does not answer) or "lost" (it
    came back empty); the figures then mean nothing but that `violated` denies. Refused requests consume nothing.
    """

    __slots__ = ("allowed", "checks", "mode", "now_us", "remaining", "reset_us", "shadowed", "unknown", "violated")

    def __init__(  # noqa: PLR0913, PLR0917 - the reply of the script, field by field
        self,
        checks: Checks,
        now_us: int,
        remaining: Sequence[int],
        reset_us: Sequence[int],
        violated: int = -1,
        shadowed: tuple[int, ...] = (),
        mode: str = "exact",
    ) -> None:
        self.allowed = violated < 0
        self.checks = checks
        self.now_us = now_us
        self.remaining = remaining
        self.reset_us = reset_us
        self.violated = violated
        self.shadowed = shadowed
        self.mode = mode
        self.unknown = ""


def shadowed_of(mask: int) -> tuple[int, ...]:
    """The indexes that a verdict's mask names."""
    return tuple(index for index in range(LIMITS_MAX) if mask >> index & 1) if mask else ()
