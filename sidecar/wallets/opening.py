"""Opens the wallets of customers where the settings say they are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from sidecar.edge.redis.endpoint import connect, disconnect
from sidecar.edge.redis.wallet import RedisWallet
from sidecar.embedded.access import open_state
from sidecar.embedded.wallets import EmbeddedWallet
from sidecar.loading.documents import load_policies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sidecar.config.settings import Settings

AnyWallet = RedisWallet | EmbeddedWallet
Wallets = Callable[[str, str], AnyWallet]

TIMEOUT_S: Final = 5.0  # a person waits; the gateway's 50 ms are for requests


@asynccontextmanager
async def open_wallets(settings: Settings) -> AsyncIterator[Wallets]:
    """The wallet of a customer by its name (`wallet_name`).

    In Redis; without Redis with the node's worker, or in a stopped node's files.
    """
    if settings.redis is None:
        async with open_state(settings.journal.dir, lambda: load_policies(settings).policy) as ask:
            yield partial(EmbeddedWallet, ask)
        return
    client = connect(settings.redis.endpoint, TIMEOUT_S)
    try:
        yield partial(RedisWallet, client)
    finally:
        await disconnect(client)
