"""The pools of one worker: one per upstream, and one more per route that has timeouts of its own."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from sidecar.core.policy import Route, Timeouts
from sidecar.edge.pool import Pool, PoolLimits
from sidecar.edge.upstream import UpstreamLeg
from sidecar.ports import Upstream

if TYPE_CHECKING:
    from sidecar.config.sections import ClientTls
    from sidecar.config.sections import Upstream as UpstreamSettings
    from sidecar.config.settings import Settings

FOREVER_S = 10.0**9


class Upstreams:
    """Pools by upstream and timeouts, made when a policy first asks for them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.upstreams
        self._pools: dict[tuple[str, Timeouts], Pool] = {}

    def of(self, route: Route) -> Upstream:
        """The pool that carries a route."""
        asked = (route.upstream, route.timeouts)
        pool = self._pools.get(asked)
        if pool is None:
            pool = self._pools[asked] = _pool(route.upstream, self._settings[route.upstream], route.timeouts)
        return pool

    @property
    def retries(self) -> int:
        return sum(pool.retries for pool in self._pools.values())

    @property
    def connections(self) -> int:
        return sum(pool.connections for pool in self._pools.values())

    def sweep(self, now: float) -> None:
        for pool in self._pools.values():
            pool.sweep(now)

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


def _pool(name: str, upstream: UpstreamSettings, own: Timeouts) -> Pool:
    defaults = upstream.timeouts
    limits = PoolLimits(
        connect_s=_seconds(own.connect_ms, defaults.connect_ms),
        first_byte_s=_seconds(own.first_byte_ms, defaults.first_byte_ms),
        between_bytes_s=_seconds(own.between_bytes_ms, defaults.between_bytes_ms),
        total_s=_seconds(own.total_ms, defaults.total_ms) or FOREVER_S,
        idle_s=upstream.pool.idle_ms / 1000,
        connections=upstream.pool.size,
    )
    # The authorities of a system are a few megabytes: who speaks to nobody by TLS does without.
    tls = client_tls(upstream.tls) if any(url.tls for url in upstream.urls) else None
    return Pool(name, [str(url) for url in upstream.urls], UpstreamLeg, limits=limits, tls=tls)


def _seconds(own_ms: int | None, default_ms: int) -> float:
    return (default_ms if own_ms is None else own_ms) / 1000


def client_tls(tls: ClientTls) -> ssl.SSLContext:
    """How an upstream is trusted: the system's authorities or `ca`, its name checked unless `verify: false`."""
    context = ssl.create_default_context(cafile=str(tls.ca) if tls.ca is not None else None)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key)
    context.set_alpn_protocols(["http/1.1"])
    return context
