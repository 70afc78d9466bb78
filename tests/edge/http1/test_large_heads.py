"""Large heads wait for their turn, by themselves and on connections."""

import asyncio
import socket

import pytest

from sidecar.edge.http1.downstream import QUEUED
from sidecar.edge.http1.large_heads import LARGE_BYTES, LARGE_FIELDS_BYTES, LARGE_TARGET_BYTES, LargeHeads
from tests.edge.http1.playbook import hello

CLOSE_WAIT = 8  # linux/tcp_states.h: the other side has closed its own
PATH = "/" + "x" * LARGE_BYTES
LARGE = f"GET {PATH} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


class Connection:
    """Has one large head; `heads` takes down when which one was read."""

    def __init__(self, peer, queue, heads, turn):
        self.peer = peer
        self.queue = queue
        self.heads = heads
        self.turn = turn
        self.is_open = True

    def asks(self):
        if self.queue.is_due(self, LARGE):
            self.heads.append((self.turn(), self.peer))

    def read_queued(self):
        if self.is_open:
            self.asks()


@pytest.fixture
async def turn():
    """The number of the loop's turn."""
    loop, number = asyncio.get_running_loop(), 0

    def count():
        nonlocal number
        number += 1
        loop.call_soon(count)

    count()
    return lambda: number


# Mutations: the turn's flag is not set; it is not cleared; the client that was served stays first; a connection that
# has no head any more ends the turn.
async def test_every_other_turn_reads_one_of_each_client_in_its_turn_and_none_of_a_closed_connection(turn):
    queue, heads = LargeHeads(), []
    connections = [Connection(peer, queue, heads, turn) for peer in ("a", "a", "a", "a", "b", "2001:db8::1")]
    for connection in connections:
        connection.asks()
    connections[2].is_open = False
    async with asyncio.timeout(5):
        while len(heads) < 5:
            await asyncio.sleep(0)
    first = heads[0][0]
    assert [(number - first, peer) for number, peer in heads] == [
        (0, "a"),
        (2, "a"),
        (4, "b"),
        (6, "2001:db8::1"),
        (8, "a"),
    ]
    for _ in range(3):
        await asyncio.sleep(0)
    connections[0].asks()  # the queue is empty, and at rest
    assert heads[5][1] == "a"


@pytest.mark.parametrize(
    ("head", "is_large"),
    [
        (b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % (b"x" * LARGE_TARGET_BYTES), True),
        (b"GET / HTTP/1.1\r\nCookie: %b\r\n\r\n" % (b"x" * LARGE_BYTES), False),
        (b"GET / HTTP/1.1\r\nCookie: %b\r\n\r\n" % (b"x" * LARGE_FIELDS_BYTES), True),
        (b"\r\nGET / HTTP/1.1\r\nCookie: %b\r\n\r\n" % (b"x" * LARGE_BYTES), False),
        (b"\r\nGET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % (b"x" * LARGE_TARGET_BYTES), True),
    ],
)
async def test_a_long_cookie_makes_no_large_head_and_a_long_path_does(head, is_large, turn):
    queue, heads = LargeHeads(), []
    first, second = (Connection("a", queue, heads, turn) for _ in range(2))
    first.asks()
    assert queue.is_due(second, head) is not is_large


async def queued(play, client, *fields, method="GET"):
    """Send a large head in a turn that has read one, and that ends when the test says so."""
    upstream = await hello(play, client)
    play.listener.large_heads._read = True
    await client.asks(PATH, *fields, method=method)
    [connection] = play.listener.connections
    await play.until(lambda: connection.state is QUEUED)
    return connection, upstream


async def test_a_queued_head_is_served_in_its_turn_with_what_follows_it(play, client):
    await queued(play, client)
    await client.asks("/next")
    play.turn(100)  # fails if the time in the queue counts as a slow head
    play.listener.large_heads._next()
    upstream = await play.upstream_accepts()
    for path in (PATH, "/next"):
        assert (await upstream.request()).line == f"GET {path} HTTP/1.1"
        await upstream.answers(200, b"x")
        assert (await client.answer()).status == 200
    assert [record["path"] for record in await play.recorded(3)] == ["/hello", PATH, "/next"]


async def test_the_body_of_a_queued_head_is_read_in_its_turn(play, client):
    _, upstream = await queued(play, client, "Content-Length: 4", method="POST")
    await client.sends(b"body")
    play.listener.large_heads._next()
    await upstream.request()
    await upstream.sees(b"body")
    await upstream.answers(200)
    assert (await client.answer()).status == 200


async def test_a_client_that_closes_its_side_behind_a_queued_head_is_seen_leaving_after_it(play, client):
    connection, _ = await queued(play, client)
    client.half_closes()
    sock = connection._transport.get_extra_info("socket")
    await play.until(lambda: sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == CLOSE_WAIT)
    other = await play.connects()
    await other.asks(key="nobody")
    assert (await other.answer()).status == 401  # so the loop has polled since
    play.listener.large_heads._next()
    # Fails if the end is taken for the end of a connection without a request: then there is no record.
    [_, record] = await play.recorded(2)
    assert record["outcome"] == "client_gone"


async def test_a_client_that_was_cut_while_its_head_waited_is_not_served(play, client):
    connection, _ = await queued(play, client)
    connection.on_abort()
    play.listener.large_heads._next()
    await client.sees_the_end()
    assert len(play.records()) == 1
    assert not play.listener.large_heads._waiting
