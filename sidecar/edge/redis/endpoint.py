"""How to reach a Redis (server, Sentinel's master or cluster), and redis-py's clients and options made from that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from redis import exceptions
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

Client = Redis | RedisCluster

NO_ANSWER: Final = (RedisError, RedisClusterException, OSError, TimeoutError)
"""Errors of redis-py: no connection, no reply in time, or a command that was refused."""


class Endpoint(Protocol):
    """A Redis: `mode` is single, sentinel or cluster; `hosts` the servers, or the sentinels that know `service`.

    `ssl` are redis-py's own `ssl_…` arguments, used only with `tls`.
    """

    @property
    def mode(self) -> str: ...
    @property
    def tls(self) -> bool: ...
    @property
    def hosts(self) -> Sequence[tuple[str, int]]: ...
    @property
    def db(self) -> int: ...
    @property
    def username(self) -> str | None: ...
    @property
    def password(self) -> str | None: ...
    @property
    def service(self) -> str: ...
    @property
    def ssl(self) -> Sequence[tuple[str, Any]]: ...


def login(endpoint: Endpoint) -> dict[str, Any]:
    """redis-py's arguments for the user of the data servers; sentinels are asked without one."""
    return {"username": endpoint.username, "password": endpoint.password}


def bounded(timeout_s: float) -> dict[str, Any]:
    """redis-py's arguments for one attempt without retries, and for its timeouts."""
    return {"retry": Retry(NoBackoff(), 0), "socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}


def connect(endpoint: Endpoint, timeout_s: float) -> Client:
    """A redis-py client with its retries off. It connects on first use."""
    options = bounded(timeout_s) | ({"ssl": True, **dict(endpoint.ssl)} if endpoint.tls else {})
    user = login(endpoint)
    if endpoint.mode == "cluster":
        return RedisCluster(startup_nodes=[ClusterNode(*host) for host in endpoint.hosts], **user, **options)
    if endpoint.mode == "sentinel":
        make: Any = Sentinel  # untyped in redis-py
        sentinel = make(list(endpoint.hosts), sentinel_kwargs=options, db=endpoint.db, **user, **options)
        master: Redis = sentinel.master_for(endpoint.service)
        return master
    host, port = endpoint.hosts[0]
    return Redis(host=host, port=port, db=endpoint.db, **user, **options)


def describe_error(error: Exception) -> str:
    """The cause of a failed call. Replies to commands are left out: they can repeat the command, and so a hash."""
    if isinstance(error, exceptions.AuthenticationError | exceptions.NoPermissionError):
        return f"refuses the user of redis.url: {error}"
    if isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError | OSError | TimeoutError):
        return f"did not answer: {describe(error)}"
    return f"did not answer: {type(error).__name__}"


@asynccontextmanager
async def connected(endpoint: Endpoint, timeout_s: float) -> AsyncIterator[Any]:
    """A client as `connect` makes it, closed afterwards."""
    client = connect(endpoint, timeout_s)
    try:
        yield client
    finally:
        await disconnect(client)


async def disconnect(client: Client) -> None:
    """Close all that `connect` opened; a client of Sentinel's master leaves the sentinels' own connections open."""
    await client.aclose()
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    for sentinel in manager.sentinels if manager is not None else ():
        await sentinel.aclose()


def describe(error: Exception) -> str:
    """One of `NO_ANSWER` as one line of text. Sentinel's has the repr of its clients, which is left out."""
    text = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else "the connection was lost")
    if isinstance(error, MasterNotFoundError):
        return f"{text.partition(' : ')[0]}: no sentinel of redis.url has answered with one"
    return text.partition("\n")[0]
