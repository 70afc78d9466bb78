"""Which address, which connection, and when a request may be sent again."""

import asyncio
import socket

import pytest
import uvloop

from sidecar.edge.pool import EJECTED_S, FAILURES_TO_EJECT, Address
from sidecar.edge.upstream import UpstreamLeg
from tests.edge.playbook import stage

LOOP = uvloop.new_event_loop


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


async def warm(play, client):
    """An exchange that leaves an idle connection in the pool."""
    await client.asks("/warm")
    upstream = await play.upstream_accepts()
    await upstream.request()
    await upstream.answers(200, b"warm")
    assert (await client.answer()).body == b"warm"
    return upstream


# FAULTS: closes an idle connection at the instant of reuse. Fails if the stale connection's neighbour is tried instead.
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_an_idempotent_request_is_sent_again_once_on_a_fresh_connection(method):
    async with stage() as play:
        client, other = await play.connects(), await play.connects()
        await other.asks("/other")
        second = await play.upstream_accepts()
        await second.request()
        first = await warm(play, client)
        await second.answers()
        await other.answer()
        body = b"body" if method == "PUT" else b""
        await client.asks("/again", method=method, body=body)
        leaving, staying = (first, second) if await sees_a_byte(first, second) is first else (second, first)
        leaving.closes()
        fresh = await play.upstream_accepts()
        assert (await fresh.request()).line == f"{method} /again HTTP/1.1"
        await fresh.sees(body)
        assert await staying.sees_the_end() == b""
        await fresh.answers(200, b"done")
        assert (await client.answer()).body == b"done"
        [record] = [record for record in await play.recorded(3) if record["path"] == "/again"]
        assert (record["attempts"], record["usage"]["requests"]) == (2, 1)
        assert play.pool.retries == 1


async def sees_a_byte(*ends):
    """Which of the connections is written to."""
    waits = {asyncio.get_running_loop().create_task(end.reader.read(1)): end for end in ends}
    done, rest = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    return waits[done.pop()]


# Fails if POST is taken into IDEMPOTENT. Sent twice would be done, and billed, twice.
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_any_other_request_on_a_dead_connection_reaches_the_upstream_once_at_most(method):
    async with stage() as play:
        client = await play.connects()
        upstream = await warm(play, client)
        await client.asks("/once", method=method, body=b"body")
        await upstream.request()
        upstream.closes()
        assert (await client.answer()).status == 502
        assert (play.pool.retries, play.accepted.empty()) == (0, True)


async def test_a_request_is_not_sent_a_third_time():
    async with stage() as play:
        client = await play.connects()
        upstream = await warm(play, client)
        await client.asks("/again")
        await upstream.request()
        upstream.closes()
        fresh = await play.upstream_accepts()
        await fresh.request()
        fresh.closes()
        assert (await client.answer()).status == 502
        assert play.pool.retries == 1


async def test_a_request_on_its_first_connection_is_not_sent_again():
    async with stage() as play:
        client = await play.connects()
        await client.asks("/a")
        upstream = await play.upstream_accepts()
        await upstream.request()
        upstream.closes()
        assert (await client.answer()).status == 502
        assert play.pool.retries == 0


@pytest.mark.parametrize("part", ["H", "HTTP/1.1 103 X\r\n\r\n"])
async def test_a_request_whose_answer_had_begun_is_not_sent_again(part):
    async with stage() as play:
        client = await play.connects()
        upstream = await warm(play, client)
        await client.asks("/a")
        await upstream.request()
        await upstream.sends(part)
        upstream.closes()
        assert (await client.answer()).status == 502
        assert play.pool.retries == 0


# Fails if what was held for a replay is not asked for: the second try would send half a body.
async def test_a_body_too_long_to_be_held_is_not_sent_again():
    async with stage() as play:
        client = await play.connects()
        upstream = await warm(play, client)
        await client.asks("/big", "Content-Length: 1000000", method="PUT")
        await client.sends(b"x" * 200_000)
        await upstream.request()
        await upstream.sees(b"x" * 200_000)
        upstream.closes()
        assert (await client.answer()).status == 502
        assert play.pool.retries == 0


async def test_a_connection_that_closed_while_idle_is_not_used():
    async with stage() as play:
        client = await play.connects()
        upstream = await warm(play, client)
        upstream.closes()
        await play.until(lambda: play.pool.connections == 0)
        await client.asks("/post", method="POST", body=b"x")
        fresh = await play.upstream_accepts()
        assert (await fresh.request()).line == "POST /post HTTP/1.1"
        await fresh.answers()
        assert (await client.answer()).status == 200


async def test_an_idle_connection_is_closed_before_the_upstream_would():
    async with stage(pool={"idle_s": 4.0}) as play:
        client = await play.connects()
        upstream = await warm(play, client)
        play.turn(3.9)
        assert play.pool.connections == 1
        play.turn(0.2)
        assert (await upstream.sees_the_end(), play.pool.connections) == (b"", 0)


# Fails if a keep-alive that ran out counts against the address.
async def test_a_server_that_closes_what_is_idle_is_not_ejected():
    async with stage() as play:
        clients = [await play.connects() for _ in range(FAILURES_TO_EJECT + 1)]
        upstreams = {}
        for client in clients:
            await client.asks("/warm")
            upstreams[client] = await play.upstream_accepts()
        for client, upstream in upstreams.items():
            await upstream.request()
            await upstream.answers(200, b"warm")
            await client.answer()
        for client in clients:
            await client.asks("/post", method="POST", body=b"x")
        for upstream in upstreams.values():
            await upstream.request()
            upstream.closes()
        assert [(await client.answer()).status for client in clients] == [502] * len(clients)
        assert play.pool.ejections == 0


async def test_an_address_that_refuses_is_502_and_ejected_after_three():
    dead = f"http://127.0.0.1:{free_port()}"
    async with stage(pool={"urls": [dead]}) as play:
        client = await play.connects()
        await client.asks("/a")
        answer = await client.answer()
        assert (answer.status, play.pool.attempts, play.pool.ejections) == (502, 2, 0)
        await client.asks("/a")
        assert (await client.answer()).status == 502
        assert (play.pool.ejections, play.pool.connections) == (1, 0)
        [record, _] = await play.recorded(2)
        assert (record["outcome"], record["attempts"], record["usage"]) == ("upstream_unreachable", 0, {})
        assert play.counters.used("many") == 0


async def test_an_ejected_address_is_left_out_until_its_time_is_over():
    async with stage() as play:
        [alive] = play.pool._addresses
        dead = Address(f"http://127.0.0.1:{free_port()}")
        play.pool._addresses = [dead, alive]
        client = await play.connects()
        served = None
        for _ in range(2 * FAILURES_TO_EJECT + 2):
            await client.asks("/a")
            served = served or await play.upstream_accepts()
            await served.request()
            await served.answers()
            assert (await client.answer()).status == 200
        assert (play.pool.ejections, play.pool.retries) == (1, FAILURES_TO_EJECT)
        play.turn(EJECTED_S - 1)
        assert {play.pool._pick() for _ in range(4)} == {alive}
        play.turn(2)
        assert {play.pool._pick() for _ in range(4)} == {alive, dead}
        alive.ejected_until = dead.ejected_until = play.now + 100
        assert {play.pool._pick() for _ in range(4)} == {alive, dead}


class Dropped(UpstreamLeg):
    """A connection that is lost before whoever opened it has had its turn."""

    def connection_made(self, transport):
        super().connection_made(transport)
        self.closed = True


# Fails if a connection that was lost before it is used is started all the same: the client would wait for a minute.
async def test_an_address_that_accepts_and_drops_is_502_at_once_and_counted_down():
    async with stage() as play:
        play.pool._make_leg = Dropped
        client = await play.connects()
        await client.asks("/a", method="POST", body=b"x")
        assert (await client.answer()).status == 502
        assert (play.pool.attempts, play.pool.connections) == (2, 0)
        for _ in range(2):
            (await play.upstream_accepts()).closes()


async def test_a_connect_that_hangs_is_504():
    with socket.socket() as full:  # a backlog that is full answers no SYN
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        async with stage(pool={"urls": [f"http://127.0.0.1:{full.getsockname()[1]}"], "connect_s": 0.1}) as play:
            client = await play.connects()
            await client.asks("/a")
            assert (await client.answer()).status == 504
            assert (await play.recorded())[0]["outcome"] == "upstream_unreachable"
        for filler in fillers:
            filler.close()


async def test_a_pool_that_is_used_up_is_503():
    async with stage(pool={"connections": 1}) as play:
        first, second = await play.connects(), await play.connects()
        await first.asks("/a")
        upstream = await play.upstream_accepts()
        await upstream.request()
        await second.asks("/b")
        assert (await second.answer()).status == 503
        await upstream.answers()
        assert (await first.answer()).status == 200
        await second.asks("/b")
        await upstream.request()
        await upstream.answers()
        assert (await second.answer()).status == 200


async def test_a_client_that_leaves_while_we_connect_leaves_nothing_behind():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        async with stage(pool={"urls": [f"http://127.0.0.1:{full.getsockname()[1]}"]}) as play:
            client = await play.connects()
            await client.asks("/a")
            await play.until(lambda: play.pool.connections)
            client.resets()
            [record] = await play.recorded()
            assert (record["outcome"], record["attempts"], record["usage"]) == ("client_gone", 0, {})
            await play.until(lambda: play.pool.connections == 0)
            assert play.pool._connecting == {}
            assert play.counters.used("many") == 0
        for filler in fillers:
            filler.close()


# FAULTS: pool counts after every fault. Fails if one of the ways out forgets to count down, or counts twice.
async def test_the_count_of_connections_is_right_after_every_fault():
    async with stage() as play:
        for fault in ("garbage", "closes", "resets", "answers"):
            client = await play.connects()
            await client.asks("/a", method="POST", body=b"x")
            upstream = await play.upstream_accepts()
            await upstream.request()
            assert play.pool.connections == 1
            if fault == "garbage":
                await upstream.sends("garbage\r\n\r\n")
            elif fault == "answers":
                await upstream.answers(200, b"", "Connection: close")
            else:
                getattr(upstream, fault)()
            await client.answer()
            await play.until(lambda: play.pool.connections == 0)


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://h", "http://h/path", "http://", "http://h:port"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match=r"http|port|Port"):
        Address(url)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://h", ("h", 80, False)),
        ("https://h/", ("h", 443, True)),
        ("http://[::1]:9000", ("::1", 9000, False)),
    ],
)
def test_an_address_is_a_host_and_a_port_with_or_without_tls(url, parts):
    found = Address(url)
    assert (found.host, found.port, found.tls) == parts
