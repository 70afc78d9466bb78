import asyncio
import contextlib
import logging
import socket

import pytest

from sidecar.edge.http1.address import Address
from sidecar.edge.http1.names import AGAIN_S, EVERY_S, Names, look_up
from tests.edge.http1.playbook import port_of, stage


class Book:
    """A name server: `answers` by host, or an error; and how often each was asked for."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    async def look_up(self, host, _port):
        self.asked.append(host)
        answer = self.answers[host]
        if isinstance(answer, Exception):
            raise answer
        return answer


def names_of(book, *urls):
    taken = []
    names = Names("api", [Address(url) for url in urls], lambda address, ips: taken.append((address.host, ips)))
    names.look_up = book.look_up
    return names, taken


async def settled(names):
    if names._task is not None:
        await names._task


# Fails if addresses and sockets are looked up as well, or if a name is looked up at each check.
async def test_names_are_looked_up_every_ten_seconds_and_addresses_never():
    book = Book(a=["10.0.0.1", "10.0.0.2"])
    names, taken = names_of(book, "http://a:80", "http://10.0.0.9", "http://[::1]:80", "unix:/run/a.sock")
    for now in (100.0, 100.1, 100.0 + EVERY_S - 0.1, 100.0 + EVERY_S):
        names.check(now)
        await settled(names)
    assert book.asked == ["a", "a"]
    assert taken == [("a", ["10.0.0.1", "10.0.0.2"])] * 2


async def test_after_a_connection_failed_names_are_looked_up_again_but_not_at_once():
    book = Book(a=["10.0.0.1"])
    names, _ = names_of(book, "http://a")
    names.check(100.0)
    await settled(names)
    for now, asked in ((100.1, 1), (100.0 + AGAIN_S, 2), (101.5, 2), (102.5, 3)):
        names.resolve_soon()
        names.check(now)
        await settled(names)
        assert len(book.asked) == asked


# Fails if the addresses are dropped with the name server: an outage of it would be one of ours.
async def test_a_name_server_that_does_not_answer_changes_nothing_and_is_logged_once(caplog):
    caplog.set_level(logging.INFO)
    book = Book(a=socket.gaierror(-3, "Temporary failure in name resolution"), b=["10.0.0.1"])
    names, taken = names_of(book, "http://a", "http://b")
    for now in (100.0, 200.0):
        names.check(now)
        await settled(names)
    assert (taken, names.failures) == ([("b", ["10.0.0.1"])] * 2, 2)
    away, book.answers["a"] = book.answers["a"], ["10.0.0.3"]
    names.check(300.0)
    await settled(names)
    assert taken[-2:] == [("a", ["10.0.0.3"]), ("b", ["10.0.0.1"])]
    book.answers["a"] = away
    names.check(400.0)
    await settled(names)
    assert [record.message for record in caplog.records] == [
        (
            "upstream api: the host a cannot be resolved (Temporary failure in name resolution): "
            "requests to it are answered 502; check upstreams.api.urls"
        ),
        "upstream api: the host a can be resolved again",
        (
            "upstream api: the host a cannot be resolved (Temporary failure in name resolution): "
            "its last addresses stay in use"
        ),
    ]
    await names.aclose()


async def test_the_system_s_answer_is_each_address_once():
    assert "127.0.0.1" in await look_up("localhost", 80)
    assert len(await look_up("localhost", 80)) == len(set(await look_up("localhost", 80)))
    with pytest.raises(OSError, match=r".+"):
        await look_up("nowhere.invalid", 80)


class Servers:
    """An upstream on several addresses of this machine and one port: answers with its address, `/long` on `release`."""

    async def __aenter__(self):
        self.release = asyncio.Event()
        self.servers, self.writers = [], []
        await self.start("127.0.0.1", 0)
        self.port = port_of(self.servers[0])
        return self

    async def start(self, ip, port=0):
        async def serve(reader, writer):
            self.writers.append(writer)
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    if head.startswith(b"GET /long"):
                        await self.release.wait()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(ip), ip.encode()))

        self.servers.append(await asyncio.start_server(serve, ip, port))

    async def __aexit__(self, *_):
        for each in (*self.servers, *self.writers):
            each.close()
        for writer in self.writers:
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def asks(client):
    """One request to its end; the address that served it."""
    await client.asks("/a")
    return (await client.answer()).body.decode()


# Fails if one of the addresses gets all requests, or if an address that is gone from the name still gets one.
async def test_all_addresses_of_a_name_get_requests_and_those_of_the_last_answer_alone():
    async with Servers() as servers, stage(pool={"urls": [f"http://api.test:{servers.port}"]}) as play:
        await servers.start("127.0.0.2", servers.port)
        book = Book(**{"api.test": ["127.0.0.1", "127.0.0.2"]})
        play.pool._names.look_up = book.look_up
        play.turn(0.1)
        await play.until(lambda: len(play.pool._addresses) == 2)
        client = await play.connects()
        served = [await asks(client) for _ in range(4)]
        assert sorted(served) == ["127.0.0.1"] * 2 + ["127.0.0.2"] * 2
        assert play.pool.idle_connections == 2
        book.answers["api.test"] = ["127.0.0.2"]
        play.turn(EVERY_S)
        await play.until(lambda: len(play.pool._addresses) == 1)
        assert [await asks(client) for _ in range(3)] == ["127.0.0.2"] * 3


# Fails if an open exchange is cut with the address that it is at, or its connection is used again.
async def test_an_exchange_at_an_address_that_is_gone_goes_on_to_its_end_and_its_connection_closes():
    async with Servers() as servers, stage(pool={"urls": [f"http://api.test:{servers.port}"]}) as play:
        book = Book(**{"api.test": ["127.0.0.1"]})
        play.pool._names.look_up = book.look_up
        play.turn(0.1)
        await play.until(lambda: play.pool._addresses[0].ip)
        client = await play.connects()
        await client.asks("/long")
        await play.until(lambda: play.pool._addresses[0].busy)
        book.answers["api.test"] = ["127.0.0.2"]
        play.turn(EVERY_S)
        await play.until(lambda: play.pool._addresses[0].ip == "127.0.0.2")
        assert play.pool.connections == 1
        servers.release.set()
        assert (await client.answer()).body == b"127.0.0.1"
        play.turn(0.1)
        await play.until(lambda: play.pool.connections == 0)
        play.turn(0.1)
        assert play.pool._retired == []


# A server that was replaced. Fails if the next look-up is only when it would have been anyway.
async def test_a_connection_that_fails_brings_the_next_look_up_forward():
    async with Servers() as servers, stage(pool={"urls": [f"http://api.test:{servers.port}"]}) as play:
        book = Book(**{"api.test": ["127.0.0.3"]})
        play.pool._names.look_up = book.look_up
        play.turn(0.1)
        await play.until(lambda: play.pool._addresses[0].ip)
        client = await play.connects()
        await client.asks("/a")
        assert (await client.answer()).status == 502
        book.answers["api.test"] = ["127.0.0.1"]
        play.turn(AGAIN_S)
        await play.until(lambda: play.pool._addresses[0].ip == "127.0.0.1")
        assert await asks(client) == "127.0.0.1"
