"""The state of one lease: the units that this worker has reserved in advance for one Checks. No I/O, no decisions.

The caller spends `units`; `granted` is the decision that reserved them, until the lease is ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from sidecar.core.decision import Decision
from sidecar.core.decision.lease import HORIZON_US, LEAST, life_us, spent, stamp
from sidecar.core.errors import StoreError
from sidecar.core.limits import Checks

SIZES: Final = 16  # sizes of a lease whose commands are cached

Done = Callable[["Decision | StoreError"], None]


class LeasedChecks(Checks):
    """`checks` of an exchange that was decided from a lease; its settle gets the lease from here."""

    __slots__ = ("lease",)

    def __init__(self, checks: Checks, lease: Lease) -> None:
        super().__init__(checks.identity, checks.entries, checks.marks, checks)
        self.is_leased = True
        self.lease = lease


class Lease:
    """The units that are left, the demand for them, and the last known state of the limits."""

    __slots__ = (
        "checks", "costs", "leased", "place", "sizes",  # constant
        "exact", "demand", "known", "known_us", "level", "rest",  # per turn; `exact` counts requests without a lease
        "waiting",  # while a lease is requested
        "id", "left", "now_us", "reset_us", "granted", "sent_us", "units", "until", "until_us",  # the current units
    )  # fmt: skip

    def __init__(self, checks: Checks, demand: int, place: int = 0) -> None:
        self.checks = checks
        self.costs = checks.costs
        self.leased = LeasedChecks(checks, self)
        self.sizes: dict[tuple[int, ...], Checks] = {}
        self.place = place  # in the shared table
        self.demand = demand  # requests in a horizon
        self.exact = self.level = self.rest = 0
        self.known: Decision | None = None
        self.known_us = 0
        self.waiting: deque[tuple[bytes, Done]] | None = None
        self.id = self.until = b""
        self.units = self.now_us = self.sent_us = self.until_us = 0
        self.granted: Decision | None = None
        self.left: list[int] = []
        self.reset_us: Sequence[int] = ()

    def of(self, costs: tuple[int, ...]) -> Checks:
        """The same checks with other costs. They are cached, together with the store's command for them."""
        made = self.sizes.get(costs)
        if made is None:
            if len(self.sizes) >= SIZES:
                self.sizes.clear()
            made = self.sizes[costs] = self.checks.with_costs(costs)
        return made

    def learn(self, decision: Decision | None, now_us: int) -> None:
        """Store the last decision for these windows; None: there is no decision by which a lease can be sized."""
        self.known, self.known_us = decision, now_us

    def take(self, id_: bytes, units: int, sent_us: int, granted: Decision) -> None:
        """`granted`, requested at `sent_us`, reserved `units` under `id_`. The caller sets `units`."""
        self.id, self.granted, self.sent_us = id_, granted, sent_us
        self.now_us, self.reset_us = granted.now_us, granted.reset_us
        self.left = [left + units * cost for left, cost in zip(granted.remaining, self.costs, strict=True)]
        self.level += units
        self.date(units)

    def date(self, units: int) -> None:
        """Set the expiry of `units`; of a rate, fewer units expire later."""
        if self.granted is not None:
            self.until_us = self.sent_us + life_us(self.granted, self.costs, units)
            self.until = stamp(self.until_us)

    def end(self, now_us: int) -> tuple[bytes, Checks, tuple[int, ...]] | None:
        """End the lease. Returns the id, checks and actual units that return the rest; None if there is no rest."""
        granted, units, id_ = self.granted, self.units, self.id
        self.units, self.granted, self.id = 0, None, b""
        self.level -= units
        if granted is None or not units:
            return None
        actual = spent(granted, self.costs, units, now_us - self.sent_us)
        return (id_, granted.checks, actual) if actual != granted.checks.costs else None

    def weigh(self, passed_us: int) -> int:
        """Update the demand with the turn that has passed; returns the requests of that turn."""
        used = self.level - self.units + self.exact
        self.level, self.exact = self.units, 0
        self.rest = max(0, self.rest - 1)
        self.demand = (self.demand + used * HORIZON_US // passed_us) // 2
        return used

    def idle(self, used: int, now_us: int) -> bool:
        """Whether to return the units: none was used in the turn, too many are left, or they have expired."""
        good = self.sent_us <= now_us < self.until_us
        return not good or not used or self.units > LEAST * max(self.demand, 1)
