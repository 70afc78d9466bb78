"""The options of the Kafka sink."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


def _default_topics() -> dict[str, str]:
    return {"records": "usage.records", "denials": "usage.denials"}


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """The connection to Kafka, and the names to use. `connection` has aiokafka's parameters, as bootstrap_servers.

    `node` is this node's name, and `journal` the journal's name; both are in the keys of positions, so that a new
    volume does not use the positions of an old one. `topics` maps a stream to its topic.
    """

    connection: Mapping[str, Any]
    node: str
    journal: str = ""
    prefix: str = "sidecar"
    topics: Mapping[str, str] = field(default_factory=_default_topics)
    positions_topic: str = "usage.positions"
    compression: str | None = None
    max_record_bytes: int = 1_000_000  # Kafka's default for max.message.bytes is 1,048,588, a whole batch
    max_batch_bytes: int = 900_000
    request_timeout_us: int = 10_000_000
    commit_timeout_us: int = 30_000_000
    transaction_timeout_us: int = 45_000_000  # above commit_timeout_us; a dead node blocks readers for so long
    # aiokafka wraps a partition's sequence wrongly at 2^31; a new producer starts at 0.
    producer_records: int = 1 << 30
    no_connection: Callable[[Any], str] = "no connection to {}".format  # the error text for these servers

    @property
    def transactional_id(self) -> str:
        """The same for all shipper processes of this node, so that a later one fences the earlier ones."""
        return f"{self.prefix}-{self.node}"

    def position_key(self, worker: str) -> bytes:
        """The key of a worker's position: `node/worker/journal`, or `node/worker` if the journal has no name."""
        return "/".join(part for part in (self.node, worker, self.journal) if part).encode()
