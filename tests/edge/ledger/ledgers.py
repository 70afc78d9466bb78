"""A ledger in a folder, loaded from values: what the tests of the ledger share."""

from __future__ import annotations

import os
from contextlib import contextmanager

import orjson

from sidecar.edge.ledger.earlier import Earlier
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.edge.ledger.footers import PLACE_KEY
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


def write_place(path, place, begin=b""):
    """A file with nothing but a footer that states a place, as a Parquet file of the ledger has it."""
    key, value = PLACE_KEY.encode(), os.fsencode(place)
    size = bytes([len(value)]) if len(value) < 128 else bytes([len(value) & 127 | 128, len(value) >> 7])
    footer = begin + b"\x18" + bytes([len(key)]) + key + b"\x18" + size + value + b"\0"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def damage_page(path, column):
    """Overwrite the head of the first page of a column, which DuckDB refuses without the name of the file."""
    sql = "SELECT coalesce(dictionary_page_offset, data_page_offset) FROM parquet_metadata(?) WHERE path_in_schema = ?"
    with Engine() as engine:
        ((place,),) = engine.run(sql, [str(path), column])
    data = bytearray(path.read_bytes())
    data[place : place + 8] = b"\xff" * 8
    path.write_bytes(data)


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
