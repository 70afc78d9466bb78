"""What one worker holds ahead for one Checks. Plain state: it asks nobody, and it decides nothing.

`units` are spent by whoever holds this; what they were reserved by is `said`, until the lease is ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sidecar.core.decision.lease import HORIZON_US, LEAST, leased, life_us, spent, stamp

if TYPE_CHECKING:
    from sidecar.core.counter import Checks
    from sidecar.core.decision import Decision
    from sidecar.core.errors import StoreError

SIZES: Final = 16  # of a lease, whose commands are kept ready

Done = Callable[["Decision | StoreError"], None]


class Lease:
    """The units in hand, the demand for them, and what is known of the limits."""

    __slots__ = (
        "checks", "costs", "leased", "place", "sizes",  # for good
        "asked", "demand", "known", "known_us", "level", "rest",  # by turns
        "waiting",  # while one is asked for
        "id", "left", "now_us", "reset_us", "said", "sent_us", "units", "until", "until_us",  # the units in hand
    )  # fmt: skip

    def __init__(self, checks: Checks, demand: int, place: int = 0) -> None:
        self.checks = checks
        self.costs = checks.costs
        self.leased = leased(checks, self)
        self.sizes: dict[tuple[int, ...], Checks] = {}
        self.place = place  # where what is in hand is kept
        self.demand = demand  # requests in a horizon
        self.asked = self.level = self.rest = 0
        self.known: Decision | None = None
        self.known_us = 0
        self.waiting: deque[tuple[bytes, Done]] | None = None
        self.id = self.until = b""
        self.units = self.now_us = self.sent_us = self.until_us = 0
        self.said: Decision | None = None
        self.left: list[int] = []
        self.reset_us: Sequence[int] = ()

    def of(self, costs: tuple[int, ...]) -> Checks:
        """The same question with other costs, kept with the store's command for it."""
        made = self.sizes.get(costs)
        if made is None:
            if len(self.sizes) >= SIZES:
                self.sizes.clear()
            made = self.sizes[costs] = replace(self.checks, costs=costs, wire=None, plan=None, fields=None)
        return made

    def learn(self, said: Decision | None, now_us: int) -> None:
        """Keep what the store last said of these windows; None: nothing that can be built on."""
        self.known, self.known_us = said, now_us

    def take(self, id_: bytes, units: int, sent_us: int, said: Decision) -> None:
        """`said`, asked for at `sent_us`, granted `units` under `id_`. The caller counts them out."""
        self.id, self.said, self.sent_us = id_, said, sent_us
        self.now_us, self.reset_us = said.now_us, said.reset_us
        self.left = [left + units * cost for left, cost in zip(said.remaining, self.costs, strict=True)]
        self.level += units
        self.date(units)

    def date(self, units: int) -> None:
        """Work out until when `units` are good: of a rate, the longer the fewer they are."""
        if self.said is not None:
            self.until_us = self.sent_us + life_us(self.said, self.costs, units)
            self.until = stamp(self.until_us)

    def end(self, now_us: int) -> tuple[bytes, Checks, tuple[int, ...]] | None:
        """Spend no more of it: the id, checks and truth that give back what is left; None where nothing is."""
        said, units, id_ = self.said, self.units, self.id
        self.units, self.said, self.id = 0, None, b""
        self.level -= units
        if said is None or not units:
            return None
        truth = spent(said, self.costs, units, now_us - self.sent_us)
        return (id_, said.checks, truth) if truth != said.checks.costs else None

    def weigh(self, passed_us: int) -> int:
        """Take the demand of the turn that has passed into account: the requests of that turn."""
        used = self.level - self.units + self.asked
        self.level, self.asked = self.units, 0
        self.rest = max(0, self.rest - 1)
        self.demand = (self.demand + used * HORIZON_US // passed_us) // 2
        return used

    def idle(self, used: int, now_us: int) -> bool:
        """Whether what is in hand is of no use: none was wanted in the turn, too much is left, or its time is over."""
        good = self.sent_us <= now_us < self.until_us
        return not good or not used or self.units > LEAST * max(self.demand, 1)
