"""Connections wait in the kernel's queue while a worker has no room for them, and are accepted once it has."""

import asyncio
import errno
import logging
import socket

import pytest

from sidecar.listening import accepting as module
from sidecar.listening.accepting import CLOSED_AT_ONCE, Acceptor, Clients


class Visitor(asyncio.Protocol):
    """A connection that greets, and is counted until it is lost."""

    def __init__(self, connected):
        self.connected = connected
        self.is_busy = False

    def connection_made(self, transport):
        self.transport = transport
        self.connected.append(self)
        transport.write(b"hello")

    def connection_lost(self, exc):
        self.connected.remove(self)

    def close_idle(self):
        if self.is_busy:
            return False
        self.transport.close()
        return True


class Port:
    """A listening socket, an acceptor of `most` connections, and the clients that are connected to it."""

    def __init__(self, most):
        self.connected = []
        self.idle = 0  # how many of the connections may be closed
        self.to_close = []  # how many were to be, each time
        clients = Clients(lambda: Visitor(self.connected), dict, self.connected, most, self.closable)
        self.acceptor = Acceptor(clients)
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.clients = []
        self.acceptor.listen(self.sock)

    def closable(self, number):
        self.to_close.append(number)
        return self.connected[: min(number, self.idle)]

    @property
    def pauses(self):
        """How often accepting was paused, by reason."""
        pairs = [(key.partition("|"), number) for key, number in self.acceptor.counts.items() if number]
        return {reason: number for (name, _, reason), number in pairs if name == "accept_pauses"}

    def connects(self):
        client = socket.create_connection(self.sock.getsockname(), timeout=5)
        client.setblocking(False)
        self.clients.append(client)
        return client

    async def greets(self, client):
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 9), 5) == b"hello"

    async def until(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0)

    def close(self):
        self.acceptor.leave(self.sock)
        for each in (*self.clients, self.sock):
            each.close()
        for each in list(self.connected):
            each.transport.abort()


@pytest.fixture
async def port():
    made = []

    def make(most):
        made.append(Port(most))
        return made[-1]

    yield make
    for each in made:
        each.close()


# Fails if a connection is refused or accepted beyond the bound, or if the first that ends lets nobody in (mutations:
# `_is_full` is False; `check` does not add the readers again).
async def test_beyond_the_bound_connections_wait_and_are_served_when_others_end(port, caplog):
    caplog.set_level(logging.WARNING, "sidecar.connections")
    there = port(2)
    first, second, third, fourth = (there.connects() for _ in range(4))
    assert await there.greets(first)
    assert await there.greets(second)
    await there.until(lambda: there.pauses)
    assert (len(there.connected), there.acceptor.number) == (2, 2)
    assert there.pauses == {"max_connections": 1}
    with pytest.raises(BlockingIOError):
        third.recv(9)
    now_s = asyncio.get_running_loop().time()
    there.acceptor.check(now_s + 1)
    assert (len(there.connected), there.pauses) == (2, {"max_connections": 1})
    assert there.acceptor.counts["accept_paused_us|max_connections"] >= 1_000_000
    first.close()
    await there.until(lambda: len(there.connected) == 1)
    there.acceptor.check(now_s + 2)
    assert await there.greets(third)
    await there.until(lambda: there.pauses["max_connections"] == 2)
    with pytest.raises(BlockingIOError):
        fourth.recv(9)
    [line] = caplog.messages
    assert line == "http.max_connections (2) are open: new connections wait until others end"


# Fails if idle connections keep others out, if one is closed while none waits, or if the next waits for another check.
async def test_beyond_the_bound_an_idle_connection_makes_room_for_the_one_that_waits(port):
    there = port(2)
    first, second = there.connects(), there.connects()
    await there.until(lambda: len(there.connected) == 2 and there.pauses and not there.acceptor.joining())
    there.idle = 1
    now_s = asyncio.get_running_loop().time()
    there.acceptor.check(now_s)
    assert there.to_close == []
    third = there.connects()
    there.acceptor.check(now_s)
    assert await there.greets(third)
    assert await there.greets(first)
    assert await there.greets(second)
    assert await asyncio.get_running_loop().sock_recv(first, 9) == b""
    assert (there.to_close, there.acceptor.counts["idle_closed"]) == ([8], 1)


async def test_the_longer_connections_have_to_wait_the_more_idle_ones_are_closed(port):
    there = port(1)
    first, second = there.connects(), there.connects()
    await there.until(lambda: there.connected and there.pauses and not there.acceptor.joining())
    for _ in range(6):
        there.acceptor.check(0.0)
    assert there.to_close == [8, 16, 32, 64, 64, 64]
    first.close()
    await there.until(lambda: not there.connected)
    there.acceptor.check(0.0)
    assert await there.greets(second)
    there.acceptor.check(0.0)
    assert len(there.to_close) == 6
    there.connects()
    there.acceptor.check(0.0)
    # Fails if many are closed for one that waits.
    assert there.to_close[6:] == [8]


# Fails if all are closed at once, so that everybody waits for that, if one that became busy is counted, or if more are
# closed than others wait for.
async def test_idle_connections_are_closed_a_few_at_a_time_while_others_wait(port):
    there = port(20)
    for _ in range(20):
        there.connects()
    await there.until(lambda: len(there.connected) == 20 and not there.acceptor.joining())
    for _ in range(6):
        there.connects()
    there.idle = 8
    there.connected[1].is_busy = True
    await there.until(lambda: there.pauses)
    there.acceptor.check(0.0)
    assert there.acceptor.counts["idle_closed"] == CLOSED_AT_ONCE - 1
    there.acceptor.check(0.0)
    assert there.to_close == [8]  # not again before these are closed
    await there.until(lambda: there.acceptor.counts["idle_closed"] == 7)
    await there.until(lambda: len(there.connected) == 19 and not there.acceptor.joining())
    assert there.acceptor.number == 19


async def test_no_more_idle_connections_are_closed_than_others_wait_for(port):
    there = port(20)
    for _ in range(20):
        there.connects()
    await there.until(lambda: len(there.connected) == 20 and not there.acceptor.joining())
    last = there.connects()
    there.idle = 8
    await there.until(lambda: there.pauses)
    there.acceptor.check(0.0)
    assert await there.greets(last)
    await there.until(lambda: not there.acceptor._idle)
    # Fails if the rest of those that were chosen is closed as well.
    assert there.acceptor.counts["idle_closed"] == CLOSED_AT_ONCE


async def shaking(_make, connection, **_tls):
    """A handshake of a client that sends nothing: it ends when the socket is shut."""
    assert await asyncio.get_running_loop().sock_recv(connection, 1) == b""
    connection.close()
    raise ConnectionResetError


# Fails if clients that begin no handshake keep others out, or if one that has just begun is cut.
async def test_a_handshake_that_takes_long_makes_room(port, monkeypatch):
    there, loop = port(2), asyncio.get_running_loop()
    monkeypatch.setattr(loop, "connect_accepted_socket", shaking)
    first, second, _ = there.connects(), there.connects(), there.connects()
    await there.until(lambda: there.pauses)
    now_s = loop.time()
    there.acceptor.check(now_s)
    assert len(there.acceptor.joining()) == 2
    oldest = min(there.acceptor._joining.values(), key=lambda each: each.since_s)
    oldest.since_s -= 2
    there.acceptor.check(now_s)
    assert await asyncio.wait_for(loop.sock_recv(first, 1), 5) == b""
    assert there.acceptor.counts["idle_closed"] == 1
    with pytest.raises(BlockingIOError):
        second.recv(1)
    await there.until(lambda: len(there.acceptor.joining()) == 1)
    there.acceptor.check(now_s)
    await there.until(lambda: there.pauses == {"max_connections": 2})  # the third has its place
    for each in list(there.acceptor._joining.values()):
        assert each.close_idle()
    await there.until(lambda: not there.acceptor.joining())
    assert not oldest.close_idle()


class Exhausted:
    """A listening socket in a process that has no descriptor left, until `has_one`."""

    def __init__(self, sock, error):
        self.sock, self.error = sock, error
        self.fileno, self.close, self.getsockname = sock.fileno, sock.close, sock.getsockname

    def accept(self):
        if self.error:
            raise OSError(self.error, "no")
        return self.sock.accept()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
# Fails if the acceptor gives up, asks again in each turn of the loop, or loses the connection.
async def test_without_a_descriptor_accepting_pauses_and_goes_on_with_the_next_check(port, error, caplog):
    there = port(9)
    there.acceptor.leave(there.sock)
    there.sock = Exhausted(there.sock, error)
    there.acceptor.listen(there.sock)
    client = there.connects()
    await there.until(lambda: there.pauses)
    for _ in range(9):
        await asyncio.sleep(0)
    assert there.pauses == {"descriptors": 1}
    assert there.to_close == []
    assert "no descriptors left (9 connections are allowed)" in caplog.text
    there.sock.error = 0
    there.acceptor.check(asyncio.get_running_loop().time())
    assert there.to_close == [8]  # an idle connection has a descriptor
    assert await there.greets(client)


async def test_a_client_that_is_gone_before_it_is_accepted_stops_nobody(port):
    there = port(9)
    there.acceptor.leave(there.sock)
    there.sock = Exhausted(there.sock, errno.ECONNABORTED)
    there.acceptor.listen(there.sock)
    client = there.connects()
    await asyncio.sleep(0)
    there.sock.error = 0
    assert await there.greets(client)
    assert there.pauses == {}


# Fails if connections in their TLS handshake are not counted: clients that begin none could use all descriptors.
async def test_a_connection_counts_from_when_it_is_accepted(port, monkeypatch):
    there = port(2)
    waiting = asyncio.Event()

    async def handshake(_make, connection, **_tls):
        await waiting.wait()
        connection.close()
        raise ConnectionResetError

    monkeypatch.setattr(asyncio.get_running_loop(), "connect_accepted_socket", handshake)
    for _ in range(3):
        there.connects()
    await there.until(lambda: there.pauses)
    assert (there.acceptor.number, len(there.acceptor.joining()), len(there.connected)) == (2, 2, 0)
    waiting.set()
    await there.until(lambda: there.acceptor.number == 0)
    there.acceptor.check(asyncio.get_running_loop().time())
    await there.until(lambda: there.acceptor.number == 1)


async def test_one_turn_of_the_loop_accepts_a_part_of_a_long_queue(port, monkeypatch):
    monkeypatch.setattr(module, "ACCEPTED_AT_ONCE", 2)
    there = port(9)
    clients = [there.connects() for _ in range(5)]
    there.acceptor._accept(there.sock)
    assert there.acceptor.number == 2
    assert all([await there.greets(client) for client in clients])


# Fails if a socket that is added while accepting is paused is read, or is not read afterwards.
async def test_a_socket_that_comes_during_a_pause_waits_for_its_end(port):
    there = port(1)
    first = there.connects()
    assert await there.greets(first)
    there.connects()
    await there.until(lambda: there.pauses)
    with socket.create_server(("127.0.0.1", 0)) as more:
        more.setblocking(False)
        there.acceptor.listen(more)
        with socket.create_connection(more.getsockname(), timeout=5) as client:
            client.setblocking(False)
            for each in there.clients:
                each.close()
            await there.until(lambda: not there.connected)
            there.acceptor.leave(there.sock)
            there.acceptor.check(asyncio.get_running_loop().time())
            assert await there.greets(client)
        there.acceptor.leave(more)
        there.acceptor.listen(there.sock)
