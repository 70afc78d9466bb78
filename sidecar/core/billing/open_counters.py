"""The counters of windows that are open now, and which records each of them counts.

Records decide what is billed, and a counter only what is admitted. So a counter that was lost, or has drifted, is the
sum of the units of its records. A record names the limits that it was checked against; where it does not (an outage, a
crash), the current policy says which apply. Rates and slots are left out: a rate has no history, and slots belong to
exchanges that are open.

    record   acme, key k1, plan pro, limits [monthly, daily-key], 11-21T10:00, tokens 812
    counters monthly of acme, 2026-11: tokens, from 11-01 to 12-01    daily-key of k1, 2026-11-21: tokens, that day
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from sidecar.core.decision.live import holder_of, limits_of
from sidecar.core.identity import Identity
from sidecar.core.limits import KINDS, Limit
from sidecar.core.limits.base import COUNT
from sidecar.core.policy import Policy, Route

# Classes of records, by the limits that count them.
BILLABLE: Final = 0  # everything
NOT_BILLABLE: Final = 1  # all but priced limits
EXCLUDED: Final = 2  # windows, which protect the API


class Caller(NamedTuple):
    """The caller of the exchanges of some records. `plan` is the label, such as pro@3.

    `limits`: the ids of the limits that they were checked against; None: the records do not have them.
    """

    customer: str
    subject: str
    key_id: str
    plan: str
    route: str
    limits: tuple[str, ...] | None

    @property
    def plan_id(self) -> str:
        """The plan without its version."""
        return self.plan.partition("@")[0]


class OpenCounter(NamedTuple):
    """A counter at `key`: units of `meter` with a period in [start_us, end_us), of records of a class up to `most`.

    `holder` is the value of the limit's scope. It may be dropped from `expires_us` on.
    """

    key: str
    limit: str
    customer: str
    scope: str
    holder: str
    window: str
    meter: str
    start_us: int
    end_us: int
    expires_us: int
    most: int


class OpenCounters:
    """The open counters under one policy at `now_us`, by the clock of the store."""

    def __init__(self, policy: Policy, now_us: int) -> None:
        self._policy = policy
        self._now_us = now_us
        self._routes: Mapping[str, Route] = {route.id: route for route in policy.routes}
        plans = (*policy.customers.values(), *policy.plans.values())
        self._limits = {limit.id: limit for plan in plans for limit in plan.limits}
        self._of_plan: dict[tuple[str, str], tuple[Limit, ...]] = {}

    @property
    def since_us(self) -> int:
        """No record of an earlier period is in an open counter."""
        lengths = [0]
        for limit in self._limits.values():
            if (kind := KINDS[limit.kind]).stored_as == COUNT:
                window = kind.window(limit, Identity("", "", "", ""), self._now_us)
                lengths.append(window.end_us - window.start_us)
        return self._now_us - 2 * max(lengths)  # a sliding window counts in two; months differ by less

    def of_records(self, caller: Caller, identity: Identity, *, is_known: bool) -> list[OpenCounter]:
        """Those that count records of a caller. `is_known`: the zone and the anchor of `identity` are the customer's.

        Otherwise limits whose windows depend on them are left out.
        """
        route = self._routes.get(caller.route)
        terms = self._policy.terms(caller.plan_id, route, caller.customer) if route is not None else None
        own = {limit.id: limit for limit in terms.limits} if terms is not None else {}
        if caller.limits is None:
            return self._open(own.values(), identity, is_known=is_known)
        named = [own.get(each) or self._limits.get(each) for each in caller.limits]
        priced = [limit for limit in own.values() if KINDS[limit.kind].is_priced]  # decisions do not name these
        return self._open([each for each in [*named, *priced] if each is not None], identity, is_known=is_known)

    def of_key(self, identity: Identity) -> list[OpenCounter]:
        """Those that requests with a key can count in, whether or not there are records."""
        owner = identity.customer if identity.customer in self._policy.customers else ""
        limits = self._of_plan.get((identity.plan, owner))
        if limits is None:
            limits = self._of_plan[identity.plan, owner] = tuple(
                {limit.id: limit for some in limits_of(self._policy, identity) for limit in some}.values()
            )
        return self._open(limits, identity, is_known=True)

    def unknown_windows(self, caller: Caller) -> list[str]:
        """The limits that `of_records` leaves out where the customer's zone and anchor are not known."""
        every = {each.limit for each in self.of_records(caller, _nobody(caller), is_known=True)}
        return sorted(every - {each.limit for each in self.of_records(caller, _nobody(caller), is_known=False)})

    def _open(self, limits: Iterable[Limit], identity: Identity, *, is_known: bool) -> list[OpenCounter]:
        counters: list[OpenCounter] = []
        for limit in limits:
            kind = KINDS[limit.kind]
            if kind.stored_as != COUNT or not (is_known or not (limit.anchored or limit.zone == "customer")):
                continue
            window = kind.window(limit, identity, self._now_us)
            keys = kind.keys(limit, identity, window)
            windows = [window, kind.window(limit, identity, window.start_us - 1)][: len(keys)]
            for key, each in zip(keys, windows, strict=True):
                counters.append(
                    OpenCounter(
                        key, limit.id, identity.customer, limit.scope, holder_of(limit, identity), each.id, limit.meter,
                        each.start_us, each.end_us, kind.expiry_us(limit, each), _most(limit),
                    )
                )  # fmt: skip
        return counters


def _most(limit: Limit) -> int:
    kind = KINDS[limit.kind]
    return BILLABLE if kind.is_priced else EXCLUDED if kind.is_protective else NOT_BILLABLE


def _nobody(caller: Caller) -> Identity:
    return Identity(caller.key_id, caller.subject, caller.customer, caller.plan_id)
