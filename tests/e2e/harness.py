"""Three counts of the same requests: what clients were answered, what an upstream saw, what is on Kafka. And a node.

Each request carries a nonce in its path. The upstream writes nonce, id and bytes to its own file before it answers, so
that a join on the nonce (and on the id, which is the record's) needs nobody's word but the three.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import aiohttp
import orjson

from sidecar.core.identity import digest, make_key, stored
from tests.app.node import Node, end
from tests.edge.kafka.topics import read_topic
from tests.servers.connections import abort_connections
from tests.servers.redis import free_port

PATIENCE_S = 20
PACE_S = 0.008  # between two requests of a connection: two cores have the node, the upstream and the clients to carry
SETTINGS = """\
listen: 127.0.0.1:{port}
control: {{ listen: 127.0.0.1:0 }}
node: e2e
workers: {workers}
upstreams:
  default: {{ urls: ["http://127.0.0.1:{origin}"] }}
policies: policy.yaml
{keys}
drain_seconds: {drain_seconds}
checkpoint_seconds: 1
{more}
"""
KAFKA = """\
kafka:
  bootstrap_servers: {bootstrap}
  transactional_id_prefix: {stem}
  topics: {{ records: {stem}.records, denials: {stem}.denials, positions: {stem}.positions }}
"""
_STEMS = itertools.count(1)


class Answer(NamedTuple):
    """What a client got: `status` 0 where it was not a whole answer; `took_s` from the first byte sent."""

    nonce: str
    caller: str
    sent_s: float
    took_s: float
    status: int = 0
    id: str = ""
    body: bytes = b""
    fault: str = ""


class Origin:
    """The upstream: `/do/<nonce>/<status>/<bytes>/<delay ms>` is answered so, and noted in a file before."""

    def __init__(self, path: Path) -> None:
        self._log = path.open("ab", buffering=0)
        self.path = path
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await abort_connections(self.port)
        self._log.close()

    def seen(self) -> list[dict[str, Any]]:
        """What was asked, in order: nonce, id, bytes, customer, and whether the client's key came through."""
        return [orjson.loads(line) for line in self.path.read_bytes().splitlines()]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await self._answer(await reader.readuntil(b"\r\n\r\n"), writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        line, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        _, _, nonce, status, size, delay_ms = line.split()[1].split("/")
        known = {
            "nonce": nonce,
            "id": fields["x-request-id"],
            "status": int(status),
            "bytes": int(size),
            "customer": fields.get("x-sidecar-customer", ""),
            "leaked": "x-api-key" in fields,
        }
        self._log.write(orjson.dumps(known) + b"\n")
        await asyncio.sleep(int(delay_ms) / 1000)
        body = body_of(nonce, int(size))
        writer.write(b"HTTP/1.1 %s Said\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body))
        await writer.drain()


def body_of(nonce: str, size: int) -> bytes:
    """A body that is this nonce's alone, so that bytes which crossed clients are seen."""
    text = nonce.encode()
    return (text * (size // len(text) + 1))[:size]


class Client:
    """One client connection at a time, one request at a time; everything it was answered, or not."""

    def __init__(self, where: tuple[str, int], caller: str, key: str, answers: list[Answer]) -> None:
        self._where, self._caller, self._key, self._answers = where, caller, key, answers
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.refused = self.refused_in_a_row = 0

    async def ask(self, nonce: str, status: int = 200, size: int = 20, delay_ms: int = 0) -> Answer | None:
        """Send one request; None where no connection could be made, so that nothing was sent."""
        if self._writer is None and not await self._connect():
            return None
        assert self._reader is not None
        assert self._writer is not None
        sent = time.monotonic()
        path = f"/do/{nonce}/{status}/{size}/{delay_ms}"
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: api\r\nX-Api-Key: {self._key}\r\n\r\n".encode())
        try:
            async with asyncio.timeout(PATIENCE_S):
                code, fields, body = await self._read(self._reader)
            answer = Answer(nonce, self._caller, sent, time.monotonic() - sent, code, fields["x-request-id"], body)
            if fields.get("connection") == "close":
                self.hang_up()
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            answer = Answer(nonce, self._caller, sent, time.monotonic() - sent, fault=repr(error))
            self.hang_up()
        self._answers.append(answer)
        return answer

    async def _connect(self) -> bool:
        try:
            self._reader, self._writer = await asyncio.open_connection(*self._where, limit=1 << 22)
        except OSError:
            self.refused += 1
            self.refused_in_a_row += 1
            await asyncio.sleep(0.01)
            return False
        self.refused_in_a_row = 0
        return True

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(line.split()[1]), fields, await reader.readexactly(int(fields["content-length"]))

    def hang_up(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None


class Traffic:
    """Several clients that ask without a pause until `stop`, or until `asked` reaches a number."""

    def __init__(self, house: House, callers: dict[str, int], *, seed: int = 1) -> None:
        self._house = house
        self._dice = random.Random(seed)
        self._stopping = False
        self.clients = [house.client(caller) for caller, number in callers.items() for _ in range(number)]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.get_running_loop().create_task(self._go(client)) for client in self.clients]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Every client finishes what it has asked."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def answered(self, number: int, seconds: float = PATIENCE_S) -> None:
        """Wait for so many more whole answers."""
        goal = self._whole() + number
        await until(lambda: self._whole() >= goal, f"{number} more answers", seconds)

    def _whole(self) -> int:
        return sum(answer.status > 0 for answer in self._house.answers)

    async def _go(self, client: Client) -> None:
        dice = random.Random(self._dice.random())
        while not self._stopping:
            status = dice.choices((200, 404, 500), (20, 1, 1))[0]
            await client.ask(self._house.nonce(), status, dice.randrange(10, 600), dice.choice((0, 0, 2, 5, 40)))
            await asyncio.sleep(PACE_S)
            assert client.refused_in_a_row < 2000, "the node cannot be reached any more"
        client.hang_up()


class House:
    """A whole node, its clients and its upstream. `topic` reads what is committed with a client that is not ours."""

    def __init__(self, folder: Path, port: int, bootstrap: str, stem: str, node: Node, origin: Origin) -> None:
        self.folder, self.port, self.node, self.origin = folder, port, node, origin
        self._bootstrap, self._stem = bootstrap, stem
        self.answers: list[Answer] = []
        self.keys: dict[str, str] = {}
        self._nonces = itertools.count(1)

    def nonce(self) -> str:
        return f"n{next(self._nonces):07d}"

    def client(self, caller: str) -> Client:
        return Client(("127.0.0.1", self.port), caller, self.keys[caller], self.answers)

    async def ask(self, caller: str, **how: int) -> Answer:
        """One request on a connection of its own."""
        client = self.client(caller)
        answer = await client.ask(self.nonce(), **how)
        client.hang_up()
        assert answer is not None, "the node refuses connections"
        return answer

    async def pids(self) -> dict[str, int]:
        return {child["name"]: child["pid"] for child in (await self.node.tell("/status"))[1]["children"]}

    async def ready(self, seconds: float = PATIENCE_S) -> None:
        """/readyz says so."""
        deadline = time.monotonic() + seconds
        while (told := await self.node.tell("/readyz"))[0] != 200:
            assert time.monotonic() < deadline, told
            await asyncio.sleep(0.02)

    async def all_ready(self) -> None:
        """All children are: before, one worker accepts the connections of the others."""
        await self.node.until(lambda status: all(child["ready"] for child in status["children"]))

    async def totals(self) -> dict[str, int]:
        """The node's own counts, by their names in `control.stats`, over all children."""
        found: Counter[str] = Counter()
        for line in (await self.node.tell("/metrics"))[1].splitlines():
            name, _, value = line.rpartition(" ")
            if name and not name.startswith("#"):
                found[name] += int(float(value))
        return found

    async def stop(self) -> int:
        return int(await self.node.stop())

    def records(self) -> list[dict[str, Any]]:
        """What is committed on the records' topic, as JSON."""
        return [orjson.loads(message.value()) for message in read_topic(self._bootstrap, f"{self._stem}.records")]

    def denials(self) -> list[dict[str, Any]]:
        return [orjson.loads(message.value()) for message in read_topic(self._bootstrap, f"{self._stem}.denials")]

    def log(self) -> str:
        return (self.folder / "node.log").read_text()

    async def sidecar(self, *words: str) -> str:
        """Run a command of ours beside the node; what it prints."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", *words), stdout=asyncio.subprocess.PIPE, env=environment()
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, words
        return out.decode()


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}


def counters(redis: Any, customer: str, limit: str) -> dict[str, int]:
    """What docs/redis-keys.md calls `sc:{customer}:limit:scope:window`, summed over windows: units by scope."""
    found: Counter[str] = Counter()
    for key in redis.scan_iter(f"sc:{{{customer}}}:[a-z]={limit}:*"):
        scope = key.decode().split(":")[3]
        found[scope] += int(redis.get(key))
    return found


async def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    """Poll a condition, with a deadline."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        await asyncio.sleep(0.01)
    return found


async def still(number: Callable[[], int], what: str, seconds: float = PATIENCE_S) -> None:
    """Poll until `number` has not changed for a third of a second."""
    deadline = time.monotonic() + seconds
    last, since = number(), time.monotonic()
    while time.monotonic() < since + 0.3:
        assert time.monotonic() < deadline, f"{what} never came to rest"
        await asyncio.sleep(0.02)
        if (now := number()) != last:
            last, since = now, time.monotonic()


class Caller(NamedTuple):
    """A key of the key file."""

    name: str
    customer: str
    plan: str


@contextlib.asynccontextmanager
async def house(
    folder: Path,
    policy: str,
    callers: list[Caller],
    *,
    bootstrap: str = "",
    redis: str = "",
    redis_timeout: str = "2s",
    workers: int = 1,
    more: str = "",
    keys: str = "keys: { file: keys.yaml }",
    drain_seconds: int = 10,
    where: str = "",
) -> AsyncIterator[House]:
    """Run a node until the block ends. `bootstrap`: the real broker, for topics; `where`: what the node is told.

    A Redis that is well is given two seconds: on a busy machine 50 ms are soon over, and what is decided alone then may
    exceed a limit, as it is meant to.
    """
    origin = Origin(folder / "origin.jsonl")
    await origin.start()
    stem = f"e2e{os.getpid()}-{time.monotonic_ns()}-{next(_STEMS)}"
    port = free_port()
    lines = more
    if redis:
        lines += f"\nredis: {{ url: '{redis}', timeout: {redis_timeout} }}\n"
    if bootstrap:
        lines += "\n" + KAFKA.format(bootstrap=where or bootstrap, stem=stem)
    settings = SETTINGS.format(
        port=port, workers=workers, origin=origin.port, keys=keys, drain_seconds=drain_seconds, more=lines
    )
    (folder / "sidecar.yaml").write_text(settings)
    (folder / "policy.yaml").write_text(policy)
    made = {caller.name: make_key(f"{caller.name:*<20}".encode()[:20]) for caller in callers}
    (folder / "keys.yaml").write_text("keys:\n" + "".join(_entry(caller, made[caller.name]) for caller in callers))
    config = str(folder / "sidecar.yaml")
    node = House(folder, port, bootstrap, stem, Node(folder, None, None), origin)
    node.keys = made
    if bootstrap:
        (folder / "topics.yaml").write_text(settings.replace(where or bootstrap, bootstrap))
        words = ("--partitions", "3", "--replicas", "1")
        await node.sidecar("kafka", "init", "-c", str(folder / "topics.yaml"), *words)
    with (folder / "node.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", "run", "-c", config),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=environment(),
        )
    try:
        async with aiohttp.ClientSession() as session:
            node.node = Node(folder, process, session)
            await node.node.started()
            yield node
    finally:
        await end(process)
        await origin.stop()


def _entry(caller: Caller, key: str) -> str:
    who = f"customer: {caller.customer}, subject: s-{caller.name}, plan: {caller.plan}"
    return f"  - {{ id: {caller.name}, hash: {stored(digest(key.encode()))!r}, {who} }}\n"
