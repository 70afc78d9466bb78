"""Policies and a worker's context for tests of the gateway, over the shipped doubles."""

from sidecar.core.identity import Identity
from sidecar.core.policy import Limit, Plan, Policy, Route
from sidecar.core.usage import REQUESTS, Measured, MeterRule, meter_for
from sidecar.gateway import GatewayOptions, Ports, WorkerContext
from sidecar.testing import (
    AlertBook,
    CounterBook,
    HandClock,
    KeyBook,
    MemoryJournal,
    PeekBook,
    RetryBook,
    ScriptedUpstream,
    Tally,
    minted,
)

EGRESS = MeterRule("egress_bytes", Measured("response.bytes"))
INGRESS = MeterRule("ingress_bytes", Measured("request.bytes"))
ANN = Identity("k_ann", "app-ann", "cust-ann", "free")
BOB = Identity("k_bob", "app-bob", "cust-bob", "free")
MANY = Limit("many", "quota", 1_000_000, calendar="month")


def quota(amount, **more):
    return Limit("monthly", "quota", amount, calendar="month", **more)


def policy(
    *limits, version="v1", routes=None, rules=(REQUESTS, EGRESS, INGRESS), exclusions=(), customers=None, **route
):
    ways = routes or [Route("api", **route)]
    plans = [Plan("free", "free@1", limits or (MANY,)), Plan("pro", "pro@1", (MANY,), frozenset({"chat", "big"}))]

    def meters(way):
        found = [meter_for(rule, way.id, way.usage) for rule in rules]
        return [meter for meter in found if meter is not None]

    return Policy(version, ways, plans, meters, exclusions=exclusions, customers=customers or {})


class Setting:
    """The doubles, and the context over them. Keys `ann` and `bob` are registered."""

    def __init__(self, *limits, options=None, upstream_of=None, **more):
        self.clock = HandClock()
        self.keys = KeyBook()
        self.keys.register("ann", ANN)
        self.keys.register("bob", BOB)
        self.counters = CounterBook(self.clock)
        self.peeks = PeekBook(self.counters, self.clock)
        self.journal = MemoryJournal()
        self.tally = Tally()
        self.retries = RetryBook()
        self.alerts = AlertBook()
        self.upstream = ScriptedUpstream()
        self.flushed = lambda: None  # what the store was sent so far is written
        ports = Ports(
            self.clock,
            self.keys,
            self.counters,
            self.journal,
            self.tally,
            self.retries,
            self.alerts,
            self.peeks,
            self.flush,
        )
        found = upstream_of or (lambda _route: self.upstream)
        self.context = WorkerContext(ports, policy(*limits, **more), found, minted(), options or GatewayOptions("here"))

    def flush(self):
        """What the store was sent so far is written: `flushed` may be another's."""
        self.flushed()
