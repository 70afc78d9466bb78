"""The postings of wallets on their way to the stream, for one worker: from Redis, or from the node's own memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from sidecar.core.record import Ids
from sidecar.edge.journal import Journal
from sidecar.edge.redis.endpoint import connect, disconnect
from sidecar.edge.redis.postings import RedisPostings
from sidecar.edge.redis.unread_wallets import UnreadWallets
from sidecar.edge.redis.wire import end_task
from sidecar.embedded.postings import EmbeddedPostings
from sidecar.ports import Clock

if TYPE_CHECKING:
    from sidecar.app.stores import CounterStore
    from sidecar.config.settings import Settings

FINISH_S = 0.02
TIMEOUT_S = 5.0  # nobody waits for it


class WalletPostings:
    """Reads the ledgers of wallets, and writes their postings into the journal."""

    def __init__(self, settings: Settings, stores: CounterStore, journal: Journal, clock: Clock, ids: Ids) -> None:
        self._redis, self._clock = settings.redis, clock
        self._stores = stores
        self._searching: asyncio.Task[None] | None = None
        self._embedded: EmbeddedPostings | None = None
        if stores.redis is not None and stores.wire is not None:
            self.reader: RedisPostings | EmbeddedPostings = RedisPostings(
                stores.wire, journal, clock, ids.mint(clock.now_us() // 1000).decode(), stores.is_away
            )
            stores.redis.charged = self.reader.touch
        else:
            self.reader = self._embedded = EmbeddedPostings(stores.embedded, journal, clock)
            stores.embedded.counters.charged = self.reader.touch

    def start(self, index: int, has_balances: Callable[[], bool]) -> None:
        """After the stores have started: find the postings that others left unread. One worker of a node does that.

        `has_balances`: whether the policy has any at present; without them no wallet is looked for.
        """
        if self._embedded is not None:
            self._embedded.touch_all()
        elif index == 0:
            search = self._search(lambda: self._stores.is_away() or not has_balances())
            self._searching = asyncio.get_running_loop().create_task(search, name="wallets")

    def tick(self) -> None:
        """To be called about five times a second."""
        self.reader.tick()

    def figures(self) -> tuple[dict[str, int], dict[str, int]]:
        """Counts and gauges by the names of `control.metrics`."""
        return {
            "postings": self.reader.written,
            "postings_unreadable": self.reader.unreadable,
        }, {"wallets_unread": self.reader.unread}

    async def finish(self) -> None:
        """Write all postings of the wallets that this worker charged. The caller sets a timeout."""
        await end_task(self._searching)
        self.reader.end()
        while self.reader.unread and not self._stores.is_away():
            self.reader.tick()
            await asyncio.sleep(FINISH_S)
        self.reader.tick()  # removes its notes
        self._stores.flush()

    async def _search(self, is_paused: Callable[[], bool]) -> None:
        assert self._redis is not None  # noqa: S101 - see start
        client = connect(self._redis.endpoint, TIMEOUT_S)
        try:
            await UnreadWallets(client, self.reader.touch, self._clock, is_paused).run()
        finally:
            with suppress(Exception):  # it is closed at the end of the process otherwise
                await disconnect(client)
