from functools import partial

import pytest

from sidecar.embedded.listener import StateListener, ask_worker
from sidecar.embedded.state import EmbeddedState
from sidecar.embedded.wallets import EmbeddedWallet
from sidecar.testing import HandClock


class Worker:
    """A listener on a folder whose name is longer than an address of a socket may be."""

    def __init__(self, folder):
        self.folder = folder / ("journal" * 20)
        self.folder.mkdir()
        self.accepts = self.writes = True
        self.notes = []
        self.state = EmbeddedState(HandClock(), self.note)
        self.listener = StateListener(self.state, self.folder, lambda: self.accepts)
        self.wallet = EmbeddedWallet(partial(ask_worker, self.folder), "acme", "usd")

    def note(self, body, then):
        self.notes.append(body)
        then(self.writes)


@pytest.fixture
async def worker(tmp_path):
    worker = Worker(tmp_path)
    await worker.listener.start()
    yield worker
    await worker.listener.aclose()
