"""The settings as the options of a worker's parts. Bounds of the whole node are shared out to its workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.control.build_variant import VERSION
from sidecar.core.http.forward import HOP_BY_HOP
from sidecar.core.http.request import HeadLimits
from sidecar.core.policy import Policy
from sidecar.edge.http1.listener import Timeouts
from sidecar.edge.journal import DenialOptions, JournalOptions
from sidecar.gateway import GatewayOptions

if TYPE_CHECKING:
    from sidecar.config.sections import Http
    from sidecar.config.settings import Settings

SPARE_FOLDERS = 99  # one for each supervisor that was killed while its streams are still being finished


def journal_options(settings: Settings, index: int) -> JournalOptions:
    """Worker `index`'s part of the node's journal: the cap is shared out, so that no worker can fill it alone."""
    journal = settings.journal
    return JournalOptions(
        directory=journal.dir,
        worker=str(index),
        source=f"//sidecar/{settings.region}/{settings.node}/{index}",
        durability=journal.durability,
        interval_us=journal.interval_ms * 1000,
        segment_bytes=journal.segment_bytes,
        cap_bytes=journal.cap_bytes // settings.workers,
        on_full=journal.on_full,
        spares=SPARE_FOLDERS,
        version=VERSION,
        denials=DenialOptions(
            share_bytes=journal.cap_bytes // settings.workers * journal.denials.share_percent // 100,
            per_second=_shared_out(journal.denials.per_second, settings.workers),
            per_limit=_shared_out(journal.denials.per_limit, settings.workers),
            summary_seconds=journal.denials.summary_seconds,
        ),
    )


def _shared_out(number: int, workers: int) -> int:
    """A worker's part, rounded up: of a few, each has one."""
    return -(-number // workers)


def gateway_options(settings: Settings) -> GatewayOptions:
    """The options of the gateway."""
    pepper = settings.keys.pepper
    return GatewayOptions(
        node=settings.node,
        pepper=pepper.get_secret_value().encode() if pepper is not None else b"",
        trusted=tuple(settings.trusted_proxies),
        limit_headers=settings.ratelimit_headers,
        x_limit_headers=settings.x_ratelimit_headers,
        failures_per_second=_shared_out(settings.keys.failures_per_second, settings.workers),
        usage_path=settings.usage_path,
    )


def head_limits(settings: Settings, policy: Policy) -> HeadLimits:
    """The bounds of a head; the headers that the policy reads mean the same to the upstream, or are refused.

    A client cannot get past a header that an upstream is given, by its twin with underscores.
    """
    http = settings.http
    # `Connection: upgrade` is how that field is to be named.
    protected = policy.carriers | (policy.headers - HOP_BY_HOP)
    given = {name.lower().encode() for upstream in settings.upstreams.values() for name in upstream.headers}
    return HeadLimits(
        http.head_bytes,
        http.target_bytes,
        http.field_bytes,
        http.fields,
        http.underscores,
        protected=protected | given,
        once=policy.headers,
    )


def client_timeouts(http: Http) -> Timeouts:
    """Milliseconds become the loop's seconds."""
    return Timeouts(
        head_s=http.head_timeout_ms / 1000,
        idle_s=http.idle_timeout_ms / 1000,
        body_grace_s=http.body_grace_ms / 1000,
        body_min_bytes_per_s=http.body_bytes_per_second,
        stalled_s=http.idle_timeout_ms / 1000,
    )
