"""The collaborators that all exchanges of one worker share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sidecar.core.http.cors import UpstreamOrigins
from sidecar.core.policy import Policy, Route
from sidecar.core.record import Totals
from sidecar.gateway.failed_authentications import FailedAuthentications
from sidecar.gateway.fields import GatewayOptions, HeadFields
from sidecar.gateway.in_flight import ExchangeLog, OpenExchanges
from sidecar.gateway.policies import PolicyCaches
from sidecar.gateway.refusals import Refusals
from sidecar.gateway.usage import UsageRate
from sidecar.ports import Alerts, Clock, Counters, Journal, Keys, Peeks, Probe, Retries, Upstream


def _nothing() -> None:
    """A store in memory has nothing to write."""


class Ports(NamedTuple):
    """The edges that exchanges speak to."""

    clock: Clock
    keys: Keys
    counters: Counters
    journal: Journal
    probe: Probe
    retries: Retries
    alerts: Alerts
    peeks: Peeks
    flush: Callable[[], None] = _nothing  # write what was sent to the store so far


class WorkerContext:
    """The ports; `policies`, `heads`, `failures`, `open`, `log`, `refusals`, `origins`; `totals`: of all records.

    `mint` makes a new id, dated in ms: of the request, the reservation and the record.
    """

    def __init__(
        self,
        ports: Ports,
        policy: Policy,
        upstream_of: Callable[[Route], Upstream],
        mint: Callable[[int], bytes],
        options: GatewayOptions,
    ) -> None:
        self.clock, self.keys, self.counters, self.journal, self.probe, self.retries, self.alerts = ports[:7]
        self.peeks, flush = ports.peeks, ports.flush
        self.usage_rate = UsageRate()
        self.mint = mint
        self.options = options
        self.policies = PolicyCaches(policy, upstream_of)
        self.heads = HeadFields(options, self.keys)
        self.failures = FailedAuthentications(self.clock, options.failures_per_second, self.heads.trusts)
        self.log = ExchangeLog(self.clock, self.probe)
        self.refusals = Refusals(self.clock, self.probe)
        self.origins = UpstreamOrigins()
        self.open = OpenExchanges(self.clock, self.log, flush)
        self.totals = Totals()
        self.journal.on_acknowledged(self.open.deliver)
