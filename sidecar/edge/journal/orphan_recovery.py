"""Recovery of journals that no worker writes any more: after a restart with fewer workers, or of a dead node.

Only the process that owns the shipper's lock does it. A journal that is owned after all (by a worker whose supervisor
was killed) is left alone, and looked at again later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path

from sidecar.core.errors import SinkError
from sidecar.edge.clock import SystemClock
from sidecar.edge.journal.journals import workers
from sidecar.edge.journal.orphans import Orphan, recover

RETRY_SECONDS = 5
log = logging.getLogger("sidecar.orphans")


class Orphans:
    """`recovered` counts exchanges that were closed; `faults` says by worker why its journal could not be recovered.

    `node`: the begin of its sources, as in `Orphan`; so is `version`.
    """

    def __init__(self, directory: Path, node: str, living: Collection[str], version: str = "") -> None:
        self.recovered = 0
        self.faults: dict[str, str] = {}
        self._directory = directory
        self._node = node
        self._version = version
        self._done = set(living)

    async def run(self) -> None:
        """Recover all, and retry the ones that failed; ends when none is left."""
        while True:
            if await self.recover_all():
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def recover_all(self) -> bool:
        """Recover the journals that can be recovered now; True if none is left. In a thread: a journal may have GBs."""
        for worker in await asyncio.to_thread(workers, self._directory):
            if worker not in self._done:
                await self._recover(worker)
        return self._done.issuperset(workers(self._directory))

    async def _recover(self, worker: str) -> None:
        orphan = Orphan(self._directory, worker, f"{self._node}/{worker}", self._version)
        try:
            closed = await asyncio.to_thread(recover, orphan, SystemClock())
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one journal, the shipper goes on
            reason = str(error) if isinstance(error, SinkError | OSError) else repr(error)
            if self.faults.get(worker) != reason:
                self.faults[worker] = reason
                log.error(  # noqa: TRY400 - the reason, not our stack
                    "the journal of worker %s, which no longer exists, cannot be recovered and is tried again: %s",
                    worker,
                    reason,
                )
            return
        self.faults.pop(worker, None)
        if closed is not None:
            self.recovered += closed
            self._done.add(worker)
