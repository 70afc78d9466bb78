"""Builds the processes of a node: the supervisor with the control listener, its workers, the shipper.

Nothing of this is in a child's memory; its life is in `child`.
"""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import os
import pickle
import socket
import sys
import time
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop
from pydantic import SecretStr

from sidecar.config.models import Model
from sidecar.config.settings import Settings
from sidecar.control.build_variant import VERSION, build_variant
from sidecar.control.listener import serve
from sidecar.core.errors import SidecarError
from sidecar.edge import logs
from sidecar.edge.degraded import redistribute
from sidecar.edge.journal.backlog import measure
from sidecar.edge.leases import BYTES as LEASES_BYTES
from sidecar.edge.watch import Watch
from sidecar.embedded.folders import check_states
from sidecar.listening.sockets import address_of, bind, listen, location
from sidecar.loading import certificates, exposure, header_secrets
from sidecar.loading.eviction import evictions_of
from sidecar.loading.snapshot import Snapshot
from sidecar.supervisor.child import PlainSettings, Secret
from sidecar.supervisor.link import Json
from sidecar.supervisor.roles import Role, Setup
from sidecar.supervisor.supervisor import Supervisor

if TYPE_CHECKING:
    from sidecar.loading.snapshot import Load

log = logging.getLogger("sidecar.node")
WATCH_SECONDS = 0.25  # a revoked key in the file is felt within twice that


def run_node(settings: Settings, load: Load) -> int:
    """Run until a signal ends it; the exit status. `load` validates policies and keys, and gives the policy's draft."""
    logs.setup("supervisor", settings.log.level, text=settings.log.format == "text")
    try:
        snapshot = Snapshot(settings, load)
    except OSError as error:
        what = f"{settings.journal.dir} cannot be written: {error.strerror}"
        raise SidecarError(str(settings.fault(("journal", "dir"), what))) from None
    announce = partial(_print, settings.destination == "stdout")  # records have stdout for themselves
    try:
        if settings.redis is None:
            check_states(settings.journal.dir)
        redistribute(settings.journal.dir, settings.workers, settings.total_workers, time.time_ns() // 1000)
        sockets = bind("listen", settings.listen, settings.workers)
        [control] = bind("control.listen", settings.control.listen, 1)
    except SidecarError:
        snapshot.drop()
        raise
    setup = Setup(
        version=VERSION,
        build_variant=build_variant(),
        roles=roles(settings, [[each.fileno() for each in mine] for mine in sockets]),
        start=start_of(snapshot.settings),
        drain_seconds=settings.drain_seconds,
        load=snapshot.stage,
        staged=lambda: {"pem": snapshot.pem},
        commit=snapshot.commit,
        expiries=lambda: snapshot.expiries,
        discard=snapshot.discard,
        backlog=lambda: measure(settings.journal.dir, time.time_ns() // 1000),
        announce=announce,
        listening=[location(address_of(each), settings.scheme) for each in sockets[0]],
    )
    try:
        return uvloop.run(_run_node(settings, setup, [each for mine in sockets for each in mine], control))
    finally:
        snapshot.drop()


async def _run_node(
    settings: Settings, setup: Setup, sockets: Sequence[socket.socket], control: Sequence[socket.socket]
) -> int:
    supervisor = Supervisor(setup)
    try:
        await supervisor.load()
        return await _run_loaded(settings, supervisor, sockets, control)
    finally:
        await supervisor.dismiss()
        for each in sockets:
            each.close()


async def _run_loaded(
    settings: Settings, supervisor: Supervisor, sockets: Sequence[socket.socket], control: Sequence[socket.socket]
) -> int:
    for warning in exposure.warnings(settings):
        log.warning(warning)
    listen("control.listen", control)
    listen("listen", sockets)
    runner = await serve(supervisor, control)
    for each in control:
        supervisor.setup.announce(f"control on {location(address_of(each), 'http')}")
    try:
        async with asyncio.TaskGroup() as tasks:
            reload = supervisor.listen_to_signals(tasks)
            watch = Watch(_watched(settings), reload, WATCH_SECONDS)
            watch.start()
            inspection = tasks.create_task(_warn_of_evictions(settings), name="inspection")
            status = await supervisor.run()
            inspection.cancel()
            watch.stop()
            return status
    finally:
        await runner.cleanup()


async def _warn_of_evictions(settings: Settings) -> None:
    try:
        for warning in await evictions_of(settings):
            log.warning(warning)
    except Exception as error:  # noqa: BLE001 - whatever Redis answers, it must not end the node
        log.warning("redis: it is not known whether it may evict counters: %r; run `sidecar check`", error)


def _watched(settings: Settings) -> list[Path]:
    keys = [] if settings.keys.file is None else [settings.keys.file]
    return [settings.policies, *keys, *certificates.paths(settings), *header_secrets.paths(settings)]


def roles(settings: Settings, sockets: Sequence[Sequence[int]]) -> list[Role]:
    """The children of a node: its workers, drained first, then the shipper. `sockets`: each worker's own, to listen on.

    Every worker is handed all of them, so that it can accept in another's place (`covering`).
    """
    python = (sys.executable, "-m", "sidecar")
    sink = ("kafka",) if settings.kafka is not None else ()
    workers = [_worker_role(settings, index, (*python, "_worker"), sockets) for index in range(settings.workers)]
    return [*workers, Role("shipper", (*python, "_shipper"), stage=1, needs=sink, completes=True)]


def _worker_role(settings: Settings, index: int, command: tuple[str, ...], sockets: Sequence[Sequence[int]]) -> Role:
    """A worker that leases has its leases in shared memory, which its successor reads if it is killed."""
    name, own = f"worker-{index}", tuple(sockets[index])
    needs = ("redis",) if settings.redis is not None else ()
    keeps = tuple(fd for fds in sockets for fd in fds)
    listed = (",".join(map(str, fds)) for fds in (own, [fd for fd in keeps if fd not in own]))
    command = (*command, "--index", str(index), *chain(*zip(("--listen", "--others"), listed, strict=True)))
    if settings.redis is not None and settings.redis.leases and hasattr(os, "memfd_create"):
        lease_fd = os.memfd_create(f"{name} leases")
        os.ftruncate(lease_fd, LEASES_BYTES)
        command, keeps = (*command, "--lease-fd", str(lease_fd)), (*keeps, lease_fd)
    return Role(name, command, needs=needs, keeps=keeps, listens=own)


def _print(to_stderr: bool, line: str) -> None:
    print(line, file=sys.stderr if to_stderr else sys.stdout, flush=True)


def start_of(settings: Settings) -> Json:
    """The start message of a child: `child.unpack_settings` reads it."""
    packed = io.BytesIO()
    _Plain(packed).dump(settings)
    return {"settings": base64.b64encode(packed.getvalue()).decode()}


class _Plain(pickle.Pickler):
    """Pickles models as `PlainSettings`: with their fields, and with what they work out of them."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, SecretStr):
            return Secret, (value.get_secret_value(),)
        if not isinstance(value, Model):
            return NotImplemented
        worked_out = [name for name, member in vars(type(value)).items() if isinstance(member, property)]
        return PlainSettings, ({name: getattr(value, name) for name in (*type(value).model_fields, *worked_out)},)
