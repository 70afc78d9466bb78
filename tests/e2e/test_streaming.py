"""Streams through a whole node: a gibibyte without memory, slow readers without buffers, events one by one.

Clients and origins are plain sockets in threads, so that the sidecar is the slowest part of what is measured.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import threading
import time
import zlib

import pytest
from aiohttp import ClientSession, web

from tests.app.node import KEY
from tests.e2e.clients.sockets import Reader, origin
from tests.e2e.stage import WITH_KEY, Memory, records, served, sidecar, usage, worker_pid

GIB = 1 << 30
MIB = 1 << 20
# Of prime length and random: what is left out, doubled or moved changes the checksum.
BLOCK = random.Random(1).randbytes(1_000_003)
HEAD = f"Host: example\r\nX-Api-Key: {KEY}\r\n"


def send_body(sock, size, *, chunked, sent=lambda _count: None):
    """Send `size` bytes, by length or in chunks. Returns their checksum."""
    total, checksum = 0, 0
    while total < size:
        piece = BLOCK[: size - total]
        sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        checksum = zlib.crc32(piece, checksum)
        total += len(piece)
        sent(total)
    if chunked:
        sock.sendall(b"0\r\n\r\n")
    return checksum


def connected(running):
    host, _, port = running.where.rpartition("/")[2].partition(":")
    return socket.create_connection((host, int(port)))


def serve_gibibyte(sock, reader, line, fields):
    """GET: answer a gibibyte, by length or in chunks. POST: answer what arrived, counted and summed."""
    if line.startswith("GET"):
        chunked = "chunked" in line
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {GIB}"
        sock.sendall(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        send_body(sock, GIB, chunked=chunked)
        return
    told = "{} {}".format(*reader.body(fields))
    sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(told)}\r\n\r\n{told}".encode())


# Fails if pause_reading of either side does nothing, and (chunked) if a chunk is gathered before it is passed on.
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_gibibyte_goes_up_whole_and_without_memory(tmp_path, framing):
    def client():
        with connected(running) as sock:
            chunked = framing == "chunked"
            fields = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {GIB}"
            sock.sendall(f"POST /up HTTP/1.1\r\n{HEAD}{fields}\r\n\r\n".encode())
            checksum = send_body(sock, GIB, chunked=chunked)
            reader = Reader(sock)
            _, answered = reader.head()
            return checksum, b"".join(reader.pieces(answered)).decode()

    with origin(serve_gibibyte) as url:
        async with sidecar(tmp_path, url) as running:
            memory = Memory(await worker_pid(running))
            began = time.monotonic()
            checksum, told = await asyncio.to_thread(client)
            print(f"up, {framing}: {1024 / (time.monotonic() - began):.0f} MiB/s, {memory.grown_bytes() / MIB:.1f} MiB")
            assert told == f"{GIB} {checksum}"
            assert memory.grown_bytes() < 64 * MIB
            (record,) = await records(running)
            assert (record["bytes_in"], record["bytes_out"], record["outcome"]) == (GIB, len(told), "ok")


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_gibibyte_comes_down_whole_and_without_memory(tmp_path, framing):
    def client():
        with connected(running) as sock:
            sock.sendall(f"GET /{framing} HTTP/1.1\r\n{HEAD}\r\n".encode())
            reader = Reader(sock)
            _, fields = reader.head()
            return reader.body(fields)

    checksum, left = 0, GIB
    while left:
        piece = BLOCK[:left]
        checksum = zlib.crc32(piece, checksum)
        left -= len(piece)
    with origin(serve_gibibyte) as url:
        async with sidecar(tmp_path, url) as running:
            memory = Memory(await worker_pid(running))
            began = time.monotonic()
            assert await asyncio.to_thread(client) == (GIB, checksum)
            speed = 1024 / (time.monotonic() - began)
            print(f"down, {framing}: {speed:.0f} MiB/s, {memory.grown_bytes() / MIB:.1f} MiB")
            assert memory.grown_bytes() < 64 * MIB
            (record,) = await records(running)
            assert (record["bytes_in"], record["bytes_out"], record["outcome"]) == (0, GIB, "ok")


async def at_rest(count):
    """Wait until `count()` has not moved for half a second, and give it."""
    deadline = time.monotonic() + 30
    last, since = count(), time.monotonic()
    while time.monotonic() - since < 0.5:
        assert time.monotonic() < deadline, f"still moving at {last}"
        await asyncio.sleep(0.05)
        if count() != last:
            last, since = count(), time.monotonic()
    return last


HELD_BYTES = 24 * MIB  # what may be under way at rest: four kernel buffers of up to 6 MB, and our own


# Fails if on_client_paused does not pause the leg: the whole answer is then in our memory.
async def test_a_reader_that_stops_stops_the_upstream_and_memory_stays_flat(tmp_path):
    size = 100 * MIB
    sent = [0]

    def serve(sock, reader, line, fields):
        sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        send_body(sock, size, chunked=False, sent=lambda total: sent.__setitem__(0, total))

    with origin(serve) as url:
        # A silence that the client causes is none of the upstream's: its own time is shorter than the client's rest.
        async with sidecar(tmp_path, url, UPSTREAMS__DEFAULT__TIMEOUTS__BETWEEN_BYTES="400ms") as running:
            memory = Memory(await worker_pid(running))
            with connected(running) as sock:
                sock.sendall(f"GET /big HTTP/1.1\r\n{HEAD}\r\n".encode())
                reader = Reader(sock)
                _, fields = await asyncio.to_thread(reader.head)
                assert await at_rest(lambda: sent[0]) < HELD_BYTES
                await asyncio.sleep(1)  # longer than `between_bytes`, with a turn of the wheel
                assert memory.grown_bytes() < 8 * MIB
                total, _ = await asyncio.to_thread(reader.body, fields)
                assert total == size
            (record,) = await records(running)
            assert (record["bytes_out"], record["outcome"]) == (size, "ok")


# Fails if on_upstream_paused does not pause the client.
async def test_an_upstream_that_stops_reading_stops_the_client_and_memory_stays_flat(tmp_path):
    size = 100 * MIB
    sent = [0]
    go_on = threading.Event()

    def serve(sock, reader, line, fields):
        go_on.wait(60)
        told = str(reader.body(fields)[0])
        sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(told)}\r\n\r\n{told}".encode())

    def client(sock):
        sock.sendall(f"POST /up HTTP/1.1\r\n{HEAD}Content-Length: {size}\r\n\r\n".encode())
        send_body(sock, size, chunked=False, sent=lambda total: sent.__setitem__(0, total))
        reader = Reader(sock)
        _, fields = reader.head()
        return b"".join(reader.pieces(fields)).decode()

    with origin(serve) as url:
        async with sidecar(tmp_path, url) as running:
            memory = Memory(await worker_pid(running))
            with connected(running) as sock:
                answer = asyncio.get_running_loop().run_in_executor(None, client, sock)
                assert await at_rest(lambda: sent[0]) < HELD_BYTES
                assert memory.grown_bytes() < 8 * MIB
                go_on.set()
                assert await answer == str(size)
            (record,) = await records(running)
            assert (record["bytes_in"], record["outcome"]) == (size, "ok")


# Fails if the time to the first byte runs from the request's head: a long upload would be the upstream's fault.
async def test_an_upload_may_take_longer_than_the_upstream_may_think(tmp_path):
    def client():
        with connected(running) as sock:
            sock.sendall(f"POST /up HTTP/1.1\r\n{HEAD}Content-Length: 20\r\n\r\n".encode())
            for _ in range(10):
                sock.sendall(b"ab")
                time.sleep(0.15)
            return Reader(sock).head()[0]

    with origin(serve_gibibyte) as url:
        async with sidecar(tmp_path, url, UPSTREAMS__DEFAULT__TIMEOUTS__FIRST_BYTE="700ms") as running:
            assert "200" in await asyncio.to_thread(client)


# Fails if an answer's body waits for anything: each event is sent only after the one before it was read.
@pytest.mark.parametrize("framing", ["chunked", "until the close"])
async def test_server_sent_events_arrive_one_by_one(tmp_path, framing):
    read = asyncio.Queue()

    async def events(request):
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        if framing == "chunked":
            answer.enable_chunked_encoding()
        else:
            answer.force_close()
        await answer.prepare(request)
        for number in range(100):
            await answer.write(b"id: %d\ndata: tick\n\n" % number)
            assert await asyncio.wait_for(read.get(), 5) == number
        return answer

    app = web.Application()
    app.router.add_get("/events", events)
    async with (
        served(app) as url,
        sidecar(tmp_path, url) as running,
        ClientSession() as session,
        session.get(running.where + "/events", headers=WITH_KEY) as answer,
    ):
        assert answer.content_type == "text/event-stream"
        for number in range(100):
            event = await asyncio.wait_for(answer.content.readuntil(b"\n\n"), 5)
            assert event == b"id: %d\ndata: tick\n\n" % number
            read.put_nowait(number)
        assert await answer.content.read() == b""
        (record,) = await records(running)
        assert record["bytes_out"] == sum(len(b"id: %d\ndata: tick\n\n" % number) for number in range(100))


# Fails if an answer that begins before the request has ended is held, or ends the request.
async def test_both_bodies_may_flow_at_once(tmp_path):
    async def echo(request):
        answer = web.StreamResponse()
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        async for piece in request.content.iter_any():
            await answer.write(piece)
        return answer

    app = web.Application()
    app.router.add_post("/echo", echo)
    async with served(app) as url, sidecar(tmp_path, url) as running:
        host, _, port = running.where.rpartition("/")[2].partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"POST /echo HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert re.match(rb"HTTP/1.1 200 ", head)
        for number in range(50):
            piece = b"piece %02d" % number
            writer.write(b"8\r\n%b\r\n" % piece)
            assert await asyncio.wait_for(reader.readuntil(b"\r\n" + piece + b"\r\n"), 5) == b"8\r\n%b\r\n" % piece
        writer.write(b"0\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5) == b"0\r\n\r\n"
        writer.write(f"GET /nowhere HTTP/1.1\r\n{HEAD}\r\n".encode())  # the connection is still good
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)).startswith(b"HTTP/1.1 404")
        writer.close()
        await writer.wait_closed()
        first, _ = await records(running, 2)
        assert (first["bytes_in"], first["bytes_out"]) == (400, 400)
        assert len(usage(running)) == 2
