"""How units of one limit are reserved ahead. The rule for all limits of a request at once is core/decision/lease.py."""

from __future__ import annotations

from typing import Final

from sidecar.core.limits.limit import Limit

HORIZON_US: Final = 100_000  # a lease is what a worker will use in this time
LIFE_US: Final = 200_000  # units of a rate are given up after it


class Leasing:
    """The rules of leasing units of one limit. This one is for counts: their units are good until the window ends."""

    __slots__ = ()

    def bound(self, limit: Limit, workers: int) -> int:
        """The most units that one of `workers` holds ahead; lost to the window if it is killed."""
        return 0 if limit.exact else limit.amount // (2 * workers)

    def room(self, limit: Limit, left: int, held: int, workers: int) -> int:
        """The most units to lease now: `left` remain, and this worker holds `held`."""
        room = self.bound(limit, workers) - held
        return room if limit.over == "allow" else min(room, left // (2 * workers))

    def requests(self, limit: Limit, cost: int, room: int, backlog_us: int, demand: int) -> int:
        """For how many requests of `cost` (> 0) a lease can be, where `demand` are expected within HORIZON_US."""
        return room // cost

    def padding(self, limit: Limit, room: int, backlog_us: int) -> int:
        """Units to lease besides and never to spend, of `room` that is left."""
        return 0

    def life_us(self, limit: Limit, units: int, reset_us: int, window_us: int) -> int:
        """For how long after the decision the last of `units` may be spent, where the window lasts `window_us`."""
        return window_us

    def returns(self, limit: Limit, units: int, reset_us: int, age_us: int) -> int:
        """How many of `units` left over go back to the counter, `age_us` after they were asked for."""
        return units


class RateLeasing(Leasing):
    """A rate forgets what it counted as time passes, so units of it are good while their backlog is still there.

    Where the backlog is short, padding is leased besides: it is in the queue before the others.
    """

    __slots__ = ()

    def room(self, limit: Limit, left: int, held: int, workers: int) -> int:
        return min(self.bound(limit, workers) - held, left // (2 * workers))

    def requests(self, limit: Limit, cost: int, room: int, backlog_us: int, demand: int) -> int:
        # The last of n is spent n/demand horizons from now, and must then still be in what is left of the backlog.
        covered = backlog_us * limit.per + room * limit.period_us
        return min(room // cost, covered * demand // (HORIZON_US * limit.per + demand * cost * limit.period_us))

    def padding(self, limit: Limit, room: int, backlog_us: int) -> int:
        wanted = (HORIZON_US - backlog_us) * limit.per // limit.period_us + 1
        return four_bits(min(wanted, room))

    def life_us(self, limit: Limit, units: int, reset_us: int, window_us: int) -> int:
        return min(window_us, LIFE_US, reset_us - -(-units * limit.period_us // limit.per) - 1)

    def returns(self, limit: Limit, units: int, reset_us: int, age_us: int) -> int:
        """Only units that the leases of other workers cannot depend on."""
        back = min(units, max(0, reset_us - age_us) * limit.per // limit.period_us)
        return max(0, back - LIFE_US * limit.per // limit.period_us - 1)


def four_bits(units: int) -> int:
    """Down to four significant bits, so that the commands of a few sizes can be kept."""
    shift = max(0, units.bit_length() - 4)
    return max(0, units) >> shift << shift
