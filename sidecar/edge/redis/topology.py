"""The Redis server of a command: one address, the master that sentinels name, or the owner of a cluster's slot.

The endpoint says which of the three. A redirection is followed once; the reply of the second node is the answer.
Callers never wait for a discovery.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.asyncio.sentinel import Sentinel
from redis.crc import key_slot

from sidecar.core.errors import StoreError, StoreReason
from sidecar.edge.redis.endpoint import Endpoint, bounded, login
from sidecar.edge.redis.wire import end_task, ignore

Done = Callable[[Any], None]
Connect = Callable[[], Awaitable["AbstractConnection"]]
Host = tuple[str, int]

_SLOTS = 16_384
_ASKING = b"*1\r\n$6\r\nASKING\r\n"
_REFRESH_S = 0.1  # the map is asked for at most ten times a second, however many commands are redirected
_REFRESH_CAP_S = 1.0  # and ever less often while asking changes nothing

_log = logging.getLogger(__name__)


class Wire(Protocol):
    """One server, or all of them: the `Commands` port with its life around it."""

    @property
    def ready(self) -> bool: ...
    @property
    def away(self) -> str: ...
    @property
    def groups(self) -> int: ...
    def nodes(self) -> Mapping[Any, int]: ...
    def node(self, slot_key: str) -> Any: ...
    def start(self) -> None: ...
    def send(self, slot_key: str, packed: bytes, done: Done) -> None: ...
    def flush(self) -> None: ...
    async def aclose(self) -> None: ...


class Dialer:
    """Makes redis-py connections to the endpoint: one attempt, at most `connect_us`, RESP2. The caller owns them."""

    def __init__(self, endpoint: Endpoint, *, connect_us: int = 1_000_000, client_name: str = "sidecar") -> None:
        self.options = bounded(connect_us / 1e6) | {"protocol": 2}
        tls = dict(endpoint.ssl) if endpoint.tls else {}
        self._class = SSLConnection if endpoint.tls else Connection
        host, port = endpoint.hosts[0]
        where = {"host": host, "port": port, "db": endpoint.db, "client_name": client_name}
        self._kwargs: dict[str, Any] = where | login(endpoint) | self.options | tls
        self.tls = tls | ({"ssl": True} if endpoint.tls else {})

    async def connect(self, host: Host | None = None) -> AbstractConnection:
        """A connection that is logged in, to `host` or to the endpoint's first. redis-py's errors, OSError."""
        where = {"host": host[0], "port": host[1]} if host else {}
        connection = self._class(**self._kwargs | where)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection


class SentinelDialer:
    """Asks the sentinels for the master, and connects to it. A sentinel whose answer was wrong is asked last."""

    def __init__(self, endpoint: Endpoint, dialer: Dialer) -> None:
        self._hosts = list(endpoint.hosts)
        self._service = endpoint.service
        self._dialer = dialer

    async def connect(self) -> AbstractConnection:
        self._hosts.append(self._hosts.pop(0))
        options = self._dialer.options | self._dialer.tls
        async with Sentinel(self._hosts, sentinel_kwargs=options) as sentinels:  # type: ignore[no-untyped-call]
            host = await sentinels.discover_master(self._service)
        return await self._dialer.connect((str(host[0]), int(host[1])))


class ClusterWire:
    """The `Commands` port on a cluster: one wire a master, the slot map kept fresh in the background."""

    groups = 128  # of slots, each with a marker

    def __init__(self, hosts: Sequence[Host], dialer: Dialer, make_wire: Callable[[Connect], Wire]) -> None:
        self._seeds = tuple(hosts)
        self._dialer = dialer
        self._make_wire = make_wire
        self._nodes: dict[Host, Wire] = {}
        self._slots: list[Host | None] = [None] * _SLOTS
        self._away = StoreError("redis: the cluster's slots are not known yet")
        self._stale = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether the slot map is known and complete, and each master is connected."""
        return None not in self._slots and all(node.ready for node in self._nodes.values())

    @property
    def away(self) -> str:
        """Why a slot is not served, or why a master has no connection."""
        lost = [node.away for node in self._nodes.values() if not node.ready]
        return lost[0] if lost and None not in self._slots else self._away.detail

    def nodes(self) -> Mapping[Any, int]:
        """Each master, and the first stretch of 128 slots that it owns whole."""
        groups: dict[Any, int] = {}
        size = _SLOTS // self.groups
        for group in range(self.groups):
            owners = set(self._slots[group * size : (group + 1) * size])
            if len(owners) == 1 and (host := owners.pop()) is not None:
                groups.setdefault(host, group)
        return groups

    def node(self, slot_key: str) -> Any:
        """The master that owns the slot of a key; None: unknown."""
        return self._slots[key_slot(slot_key.encode())]

    def start(self) -> None:
        self._stale.set()
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="redis cluster map")

    def send(self, slot_key: str, packed: bytes, done: Done) -> None:
        """Send to the owner of `slot_key`'s slot. MOVED and ASK are followed once."""
        host = self._slots[key_slot(slot_key.encode())]
        node = self._nodes.get(host) if host else None
        if host is None or node is None:
            self._stale.set()
            done(self._away)
        else:
            node.send(slot_key, packed, partial(self._replied, host, packed, done))

    def flush(self) -> None:
        """Write what this tick has sent so far to every master."""
        for node in self._nodes.values():
            node.flush()

    async def aclose(self) -> None:
        await end_task(self._task)
        self._away = StoreError("redis: closed")
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            await node.aclose()

    def _replied(self, host: Host, packed: bytes, done: Done, reply: Any) -> None:
        if type(reply) is not StoreError:
            done(reply)
            return
        reason, node = reply.reason, self._nodes.get(host)
        if reason.is_moved or node is None or not node.ready:
            self._stale.set()
        if reason is StoreReason.MOVED or reason is StoreReason.ASK:
            self._follow(reply, host, packed, done)
        else:
            done(reply)

    def _follow(self, error: StoreError, host: Host, packed: bytes, done: Done) -> None:
        _, slot, where = error.detail.split(" ", 2)
        name, _, port = where.rpartition(":")
        target = (name or host[0], int(port))  # an empty name means: the host that you asked, another port
        node = self._node(target)
        if error.reason is StoreReason.MOVED:
            self._slots[int(slot)] = target
        else:
            node.send("", _ASKING, ignore)  # of the same tick, so it is sent right before the command
        node.send("", packed, done)

    def _node(self, host: Host) -> Wire:
        node = self._nodes.get(host)
        if node is None:
            node = self._nodes[host] = self._make_wire(lambda: self._dialer.connect(host))
            node.start()
        return node

    async def _keep(self) -> None:
        pause_s = _REFRESH_S
        while True:
            await self._stale.wait()
            self._stale.clear()
            before = self._slots
            try:
                await self._take(await self._ask())
            except Exception as error:  # noqa: BLE001 - whatever redis-py raises, the next attempt may succeed
                self._note(f"redis: no slot map: {error}")
                self._stale.set()
            await asyncio.sleep(pause_s)
            idle = not self._stale.is_set()
            pause_s = _REFRESH_S if idle or self._slots != before else min(pause_s * 2, _REFRESH_CAP_S)

    async def _ask(self) -> tuple[Host, list[Any]]:
        """CLUSTER SLOTS from the first node that answers, and which one that was."""
        errors: list[str] = []
        for host in dict.fromkeys((*self._nodes, *self._seeds)):
            try:
                connection = await self._dialer.connect(host)
            except Exception as error:  # noqa: BLE001 - another node may know
                errors.append(str(error))
                continue
            try:
                await connection.send_command("CLUSTER", "SLOTS")
                return host, await connection.read_response()
            except Exception as error:  # noqa: BLE001 - another node may know
                errors.append(str(error))
            finally:
                await connection.disconnect(nowait=True)
        raise StoreError("; ".join(errors))

    async def _take(self, answer: tuple[Host, list[Any]]) -> None:
        """Replace the slot map; connect to new masters, and close connections to nodes that own no slot any more."""
        source, stretches = answer
        slots: list[Host | None] = [None] * _SLOTS
        for low, high, master, *_ in stretches:
            host = (master[0].decode() or source[0], int(master[1]))
            slots[low : high + 1] = [host] * (high + 1 - low)
        masters = {host for host in slots if host}
        for host in masters:
            self._node(host)
        self._slots = slots
        self._away = StoreError("redis: CLUSTERDOWN the slot is not served", StoreReason.UNSERVED)
        for host in self._nodes.keys() - masters:
            await self._nodes.pop(host).aclose()

    def _note(self, reason: str) -> None:
        if reason != self._away.detail:
            _log.warning("%s", reason)
            self._away = StoreError(reason)


def wire(endpoint: Endpoint, make_wire: Callable[[Connect], Wire], *, connect_us: int = 1_000_000) -> Wire:
    """The wire to `endpoint`, not started."""
    dialer = Dialer(endpoint, connect_us=connect_us)
    if endpoint.mode == "cluster":
        return ClusterWire(endpoint.hosts, dialer, make_wire)
    return make_wire(SentinelDialer(endpoint, dialer).connect if endpoint.mode == "sentinel" else dialer.connect)
