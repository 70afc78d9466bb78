"""WebSockets through a whole node: a metered tunnel, byte for byte, that either side may close."""

from __future__ import annotations

import asyncio
import contextlib
import http
import queue
import random
import socket
import struct
import time

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus

from tests.app.node import KEY
from tests.e2e.clients.sockets import Reader, origin
from tests.e2e.stage import WITH_KEY, Memory, records, sidecar, usage, worker_pid

MIB = 1 << 20
# No pings and no compression: every byte on the wire is known.
PLAIN = {"compression": None, "ping_interval": None, "max_size": 64 * MIB}


async def echo(connection):
    async for message in connection:
        await connection.send(message)


@contextlib.asynccontextmanager
async def tunnel(folder, handler, policy=None, more=None, **how):
    """A node before a WebSocket server; gives the node and the URL of the tunnel."""
    async with serve(handler, "127.0.0.1", 0, **{**PLAIN, **how}) as server:
        port = server.sockets[0].getsockname()[1]
        given = (more or {}) | ({} if policy is None else {"policy": policy})
        async with sidecar(folder, f"http://127.0.0.1:{port}", **given) as running:
            yield running, running.where.replace("http", "ws") + "/ws"


def join(url, **how):
    return connect(url, additional_headers=WITH_KEY, **{**PLAIN, **how})


def framed(size, *, masked):
    """The bytes of one frame on the wire (RFC 6455 §5.2)."""
    return (2 if size < 126 else 4 if size < 1 << 16 else 10) + 4 * masked + size


# Fails if a tunnel's bytes are not counted (on_body, on_response_body), or go through a chunk of our own.
async def test_a_thousand_messages_come_back_and_every_byte_is_in_the_record(tmp_path):
    chance = random.Random(4)
    messages = [chance.randbytes(chance.choice((0, 1, 125, 126, 5_000, 70_000))) for _ in range(1000)]
    messages[::2] = [message.hex() for message in messages[::2]]
    async with tunnel(tmp_path, echo) as (running, url):
        async with join(url) as joined:
            for message in messages:
                await joined.send(message)
                assert await asyncio.wait_for(joined.recv(), 5) == message
            assert usage(running) == []
        assert (joined.close_code, joined.close_reason) == (1000, "")
        (record,) = await records(running)
    up = sum(framed(len(message), masked=True) for message in messages) + framed(2, masked=True)
    down = sum(framed(len(message), masked=False) for message in messages) + framed(2, masked=False)
    assert (record["bytes_in"], record["bytes_out"]) == (up, down)
    assert (record["status"], record["outcome"], record["quality"]) == (101, "tunnel", "exact")
    assert record["client_disconnected"] is False
    assert record["duration_us"] > 100_000


async def test_the_server_may_speak_first_and_both_may_speak_at_once(tmp_path):
    async def talk(connection):
        async def tell():
            for number in range(500):
                await connection.send(f"down {number}")

        async with asyncio.TaskGroup() as group:
            group.create_task(tell())
            heard = [await connection.recv() for _ in range(500)]
        await connection.send(repr(heard == [b"up %d" % number for number in range(500)]))

    async with tunnel(tmp_path, talk) as (_, url), join(url) as joined:
        assert await joined.recv() == "down 0"
        for number in range(500):
            await joined.send(b"up %d" % number)
        assert [await joined.recv() for _ in range(499)] == [f"down {number}" for number in range(1, 500)]
        assert await joined.recv() == "True"


async def test_a_close_by_the_server_reaches_the_client_whole(tmp_path):
    async def leave(connection):
        await connection.send(b"x" * MIB)
        await connection.close(4001, "enough")

    async with tunnel(tmp_path, leave) as (running, url), join(url) as joined:
        assert await joined.recv() == b"x" * MIB
        with pytest.raises(ConnectionClosedError) as closed:
            await joined.recv()
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "enough")
        (record,) = await records(running)
        assert record["bytes_out"] == framed(MIB, masked=False) + framed(2 + len("enough"), masked=False)


async def test_a_close_by_the_client_reaches_the_server_whole(tmp_path):
    codes = asyncio.Queue()

    async def listen(connection):
        try:
            async for _ in connection:
                pass
        finally:
            codes.put_nowait((connection.close_code, connection.close_reason))

    async with tunnel(tmp_path, listen) as (running, url):
        async with join(url) as joined:
            await joined.send(b"y" * MIB)
            await joined.close(4002, "done here")
        assert joined.close_code == 4002
        assert await asyncio.wait_for(codes.get(), 5) == (4002, "done here")
        (record,) = await records(running)
        assert record["bytes_in"] == framed(MIB, masked=True) + framed(2 + len("done here"), masked=True)


# Fails if a tunnel outlives its upstream (on_upstream_failed returns where it is tunnelled).
async def test_a_server_that_breaks_off_breaks_the_client_off_and_leaves_its_record(tmp_path):
    async def vanish(connection):
        await connection.recv()
        reset = struct.pack("ii", 1, 0)
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        connection.transport.abort()

    async with tunnel(tmp_path, vanish) as (running, url), join(url) as joined:
        await joined.send("hello")
        with pytest.raises(ConnectionClosedError):
            await asyncio.wait_for(joined.recv(), 5)
        assert joined.close_code == 1006
        (record,) = await records(running)
        assert (record["status"], record["outcome"]) == (101, "tunnel")
        assert record["bytes_in"] == framed(5, masked=True)


async def test_a_client_that_breaks_off_is_told_to_the_server_and_leaves_its_record(tmp_path):
    left = asyncio.Event()

    async def listen(connection):
        with contextlib.suppress(ConnectionClosedError, ConnectionClosedOK):
            await connection.recv()
            await connection.recv()
        left.set()

    async with tunnel(tmp_path, listen) as (running, url):
        async with join(url) as joined:
            await joined.send("hello")
            await running.until(lambda status: status["children"][0]["stats"]["gauges"]["exchanges"] == 1)
            joined.transport.abort()
        await asyncio.wait_for(left.wait(), 5)
        (record,) = await records(running)
        assert (record["status"], record["outcome"]) == (101, "tunnel")


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
LAST_WORDS = random.Random(5).randbytes(MIB) * 32  # more than all kernels on the way can hold


def switched(running):
    """A connection of a client that has switched to a protocol without closing handshake, and its reader."""
    host, _, port = running.where.rpartition("/")[2].partition(":")
    sock = socket.create_connection((host, int(port)))
    sock.sendall(
        f"GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {KEY}\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n".encode()
    )
    reader = Reader(sock)
    line, _ = reader.head()
    assert line == "HTTP/1.1 101 Switching Protocols"
    return sock, reader


# Fails if a tunnel that ends is cut on the client's side (client.cut in `released`).
async def test_the_last_bytes_of_a_server_that_hangs_up_arrive_at_a_slow_client(tmp_path):
    def serve_last_words(sock, reader, line, fields):
        sock.sendall(SWITCH + LAST_WORDS)
        return True

    def client():
        sock, reader = switched(running)
        with sock:
            time.sleep(0.5)  # the server has hung up by now
            return reader.file.read()

    with origin(serve_last_words) as url:
        async with sidecar(tmp_path, url) as running:
            assert await asyncio.to_thread(client) == LAST_WORDS
            (record,) = await records(running)
            assert (record["bytes_out"], record["outcome"]) == (len(LAST_WORDS), "tunnel")


async def test_the_last_bytes_of_a_client_that_hangs_up_arrive_at_a_slow_server(tmp_path):
    heard = queue.Queue()

    def listen_late(sock, reader, line, fields):
        sock.sendall(SWITCH)
        time.sleep(0.5)  # the client has hung up by now
        heard.put(reader.file.read())
        return True

    def client():
        sock, _ = switched(running)
        with sock:
            sock.sendall(LAST_WORDS)

    with origin(listen_late) as url:
        async with sidecar(tmp_path, url) as running:
            await asyncio.to_thread(client)
            assert await asyncio.to_thread(heard.get, timeout=10) == LAST_WORDS
            (record,) = await records(running)
            assert (record["bytes_in"], record["outcome"]) == (len(LAST_WORDS), "tunnel")


# Fails if pauses are not handed on in a tunnel.
async def test_a_tunnel_whose_client_does_not_read_takes_no_memory(tmp_path):
    size = 32 * MIB

    async def pour(connection):
        for _ in range(size // MIB):
            await connection.send(b"z" * MIB)

    async with tunnel(tmp_path, pour) as (running, url):
        memory = Memory(await worker_pid(running))
        async with join(url, max_queue=1) as joined:
            await asyncio.sleep(1)  # long enough to take it all in, if somebody did
            assert memory.grown_bytes() < 8 * MIB
            assert sum([len(await joined.recv()) for _ in range(size // MIB)]) == size


async def test_a_refused_upgrade_is_an_answer_like_any_other(tmp_path):
    def refuse(connection, request):
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not here\n")

    async with tunnel(tmp_path, echo, process_request=refuse) as (running, url):
        with pytest.raises(InvalidStatus) as refused:
            async with join(url):
                pass
        assert (refused.value.response.status_code, refused.value.response.body) == (403, b"not here\n")
        (record,) = await records(running)
        assert (record["status"], record["outcome"], record["bytes_out"]) == (403, "ok", len("not here\n"))


# Fails if a tunnel gives its slot back when the 101 was sent.
async def test_a_tunnel_holds_its_slot_until_it_ends(tmp_path):
    policy = "plans: { free: { limits: [{ id: tunnels, concurrency: 1, scope: key }] } }\n"
    async with tunnel(tmp_path, echo, policy=policy) as (_, url):
        async with join(url) as first:
            with pytest.raises(InvalidStatus) as refused:
                async with join(url):
                    pass
            assert refused.value.response.status_code == 429
            await first.send("still here")
            assert await first.recv() == "still here"
        async with join(url) as second:
            await second.send("again")
            assert await second.recv() == "again"


# Fails if the worker does not call `counters.extend`: one more tunnel is let in for each `expiry`, without end.
@pytest.mark.redis
@pytest.mark.parametrize("where", ["memory", "redis", "away"])
async def test_a_slot_is_held_for_as_long_as_its_tunnel_is_open(tmp_path, make_redis, where):
    policy = "plans: { free: { limits: [{ id: tunnels, concurrency: 1, scope: key, expiry: 1s }] } }\n"
    redis = make_redis(start=where == "redis")
    more = {} if where == "memory" else {"REDIS__URL": redis.url}
    async with tunnel(tmp_path, echo, policy=policy, more=more) as (_, url), join(url) as first:
        for _ in range(25):
            with pytest.raises(InvalidStatus) as refused:
                async with join(url):
                    pass
            assert refused.value.response.status_code == 429
            await asyncio.sleep(0.1)
        await first.send("still here")
        assert await first.recv() == "still here"
        await first.close()
        async with asyncio.timeout(10):  # until the slot is back, which nobody waits for
            while True:
                with contextlib.suppress(InvalidStatus):
                    async with join(url) as second:
                        await second.send("again")
                        assert await second.recv() == "again"
                        break
                await asyncio.sleep(0.05)


async def test_a_compressed_tunnel_with_pings_is_left_as_it_is(tmp_path):
    async with (
        tunnel(tmp_path, echo, compression="deflate", ping_interval=0.05) as (_, url),
        join(url, compression="deflate", ping_interval=0.05) as joined,
    ):
        for _ in range(10):
            await joined.send("abc" * 10_000)
            assert await joined.recv() == "abc" * 10_000
            assert await asyncio.wait_for(await joined.ping(), 5) >= 0
