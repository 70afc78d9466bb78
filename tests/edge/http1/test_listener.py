"""The drain of all client connections of a worker, and which of them make room for others."""

import asyncio

from tests.edge.http1.playbook import Client, hello, port_of


def closes_idle(play, number):
    return sum(each.close_idle() for each in play.listener.idle(number))


async def connects_from(play, address):
    """A connection of another client."""
    ends = await asyncio.open_connection("127.0.0.1", port_of(play.server), local_addr=(address, 0))
    play.ends.append(Client(*ends))
    return play.ends[-1]


# Fails if a busy connection is closed, one of a client with few, one that began to wait later, or one that has been
# there for less than a second (mutations: no look at the state; the key without the number; without the time).
async def test_the_connections_that_are_idle_for_longest_of_the_client_with_most_make_room(play):
    busy, answered, silent = [await play.connects() for _ in range(3)]
    other = await connects_from(play, "127.0.0.2")
    upstream = await hello(play, answered)
    await busy.asks()
    await upstream.request()
    assert closes_idle(play, 9) == 0
    play.turn(1)
    half = await play.connects()
    await half.sends("GET / HTTP/1.1\r\n")
    play.turn(1)
    await answered.asks("/b", key="nobody")
    assert (await answered.answer()).status == 401
    await play.until(lambda: len(play.listener.connections) == 5)
    play.turn(1.1)
    assert closes_idle(play, 1) == 1
    assert await silent.sees_the_end() == b""
    assert closes_idle(play, 2) == 2
    assert (await half.sees_the_end(), await answered.sees_the_end()) == (b"", b"")
    await play.until(lambda: len(play.listener.connections) == 2)
    assert closes_idle(play, 9) == 1
    assert await other.sees_the_end() == b""
    [left] = play.listener.connections
    assert left._exchange is not None


async def test_a_connection_that_got_its_request_after_it_was_chosen_is_not_closed(play, client):
    await hello(play, client)
    play.turn(2)
    [chosen] = play.listener.idle(9)
    await client.asks("/b")
    await play.until(lambda: chosen._exchange is not None)
    assert not chosen.close_idle()
    assert chosen._exchange is not None


async def test_a_connection_whose_body_is_under_way_makes_no_room(play, client):
    await client.sends("POST /a HTTP/1.1\r\nHost: h\r\nX-Api-Key: ann\r\nContent-Length: 9\r\n\r\nhalf")
    await play.upstream_asked()
    play.turn(2)
    # Fails if only its deadline is looked at, which a body has as well.
    assert closes_idle(play, 9) == 0


async def test_a_connection_whose_answer_is_not_read_yet_makes_no_room(play, client):
    await hello(play, client)
    [connection] = play.listener.connections
    play.turn(2)
    connection.stalled = True
    assert closes_idle(play, 9) == 0
    connection.stalled = False
    assert closes_idle(play, 9) == 1


async def test_a_drain_fails_no_accepted_request_and_closes_what_is_idle(play):
    idle, busy = await play.connects(), await play.connects()
    upstream = await hello(play, idle)
    await busy.asks()
    await upstream.request()
    play.listener.drain()
    await idle.asks("/late")
    other = await play.upstream_accepts()
    await other.request()
    await other.answers(200, b"late")
    assert (await idle.answer()).body == b"late"
    await upstream.answers(200, b"whole")
    answer = await busy.answer()
    assert (answer.body, answer.fields["connection"]) == (b"whole", "close")
    play.turn(1)
    assert (await busy.sees_the_end(), await idle.sees_the_end()) == (b"", b"")
    await play.listener.gone()


# Fails if the connections are cut and their exchanges are not told: no record, and a reservation for ever.
async def test_what_the_drain_has_to_cut_is_recorded(play, client):
    await client.asks()
    await (await play.upstream_accepts()).request()
    play.listener.drain()
    play.listener.abort()
    assert await client.sees_the_end() == b""
    [record] = await play.recorded()
    assert (record["outcome"], play.context.open.number) == ("client_gone", 0)
