"""Asks the store that enforces: what callers have left now, in Redis or in the state of a node without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sidecar.core.decision.live import Live, limits_of, live
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Policy
from sidecar.edge.clock import SystemClock
from sidecar.edge.redis.endpoint import connected
from sidecar.edge.redis.peeks import ClientPeeks
from sidecar.embedded.access import open_state
from sidecar.embedded.counters import EmbeddedPeeks

if TYPE_CHECKING:
    from sidecar.config.settings import Settings
    from sidecar.core.decision.peek import Peeked

TIMEOUT_S: Final = 5.0
Peeks = ClientPeeks | EmbeddedPeeks


async def read_live(settings: Settings, policy: Policy, identities: Sequence[Identity]) -> Live:
    """The limits and balances of the callers of one customer. StoreError, SinkError: the store does not answer."""
    if settings.redis is None:
        async with open_state(settings.journal.dir, lambda: policy) as ask:
            return live(await _peeked(EmbeddedPeeks(ask), policy, identities))
    async with connected(settings.redis.endpoint, TIMEOUT_S) as client:
        return live(await _peeked(ClientPeeks(client), policy, identities))


async def _peeked(peeks: Peeks, policy: Policy, identities: Sequence[Identity]) -> list[Peeked]:
    """The figures of every limit of each caller."""
    now_us = SystemClock().now_us()
    pairs = [(limits, identity) for identity in identities for limits in limits_of(policy, identity)]
    return [await peeks.peek(checks_for(limits, (0,) * len(limits), identity, now_us)) for limits, identity in pairs]
