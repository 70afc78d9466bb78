"""A process that loads or compacts and kills itself at the nth step on disk: `killed.py FOLDER STEP load|compact`."""

import os
import signal
import sys
from pathlib import Path

from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import Disk, LedgerFolder
from sidecar.ledger.compacting import Retention, compact
from sidecar.ledger.load_options import LoadOptions
from sidecar.ledger.loading import Loader


class KillingDisk(Disk):
    """Ends the process before the step with this number, counted from 1."""

    def __init__(self, last):
        self.left = last

    def _step(self):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)

    def sync(self, path):
        self._step()
        super().sync(path)

    def rename(self, draft, path):
        self._step()
        super().rename(draft, path)

    def sync_folder(self, path):
        self._step()
        super().sync_folder(path)

    def delete(self, path):
        self._step()
        super().delete(path)


def main():
    path, step, what, *files = sys.argv[1:]
    folder = LedgerFolder(Path(path), KillingDisk(int(step)))
    if what == "load":
        with Loader(folder, LoadOptions(flush_records=3), memory="512MB") as loader:
            for file in files:
                loader.load_file(Path(file))
    else:
        with Engine(folder=folder.path) as engine:
            compact(folder, engine, Retention(), max_rows=1_000)


if __name__ == "__main__":
    main()
