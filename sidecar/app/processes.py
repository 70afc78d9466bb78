"""Who runs in which process: the supervisor with the control listener, its workers, the shipper.

Nothing of this is in a child's memory; its life is in `child`.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import io
import os
import pickle
import socket
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop
from pydantic import SecretStr

from sidecar.app import logs
from sidecar.app.child import Secret, Told
from sidecar.app.children import Json
from sidecar.app.form import form
from sidecar.app.snapshot import Snapshot
from sidecar.app.supervisor import Role, Setup, Supervisor
from sidecar.config.addresses import Address
from sidecar.config.models import Model
from sidecar.config.settings import Settings
from sidecar.control.listener import serve
from sidecar.core.errors import SidecarError
from sidecar.edge.leases import BYTES as LEASES_BYTES
from sidecar.edge.watch import Watch

if TYPE_CHECKING:
    from sidecar.app.snapshot import Load

PACKAGE = "metering-sidecar"
LET_GO_SECONDS = 2
WATCH_SECONDS = 0.25  # a revoked key in the file is felt within twice that


def run_node(settings: Settings, load: Load) -> int:
    """Run until a signal ends it; the exit status. `load` validates policies and keys, and gives the policy's draft."""
    logs.setup("supervisor", settings.log.level, text=settings.log.format == "text")
    try:
        snapshot = Snapshot(settings, load)
    except OSError as error:
        raise SidecarError(f"journal.dir: {settings.journal.dir} cannot be written: {error.strerror}") from None
    announce = partial(_print, settings.kafka is None and settings.sink.stdout)  # records have stdout for themselves
    setup = Setup(
        version=version(PACKAGE),
        form=form(),
        roles=roles(settings),
        start=start_of(snapshot.settings),
        drain_seconds=settings.drain_seconds,
        load=snapshot.take,
        announce=announce,
        scheme="http" if settings.tls is None else "https",
    )
    try:
        return uvloop.run(_run_node(settings, setup))
    finally:
        snapshot.drop()


async def _run_node(settings: Settings, setup: Setup) -> int:
    supervisor = Supervisor(setup)
    await supervisor.load()
    await _free(settings.listen)
    control = settings.control.listen
    try:
        runner, where = await serve(supervisor, control.host, control.port)
    except OSError as error:
        raise SidecarError(f"control.listen: {control} cannot be bound: {_reason(error)}") from None
    setup.announce(f"control on http://{where}")
    try:
        async with asyncio.TaskGroup() as tasks:
            reload = supervisor.listen_to_signals(tasks)
            watch = Watch(_watched(settings), reload, WATCH_SECONDS)
            watch.start()
            status = await supervisor.run()
            watch.stop()
            return status
    finally:
        await runner.cleanup()


def _watched(settings: Settings) -> list[Path]:
    return [settings.policies] if settings.keys.file is None else [settings.policies, settings.keys.file]


async def _free(listen: Address) -> None:
    """Raise where somebody listens there already: with SO_REUSEPORT two nodes would share the port in silence.

    A node that was just killed needs a moment to let go.
    """
    deadline = asyncio.get_running_loop().time() + LET_GO_SECONDS
    while True:
        try:
            with socket.create_server((listen.host, listen.port), family=_family(listen.host)):
                return
        except OSError as error:
            if error.errno != errno.EADDRINUSE or asyncio.get_running_loop().time() > deadline:
                raise SidecarError(f"listen: {listen} cannot be bound: {_reason(error)}") from None
        await asyncio.sleep(0.1)


def _reason(error: OSError) -> str:
    """The system's words: asyncio puts its own, with the address once more, in their place."""
    return os.strerror(error.errno) if error.errno else str(error)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def roles(settings: Settings) -> list[Role]:
    """The children of a node: its workers, drained first, then the shipper."""
    python = (sys.executable, "-m", "sidecar")
    store = ("redis",) if settings.redis is not None else ()
    sink = ("kafka",) if settings.kafka is not None else ()
    workers = [
        _worker_role(settings, i, (*python, "_worker", "--index", str(i)), store) for i in range(settings.workers)
    ]
    return [*workers, Role("shipper", (*python, "_shipper"), stage=1, needs=sink)]


def _worker_role(settings: Settings, index: int, command: tuple[str, ...], needs: tuple[str, ...]) -> Role:
    """A worker that leases keeps what it has in hand where who comes after it finds it, if it is killed."""
    name = f"worker-{index}"
    if settings.redis is None or not settings.redis.leases or not hasattr(os, "memfd_create"):
        return Role(name, command, needs=needs)
    hand = os.memfd_create(f"{name} leases")
    os.ftruncate(hand, LEASES_BYTES)
    return Role(name, (*command, "--hand", str(hand)), needs=needs, keeps=(hand,))


def _print(to_stderr: bool, line: str) -> None:
    print(line, file=sys.stderr if to_stderr else sys.stdout, flush=True)


def start_of(settings: Settings) -> Json:
    """The start message of a child: `child.told` reads it."""
    packed = io.BytesIO()
    _Plain(packed).dump(settings)
    return {"settings": base64.b64encode(packed.getvalue()).decode()}


class _Plain(pickle.Pickler):
    """Pickles models as `Told`: with their fields, and with what they work out of them."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, SecretStr):
            return Secret, (value.get_secret_value(),)
        if not isinstance(value, Model):
            return NotImplemented
        worked_out = [name for name, found in vars(type(value)).items() if isinstance(found, property)]
        return Told, ({name: getattr(value, name) for name in (*type(value).model_fields, *worked_out)},)
