"""A shipper in a process of its own, to be killed: `ship_child.py JOURNAL kafka|file TARGET`."""

import asyncio
import json
import sys
from pathlib import Path

from sidecar.edge.clock import SystemClock
from sidecar.edge.journal.journals import JournalFolder
from sidecar.edge.kafka.sink import KafkaSink
from sidecar.edge.shipping.file_sink import FileSink
from sidecar.edge.shipping.folder import FileQuarantine, journal_id
from sidecar.edge.shipping.shipper import Pace, Shipper
from tests.edge.kafka.topics import Topics


def sink(folder, kind, target):
    if kind == "file":
        return FileSink(Path(target))
    return KafkaSink(Topics(*json.loads(target)).options(journal=journal_id(folder)))


def main():
    folder, kind, target = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    shipper = Shipper(
        JournalFolder(folder), sink(folder, kind, target), FileQuarantine(folder), SystemClock(), Pace(30_000)
    )
    print("started", flush=True)
    asyncio.run(shipper.run())


if __name__ == "__main__":
    main()
