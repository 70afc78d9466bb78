"""A stage for scripts: our listener, gateway and pool between a client and an upstream that are played by hand.

Time is turned by hand too: no test waits for a timeout. The client reads answers with h11, which is not ours.
"""

import asyncio
import socket
import struct
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

import h11
import orjson

from sidecar.edge.http1.listener import Listener
from sidecar.edge.http1.pool import Pool, PoolLimits
from sidecar.edge.http1.upstream import UpstreamLeg
from sidecar.gateway import serve
from tests.stage import Setting

SOON_S = 10.0
READ_BYTES = 1 << 18


class Cut(Exception):  # noqa: N818 - what a client sees, not a failure of the test
    """The connection ended before the message did."""


class Seen(NamedTuple):
    """A request head as the upstream sees it. Field names are lower case."""

    line: str
    fields: dict[str, str]


class Answer(NamedTuple):
    """An answer as the client reads it. Field names are lower case."""

    status: int
    fields: dict[str, str]
    body: bytes
    trailers: list[tuple[str, str]]
    interims: list[int]


class End:
    """One end of a connection."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.rest = b""
        self.was_reset = False

    async def sends(self, data):
        self.writer.write(data if isinstance(data, bytes) else data.encode("latin-1"))
        await self.writer.drain()

    async def read(self):
        """Some bytes, b"" at the end; a reset is an end."""
        if self.rest:
            data, self.rest = self.rest, b""
            return data
        try:
            return await asyncio.wait_for(self.reader.read(READ_BYTES), SOON_S)
        except ConnectionError:
            self.was_reset = True
            return b""

    async def sees(self, expected):
        """Exactly these bytes come next."""
        got = b""
        while len(got) < len(expected):
            data = await self.read()
            if not data:
                raise Cut(got)
            got += data
        got, self.rest = got[: len(expected)], got[len(expected) :]
        assert got == expected

    async def head(self):
        """The bytes of the next head, with its empty line."""
        got = b""
        while b"\r\n\r\n" not in got:
            data = await self.read()
            if not data:
                raise Cut(got)
            got += data
        head, _, self.rest = got.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    async def sees_the_end(self):
        """All bytes until the other side closes."""
        got = b""
        while data := await self.read():
            got += data
        return got

    def half_closes(self):
        self.writer.write_eof()

    def closes(self):
        self.writer.close()

    def resets(self):
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Client(End):
    async def asks(self, target="/a", *fields, key="ann", method="GET", body=b""):
        length = [f"Content-Length: {len(body)}"] if body else []
        lines = [f"{method} {target} HTTP/1.1", "Host: h", f"X-Api-Key: {key}", *fields, *length, "", ""]
        await self.sends("\r\n".join(lines).encode() + body)

    async def answer(self, method="GET"):
        peer = h11.Connection(h11.CLIENT)
        peer.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
        peer.send(h11.EndOfMessage())
        head, body, interims = None, b"", []
        while True:
            event = peer.next_event()
            if event is h11.NEED_DATA:
                data = await self.read()
                if not data and (head is None or {"content-length", "transfer-encoding"} & names(head)):
                    raise Cut(body)
                peer.receive_data(data)
            elif isinstance(event, h11.InformationalResponse):
                interims.append(event.status_code)
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            else:
                break
        self.rest = peer.trailing_data[0]
        return Answer(head.status_code, read(head.headers), body, [*read(event.headers).items()], interims)


def names(head):
    return {name.decode() for name, _ in head.headers}


def read(fields):
    return {name.decode(): value.decode("latin-1") for name, value in fields}


class Origin(End):
    """One connection, as the upstream holds it."""

    async def request(self):
        """The next request head."""
        line, *fields = (await self.head()).decode("latin-1").split("\r\n")[:-2]
        pairs = [field.split(": ", 1) for field in fields]
        return Seen(line, {name.lower(): value for name, value in pairs})

    async def answers(self, status=200, body=b"", *fields):
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *fields, "", ""]
        await self.sends("\r\n".join(lines).encode() + body)


class Stage(Setting):
    """Everything, set up. `turn(seconds)` lets time pass for all of it."""

    def __init__(self, origin, accepted, *limits, listener, pool, **more):
        urls = pool.pop("urls", None) or [f"http://127.0.0.1:{port_of(origin)}"]
        self.legs = []  # every connection that was begun to an upstream
        self.pool = Pool("api", urls, self.make_leg, limits=PoolLimits(**pool))
        super().__init__(*limits, upstream_of=lambda _route: self.pool, **more)
        self.listener = Listener(partial(serve, self.context), pseudonym=b"sidecar-here", **listener)
        self.accepted = accepted
        self.origin = origin
        self.ends = []
        self.now = 0.0

    def make_leg(self, pool, address):
        leg = UpstreamLeg(pool, address)
        self.legs.append(leg)
        return leg

    def check_pool(self):
        """Each open connection is in one collection of its address, and nothing else is in any."""
        addresses = self.pool._all()
        busy = [leg for address in addresses for leg in address.busy]
        idle = [leg for address in addresses for leg in address.idle]
        kept = [*busy, *idle, *(leg for address in addresses for leg in address.closing)]
        connecting = sum(len(address.connecting) for address in addresses)
        open_ = {leg for leg in self.legs if leg.transport is not None and not leg.lost}
        assert len(set(kept)) == len(kept), "a connection is in two collections"
        assert set(kept) <= open_, "a connection that is lost is still counted"
        assert len(open_ - set(kept)) <= connecting, "an open connection is not counted"
        assert self.pool.connections == len(kept) + connecting
        assert all(leg._caller is not None for leg in busy)
        assert not any(leg._caller for leg in idle)

    def turn(self, seconds, late_s=0.0):
        self.clock.turn(round(seconds * 1_000_000))
        self.now += seconds
        self.listener.check_deadlines(self.now, late_s)
        self.pool.check_deadlines(self.now, late_s)
        self.check_pool()

    async def connects(self):
        end = Client(*await asyncio.open_connection("127.0.0.1", port_of(self.server), limit=READ_BYTES))
        self.ends.append(end)
        return end

    async def upstream_accepts(self):
        end = await asyncio.wait_for(self.accepted.get(), SOON_S)
        self.ends.append(end)
        return end

    async def upstream_asked(self):
        """An upstream's connection, behind the head of its first request."""
        end = await self.upstream_accepts()
        await end.request()
        return end

    async def until(self, condition, what=""):
        async with asyncio.timeout(SOON_S):
            while not condition():
                await asyncio.sleep(0.002)

    def records(self):
        return [orjson.loads(entry.body) for entry in self.journal.of("records")]

    async def recorded(self, number=1):
        """The data of the records so far, once there are so many."""
        await self.until(lambda: len(self.journal.of("records")) >= number)
        return [record["data"] for record in self.records()]

    async def stop(self):
        self.server.close()
        self.listener.abort()
        await self.pool.aclose()
        for end in self.ends:
            end.writer.close()
        self.origin.close()
        await asyncio.sleep(0)


def port_of(server):
    return server.sockets[0].getsockname()[1]


async def hello(play, client, body=b"hi"):
    """One exchange, to its end. Gives the upstream's connection."""
    await client.asks("/hello")
    upstream = await play.upstream_asked()
    await upstream.answers(200, body)
    assert (await client.answer()).body == body
    return upstream


@asynccontextmanager
async def stage(*limits, listener=None, pool=None, **more):
    accepted = asyncio.Queue()
    origin = await asyncio.start_server(
        lambda *ends: accepted.put_nowait(Origin(*ends)), "127.0.0.1", 0, limit=READ_BYTES
    )
    whole = Stage(origin, accepted, *limits, listener=listener or {}, pool=dict(pool or {}), **more)
    whole.server = await asyncio.get_running_loop().create_server(whole.listener, "127.0.0.1", 0)
    try:
        yield whole
        whole.check_pool()
    finally:
        await whole.stop()
    await whole.until(lambda: whole.pool.connections == 0)
    whole.check_pool()
    await whole.until(lambda: whole.context.open.number == 0)  # no ending is forgotten: each exchange is told its end
