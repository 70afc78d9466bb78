"""Settles of leases that the store has not applied yet: unspent units, and differences between actual units and costs.

A settle is sent until the store has applied it. It counts once, while the store remembers its id. Later it is given up:
the customer loses the units of that window, and no limit is exceeded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import add
from typing import Final

from sidecar.core.decision import Decision
from sidecar.core.errors import StoreError
from sidecar.core.limits import Checks
from sidecar.edge.leases.lease import Lease
from sidecar.ports import Clock, Counters

CAP: Final = 10_000
GIVE_UP_US: Final = 150_000_000  # a store's mark lives for 180 s: after it, once or twice is not known

_Actual = tuple[int, ...]
Drifted = Callable[[bytes, "Checks", _Actual], None]


def nobody_counts(_id: bytes, _checks: Checks, _actual: _Actual) -> None:
    """The default of `drifted`: settles that are given up are not counted by limit."""


class Returns:
    """Sends settles to `store`, at once or with a later `pay`. `lost` counts those given up; `drifted` gets each."""

    def __init__(
        self, store: Counters, clock: Clock, mint: Callable[[], bytes], drifted: Drifted = nobody_counts
    ) -> None:
        self._store = store
        self._drifted = drifted
        self._clock = clock
        self._mint = mint
        self._late: dict[Lease, _Actual] = {}
        self._owed: dict[bytes, tuple[Checks, _Actual, int]] = {}
        self._unconfirmed = 0
        self.lost = 0

    def __len__(self) -> int:
        return len(self._owed) + len(self._late) + self._unconfirmed

    @property
    def refused(self) -> int:
        """Settles that the store did not take so far."""
        return len(self._owed)

    def settle(self, id_: bytes, checks: Checks, actual: _Actual) -> None:
        """The exchange reserved under `id_` used `actual`."""
        self._settle(id_, checks, actual, self._clock.mono_us())

    def late(self, id_: bytes, checks: Checks, actual: _Actual, age_us: int) -> None:
        """The lease reserved under `id_` by a predecessor, `age_us` ago, used `actual`."""
        if 0 <= age_us < GIVE_UP_US:
            self._settle(id_, checks, actual, self._clock.mono_us() - age_us)
        else:
            self._give_up(id_, checks, actual)

    def confirm(self, lease: Lease) -> None:
        """Before a stop: `len()` is above 0 until the store has answered all commands sent for `lease`, in order."""
        self._unconfirmed += 1
        self._store.charge_unconditionally(self._mint(), lease.of((0,) * len(lease.costs)), self._confirmed)

    def _confirmed(self, _outcome: Decision | StoreError) -> None:
        self._unconfirmed -= 1

    def correct(self, id_: bytes, lease: Lease, owed: _Actual) -> None:
        """The exchange `id_` of `lease` used `owed[i]` units more than its costs, or (below zero) less.

        More is settled at once under its own id, in one command, so that a start after a kill can send it again. Less
        waits for the next `pay`, so that many are one call; a kill loses at most that, to the customer's window.
        """
        if max(owed) > 0:
            self.settle(id_, lease.of((0,) * len(owed)), owed)
        elif lease in self._late:
            self._late[lease] = tuple(map(add, self._late[lease], owed))
        elif len(self._late) < CAP:
            self._late[lease] = owed
        else:
            self._give_up(id_, lease.of((0,) * len(owed)), owed)

    def pay(self) -> None:
        """Send all settles that wait; those that are too old are given up."""
        late, self._late = self._late, {}
        for lease, owed in late.items():
            self.settle(self._mint(), lease.of((0,) * len(owed)), owed)
        mono_us = self._clock.mono_us()
        waiting, self._owed = self._owed, {}
        for id_, (checks, actual, since_us) in waiting.items():
            if mono_us - since_us < GIVE_UP_US:
                self._settle(id_, checks, actual, since_us)
            else:
                self._give_up(id_, checks, actual)

    def _settle(self, id_: bytes, checks: Checks, actual: _Actual, since_us: int) -> None:
        self._store.settle(id_, checks, actual, partial(self._refused, id_, checks, actual, since_us))

    def _refused(self, id_: bytes, checks: Checks, actual: _Actual, since_us: int, _error: StoreError) -> None:
        if len(self._owed) < CAP:
            self._owed[id_] = checks, actual, since_us
        else:
            self._give_up(id_, checks, actual)

    def _give_up(self, id_: bytes, checks: Checks, actual: _Actual) -> None:
        self.lost += 1
        self._drifted(id_, checks, actual)
