"""One limit of a policy, as a value; its kind says what it means."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.core.price import Price
from sidecar.core.price.decimals import DIGITS


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` units of a meter per window, for a scope. Its counters are found by `id`, never by definition.

    rate:        GCRA; `per` units in each `period_us`, at most `amount` (the burst) at once.
    window:      `amount` units in `period_us`; sliding (two counters, weighted) unless `fixed`.
    quota:       `amount` units per `calendar` unit (hour, day, week, month, year), in `zone` (IANA name, or
                 "customer" for the identity's own), from the 1st, or from the identity's anchor where `anchored`.
    concurrency: `amount` exchanges at once; a slot that nobody gives back expires after `period_us`.
    priced:      counts `meter` in the window of a quota and never denies (`amount` 0): what the count adds to the
                 charge of `price` is taken from the next balance of the same `unit` in the list.
    balance:     a customer's wallet in `unit` (`amount` 0); pays for the priced limits before it. Amounts are whole
                 numbers of 10^-`digits` of the unit. A hold that nobody settles is released after `period_us`.

    `reserve` units are held while the meter's quantity is not known yet (bytes, durations, tokens). `alerts`: percents
    of the amount at which an alert is sent. `offline` is the amount that passes in all while a balance's store is away.
    `link` is where a client raises the limit. `exact`: the store is asked for every request, none of it is leased.
    """

    id: str
    kind: str
    amount: int
    meter: str = "requests"
    scope: str = "key"  # key | subject | customer
    per: int = 0
    period_us: int = 0
    calendar: str = ""
    zone: str = "UTC"
    anchored: bool = False
    fixed: bool = False
    over: str = "deny"  # deny | allow
    stage: str = "enforce"  # shadow | soft (decides and warns) | enforce
    on_store_failure: str = "allow"  # allow (within the local share) | deny
    on_store_loss: str = "allow"  # allow | deny, until nothing that was lost could count any more
    routes: frozenset[str] = frozenset()  # empty: every route
    reserve: int = 1
    unit: str = ""
    price: Price | None = None
    alerts: tuple[int, ...] = ()
    offline: int = 0
    link: str = ""
    exact: bool = False
    digits: int = DIGITS
