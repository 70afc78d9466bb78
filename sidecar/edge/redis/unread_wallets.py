"""The wallets whose postings may not be in a journal yet, in one hash on Redis that outlives their readers.

Before a worker or a command changes a wallet it notes its key here, with a token of its own; the worker that has read
the ledger removes the note, if it still has its own token. So what a killed worker leaves behind is found by another
one, and so are changes by commands. Wallets from before this hash are found once, by a walk over all keys.

    worker 0 notes acme (token a), settles, reads the ledger, removes a
    worker 1 notes acme (token b) meanwhile: the note is b, and stays until worker 1 has read the ledger
    worker 1 is killed: ten seconds later another worker finds b, and reads the ledger
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from sidecar.edge.redis.endpoint import NO_ANSWER, Client, describe_error
from sidecar.edge.redis.wire import command
from sidecar.ports import Clock

UNREAD: Final = "sc:wallets:unread"  # hash: the key of a wallet → token: when it was noted (ms), and by whom
TURN: Final = "sc:wallets:turn"  # whose turn it is to look
WALKED: Final = "sc:wallets:walked"  # the wallets from before this version have been found
INTERVAL_MS: Final = 10_000
A_SECOND: Final = 500  # wallets
_SCANNED: Final = 1_000
_REMOVE: Final = "if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end"
log = logging.getLogger("sidecar.postings")


def token(now_us: int, name: str) -> str:
    """The token of a note that is made now. `name` is unique among readers and commands."""
    return f"{now_us // 1000} {name}"


def note_command(key: str, note: str) -> bytes:
    """The command that notes a wallet."""
    return command("HSET", UNREAD, key, note)


def remove_command(key: str, note: str) -> bytes:
    """The command that removes the note, unless another one replaced it."""
    return command("EVAL", _REMOVE, 1, UNREAD, key, note)


class UnreadWallets:
    """Finds the wallets that others left unread: `run` in a task. The caller closes `client`.

    `touch` has the ledger of the wallet at a key read.

    `is_paused`: Redis does not answer the worker, or no wallet can be charged.
    """

    def __init__(
        self, client: Client, touch: Callable[[str], None], clock: Clock, is_paused: Callable[[], bool]
    ) -> None:
        self._client: Any = client
        self._touch = touch
        self._clock = clock
        self._is_paused = is_paused
        self._failure = ""

    async def run(self) -> None:
        """Search every ten seconds, for ever, while no other worker does. A failure is logged once, and tried again."""
        while True:
            try:
                if not self._is_paused() and await self._client.set(TURN, "", nx=True, px=INTERVAL_MS):
                    await self.search()
                self._failure = ""
            except NO_ANSWER as error:
                if self._failure != (failure := describe_error(error)):
                    log.warning(
                        "%s cannot be read, so postings of commands and killed workers wait: %s", UNREAD, failure
                    )
                self._failure = failure
            await asyncio.sleep(INTERVAL_MS / 1000)

    async def search(self) -> None:
        """Have read what was noted ten seconds ago or by a command, once also all that exists. redis-py's errors."""
        if not await self._client.exists(WALKED):
            async for key in self._client.scan_iter("sc:{*}:wallet:*", count=_SCANNED):
                await self._pass_on(key)
            await self._client.set(WALKED, "1")
        before_ms = self._clock.now_us() // 1000 - INTERVAL_MS
        async for key, note in self._client.hscan_iter(UNREAD, count=_SCANNED):
            if int(note.partition(b" ")[0]) <= before_ms:
                await self._pass_on(key)

    async def _pass_on(self, key: bytes) -> None:
        self._touch(key.decode())
        await asyncio.sleep(1 / A_SECOND)
