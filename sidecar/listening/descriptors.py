"""The descriptors of a worker: how many connections of clients they allow beside upstreams and files."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.config.settings import Settings

FILES = 100  # journal, Redis, the supervisor, the loop, certificates being read: a worker at work has about 30
SOCKETS = 4  # a worker inherits the listening sockets of all workers
UNLIMITED = 1 << 20


def limit() -> int:
    """The descriptors that this process may have open; a child inherits the number."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft


def needed(settings: Settings) -> int:
    """The descriptors of a worker beside those of its clients, where every pool is full."""
    pools = sum(len(upstream.urls) * upstream.pool.size for upstream in settings.upstreams.values())
    return FILES + SOCKETS * settings.workers + pools


def max_connections(settings: Settings) -> int:
    """The connections of clients to one worker: `http.max_connections`, or what is left; at least half the limit."""
    most = limit()
    return settings.http.max_connections or max(most - needed(settings), most // 2, 1)


def warnings(settings: Settings) -> list[str]:
    """Whether a worker can run out of descriptors."""
    clients, others, most = max_connections(settings), needed(settings), limit()
    if clients + others <= most:
        return []
    warning = (
        f"http.max_connections: {clients} connections of clients, and {others} descriptors for `pool.size` and files: "
        f"a worker may open {most}. Raise the limit (`ulimit -n`, `LimitNOFILE`), or lower one of them"
    )
    return [warning]
