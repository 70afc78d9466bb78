"""Accept a loss of Redis: its markers record that, and every worker reads them."""

from __future__ import annotations

import time
from typing import Final

from sidecar.core.errors import StoreError
from sidecar.edge.redis.endpoint import NO_ANSWER, Endpoint, connected, describe
from sidecar.edge.redis.markers import GROUPS, accepted, is_lost, marker_keys

_TIMEOUT_S: Final = 1.0


async def accept_losses(endpoint: Endpoint) -> int:
    """Accept all current losses. Returns their number: at most 1, on a cluster at most one per group of slots."""
    count = 0
    try:
        async with connected(endpoint, _TIMEOUT_S) as client:
            for key in marker_keys(GROUPS if endpoint.mode == "cluster" else 1):
                marker = await client.get(key)
                if marker is not None and is_lost(marker):
                    await client.set(key, accepted(marker, time.time_ns() // 1000), xx=True)
                    count += 1
    except NO_ANSWER as error:
        raise StoreError(f"redis: {describe(error)}") from None
    return count
