"""A process that follows a topic: `following.py BOOTSTRAP FOLDER TOPIC [PARTITION …]`, until SIGTERM."""

import signal
import sys
import threading
from pathlib import Path

from sidecar.edge.kafka.bulk import BulkReader
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.ledger import topic_load
from sidecar.ledger.load_options import LoadOptions
from sidecar.ledger.loading import Loader


def show(what):
    sys.stderr.write(f"{what}\n")
    sys.stderr.flush()


def main():
    bootstrap, folder, topic, *partitions = sys.argv[1:]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    topic_load._LOOK_SECONDS = 0.5
    options = LoadOptions(stop.is_set, on_trouble=show, flush_seconds=0.2, follow=True)
    with (
        BulkReader({"bootstrap_servers": bootstrap}) as reader,
        Loader(LedgerFolder(Path(folder)), options, memory="512MB") as loader,
    ):
        loader.load_topics(reader, [topic], [int(each) for each in partitions])


if __name__ == "__main__":
    main()
