"""A worker's share of a limit while the store does not answer, and by how much all shares together exceed the limit.

A rate's share leaks at the worker's part of the rate. When the store answers again, its bucket is charged the admitted
units that have not leaked by then, beyond its burst if necessary. The store's own bucket leaks during the outage too,
and two buckets that leak at the same time would forget twice as much; so the share counts as if it had been full at the
beginning. Workers notice the begin and the end of an outage at slightly different times, so nothing counts as leaked in
its first and last NOTICE_US (core/limits/pace.py).

    rate 40/s, burst 40, one worker, an outage of 10 s at full demand: 40 are admitted at once, 400 more at the rate.
    Charged at its end: 40 (as if full) + 440 (admitted) - 400 (leaked in 10 s) = 80, and 80 more for NOTICE_US.
    The store's bucket has leaked to 0, so it denies until it is down to its burst again: 3 s.
"""

from __future__ import annotations

from sidecar.core.limits import KINDS, Checks, Limit
from sidecar.edge.degraded.outage import Outage


def share_of(limit: Limit, workers: int) -> Limit:
    """The limit that one of `workers` applies without the store."""
    return KINDS[limit.kind].share(limit, workers)


def refuses(limit: Limit, workers: int) -> bool:
    """Whether the limit denies every request while the store does not answer."""
    return _enforces(limit) and KINDS[limit.kind].refuses_alone(limit, workers)


def first_unknown(checks: Checks, outage: Outage, now_us: int) -> int:
    """The index of the first limit whose share may be used up, since the outage file was damaged, or -1."""
    until_us, is_lent_unknown = outage.unknown_us, outage.is_lent_unknown
    for index, check in enumerate(checks.entries):
        if _enforces(check.limit) and check.kind.share_unknown(
            check, until_us, now_us, is_lent_unknown=is_lent_unknown
        ):
            return index
    return -1


def over_admission_bound(limit: Limit, workers: int) -> int:
    """Units that may be admitted beyond `limit` while the store is away; 0 if it denies then, or never refuses.

    Of a window or quota: per window. Of a rate: beyond burst + rate x time, in any time span, if all workers notice
    begin and end of the outage within NOTICE_US of each other. Of a balance: the amount, per customer and outage.
    """
    if not _enforces(limit) or refuses(limit, workers):
        return 0
    return KINDS[limit.kind].over_admission(limit, workers)


def _enforces(limit: Limit) -> bool:
    return limit.over != "allow" and limit.stage == "enforce"
