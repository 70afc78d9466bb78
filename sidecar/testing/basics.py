"""A clock that tests turn, ids that are the same in every run, answers that are held, and a probe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from sidecar.core.record import Ids
from sidecar.ports import Clock, Probe


class HandClock(Clock):
    """`ports.Clock` that the test advances by `turn`. `step` changes only the wall clock, as NTP does."""

    def __init__(self, now_us: int = 1_763_692_406_000_000) -> None:
        self._now_us = now_us
        self._mono_us = 0

    def now_us(self) -> int:
        return self._now_us

    def mono_us(self) -> int:
        return self._mono_us

    def turn(self, us: int) -> None:
        """Let `us` pass (≥ 0)."""
        self._now_us += us
        self._mono_us += us

    def step(self, us: int) -> None:
        """Move the wall clock forward or back."""
        self._now_us += us


def minted() -> Callable[[int], bytes]:
    """A mint that makes the same ids in every run."""
    return Ids(0).mint


class Held:
    """Calls that a test can delay: while `holding` they are queued in order, `let_go` makes them."""

    def __init__(self) -> None:
        self.holding = False
        self._calls: list[Callable[[], None]] = []

    @property
    def waiting(self) -> int:
        """The number of queued calls."""
        return len(self._calls)

    def answer(self, call: Callable[[], None]) -> None:
        """Make the call, now or at `let_go`."""
        if self.holding:
            self._calls.append(call)
        else:
            call()

    def let_go(self, most: int | None = None) -> None:
        """Make the queued calls, or the first `most` of them."""
        calls, self._calls = self._calls[:most], self._calls[most:] if most is not None else []
        for call in calls:
            call()


class Tally(Probe):
    """`ports.Probe` that stores its calls."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, int, int]] = []
        self.denials: list[tuple[str, bool]] = []
        self.counts: Counter[str] = Counter()

    def answered(self, route: str, status: int, added_us: int) -> None:
        self.answers.append((route, status, added_us))

    def denied(self, limit: str, *, shadow: bool) -> None:
        self.denials.append((limit, shadow))

    def count(self, name: str) -> None:
        self.counts[name] += 1
