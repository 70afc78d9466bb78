"""Where Redis is: one address, the master that sentinels name, or the owner of a cluster's slot.

The URL says which, and carries TLS, user and database as redis-py reads them. A command that was redirected is
followed once; what the second node says is the answer. Who asks never waits for a discovery.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.asyncio.connection import ConnectionPool, SSLConnection
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from sidecar.core.errors import StoreError

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

Done = Callable[[Any], None]
Connect = Callable[[], Awaitable["AbstractConnection"]]
Host = tuple[str, int]

SCHEMES = ("redis", "rediss", "unix")
KINDS = ("", "sentinel", "cluster")
_SLOTS = 16_384
_ASKING = b"*1\r\n$6\r\nASKING\r\n"
_REFRESH_S = 0.1  # the map is asked for at most ten times a second, however many commands are redirected
_REFRESH_CAP_S = 1.0  # and ever less often while asking changes nothing
_STALE_MAP = frozenset({"MOVED", "CLUSTERDOWN", "READONLY", "MASTERDOWN"})

_log = logging.getLogger(__name__)


class Wire(Protocol):
    """One server, or all of them: the `Commands` port with its life around it."""

    @property
    def ready(self) -> bool: ...
    def start(self) -> None: ...
    def send(self, slot_key: str, packed: bytes, done: Done) -> None: ...
    async def aclose(self) -> None: ...


class Address(NamedTuple):
    """What a URL says. `url` is the plain one of the first host; `service` the master's name for sentinels."""

    kind: str
    url: str
    hosts: tuple[Host, ...]
    service: str = ""
    sentinel_auth: tuple[tuple[str, str], ...] = ()


def parse(url: str) -> Address:
    """Read a Redis URL; ValueError says what is wrong and what would be right.

    redis://user:password@host:6379/0      rediss:// for TLS, unix:///path?db=0 for a socket
    redis+sentinel://host:26379,host:26379/service/0?sentinel_username=…&sentinel_password=…
    redis+cluster://host:6379,host:6379
    """  # fmt: skip
    scheme, _, rest = url.partition("://")
    base, _, kind = scheme.partition("+")
    if base not in SCHEMES or kind not in KINDS or (base == "unix" and kind) or not rest:
        raise ValueError("a Redis URL starts with redis://, rediss:// or unix://, or with redis+sentinel:// and so on")
    if not kind:
        return Address("", _checked(url), ())
    authority, _, tail = rest.partition("/")
    login, at, listed = authority.rpartition("@")
    path, _, query = tail.partition("?")
    hosts = tuple(_host(each, 26379 if kind == "sentinel" else 6379) for each in listed.split(","))
    service, _, db = path.partition("/") if kind == "sentinel" else ("", "", path)
    if kind == "sentinel" and not service:
        raise ValueError("a sentinel URL names the master behind its hosts: redis+sentinel://host:26379/service/0")
    if kind == "cluster" and db not in ("", "0"):
        raise ValueError(f"a cluster has database 0 only, not {db}")
    options = parse_qsl(query)
    own = tuple((name.removeprefix("sentinel_"), value) for name, value in options if name.startswith("sentinel_"))
    query = urlencode([option for option in options if not option[0].startswith("sentinel_")])
    first = f"[{hosts[0][0]}]" if ":" in hosts[0][0] else hosts[0][0]
    return Address(kind, _checked(f"{base}://{login}{at}{first}:{hosts[0][1]}/{db}?{query}"), hosts, service, own)


def _checked(url: str) -> str:
    ConnectionPool.from_url(url)
    return url


def _host(text: str, default_port: int) -> Host:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"{text!r} is no host: hosts are listed as host:port,host:port")
    return parts.hostname, parts.port or default_port


class Dialer:
    """Makes redis-py connections as the URL says: one attempt, at most `connect_us`, RESP2. The caller owns them."""

    def __init__(self, address: Address, *, connect_us: int = 1_000_000, client_name: str = "sidecar") -> None:
        self.options: dict[str, Any] = {
            "socket_timeout": connect_us / 1e6,
            "socket_connect_timeout": connect_us / 1e6,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        pool = ConnectionPool.from_url(address.url, client_name=client_name)
        self._class = pool.connection_class
        self._kwargs = pool.connection_kwargs | self.options
        self.tls = {name: value for name, value in self._kwargs.items() if name.startswith("ssl_")}
        if issubclass(self._class, SSLConnection):
            self.tls["ssl"] = True

    async def connect(self, host: Host | None = None) -> AbstractConnection:
        """A connection that is logged in, to `host` or where the URL points. redis-py's errors, OSError."""
        where = {"host": host[0], "port": host[1]} if host else {}
        connection = self._class(**self._kwargs | where)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection


class SentinelDialer:
    """Asks the sentinels for the master, then connects to it. The one who lied last is asked last."""

    def __init__(self, address: Address, dialer: Dialer) -> None:
        self._hosts = list(address.hosts)
        self._service = address.service
        self._auth = dict(address.sentinel_auth)
        self._dialer = dialer

    async def connect(self) -> AbstractConnection:
        self._hosts.append(self._hosts.pop(0))
        options = self._dialer.options | self._dialer.tls | self._auth
        async with Sentinel(self._hosts, sentinel_kwargs=options) as sentinels:  # type: ignore[no-untyped-call]
            host = await sentinels.discover_master(self._service)
        return await self._dialer.connect((str(host[0]), int(host[1])))


class ClusterWire:
    """The `Commands` port on a cluster: one wire a master, the slot map kept fresh in the background."""

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
        """The map is known, covers every slot, and each master is connected."""
        return None not in self._slots and all(node.ready for node in self._nodes.values())

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

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        self._away = StoreError("redis: closed")
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            await node.aclose()

    def _replied(self, host: Host, packed: bytes, done: Done, reply: Any) -> None:
        if type(reply) is not StoreError:
            done(reply)
            return
        word, _, rest = reply.detail.partition(" ")
        node = self._nodes.get(host)
        if word in _STALE_MAP or node is None or not node.ready:
            self._stale.set()
        if word in ("MOVED", "ASK"):
            self._follow(word, rest, host, packed, done)
        else:
            done(reply)

    def _follow(self, word: str, rest: str, host: Host, packed: bytes, done: Done) -> None:
        slot, _, where = rest.partition(" ")
        name, _, port = where.rpartition(":")
        target = (name or host[0], int(port))  # an empty name means: the host that you asked, another port
        node = self._node(target)
        if word == "MOVED":
            self._slots[int(slot)] = target
        else:
            node.send("", _ASKING, _ignore)  # of the same tick, so it stands right before the command
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
        """Swap the map in whole; start wires to new masters, close those of nodes that own nothing any more."""
        asked, stretches = answer
        slots: list[Host | None] = [None] * _SLOTS
        for low, high, master, *_ in stretches:
            host = (master[0].decode() or asked[0], int(master[1]))
            slots[low : high + 1] = [host] * (high + 1 - low)
        masters = {host for host in slots if host}
        for host in masters:
            self._node(host)
        self._slots = slots
        self._away = StoreError("redis: CLUSTERDOWN the slot is not served")
        for host in self._nodes.keys() - masters:
            await self._nodes.pop(host).aclose()

    def _note(self, reason: str) -> None:
        if reason != self._away.detail:
            _log.warning("%s", reason)
            self._away = StoreError(reason)


def _ignore(reply: Any) -> None:
    """The +OK to ASKING; if it was refused, so is the command behind it."""


def wire(url: str, make_wire: Callable[[Connect], Wire], *, connect_us: int = 1_000_000) -> Wire:
    """The wire that `url` asks for, not started. ValueError where the URL is wrong."""
    address = parse(url)
    dialer = Dialer(address, connect_us=connect_us)
    if address.kind == "cluster":
        return ClusterWire(address.hosts, dialer, make_wire)
    return make_wire(SentinelDialer(address, dialer).connect if address.kind else dialer.connect)
