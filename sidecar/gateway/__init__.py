"""The life of a request: exchange.py has its states and steps; the other modules are what its steps ask.

routing.py     the route and credential of a head      context.py     what the exchanges of a worker share
admission.py   identity, terms, reservation, decision   policies.py    the policy, and what is cached under it
inspection.py  bodies that are read, and retries        fields.py      the fields that the gateway adds to heads
accounting.py  usage, record, settlement                in_flight.py   the exchanges that are open, and their log
guard.py       the end of an exchange whose step raised extension.py   which open ones hold what is to be extended
failed_authentications.py   how many unknown keys a client may present
"""

from __future__ import annotations

from sidecar.gateway.context import Ports, WorkerContext
from sidecar.gateway.exchange import REPLAY_BYTES, RequestExchange, serve
from sidecar.gateway.extension import exchanges_due
from sidecar.gateway.fields import GatewayOptions

__all__ = ["REPLAY_BYTES", "GatewayOptions", "Ports", "RequestExchange", "WorkerContext", "exchanges_due", "serve"]
