"""Opens the wallet of a customer where the settings say it is."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from sidecar.app.loading import load_policies
from sidecar.edge.redis.endpoint import connect, disconnect
from sidecar.edge.redis.wallet import RedisWallet
from sidecar.embedded.lifecycle import wallets
from sidecar.embedded.wallets import EmbeddedWallet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sidecar.config.settings import Settings

AnyWallet = RedisWallet | EmbeddedWallet

TIMEOUT_S: Final = 5.0  # a person waits; the gateway's 50 ms are for requests


@asynccontextmanager
async def open_wallet(settings: Settings, customer: str, unit: str) -> AsyncIterator[AnyWallet]:
    """The wallet of a customer: in Redis; without Redis with the node's worker, or in a stopped node's files."""
    if settings.redis is None:
        async with wallets(settings.journal.dir, lambda: load_policies(settings).policy) as ask:
            yield EmbeddedWallet(ask, customer, unit)
        return
    client = connect(settings.redis.endpoint, TIMEOUT_S)
    try:
        yield RedisWallet(client, customer, unit)
    finally:
        await disconnect(client)
