"""The channel on which changed API keys are published, so that a revocation reaches every worker within a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from sidecar.edge.redis.endpoint import Client
from sidecar.edge.redis.key_registry import CHANGED, text_of

_PAUSE_S = 0.25  # between subscriptions
_SILENCE_S = 2.0  # without a message, a ping is sent; without a reply to it for as long, the subscription is made anew

_log = logging.getLogger(__name__)


class Revocations:
    """The subscription of one worker. `watch` runs until it is cancelled.

    `subscribed`: messages arrive. `lost_subscriptions` counts the attempts to subscribe that ended, for any cause.
    """

    def __init__(self, client: Client) -> None:
        self._redis: Any = client
        self.subscribed = False
        self.lost_subscriptions = 0

    def use(self, client: Client) -> None:
        """Subscribe through this client from now on. `watch` changes to it when the one before is disconnected."""
        self._redis = client

    async def watch(self, changed: Callable[[bytes | None], None]) -> None:
        """Call `changed` with the digest of each key that is written, or with None where messages may have been missed.

        That is after every (re)connect, as soon as the subscription is made. A silent connection is noticed in 4 s. It
        ends by cancellation alone: whatever else ends the subscription is counted, and it is made again.
        """
        while True:
            try:
                await self._listen(changed)
            except Exception as error:  # noqa: BLE001 - redis-py raises KeyError for lost slots and RuntimeError too
                if self.subscribed or not self.lost_subscriptions:  # one line an outage
                    _log.warning(
                        "keys: the channel of changes is lost (%s) and subscribed to again; "
                        "until then a revocation takes up to keys.cache_ttl",
                        type(error).__name__,
                    )
                self.lost_subscriptions += 1
            finally:
                self.subscribed = False
            await asyncio.sleep(_PAUSE_S)

    async def _listen(self, changed: Callable[[bytes | None], None]) -> None:
        await self._redis.initialize()  # a cluster's channel does not learn the slots by itself
        async with self._redis.pubsub() as channel:
            await channel.subscribe(CHANGED)
            pinged = False
            while True:
                message = await channel.get_message(timeout=_SILENCE_S)
                if message is not None:
                    pinged = False
                    self.subscribed = self.subscribed or message["type"] == "subscribe"
                    if message["type"] in {"message", "subscribe"}:  # the latter also where redis-py itself reconnected
                        changed(_digest(message))
                elif pinged:
                    raise TimeoutError
                else:
                    pinged = True
                    await channel.ping()


def _digest(message: dict[str, Any]) -> bytes | None:
    if message["type"] != "message":
        return None
    try:
        return bytes.fromhex(text_of(message["data"]))
    except ValueError:
        return None
