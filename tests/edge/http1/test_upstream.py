"""Scripts of upstreams that misbehave: what the client is told, what the journal holds, and what is never reused."""

import asyncio
from pathlib import Path

import pytest
import uvloop

from sidecar.edge.http1.upstream import MAX_INTERIM
from tests.edge.http1.playbook import Cut, stage

LOOP = uvloop.new_event_loop


async def asked(play, *fields, method="GET", body=b""):
    """A client whose request the upstream has read."""
    client = await play.connects()
    await client.asks("/a", *fields, method=method, body=body)
    upstream = await play.upstream_asked()
    return client, upstream


async def serves_on_a_new_connection(play, client, *, same_client=True):
    if not same_client:
        client = await play.connects()
    await client.asks("/next")
    upstream = await play.upstream_accepts()
    assert (await upstream.request()).line == "GET /next HTTP/1.1"
    await upstream.answers(200, b"next")
    assert (await client.answer()).body == b"next"


BAD = {
    "two lengths": "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "the same length twice": "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "length and chunks": "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a 101 that nobody asked for": "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "NUL in a field": "HTTP/1.1 200 OK\r\nA: \0\r\nContent-Length: 0\r\n\r\n",
    "a bare line feed": "HTTP/1.1 200 OK\r\nA: 1\nB: 2\r\nContent-Length: 0\r\n\r\n",
    "a folded field": "HTTP/1.1 200 OK\r\nA: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
    "a space before the colon": "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "another protocol": "SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/2": "HTTP/2.0 200 OK\r\n\r\n",
    "garbage": "\0\1\2\3\r\n\r\n",
    "a head without end": "HTTP/1.1 200 OK\r\nA: " + "x" * 70_000,
    "endless interim answers": "HTTP/1.1 102 X\r\n\r\n" * (MAX_INTERIM + 1),
}
# hostile F6: bodies that are wrong in the same read as their heads, of which nothing was sent yet.
BAD_CHUNKS = {
    "line feeds alone": "2\nok\n0\n\n",
    "a negative size": "-2\r\nok\r\n0\r\n\r\n",
    "a prefixed size": "0x2\r\nok\r\n0\r\n\r\n",
    "a size and a blank": "2 \r\nok\r\n0\r\n\r\n",
    "more than its size": "2\r\nokay\r\n0\r\n\r\n",
    "a bad trailer": "2\r\nok\r\n0\r\nno colon\r\n\r\n",
}
BAD |= {name: f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{raw}" for name, raw in BAD_CHUNKS.items()}


# Fails if one of them is left to the parser, which takes it, or if the head is passed on before its body is read.
@pytest.mark.parametrize("raw", BAD.values(), ids=BAD.keys())
async def test_an_answer_with_two_readings_is_502_and_its_connection_never_serves_again(raw, play):
    client, upstream = await asked(play)
    await upstream.sends(raw)
    answer = await client.answer()
    assert (answer.status, answer.fields["content-type"]) == (502, "application/problem+json")
    await upstream.sees_the_end()
    [record] = await play.recorded()
    assert (record["outcome"], record["billable"]) == ("bad_upstream_answer", False)
    assert record["usage"]["requests"] == 0
    await serves_on_a_new_connection(play, client)


# RFC 9110 §7.8. Fails if any 101 will do where an upgrade was asked for.
@pytest.mark.parametrize("fields", ["Upgrade: other\r\n", "", "Upgrade: websocket, other\r\n"])
async def test_a_switch_to_what_was_not_offered_is_502(fields, play):
    client, upstream = await asked(play, "Connection: Upgrade", "Upgrade: websocket")
    await upstream.sends(f"HTTP/1.1 101 X\r\nConnection: Upgrade\r\n{fields}\r\n")
    assert (await client.answer()).status == 502


async def test_a_switch_to_one_of_those_offered_is_passed_on_as_it_is(play):
    client, upstream = await asked(play, "Connection: Upgrade", "Upgrade: websocket, Foo/2")
    await upstream.sends("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: foo/2\r\n\r\n")
    assert b"\r\nUpgrade: foo/2\r\n" in await client.head()
    client.closes()
    await upstream.sees_the_end()


CUT = {
    "of its length": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
    "of its chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    "in a chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n12345",
}


# Fails if the client's message is ended in good order: half an answer taken for a whole one.
@pytest.mark.parametrize("raw", CUT.values(), ids=CUT.keys())
@pytest.mark.parametrize("how", ["closes", "resets"])
async def test_an_answer_cut_short_cuts_the_client_too(raw, how, play):
    client, upstream = await asked(play)
    await upstream.sends(raw)
    await client.head()
    getattr(upstream, how)()
    rest = await client.sees_the_end()
    assert not rest.endswith(b"0\r\n\r\n")
    [record] = await play.recorded()
    assert (record["outcome"], record["status"], record["quality"]) == ("upstream_truncated", 200, "partial")
    assert (record["usage"]["egress_bytes"], record["bytes_out"]) == (5, 5)


async def test_an_answer_without_length_that_is_reset_cuts_the_client_too(play):
    client, upstream = await asked(play)
    await upstream.sends("HTTP/1.1 200 OK\r\n\r\nhalf")
    await client.head()
    upstream.resets()
    assert not (await client.sees_the_end()).endswith(b"0\r\n\r\n")
    assert (await play.recorded())[0]["outcome"] == "upstream_truncated"


async def test_a_chunk_that_turns_malformed_cuts_the_client_too(play):
    client, upstream = await asked(play)
    await upstream.sends("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
    await client.head()
    await upstream.sends("0x2\r\ncd\r\n0\r\n\r\n")
    assert await client.sees_the_end() == b"2\r\nab\r\n"
    assert (await play.recorded())[0]["outcome"] == "bad_upstream_answer"


NOT_REUSED = {
    "garbage behind its length": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n",
    "a second answer": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi" * 2,
    "garbage behind its chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nx",
    "a body in 204": "HTTP/1.1 204 X\r\nContent-Length: 2\r\n\r\nhi",
    "a body in 304": "HTTP/1.1 304 X\r\nContent-Length: 2\r\n\r\nhi",
    "close": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
    "HTTP/1.0": "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
}


# No byte crosses clients. Fails if `rest` does not stop the reuse.
@pytest.mark.parametrize("raw", NOT_REUSED.values(), ids=NOT_REUSED.keys())
async def test_a_connection_that_said_more_or_says_that_it_closes_never_serves_again(raw, play):
    client, upstream = await asked(play)
    await upstream.sends(raw)
    assert (await client.answer()).body in {b"hi", b""}
    assert await upstream.sees_the_end() == b""
    await serves_on_a_new_connection(play, client, same_client=False)


async def test_a_byte_on_an_idle_connection_closes_it(play):
    client, upstream = await asked(play)
    await upstream.answers(200, b"hi")
    await client.answer()
    await upstream.sends("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert await upstream.sees_the_end() == b""
    await serves_on_a_new_connection(play, client)


async def test_a_body_in_the_answer_to_head_is_not_passed_on(play):
    client, upstream = await asked(play, method="HEAD")
    await upstream.sends("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    answer = await client.answer("HEAD")
    assert (answer.body, answer.fields["content-length"]) == (b"", "2")
    await serves_on_a_new_connection(play, client)


# The same bytes of a head, told to HEAD and to GET. Fails if heads judged for one are remembered for the other.
@pytest.mark.parametrize("methods", [("GET", "HEAD", "GET"), ("HEAD", "GET", "HEAD")])
async def test_a_head_known_by_its_bytes_is_judged_for_its_method(methods, play, client):
    upstream = None
    for method in methods:
        await client.asks(method=method)
        upstream = upstream or await play.upstream_accepts()
        await upstream.request()
        await upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + (b"hi" if method == "GET" else b""))
        assert (await client.answer(method)).body == (b"hi" if method == "GET" else b"")


# Time.


async def test_a_silent_upstream_is_504():
    async with stage(pool={"first_byte_s": 5.0}) as play:
        client, upstream = await asked(play)
        play.turn(6)
        answer = await client.answer()
        assert (answer.status, await upstream.sees_the_end()) == (504, b"")
        assert (await play.recorded())[0]["outcome"] == "upstream_timeout"


async def test_an_upstream_that_falls_silent_cuts_the_client():
    async with stage(pool={"between_bytes_s": 5.0}) as play:
        client, upstream = await asked(play)
        await upstream.sends("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        await client.head()
        await client.sees(b"12345")
        play.turn(6)
        assert await client.sees_the_end() == b""
        [record] = await play.recorded()
        assert (record["outcome"], record["bytes_out"]) == ("upstream_timeout", 5)


async def test_an_upstream_that_drips_is_waited_for_until_the_total():
    async with stage(pool={"between_bytes_s": 5.0, "total_s": 20.0}) as play:
        client, upstream = await asked(play)
        await upstream.sends("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        await client.head()
        for _ in range(4):
            await upstream.sends("x")
            await client.sees(b"x")
            play.turn(4)
        await upstream.sends("x")
        await client.sees(b"x")
        play.turn(4.5)
        assert await client.sees_the_end() == b""
        assert (await play.recorded())[0]["outcome"] == "upstream_timeout"


async def test_an_upstream_that_goes_without_a_word_is_502(play):
    client, upstream = await asked(play)
    upstream.closes()
    assert (await client.answer()).status == 502
    assert (await play.recorded())[0]["outcome"] == "upstream_closed"


@pytest.mark.parametrize("part", ["HTTP/1.1 2", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"])
async def test_an_upstream_that_goes_in_its_head_is_502(part, play):
    client, upstream = await asked(play)
    await upstream.sends(part)
    upstream.closes()
    assert (await client.answer()).status == 502


# Back-pressure.


# Fails if the exchange does not pause its leg: the whole answer would be in memory.
async def test_a_slow_reader_slows_the_upstream(play):
    client, upstream = await asked(play)
    client.writer.transport.pause_reading()
    total = 32 << 20
    await upstream.sends(f"HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n")
    upstream.writer.write(b"x" * total)
    [connection] = play.listener.connections
    await play.until(lambda: connection.stalled)
    assert connection._transport.get_write_buffer_size() < 2 << 20
    client.writer.transport.resume_reading()
    assert len((await client.answer()).body) == total


async def test_a_slow_upstream_slows_the_client(play, client):
    total = 32 << 20
    await client.asks("/a", f"Content-Length: {total}", method="POST")
    upstream = await play.upstream_asked()
    upstream.writer.transport.pause_reading()
    client.writer.write(b"x" * total)
    [connection] = play.listener.connections
    await play.until(lambda: not connection._reading)
    [leg] = play.pool._addresses[0].busy
    assert leg.transport.get_write_buffer_size() < 2 << 20
    upstream.writer.transport.resume_reading()
    got = 0
    while got < total:
        got += len(await upstream.read())
    await upstream.answers()
    assert (await client.answer()).status == 200
    assert (await play.recorded())[0]["bytes_in"] == total


async def test_what_could_not_be_completed_raises_at_the_client(play):
    client, upstream = await asked(play)
    await upstream.sends("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
    upstream.resets()
    with pytest.raises(Cut):
        await client.answer()


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


# Fails if either side is read faster than the other drinks. litellm #12685: memory grew until it was killed.
async def test_sixty_four_mebibytes_each_way_leave_memory_flat():
    piece, pieces = b"x" * (1 << 18), 256
    async with stage() as play:
        client = await play.connects()
        await client.asks("/big", f"Content-Length: {len(piece) * pieces}", method="POST")
        upstream = await play.upstream_asked()
        before, most = resident_bytes(), 0

        async def pour(end):
            for _ in range(pieces):
                await end.sends(piece)

        async def drink(end):
            nonlocal most
            got = 0
            while got < len(piece) * pieces:
                got += len(await end.read())
                most = max(most, resident_bytes())

        await asyncio.gather(pour(client), drink(upstream))
        await upstream.sends(f"HTTP/1.1 200 OK\r\nContent-Length: {len(piece) * pieces}\r\n\r\n")
        await client.head()
        await asyncio.gather(pour(upstream), drink(client))
        assert most - before < 24 << 20
        [record] = await play.recorded()
        assert (record["bytes_in"], record["bytes_out"]) == (64 << 20, 64 << 20)
