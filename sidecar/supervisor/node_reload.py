"""The reload of a node: the documents are validated once, prepared by every child, then committed by all or by none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from sidecar.control.stats import PolicyView
from sidecar.core.errors import PolicyError
from sidecar.supervisor.children import Child
from sidecar.supervisor.link import Json
from sidecar.supervisor.roles import Setup

RELOAD_SECONDS = 30
log = logging.getLogger("sidecar.supervisor")


class NodeReload:
    """Loads and reloads the documents of `setup`. `living` gives the children that run at present."""

    def __init__(self, setup: Setup, living: Callable[[], Sequence[Child]]) -> None:
        self.policy = PolicyView()
        self._setup = setup
        self._living = living
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Validate policies and keys before anything starts. PolicyError: what is wrong with them."""
        now_us = self._setup.now_us()
        self.policy = PolicyView(await asyncio.to_thread(self._setup.load), loaded_us=now_us, tried_us=now_us)
        self._commit()

    async def reload(self) -> PolicyView:
        """Validate policies and keys, and swap them in on every child or on none. One at a time. Never raises."""
        async with self._lock:
            self.policy.tried_us = self._setup.now_us()
            try:
                version = await asyncio.to_thread(self._setup.load)
                more = self._setup.staged()
                faults = await self._ask_all("prepare", more)
                if not faults:
                    self._commit()
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the task group, and so the node
                faults = _faults_of(error)
            if faults:
                self._discard()
                return self._refused(faults)
            # A child that fails now drains, and its successor starts with what is committed.
            for fault in await self._ask_all("commit", more):
                log.error("reloaded, but a child failed to apply it and is restarted: %s", fault)
            # Only now: whoever reads the version here expects every child to use it.
            changed = {"version": version, "policies": "changed" if version != self.policy.version else "unchanged"}
            self.policy.version, self.policy.loaded_us, self.policy.faults = version, self.policy.tried_us, []
            log.info("reloaded", extra={"fields": changed})
            return self.policy

    async def _ask_all(self, phase: str, more: Json) -> list[str]:
        """The faults of all children. A child that is too slow still processes the commit afterwards, in order."""
        answers = await asyncio.gather(*(child.ask(phase, RELOAD_SECONDS, more) for child in self._living()))
        return list({fault: None for answer in answers if answer for fault in answer[phase]["faults"]})

    def _commit(self) -> None:
        self._setup.commit()
        self._setup.start = self._setup.start | self._setup.staged()

    def _discard(self) -> None:
        self._setup.discard()
        for child in self._living():
            child.send({"do": "discard"})

    def _refused(self, faults: list[str]) -> PolicyView:
        self.policy.faults = faults
        self.policy.failed_reloads += 1
        for child in self._living():
            child.send({"do": "refused", "faults": faults})
        for fault in faults:
            log.error("reload refused, the current policies, keys and certificates stay: %s", fault)
        return self.policy


def _faults_of(error: Exception) -> list[str]:
    """Why documents were not taken: their faults, a file that could not be read or written, or an error of ours."""
    if isinstance(error, PolicyError):
        return [str(fault) for fault in error.faults]
    if isinstance(error, OSError):
        return [str(error)]
    log.error("an internal error: the documents cannot be validated or committed", exc_info=error)
    return [f"{type(error).__name__}: {error}"]
