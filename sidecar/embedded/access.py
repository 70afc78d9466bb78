"""Asks a node without Redis for its state, and changes it: its worker, or its files while no worker runs.

The files are changed under the lock that a worker would hold. A worker that starts holds `state.lock` from before it
chooses a folder until its first state is there, and a command while it changes files: otherwise the command could
change a state that the worker has read already, or never reads.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

from sidecar.core.errors import SinkError
from sidecar.core.policy import Policy
from sidecar.edge.clock import SystemClock
from sidecar.edge.files import OwnedError, lock_file
from sidecar.edge.journal import Here
from sidecar.edge.journal.folder import Folder
from sidecar.edge.memory.state_file import Followed
from sidecar.embedded.folders import newest
from sidecar.embedded.listener import Ask, Json, ask_worker, is_answering
from sidecar.embedded.replay import Replay
from sidecar.embedded.saver import Saver
from sidecar.embedded.state import EmbeddedState

PATIENCE_US = 10_000_000  # with a worker that owns its folder and does not answer yet, or any more
LOOK_S = 0.1
STATE_LOCK = "state.lock"


@asynccontextmanager
async def open_state(directory: Path, policy: Callable[[], Policy]) -> AsyncIterator[Ask]:
    """A function that answers requests: by the worker of the journal `directory`, or by its files if none runs.

    A worker that is starting or stopping is waited for. SinkError, StoreError: there is no answer.
    """
    async with AsyncExitStack() as stack:
        yield await _reached(directory, policy, stack)


async def _reached(directory: Path, policy: Callable[[], Policy], stack: AsyncExitStack) -> Ask:
    deadline_us = SystemClock().mono_us() + PATIENCE_US
    while not await is_answering(folder := newest(directory)):
        try:
            return await stack.enter_async_context(stopped(directory, policy()))
        except OwnedError:
            if SystemClock().mono_us() > deadline_us:
                raise
        await asyncio.sleep(LOOK_S)
    return partial(ask_worker, folder)


@contextmanager
def state_lock(directory: Path) -> Iterator[None]:
    """Hold the lock of the state files under `directory`. OwnedError: another process holds it. SinkError: no file."""
    path = directory / STATE_LOCK
    try:
        fd = lock_file(path)
    except OSError as error:
        raise SinkError(f"{path}: cannot be made: {error.strerror}") from None
    except OwnedError as owner:
        raise OwnedError(
            f"{path}: the process with pid {owner} changes the state of the stopped node, or is its worker and starts:"
            " try again when it is done"
        ) from None
    try:
        yield
    finally:
        os.close(fd)


@asynccontextmanager
async def stopped(directory: Path, policy: Policy) -> AsyncIterator[Ask]:
    """A function that answers requests while no worker runs: each change is saved before the answer.

    SinkError: a worker owns the newest folder after all or is starting, or its state cannot be read.
    """
    with state_lock(directory):
        owned = Folder(newest(directory))
        owned.own()
        try:
            yield _ask_files(owned.path, policy)
        finally:
            owned.release()


def _ask_files(folder: Path, policy: Policy) -> Ask:
    clock = SystemClock()
    state = EmbeddedState(clock, lambda _body, then: then(True))
    replay = Replay(state, policy)
    if replay.run(folder, clock.now_us()).is_new:
        replay.end = Folder(folder).end() or replay.end
    saver = Saver(state, _Stopped(folder, replay), clock, 0)

    async def ask(request: Json) -> Json:
        if (answer := state.answer(request)) is not None:
            return answer
        answers: list[Json] = []
        state.change(request, answers.append, lambda: None)
        if not await saver.save(rest=0):
            return {"failed": f"{folder}: the state cannot be saved", "maybe_applied": False}
        return answers[0]

    return ask


class _Stopped:
    """The journal of a worker that does not run."""

    def __init__(self, folder: Path, replay: Replay) -> None:
        self.path = folder
        self.broken, self.records = False, 0
        self.followed = tuple(
            Followed(name, replay.follow(folder.with_name(name), position)) for name, position in replay.followed
        )
        self._replay = replay

    def here(self) -> Here:
        end = self._replay.end
        return Here(end, end, 0)

    def unclosed(self) -> dict[bytes, bytes]:
        return self._replay.opened
