"""The units that each open counter should have: the sums of the records of the ledger and of this node's journal.

Counters are those of the records, and of every registered key. A customer's zone and anchor are those of its key, or of
another key of the customer where that one is not registered any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sidecar.core.billing.open_counters import Caller, OpenCounter, OpenCounters
from sidecar.core.identity import Identity, KeyRecord
from sidecar.core.limits.bounds import COUNT_MAX
from sidecar.core.policy import Policy
from sidecar.edge.ledger.counts import choose_rows, find_callers, sum_units, unknown_originals
from sidecar.edge.ledger.engine import Engine
from sidecar.ledger.pending import RELATION, pending_rows


class Scope(NamedTuple):
    """Which counters: of a customer, of a limit; "": all."""

    customer: str = ""
    limit: str = ""

    def has(self, counter: OpenCounter) -> bool:
        """Whether the counter is one of them."""
        return self.customer in {"", counter.customer} and self.limit in {"", counter.limit}


class Counted(NamedTuple):
    """The open counters with the units of their records. `pending`: records of the journal, not in the ledger yet.

    `skipped`: limits that cannot be computed for want of a customer's zone, with a customer of each. `unknown`:
    corrections and voids without an original.
    """

    units: list[tuple[OpenCounter, int]]
    pending: int
    skipped: dict[str, str]
    unknown: int


class Identities:
    """Identities of callers, by the registered keys."""

    def __init__(self, keys: Sequence[KeyRecord]) -> None:
        active = [replace(key, status="active").identity() for key in keys]  # of revoked keys too
        self.registered = [each for each in active if each is not None]
        self._by_key = {each.key_id: each for each in self.registered}
        self._by_customer = {each.customer: each for each in self.registered}

    def of(self, caller: Caller) -> tuple[Identity, bool]:
        """The identity of a caller, and whether its zone and anchor are known."""
        known = self._by_key.get(caller.key_id)
        if known is None or known.customer != caller.customer:
            known = self._by_customer.get(caller.customer)
        zone = (known.zone, known.anchor_us) if known is not None else ("UTC", 0)
        identity = Identity(caller.key_id, caller.subject, caller.customer, caller.plan_id, *zone)
        return identity, known is not None


def count(
    engine: Engine, journal: Path, policy: Policy, keys: Sequence[KeyRecord], now_us: int, scope: Scope
) -> Counted:  # fmt: skip
    """The units of every open counter in `scope`. `engine` has the ledger's views."""
    windows, identities = OpenCounters(policy, now_us), Identities(keys)
    since_us = windows.since_us
    with pending_rows(engine, journal) as pending:
        choose_rows(engine, scope.customer, RELATION if pending else "")
        callers = find_callers(engine, since_us, [each.id for each in policy.exclusions])
        numbers: dict[str, int] = {}
        counters: list[OpenCounter] = []
        wanted: list[tuple[int, int, OpenCounter]] = []
        skipped: dict[str, str] = {}

        def number_of(counter: OpenCounter) -> int:
            number = numbers.setdefault(counter.key, len(counters))
            if number == len(counters):
                counters.append(counter)
            return number

        for place, caller in enumerate(callers):
            identity, is_known = identities.of(caller)
            if not is_known:
                skipped |= dict.fromkeys(windows.unknown_windows(caller), caller.customer)
            own = windows.of_records(caller, identity, is_known=is_known)
            wanted += [(place, number_of(each), each) for each in own if scope.has(each)]
        for identity in identities.registered:
            for each in windows.of_key(identity):
                if scope.has(each):
                    number_of(each)
        units = sum_units(engine, since_us, wanted)
        unknown = unknown_originals(engine, since_us)
    bounded = [(each, max(0, min(units.get(place, 0), COUNT_MAX))) for place, each in enumerate(counters)]
    return Counted(bounded, pending, skipped, unknown)
