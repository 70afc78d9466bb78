"""The positions that a node has committed, read back from their topic."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from aiokafka import TopicPartition

from sidecar.edge.kafka.connection import consumer
from sidecar.edge.kafka.options import KafkaOptions

POSITIONS_PARTITION = 0  # fixed: with a partition by hash, adding partitions would lose the positions
_log = logging.getLogger(__name__)


class Positions:
    """Reads the positions of one node and journal."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._has_warned = False  # that the journal was replaced

    async def read(self) -> dict[str, str]:
        """This node's committed positions by worker.

        The topic is read up to the high watermark. The last stable offset would not do: it is before the first open
        transaction of any node, and our own positions may be after that. Such a transaction ends by its timeout.
        """
        tp = TopicPartition(self._options.positions_topic, POSITIONS_PARTITION)
        connection = {**self._options.connection, "request_timeout_ms": self._options.request_timeout_us // 1000}
        async with consumer(connection, "read_uncommitted") as reader:
            reader.assign([tp])
            end = (await reader.end_offsets([tp]))[tp]
        latest: dict[bytes | None, bytes | None] = {}
        async with consumer(connection, "read_committed") as reader:
            reader.assign([tp])
            await reader.seek_to_beginning(tp)
            while await reader.position(tp) < end:
                for message in (await reader.getmany(tp, timeout_ms=100)).get(tp, ()):
                    latest[message.key] = message.value
        return self._ours(latest)

    def _ours(self, latest: Mapping[bytes | None, bytes | None]) -> dict[str, str]:
        """The positions of this node and journal; a worker's name has no slash.

        Other messages are ignored: the topic is shared, and other programs may write to it.
        """
        before, after = f"{self._options.node}/", f"/{self._options.journal}" if self._options.journal else ""
        ours: dict[str, str] = {}
        is_replaced = False
        for key, value in latest.items():
            name = (key or b"").decode("utf-8", "replace")
            worker = name.removeprefix(before).removesuffix(after)
            if value is not None and "/" not in worker and name == before + worker + after:
                ours[worker] = value.decode("utf-8", "replace")
            elif value is not None and name.startswith(before):
                is_replaced = True
        if is_replaced and not ours and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "%s: the positions of node %s belong to another journal, so this journal is shipped from its beginning."
                " If the other journal is lost, so are its records that were not shipped",
                *(self._options.positions_topic, self._options.node),
            )
        return ours
