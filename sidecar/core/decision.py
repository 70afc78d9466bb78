"""Allow or deny: the one rule for every limit at once, all or none. The Redis script is held to this module by a test."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.core.counter import Checks


class Decision:
    """Allow or deny, with the figures of every limit asked, in the order of `checks.limits`.

    `remaining[i]` is what is left after this request (below zero where `over: allow` went past the limit);
    `reset_us[i]` the µs from `now_us` until there is more: for `rate` until the burst is whole again (on a denial by
    this limit: until a request of this cost passes), else until the window ends (sliding: until the request would
    pass). `violated` is the index of the first enforced limit that denied, else -1; `shadowed` the indexes that would
    have denied in `stage: shadow`. `mode` is exact, leased, degraded or local. Refused requests consume nothing.
    """

    __slots__ = ("allowed", "checks", "mode", "now_us", "remaining", "reset_us", "shadowed", "violated")

    def __init__(  # noqa: PLR0913 - the reply of the script, field by field
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
