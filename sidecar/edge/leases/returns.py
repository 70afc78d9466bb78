"""What the store has yet to hear of leases: units that come back, and exchanges that used other than their costs.

Each is told until the store has taken it, and counts once: for as long as the store remembers an id. After that nothing
is given back any more, so what is lost is lost to the customer's window and never to a limit.
"""

from __future__ import annotations

from functools import partial
from operator import add
from typing import TYPE_CHECKING, Final

from sidecar.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.core.counter import Checks
    from sidecar.core.decision import Decision
    from sidecar.edge.leases.lease import Lease
    from sidecar.ports import Clock, Counters

CAP: Final = 10_000
GIVE_UP_US: Final = 150_000_000  # a store's mark lives for 180 s: after it, once or twice is not known

_Truth = tuple[int, ...]


class Returns:
    """Tells `store`, at once or with a later `pay`. `lost` counts what it never took."""

    def __init__(self, store: Counters, clock: Clock, mint: Callable[[], bytes]) -> None:
        self._store = store
        self._clock = clock
        self._mint = mint
        self._late: dict[Lease, _Truth] = {}
        self._owed: dict[bytes, tuple[Checks, _Truth, int]] = {}
        self._unheard = 0
        self.lost = 0

    def __len__(self) -> int:
        return len(self._owed) + len(self._late) + self._unheard

    def settle(self, id_: bytes, checks: Checks, truth: _Truth) -> None:
        """What was reserved under `id_` came to `truth`."""
        self._settle(id_, checks, truth, self._clock.mono_us())

    def late(self, id_: bytes, checks: Checks, truth: _Truth, age_us: int) -> None:
        """What was reserved under `id_` by a predecessor, `age_us` ago, came to `truth`."""
        if 0 <= age_us < GIVE_UP_US:
            self._settle(id_, checks, truth, self._clock.mono_us() - age_us)
        else:
            self.lost += 1

    def confirm(self, lease: Lease) -> None:
        """Count as owed until the store has answered all that it was sent of `lease`, in order: before a stop."""
        self._unheard += 1
        self._store.force(self._mint(), lease.of((0,) * len(lease.costs)), self._heard)

    def _heard(self, _said: Decision | StoreError) -> None:
        self._unheard -= 1

    def correct(self, lease: Lease, owed: _Truth) -> None:
        """An exchange of `lease` used `owed[i]` units more than its costs, or (below zero) less.

        More is told at once. Less waits for the next `pay`, so that many are one call.
        """
        known = self._late.pop(lease, None)
        total = owed if known is None else tuple(map(add, known, owed))
        if max(owed) > 0:
            self._tell(lease, total)
        else:
            self._keep(lease, total)

    def pay(self) -> None:
        """Tell all that is owed; what is too old is given up."""
        late, self._late = self._late, {}
        for lease, owed in late.items():
            self._tell(lease, owed)
        mono_us = self._clock.mono_us()
        waiting, self._owed = self._owed, {}
        for id_, (checks, truth, since_us) in waiting.items():
            if mono_us - since_us < GIVE_UP_US:
                self._settle(id_, checks, truth, since_us)
            else:
                self.lost += 1

    def _settle(self, id_: bytes, checks: Checks, truth: _Truth, since_us: int) -> None:
        self._store.settle(id_, checks, truth, partial(self._refused, id_, checks, truth, since_us))

    def _refused(self, id_: bytes, checks: Checks, truth: _Truth, since_us: int, _error: StoreError) -> None:
        if len(self._owed) < CAP:
            self._owed[id_] = checks, truth, since_us
        else:
            self.lost += 1

    def _tell(self, lease: Lease, owed: _Truth) -> None:
        """A reservation of nothing, forced into the windows of `lease`, is settled by what is owed."""
        if any(owed):
            id_, nothing = self._mint(), lease.of((0,) * len(owed))
            self._store.force(id_, nothing, partial(self._marked, lease, id_, nothing, owed))

    def _marked(self, lease: Lease, id_: bytes, nothing: Checks, owed: _Truth, said: Decision | StoreError) -> None:
        if type(said) is not StoreError:
            self.settle(id_, nothing, owed)
        elif lease in self._late:
            self._late[lease] = tuple(map(add, self._late[lease], owed))
        else:
            self._keep(lease, owed)

    def _keep(self, lease: Lease, owed: _Truth) -> None:
        if len(self._late) < CAP:
            self._late[lease] = owed
        else:
            self.lost += 1
