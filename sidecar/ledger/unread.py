"""Records that are in Kafka and not in the ledger when a period is sealed: one that may be of it keeps it open.

The records themselves are read, because the time of a message in Kafka is that of its arrival: a node that was cut off
delivers long after the period. A loader that follows is always a few records behind. These are of a later time, and
do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Final

import orjson

from sidecar.core.instants import us_of
from sidecar.edge.kafka.bulk import BulkReader, Place
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.ledger.connection import LedgerRows

UNREAD_MAX: Final = 1_000_000  # offsets of all partitions; a loader that follows is not as far behind
_POLL_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 10  # for transactions that are open at the end
_SOURCE: Final = "sidecar.source.v1"  # it may name a source of the period that the ledger does not know


def unread_faults(reader: BulkReader, ledger: LedgerRows, topics: Iterable[str], before_us: int) -> tuple[str, ...]:
    """In words, each partition with a record before `before_us` (µs since 1970) that is not in the ledger.

    Records that are in Kafka when it is called are looked at. SinkError: Kafka does not answer, or refuses this client.
    """
    cluster, partitions = reader.partitions(topics)
    origins = LedgerFolder(ledger.folder).identity().get("origins", {})
    faults = [
        f"{topic}: the ledger has it of {known}, and this is Kafka cluster {cluster}: correct kafka or ledger.dir"
        for topic in partitions
        if (known := origins.get(topic, f"Kafka cluster {cluster}")) != f"Kafka cluster {cluster}"
    ]
    if faults:
        return tuple(faults)
    bounds = reader.bounds([(topic, part) for topic, parts in partitions.items() for part in parts])
    loaded = ledger.positions()
    behind: dict[Place, tuple[int, int]] = {}
    for (topic, part), (low, high) in bounds.items():
        position = loaded.get(f"{topic}/p{part:04}", -1) + 1
        if position > high:
            faults.append(f"{topic} partition {part} ends at {high}, and the ledger has it up to {position}")
        elif position and low > position:
            faults.append(f"{topic} partition {part}: offsets {position} to {low - 1} were deleted before a load")
        elif high > max(low, position):
            behind[topic, part] = (max(low, position), high)
    if sum(high - begin for begin, high in behind.values()) > UNREAD_MAX:
        return (*faults, *[_behind(place, begin, high) for place, (begin, high) in behind.items()])
    return (*faults, *_read(reader, behind, before_us))


def _behind(place: Place, begin: int, high: int) -> str:
    return f"{place[0]} partition {place[1]}: {high - begin} offsets are not loaded: `sidecar ledger load`"


def _read(reader: BulkReader, behind: Mapping[Place, tuple[int, int]], before_us: int) -> list[str]:
    """Read each partition to its end, or to the first record that may be of the period."""
    if not behind:
        return []
    reader.assign({place: begin for place, (begin, _) in behind.items()})
    faults: dict[Place, str] = {}
    unfinished = dict(behind)
    waiting_until = monotonic() + _PATIENCE_SECONDS
    while unfinished and monotonic() < waiting_until:
        chunk = reader.read(_POLL_SECONDS)
        for place, pairs in chunk.messages.items():
            waiting_until = monotonic() + _PATIENCE_SECONDS
            end = behind[place][1]
            if any(offset < end and _may_belong(value, before_us) for offset, value in pairs):
                faults[place] = _behind(place, *behind[place])
        for place, position in chunk.positions.items():
            if place in faults or position >= behind[place][1]:
                unfinished.pop(place, None)
    for topic, part in unfinished:
        faults[topic, part] = f"{topic} partition {part}: a transaction is open in Kafka: try again later"
    return list(faults.values())


def _may_belong(value: bytes, before_us: int) -> bool:
    try:
        record = orjson.loads(value)
        times = (record["time"], record["data"].get("period_time") or record["time"])
        moment_us = min(us_of(each) for each in times)
    except (ValueError, LookupError, TypeError, AttributeError):
        return True  # the load says what it is
    return moment_us < before_us or record.get("type") == _SOURCE
