"""A ledger in a folder, loaded from values: what the tests of the ledger share."""

from __future__ import annotations

from contextlib import contextmanager

import orjson

from sidecar.edge.ledger.earlier import Earlier
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.edge.ledger.views import create_views
from sidecar.edge.ledger.writer import PartitionWriter

TOPIC = "usage.records"


def raw(record):
    return record if isinstance(record, bytes) else orjson.dumps(record)


def load(folder, *batches, topic=TOPIC, part=0, threads=1, disk=None):
    """Write each batch of records as a file; offsets count on. Returns the results of `flush`."""
    ledger = LedgerFolder(folder, disk)
    ledger.identify()
    with Engine(folder=folder, threads=threads) as engine:
        writer = PartitionWriter(ledger, topic, part, (engine, Earlier(engine, ledger)))
        try:
            loaded = []
            for batch in batches:
                writer.add([(writer.position + number, raw(each)) for number, each in enumerate(batch)])
                loaded.append(writer.flush(writer.position + len(batch)))
            return loaded
        finally:
            writer.close()


@contextmanager
def views(folder):
    with Engine() as engine:
        listing = create_views(engine, LedgerFolder(folder))
        yield engine, listing


def ask(folder, sql):
    with views(folder) as (engine, _):
        return engine.run(sql)


def contents(folder):
    """The bytes of each file by its name."""
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}
