"""The roles of a node's children, the slots that hold the current children, and the supervisor's parameters."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sidecar.control.stats import ChildView
from sidecar.edge.journal.backlog import Backlog
from sidecar.supervisor.children import Child, cpu_and_memory
from sidecar.supervisor.link import Json


class Role(NamedTuple):
    """A child to start and restart: `command` gets `--fd N` appended; roles of a lower `stage` are drained first.

    Roles of stage 0 serve clients: the node is ready only while they are. `needs` names the dependencies that must have
    answered the child once before it is ready. A role that `completes` is restarted during a drain too, until its child
    ends by itself or the time is over. `keeps` are descriptors that each child of the role inherits, so that it has
    those of its predecessor; `listens` are the child's own listening sockets among them.
    """

    name: str
    command: Sequence[str]
    stage: int = 0
    needs: tuple[str, ...] = ()
    completes: bool = False
    keeps: tuple[int, ...] = ()
    listens: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class ChildSlot:
    """A role and its current child. `spare` is the first one until it is started."""

    role: Role
    child: Child | None = None
    spare: Child | None = None
    restarts: int = 0
    last_status: str = "starting"
    passed_on: Json = field(default_factory=dict)
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    drain_until: float = 0.0  # by the loop's clock; then it is killed, and not started again


@dataclass(slots=True)
class Setup:
    """The parameters of the supervisor.

    `load` validates policies, keys and certificates, stages them for the children and returns the policy's version.
    Then `commit` makes them those that children start with, or `discard` drops them. `staged` are the fields of the
    start message that change with them. `expiries`: when our certificates expire (s since the epoch), by setting.

    `backlog` measures the records that are not shipped yet. `announce` prints a line for the operator, as for each of
    `listening`: the addresses of clients, once all workers serve.
    """

    version: str
    roles: Sequence[Role]
    start: Json
    drain_seconds: int
    load: Callable[[], str] = str
    staged: Callable[[], Json] = dict
    commit: Callable[[], None] = lambda: None
    discard: Callable[[], None] = lambda: None
    expiries: Callable[[], Mapping[str, int]] = dict
    announce: Callable[[str], None] = lambda _line: None
    backlog: Callable[[], Backlog] = Backlog
    build_variant: str = ""  # of the data path: compiled or pure
    listening: Sequence[str] = ()
    now_us: Callable[[], int] = lambda: time.time_ns() // 1000


def child_view(slot: ChildSlot) -> ChildView:
    """A slot as the control listener shows it: its child, or why it has no child now."""
    child = slot.child
    if child is None:
        return ChildView(
            *(slot.role.name, 0),
            ready=False,
            reasons=[slot.last_status],
            away={},
            restarts=slot.restarts,
            serves=slot.role.stage == 0,
        )
    status, reasons = child.status, child.status.reasons()
    cpu_us, rss_bytes = cpu_and_memory(child.process.pid)
    return ChildView(
        name=slot.role.name,
        pid=child.process.pid,
        ready=not reasons,
        reasons=reasons,
        away=status.away,
        restarts=slot.restarts,
        stats=status.stats,
        listening=status.listening,
        serves=slot.role.stage == 0,
        cpu_us=cpu_us,
        rss_bytes=rss_bytes,
    )


def status_text(status: int) -> str:
    """An exit status in words: the name of the signal where one ended the process."""
    if status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"exit status {status}"
