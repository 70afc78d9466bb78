"""The connection pools of one worker: one per upstream and set of timeouts."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, NamedTuple

from sidecar.control.stats import add_counts
from sidecar.core.policy import Route, Timeouts
from sidecar.edge.http1.address import PRESERVE, HeadSettings
from sidecar.edge.http1.pool import Pool, PoolLimits
from sidecar.edge.http1.upstream import UpstreamLeg
from sidecar.loading.certificates import Pem, client_context
from sidecar.ports import Upstream

if TYPE_CHECKING:
    from sidecar.config.sections import ClientTls
    from sidecar.config.settings import Settings
    from sidecar.config.upstreams import Upstream as UpstreamSettings

FOREVER_S = 10.0**9


class Secrets(NamedTuple):
    """All of an upstream that is made of files and variables: its TLS context, and the headers that it gets."""

    tls: ssl.SSLContext | None
    heads: HeadSettings


class Upstreams:
    """Pools by upstream and timeouts, made when a policy first uses them."""

    def __init__(self, settings: Settings, pem: Pem) -> None:
        self._settings = settings.upstreams
        self._secrets = self.secrets(pem)
        self._pools: dict[tuple[str, Timeouts], Pool] = {}

    def of(self, route: Route) -> Upstream:
        """The pool of a route."""
        key = (route.upstream, route.timeouts)
        pool = self._pools.get(key)
        if pool is None:
            secrets = self._secrets[route.upstream]
            pool = self._pools[key] = _pool(route.upstream, self._settings[route.upstream], route.timeouts, secrets)
        return pool

    def secrets(self, pem: Pem) -> dict[str, Secrets]:
        """The contexts and headers of each upstream, by name, from the texts of files and variables.

        Those without https have no TLS context: each takes a few megabytes.
        """
        return {
            name: Secrets(
                client_tls(upstream.tls, pem) if any(url.tls for url in upstream.urls) else None,
                head_settings(upstream, pem),
            )
            for name, upstream in self._settings.items()
        }

    def swap_in(self, secrets: dict[str, Secrets]) -> None:
        """Use these for new connections and for the next requests."""
        self._secrets = secrets
        for (name, _), pool in self._pools.items():
            pool.renew(*secrets[name])

    @property
    def share_refusals(self) -> int:
        return sum(pool.share_refusals for pool in self._pools.values())

    @property
    def retries(self) -> int:
        return sum(pool.retries for pool in self._pools.values())

    @property
    def failed_look_ups(self) -> int:
        """How often the name of an upstream could not be resolved."""
        return sum(pool.failed_look_ups for pool in self._pools.values())

    def gauges(self) -> dict[str, int]:
        """Open and idle connections by upstream, summed over its pools."""
        totals: dict[str, int] = {}
        for pool in self._pools.values():
            add_counts(
                totals,
                {f"upstream_open|{pool.name}": pool.connections, f"upstream_idle|{pool.name}": pool.idle_connections},
            )
        return totals

    def check_deadlines(self, now: float, late_s: float) -> None:
        for pool in self._pools.values():
            pool.check_deadlines(now, late_s)

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


def _pool(name: str, upstream: UpstreamSettings, own: Timeouts, secrets: Secrets) -> Pool:
    defaults = upstream.timeouts
    limits = PoolLimits(
        connect_s=_seconds(own.connect_ms, defaults.connect_ms),
        first_byte_s=_seconds(own.first_byte_ms, defaults.first_byte_ms),
        between_bytes_s=_seconds(own.between_bytes_ms, defaults.between_bytes_ms),
        total_s=_seconds(own.total_ms, defaults.total_ms) or FOREVER_S,
        idle_s=upstream.pool.idle_ms / 1000,
        connections=upstream.pool.size,
        per_customer=-(-upstream.pool.size * upstream.pool.share_percent // 100),
    )
    urls = [str(url) for url in upstream.urls]
    return Pool(name, urls, UpstreamLeg, limits=limits, tls=secrets.tls, heads=secrets.heads)


def _seconds(own_ms: int | None, default_ms: int) -> float:
    return (default_ms if own_ms is None else own_ms) / 1000


def head_settings(upstream: UpstreamSettings, pem: Pem) -> HeadSettings:
    """The changes to heads that the settings of an upstream ask for, with the values of its secrets."""
    fields = [(name.encode(), text.fill(pem).encode()) for name, text in upstream.headers.items()]
    removed = frozenset(name.lower().encode() for name in upstream.remove_headers)
    return HeadSettings(upstream.host or PRESERVE, tuple(fields), removed, upstream.tls.server_name or "")


def client_tls(tls: ClientTls, pem: Pem) -> ssl.SSLContext:
    """The TLS context of an upstream: as `client_context`; with `verify: false` nothing is verified."""
    context = client_context(tls, pem)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
