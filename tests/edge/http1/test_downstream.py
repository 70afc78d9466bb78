"""Scripts: the client sends, the upstream sees, the upstream answers, the client sees, the journal holds."""

import asyncio
import socket
from ipaddress import ip_network

import pytest
import uvloop

from sidecar.core.http.request import HeadLimits
from sidecar.core.identity import Source
from sidecar.core.policy import Route
from sidecar.core.usage import REQUESTS, Exclusion, Measured, MeterRule
from sidecar.edge.http1.downstream import LINGER, PIPELINED_BYTES, REMEMBERED_S, SKIPPED_BYTES
from sidecar.edge.http1.listener import Timeouts
from sidecar.gateway import GatewayOptions
from tests.edge.http1.playbook import Client, Cut, hello, port_of, stage
from tests.servers.ipv6 import needs_ipv6
from tests.stage import BOB, policy, quota

LOOP = uvloop.new_event_loop


async def twice(play, client):
    """The same head twice: from then on it is remembered. Gives the upstream's connection."""
    upstream = await hello(play, client)
    await client.asks("/hello")
    await upstream.request()
    await upstream.answers()
    await client.answer()
    return upstream


async def test_a_request_goes_up_and_its_answer_comes_down_and_the_journal_knows(play, client):
    await client.asks("/a//b?c", "A: 1", method="POST", body=b"question")
    upstream = await play.upstream_accepts()
    seen = await upstream.request()
    assert seen.line == "POST /a/b?c HTTP/1.1"
    assert "x-api-key" not in seen.fields
    assert seen.fields == {
        "host": "h",
        "a": "1",
        "content-length": "8",
        "via": "1.1 sidecar-here",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "h",
        "x-request-id": play.journal.entries[0].id.decode(),
    }
    await upstream.sees(b"question")
    await upstream.answers(201, b"answer!", "B: 2")
    answer = await client.answer()
    assert (answer.status, answer.body, answer.fields["b"]) == (201, b"answer!", "2")
    assert answer.fields["ratelimit"].startswith('"many";r=999999')
    [record] = await play.recorded()
    assert (record["customer"], record["path"], record["status"]) == ("cust-ann", "/a/b", 201)
    assert record["usage"] == {"requests": 1, "egress_bytes": 7, "ingress_bytes": 8}


@needs_ipv6
@pytest.mark.parametrize(("host", "chain"), [("127.0.0.1", "192.0.2.7, 127.0.0.1"), ("::1", "::1")])
async def test_an_ipv4_client_of_a_socket_for_both_families_has_an_ipv4_address(host, chain):
    # Mutation: the peer stays ::ffff:127.0.0.1; no network of trusted_proxies has it.
    options = GatewayOptions("here", trusted=(ip_network("127.0.0.0/8"),))
    async with stage(options=options) as play:
        sock = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        server = await asyncio.get_running_loop().create_server(play.listener, sock=sock)
        client = Client(*await asyncio.open_connection(host, port_of(server)))
        server.close()
        play.ends.append(client)
        await client.asks("/hello", "X-Forwarded-For: 192.0.2.7")
        upstream = await play.upstream_accepts()
        seen = await upstream.request()
        await upstream.answers()
        await client.answer()
    assert seen.fields["x-forwarded-for"] == chain


# Keep-alive.


async def test_both_connections_serve_again(play, client):
    upstream = await hello(play, client)
    for number in range(3):
        await client.asks(f"/{number}")
        assert (await upstream.request()).line == f"GET /{number} HTTP/1.1"
        await upstream.answers(200, b"%d" % number)
        assert (await client.answer()).body == b"%d" % number
    assert play.pool.connections == 1


# Fails if the next request is served before the answer to this one is complete.
async def test_a_hundred_pipelined_requests_are_answered_in_order(play, client):
    for number in range(100):
        await client.asks(f"/{number}")
    upstream = await play.upstream_accepts()
    for number in range(100):
        assert (await upstream.request()).line == f"GET /{number} HTTP/1.1"
        assert upstream.rest == b""
        await upstream.answers(200, b"%d" % number)
    for number in range(100):
        assert (await client.answer()).body == b"%d" % number
    assert [record["path"] for record in await play.recorded(100)] == [f"/{number}" for number in range(100)]


async def test_requests_in_pieces_of_a_byte_are_requests(play, client):
    for (
        byte
    ) in b"POST /a HTTP/1.1\r\nHost: h\r\nX-Api-Key: ann\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n":
        await client.sends(bytes([byte]))
    upstream = await play.upstream_accepts()
    assert (await upstream.request()).fields["transfer-encoding"] == "chunked"
    got = b""
    while not got.endswith(b"0\r\n\r\n"):
        got += await upstream.read()
    await upstream.answers(200)
    assert (await client.answer()).status == 200
    assert [record["bytes_in"] for record in await play.recorded()] == [2]


async def test_later_requests_are_held_within_a_bound(play, client):
    await client.asks("/first")
    await play.upstream_asked()
    [connection] = play.listener.connections
    client.writer.write(b"GET /next HTTP/1.1\r\nHost: h\r\nX-Api-Key: ann\r\n\r\n" * 200_000)
    await play.until(lambda: len(connection._buffer) > PIPELINED_BYTES)
    await play.until(lambda: not connection._reading)
    assert len(connection._buffer) <= PIPELINED_BYTES + (1 << 18)
    client.resets()


@pytest.mark.parametrize(
    ("fields", "minor", "kept"),
    [((), 1, True), (("Connection: close",), 1, False), (("Connection: keep-alive",), 0, True), ((), 0, False)],
)
async def test_the_connection_stays_or_closes_as_the_client_asked(fields, minor, kept, play, client):
    lines = [f"GET / HTTP/1.{minor}", "Host: h", "X-Api-Key: ann", *fields, "", ""]
    await client.sends("\r\n".join(lines))
    upstream = await play.upstream_asked()
    await upstream.answers(200, b"x")
    answer = await client.answer()
    if kept:
        await client.asks("/again")
        assert (await upstream.request()).line == "GET /again HTTP/1.1"
        await upstream.answers()
        assert (await client.answer()).status == 200
        assert minor or answer.fields["connection"] == "keep-alive"
    else:
        assert answer.fields["connection"] == "close"
        assert await client.sees_the_end() == b""


# Fails if the close comes at once: unread bytes make a reset of it, and the answer is lost.
async def test_after_a_close_the_rest_is_not_read_as_requests_and_the_answer_is_not_lost(play, client):
    await client.asks("/last", "Connection: close")
    await client.asks("/never")
    client.writer.write(b"x" * 1_000_000)
    upstream = await play.upstream_asked()
    await upstream.answers(200, b"answer")
    assert (await client.answer()).body == b"answer"
    assert (await client.sees_the_end(), client.was_reset) == (b"", False)
    assert (len(await play.recorded()), play.pool.attempts) == (1, 1)


# Time.


async def test_a_slow_head_is_408(play, client):
    await client.sends("GET / HT")
    await play.until(lambda: any(connection._buffer for connection in play.listener.connections))
    play.turn(9)
    await client.sends("TP/1.1\r\n")
    play.turn(2)
    assert (await client.answer()).status == 408
    assert await client.sees_the_end() == b""


# hostile F7. Fails if a blank line sets no clock or a later byte sets it anew, or if the first one is taken away.
@pytest.mark.parametrize("after", ["a new connection", "an answer"])
async def test_blank_lines_keep_no_connection(play, client, after):
    if after == "an answer":
        await hello(play, client)
    await client.sends("\r\n")
    await play.until(lambda: any(connection._buffer for connection in play.listener.connections))
    play.turn(11)
    assert await client.sees_the_end() == b""


async def test_the_time_of_a_head_begins_with_the_blank_line_before_it(play, client):
    await client.sends("\r\n")
    await play.until(lambda: any(connection._buffer for connection in play.listener.connections))
    play.turn(9)
    await client.sends("GET")
    await play.until(lambda: any(len(connection._buffer) == 5 for connection in play.listener.connections))
    play.turn(2)
    assert (await client.answer()).status == 408


async def test_a_second_blank_line_is_refused_whenever_it_comes(play, client):
    await client.sends("\r\n")
    await play.until(lambda: any(connection._buffer for connection in play.listener.connections))
    await client.sends("\r\n")
    assert (await client.answer()).status == 400


# Fails if `_finish` gives half a head as long as an idle connection.
async def test_a_half_head_behind_a_request_has_the_time_of_a_head(play, client):
    await client.asks("/hello")
    await client.sends("GET / HT")
    upstream = await play.upstream_asked()
    await play.until(lambda: any(connection._buffer for connection in play.listener.connections))
    await upstream.answers()
    assert (await client.answer()).status == 200
    play.turn(11)
    assert (await client.answer()).status == 408


# hostile F4. Fails if the delay of the look is taken for the client's.
async def test_a_look_that_comes_late_takes_its_delay_for_nobodys(play, client):
    await client.sends("GET / HT")
    await play.until(lambda: any(connection._buffer for connection in play.listener.connections))
    play.turn(30, late_s=25)
    await client.sends("TP/1.1\r\nHost: h\r\nX-Api-Key: ann\r\n\r\n")
    upstream = await play.upstream_asked()
    play.turn(100, late_s=50)
    await upstream.answers()
    assert (await client.answer()).status == 200


async def test_a_slow_body_is_408_and_recorded(play, client):
    await client.sends("POST / HTTP/1.1\r\nHost: h\r\nX-Api-Key: ann\r\nContent-Length: 5\r\n\r\nab")
    upstream = await play.upstream_asked()
    play.turn(11)
    answer = await client.answer()
    assert (answer.status, answer.fields["connection"]) == (408, "close")
    with pytest.raises(Cut):
        await upstream.sees(b"abcde")
    [record] = await play.recorded()
    assert (record["outcome"], record["status"], record["bytes_in"]) == ("client_broken", 408, 2)


# bugs 23. Fails if the pace of a body is asked for while its answer streams.
async def test_a_silent_body_ends_no_answer_that_has_begun():
    async with stage() as play:
        client = await play.connects()
        await client.sends("POST / HTTP/1.1\r\nHost: h\r\nX-Api-Key: ann\r\nContent-Length: 60\r\n\r\nx")
        upstream = await play.upstream_accepts()
        await upstream.request()
        await upstream.sees(b"x")
        await upstream.sends("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        await client.head()
        for byte in b"abcd":
            play.turn(40)
            await upstream.sends(bytes([byte]))
            await client.sees(bytes([byte]))
        assert [record["outcome"] for record in await play.recorded()] == ["ok"]


async def test_a_body_that_keeps_its_pace_is_waited_for():
    async with stage(listener={"timeouts": Timeouts(body_min_bytes_per_s=1)}) as play:
        client = await play.connects()
        await client.sends("POST / HTTP/1.1\r\nHost: h\r\nX-Api-Key: ann\r\nContent-Length: 60\r\n\r\n")
        upstream = await play.upstream_asked()
        for _ in range(3):
            await client.sends(b"x" * 20)
            await upstream.sees(b"x" * 20)
            play.turn(11)
        await upstream.answers(200)
        assert (await client.answer()).status == 200


async def test_an_idle_connection_is_closed_without_a_word(play, client):
    await hello(play, client)
    play.turn(74)
    assert len(play.listener.connections) == 1
    play.turn(2)
    assert await client.sees_the_end() == b""


async def test_a_connection_that_never_asks_is_closed_without_a_word(play, client):
    await play.until(lambda: play.listener.connections)
    play.turn(11)
    assert await client.sees_the_end() == b""


# Fails if pause_writing does not set the deadline. HTTP.md, slow reader.
async def test_a_reader_that_stalls_is_cut_and_recorded(play, client):
    client.writer.transport.pause_reading()
    await client.asks("/big")
    upstream = await play.upstream_asked()
    await upstream.sends(f"HTTP/1.1 200 OK\r\nContent-Length: {1 << 30}\r\n\r\n")
    [connection] = play.listener.connections
    upstream.writer.write(b"x" * (64 << 20))
    await play.until(lambda: connection.stalled)
    play.turn(1)
    play.turn(75)
    [record] = await play.recorded()
    assert (record["outcome"], record["client_disconnected"], record["quality"]) == ("client_gone", True, "partial")
    assert record["usage"]["egress_bytes"] < 32 << 20


# review 1.11. Fails if the deadline is not moved by what the client has read, or is where nothing was.
@pytest.mark.parametrize("close", [False, True])
async def test_a_reader_that_is_slow_and_steady_is_not_cut(close):
    size = 4 << 20
    async with stage() as play:
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", port_of(play.server)))
            fields = b"X-Api-Key: ann\r\n" + (b"Connection: close\r\n" if close else b"")
            await loop.sock_sendall(client, b"GET /big HTTP/1.1\r\nHost: h\r\n%b\r\n" % fields)
            upstream = await play.upstream_asked()
            [connection] = play.listener.connections
            connection._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
            # Where the connection is to close, all of the answer is in its buffer by then.
            connection._transport.set_write_buffer_limits(high=2 * size if close else size // 2, low=0)
            await upstream.sends(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size)
            await play.until(lambda: connection.state == LINGER if close else connection.stalled)
            play.turn(1)
            for _ in range(4):
                before = unsent(connection)
                while unsent(connection) >= before:
                    await loop.sock_recv(client, 1 << 12)
                    await asyncio.sleep(0)
                play.turn(74)
                play.turn(2)
                assert connection in play.listener.connections
            play.turn(76)
            await play.until(lambda: connection not in play.listener.connections)


def unsent(connection):
    return connection._transport.get_write_buffer_size()


# Bodies.


async def test_chunks_pass_both_ways_with_the_trailers_that_were_asked_for(play, client):
    await client.sends(
        "POST / HTTP/1.1\r\nHost: h\r\nX-Api-Key: ann\r\nTE: trailers\r\nConnection: TE\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
        "3;ext=1\r\none\r\n3\r\ntwo\r\n0\r\nX-Sum: 6\r\nX-Sidecar-Customer: evil\r\nContent-Length: 3\r\n\r\n"
    )
    upstream = await play.upstream_accepts()
    seen = await upstream.request()
    assert (seen.fields["transfer-encoding"], "te" in seen.fields) == ("chunked", False)
    await upstream.sees(b"6\r\nonetwo\r\n0\r\nX-Sum: 6\r\n\r\n")
    await upstream.sends("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
    await client.head()
    await client.sees(b"2\r\nab\r\n")
    await upstream.sends("2\r\ncd\r\n0\r\nX-Sum: 4\r\nSet-Cookie: evil\r\n\r\n")
    await client.sees(b"2\r\ncd\r\n0\r\nX-Sum: 4\r\n\r\n")
    [record] = await play.recorded()
    assert (record["bytes_in"], record["bytes_out"], record["customer"]) == (6, 4, "cust-ann")


# Fails if only credentials are taken out: a server that merges trailers would read what was not metered.
async def test_what_a_policy_reads_of_a_head_is_not_passed_on_as_a_trailer():
    rows = MeterRule("rows", Measured("request.header.x-rows"))
    async with stage(rules=(REQUESTS, rows), exclusions=(Exclusion("retry", retries_us=1),)) as play:
        client = await play.connects()
        await client.sends(
            "POST / HTTP/1.1\r\nHost: h\r\nX-Api-Key: ann\r\nTransfer-Encoding: chunked\r\n\r\n"
            "0\r\nX-Rows: 9\r\nX-Sum: 6\r\nIdempotency-Key: k\r\n\r\n"
        )
        upstream = await play.upstream_asked()
        await upstream.sees(b"0\r\nX-Sum: 6\r\n\r\n")
        await upstream.answers()
        assert (await client.answer()).status == 200


async def test_trailers_that_nobody_asked_for_end_here(play, client):
    await client.asks()
    upstream = await play.upstream_asked()
    await upstream.sends("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 4\r\n\r\n")
    assert (await client.answer()).trailers == []


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_head_and_204_and_304_end_with_their_head(method, status, play, client):
    await client.asks(method=method)
    upstream = await play.upstream_asked()
    await upstream.sends(f"HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\n")
    answer = await client.answer(method)
    assert (answer.status, answer.body) == (status, b"")
    assert answer.fields.get("content-length") == (None if status == 204 else "5")
    await client.asks("/next")
    assert (await upstream.request()).line == "GET /next HTTP/1.1"
    await upstream.answers()
    assert (await client.answer()).status == 200


async def test_an_answer_without_length_is_chunked_for_1_1_and_ended_by_the_close_for_1_0(play):
    for minor in (1, 0):
        client = await play.connects()
        await client.sends(f"GET / HTTP/1.{minor}\r\nHost: h\r\nX-Api-Key: ann\r\nConnection: keep-alive\r\n\r\n")
        upstream = await play.upstream_asked()
        await upstream.sends("HTTP/1.1 200 OK\r\n\r\nuntil the end")
        upstream.closes()
        answer = await client.answer()
        assert answer.body == b"until the end"
        assert answer.fields.get("transfer-encoding") == ("chunked" if minor else None)
        client.half_closes()
        assert await client.sees_the_end() == b""


async def test_a_body_that_is_too_long_by_its_length_is_413_and_reaches_nobody():
    async with stage(listener={"max_body_bytes": 10}) as play:
        client = await play.connects()
        await client.asks(method="POST", body=b"x" * 11)
        answer = await client.answer()
        assert (answer.status, answer.fields["connection"]) == (413, "close")
        assert play.journal.entries == []


async def test_a_chunked_body_that_grows_too_long_for_its_route_is_413():
    async with stage(max_body_bytes=10) as play:
        client = await play.connects()
        await client.sends(
            "POST / HTTP/1.1\r\nHost: h\r\nX-Api-Key: ann\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n"
        )
        await play.upstream_asked()
        await client.sends("8\r\n12345678\r\n")
        assert (await client.answer()).status == 413
        [record] = await play.recorded()
        assert (record["outcome"], record["status"]) == ("client_broken", 413)


async def test_a_body_that_turns_malformed_is_400_and_cut_off_upstream(play, client):
    await client.sends("POST / HTTP/1.1\r\nHost: h\r\nX-Api-Key: ann\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
    upstream = await play.upstream_asked()
    await client.sends("0x3\r\nGET / HTTP/1.1\r\n\r\n")
    assert (await client.answer()).status == 400
    assert b"0\r\n\r\n" not in await upstream.sees_the_end()
    [record] = await play.recorded()
    assert (record["outcome"], record["usage"]["requests"]) == ("client_broken", 1)


async def test_an_early_answer_is_passed_on_while_the_body_is_still_coming(play, client):
    await client.sends("POST / HTTP/1.1\r\nHost: h\r\nX-Api-Key: ann\r\nContent-Length: 1000000\r\n\r\nsome")
    upstream = await play.upstream_asked()
    await upstream.sees(b"some")
    await upstream.answers(413, b"too much")
    answer = await client.answer()
    assert (answer.status, answer.body) == (413, b"too much")
    client.writer.write(b"x" * 500_000)
    assert await client.sees_the_end() == b""
    assert play.pool.connections == 0
    [record] = await play.recorded()
    assert (record["status"], record["outcome"]) == (413, "ok")


# Expectations.


# Fails if the 100 is sent when the head has come, before keys and counters were asked.
async def test_the_decision_comes_before_the_go_ahead(play):
    play.keys.holding = True
    client = await play.connects()
    await client.asks("/a", "Expect: 100-continue", "Content-Length: 2", method="POST")
    await play.until(lambda: play.keys.waiting)
    assert play.journal.entries == []
    play.keys.let_go()
    await client.sees(b"HTTP/1.1 100 Continue\r\n\r\n")
    upstream = await play.upstream_accepts()
    assert "expect" not in (await upstream.request()).fields
    await client.sends("hi")
    await upstream.sees(b"hi")
    await upstream.sends("HTTP/1.1 100 Continue\r\n\r\n")
    await upstream.answers(200)
    answer = await client.answer()
    assert (answer.status, answer.interims) == (200, [])


async def test_who_is_refused_gets_no_go_ahead(client):
    await client.asks("/a", "Expect: 100-continue", "Content-Length: 2", method="POST", key="nobody")
    answer = await client.answer()
    assert (answer.status, answer.interims, answer.fields["connection"]) == (401, [], "close")


async def test_another_expectation_is_417(client):
    await client.asks("/a", "Expect: 200-ok")
    assert (await client.answer()).status == 417


async def test_interim_answers_are_passed_on_to_1_1_and_not_to_1_0(play):
    for minor, interims in ((1, [103, 102]), (0, [])):
        client = await play.connects()
        await client.sends(f"GET / HTTP/1.{minor}\r\nHost: h\r\nX-Api-Key: ann\r\n\r\n")
        upstream = await play.upstream_asked()
        await upstream.sends(
            "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 X\r\n\r\nHTTP/1.1 100 X\r\n\r\n"
        )
        await upstream.answers(200, b"x", "Connection: close")
        assert (await client.answer()).interims == interims


# Clients that leave.


async def test_a_client_that_leaves_before_the_decision_has_used_nothing(play):
    play.counters.holding = True
    client = await play.connects()
    await client.asks()
    await play.until(lambda: play.counters.waiting)
    client.resets()
    await play.until(lambda: not play.listener.connections)
    play.counters.let_go()
    assert play.journal.entries == []
    assert play.counters.used("many") == 0
    assert play.context.open.number == 0


async def test_a_client_that_leaves_in_mid_upload_is_recorded(play, client):
    await client.asks("/a", "Content-Length: 10", method="POST")
    upstream = await play.upstream_asked()
    await client.sends("half")
    await upstream.sees(b"half")
    client.closes()
    assert await upstream.sees_the_end() == b""
    [record] = await play.recorded()
    assert (record["outcome"], record["status"], record["client_disconnected"]) == ("client_gone", 499, True)
    assert record["usage"]["ingress_bytes"] == 4


# litellm #14457: the client left mid-stream and the usage was gone.
async def test_a_client_that_leaves_in_mid_stream_is_recorded(play, client):
    await client.asks()
    upstream = await play.upstream_asked()
    await upstream.sends("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    await client.head()
    client.resets()
    assert await upstream.sees_the_end() == b""
    [record] = await play.recorded()
    assert (record["outcome"], record["status"], record["quality"]) == ("client_gone", 200, "partial")
    assert (record["usage"]["egress_bytes"], record["billable"]) == (4, True)


async def test_a_client_that_leaves_after_the_last_byte_changes_nothing(play, client):
    await hello(play, client)
    client.resets()
    await play.until(lambda: not play.listener.connections)
    [record] = await play.recorded()
    assert (record["outcome"], record["client_disconnected"]) == ("ok", False)


# bugs 09. Fails if an end of the client's sending is taken for half a close.
async def test_a_client_that_closes_its_side_before_its_answer_has_left(play, client):
    await client.asks()
    upstream = await play.upstream_asked()
    client.half_closes()
    assert await upstream.sees_the_end() == b""
    [record] = await play.recorded()
    assert (record["outcome"], record["status"], record["client_disconnected"]) == ("client_gone", 499, True)
    assert play.context.open.number == 0
    assert await client.sees_the_end() == b""


# Fails if an end of the client's sending is taken for its leaving where its route allows it.
async def test_a_half_closed_client_still_gets_its_answer():
    async with stage(half_close="allow") as play:
        client = await play.connects()
        await client.asks()
        client.half_closes()
        upstream = await play.upstream_accepts()
        await upstream.request()
        await upstream.answers(200, b"answer")
        assert (await client.answer()).body == b"answer"
        assert await client.sees_the_end() == b""


# Fails if `finish` leaves as soon as the client has half-closed, or if what is left over keeps the connection open.
@pytest.mark.parametrize("rest", ["", "GET / HT", "\r\n"])
async def test_a_half_closed_client_gets_the_answers_to_all_that_it_pipelined(rest):
    async with stage(half_close="allow") as play:
        client = await play.connects()
        for number in range(3):
            await client.asks(f"/{number}")
        await client.sends(rest)
        client.half_closes()
        upstream = await play.upstream_accepts()
        for number in range(3):
            assert (await upstream.request()).line == f"GET /{number} HTTP/1.1"
            await upstream.answers(200, b"%d" % number)
            assert (await client.answer()).body == b"%d" % number
        assert await client.sees_the_end() == b""


# Tunnels.

WEBSOCKET = "Connection: Upgrade", "Upgrade: websocket"
SWITCH = (
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n"
)


async def tunnel(play):
    client = await play.connects()
    await client.asks("/ws", *WEBSOCKET)
    upstream = await play.upstream_accepts()
    seen = await upstream.request()
    assert (seen.fields["connection"], seen.fields["upgrade"]) == ("Upgrade", "websocket")
    await upstream.sends(SWITCH)
    head = await client.head()
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
    return client, upstream


@pytest.mark.parametrize("who", ["client", "upstream"])
async def test_a_tunnel_passes_bytes_both_ways_and_counts_them(who, play):
    client, upstream = await tunnel(play)
    await client.sends(b"\x81\x05hello")
    await upstream.sees(b"\x81\x05hello")
    await upstream.sends(b"\x81\x02hi\0\r\n\r\n")
    await client.sees(b"\x81\x02hi\0\r\n\r\n")
    play.turn(10_000)
    await client.sends(b"last")
    await upstream.sees(b"last")
    (client if who == "client" else upstream).closes()
    assert await (upstream if who == "client" else client).sees_the_end() == b""
    [record] = await play.recorded()
    assert (record["status"], record["outcome"], record["bytes_in"], record["bytes_out"]) == (101, "tunnel", 11, 9)


# Fails if bytes that came before the 101 are handed to the upstream: they belong to no protocol yet.
async def test_a_byte_before_the_switch_cuts_the_tunnel(play, client):
    await client.asks("/ws", *WEBSOCKET)
    upstream = await play.upstream_asked()
    await client.sends("GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")
    await play.until(lambda: any(connection._buffer for connection in play.listener.connections))
    await upstream.sends(SWITCH)
    assert await upstream.sees_the_end() == b""
    await client.sees_the_end()
    assert len(await play.recorded()) == 1


async def test_an_upgrade_that_the_upstream_declines_is_a_request(play, client):
    await client.asks("/ws", *WEBSOCKET)
    upstream = await play.upstream_asked()
    await upstream.answers(200, b"no")
    assert (await client.answer()).body == b"no"
    await client.asks("/next")
    assert (await upstream.request()).line == "GET /next HTTP/1.1"
    await upstream.answers()
    assert (await client.answer()).status == 200


# The record comes first.


# Fails if the head is sent while OPEN is still on its way.
async def test_the_upstream_sees_nothing_before_the_open_entry_is_safe(play):
    play.journal.holding = True
    client = await play.connects()
    await client.asks()
    await play.until(lambda: play.journal.waiting)
    assert [entry.stream for entry in play.journal.entries] == ["open"]
    assert play.pool.attempts == 0
    play.journal.holding = False
    play.journal.let_go()
    upstream = await play.upstream_asked()
    await upstream.answers()
    assert (await client.answer()).status == 200


# Fails if the last piece is written with the others, before `close` has called back.
@pytest.mark.parametrize("framing", ["Content-Length: 8", "Transfer-Encoding: chunked"])
async def test_the_last_byte_leaves_after_the_record_is_safe(framing, play, client):
    await client.asks()
    upstream = await play.upstream_asked()
    wire = [b"1234", b"5678"] if "Length" in framing else [b"4\r\n1234\r\n", b"4\r\n5678\r\n0\r\n\r\n"]
    await upstream.sends(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode() + wire[0])
    await client.head()
    await client.sees(wire[0])
    play.journal.holding = True
    await upstream.sends(wire[1])
    await play.until(lambda: play.journal.waiting)
    assert len(play.journal.of("records")) == 1
    [connection] = play.listener.connections
    assert connection._transport.get_write_buffer_size() == 0
    assert client.reader._buffer == b""
    play.journal.let_go()
    await client.sees(wire[1] if "Length" in framing else b"4\r\n5678\r\n0\r\n\r\n")


async def test_a_journal_that_takes_no_more_is_503_before_the_upstream_sees_anything(play):
    play.journal.full = True
    client = await play.connects()
    await client.asks()
    answer = await client.answer()
    assert (answer.status, answer.fields["retry-after"]) == (503, "5")
    assert (play.pool.attempts, play.counters.used("many")) == (0, 0)


# Fails if `released` ignores what it is told: an answer without its record.
async def test_a_record_that_cannot_be_written_cuts_the_client(play, client):
    await client.asks()
    upstream = await play.upstream_asked()
    play.journal.broken = True
    await upstream.answers(200, b"answer")
    with pytest.raises(Cut):
        await client.answer()


# Who is who.


# I3. Fails if the identity of the connection's first request is kept.
async def test_another_key_on_each_request_of_one_connection_is_another_customer(play, client):
    upstream = await hello(play, client)
    for key in ("bob", "ann", "bob", "bob"):
        await client.asks(key=key)
        await upstream.request()
        await upstream.answers()
        await client.answer()
    await client.asks(key="nobody")
    assert (await client.answer()).status == 401
    found = [record["customer"] for record in await play.recorded(5)]
    assert found == ["cust-ann", "cust-bob", "cust-ann", "cust-bob", "cust-bob"]


# Fails if an arrival keeps its answer from the key store.
async def test_the_same_head_again_asks_who_it_is_again(play, client):
    upstream = await twice(play, client)
    play.keys.register("ann", BOB)
    await client.asks("/hello")
    await upstream.request()
    await upstream.answers()
    assert ";r=999999;" in (await client.answer()).fields["ratelimit"]
    play.keys.revoke("ann")
    await client.asks("/hello")
    assert (await client.answer()).status == 401
    assert [record["customer"] for record in await play.recorded(3)] == ["cust-ann", "cust-ann", "cust-bob"]


# Fails if `arrive` does not look whether the policy is still the same.
async def test_the_same_head_again_meets_the_policy_that_is_in_force(play, client):
    upstream = await twice(play, client)
    play.context.policies.apply(policy(quota(1), version="v2", routes=[Route("other", keep_credential=True)]))
    await client.asks("/hello")
    assert (await upstream.request()).fields["x-api-key"] == "ann"
    await upstream.answers()
    assert (await client.answer()).fields["ratelimit"].startswith('"monthly";r=0')
    await client.asks("/hello")
    assert (await client.answer()).status == 429
    play.context.policies.apply(policy(version="v3", routes=[Route("x", "/x")]))
    await client.asks("/hello")
    assert (await client.answer()).status == 404
    play.context.policies.apply(policy(version="v4", sources=(Source("header", "X-Other"),)))
    await client.asks("/hello")
    assert (await client.answer()).status == 401
    assert [record["route"] for record in await play.recorded(3)] == ["api", "api", "other"]


# hostile F8, bugs 06. Fails if either side's head is read without `trimmed`.
async def test_white_space_behind_values_goes_on_neither_way(play, client):
    upstream = None
    for _ in range(3):  # read, read again and kept, found as kept
        await client.sends(
            "POST /a HTTP/1.1\r\nHost: h \r\nX-Api-Key: ann\t \r\nX-A: v \t\r\nContent-Length: 2 \r\n\r\nhi"
        )
        upstream = upstream or await play.upstream_accepts()
        seen = await upstream.head()
        assert b"\r\nHost: h\r\n" in seen
        assert b"\r\nX-A: v\r\n" in seen
        assert b"\r\nContent-Length: 2\r\n" in seen
        await upstream.sees(b"hi")
        await upstream.sends("HTTP/1.1 200 X\r\nX-B: w \t\r\nContent-Length: 4 \r\n\r\nback")
        seen = await client.head()
        assert b"\r\nX-B: w\r\n" in seen
        assert b"\r\nContent-Length: 4\r\n" in seen
        await client.sees(b"back")
    assert [record["customer"] for record in await play.recorded(3)] == ["cust-ann"] * 3


# Fails if new limits leave a head that was judged by the old ones with the connection.
async def test_the_same_head_again_is_judged_by_the_limits_that_are_in_force(play, client):
    await twice(play, client)
    play.listener.limits = HeadLimits(target_bytes=3)
    await client.asks("/hello")
    assert (await client.answer()).status == 414


# Mutations: the first head is kept; a head is kept for as long as its connection.
async def test_a_head_is_kept_where_it_came_twice_until_its_client_rests(play):
    serve, seen = play.listener.serve, []

    def spy(request, client):
        seen.append(request)
        return serve(request, client)

    play.listener.serve = spy
    client = await play.connects()
    upstream = await twice(play, client)
    for rests in (False, True):
        if rests:
            play.listener.check_deadlines(play.listener.now + REMEMBERED_S + 1)
        await client.asks("/hello")
        await upstream.request()
        await upstream.answers()
        await client.answer()
    first, second, third, fourth = seen
    assert second is not first
    assert third is second
    assert fourth is not third


# Fails if rebuilt heads of upstream answers keep more than what they were made of.
async def test_the_same_answer_again_carries_the_figures_of_its_own_request(play, client):
    upstream = await hello(play, client)
    ids = set()
    for left in (999_998, 999_997):
        await client.asks("/hello", key="ann")
        await upstream.request()
        await upstream.answers(200, b"hi")
        answer = await client.answer()
        assert f";r={left};" in answer.fields["ratelimit"]
        ids.add(answer.fields["x-request-id"])
    await client.asks("/hello", "Connection: close", key="bob")
    await upstream.request()
    await upstream.answers(200, b"hi")
    answer = await client.answer()
    assert ";r=999999;" in answer.fields["ratelimit"]
    assert answer.fields["connection"] == "close"
    assert len({*ids, answer.fields["x-request-id"]}) == 3


# What the parser lets through at the edge of a head.


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("GET / HTTP/1.1\nHost: h\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\n\r\n", 400),
        ("GET / HTTP/1.1\r\rHost: h\r\r", 400),
        ("GET /" + "x" * 9000, 414),
        ("GET / HTTP/1.1\r\nA: " + "x" * 33_000, 431),
        ("GET / HTTP/1.1\r\nHost: h\r\nA: " + "x" * 33_000 + "\r\n\r\n", 431),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
    ids=["LF", "one LF", "CR", "endless target", "endless field", "long field", "two empty lines", "TLS"],
)
async def test_a_head_that_is_none_is_refused_before_or_at_its_end(raw, status, play, client):
    await client.sends(raw)
    answer = await client.answer()
    assert (answer.status, answer.fields["connection"]) == (status, "close")
    assert answer.fields["content-type"] == "application/problem+json"
    assert play.journal.entries == []


async def test_one_empty_line_before_a_request_is_ignored(play, client):
    await client.sends("\r\n")
    await hello(play, client)


async def test_what_is_refused_is_told_to_whoever_counts():
    refused = []
    async with stage(listener={"refused": refused.append}) as play:
        client = await play.connects()
        await client.sends("GET / HTTP/2.0\r\n\r\n")
        assert (await client.answer()).status == 505
        assert [problem.status for problem in refused] == [505]


# Refused before the upstream saw anything, with a body.


async def test_a_refused_post_keeps_its_connection_and_its_body_is_no_request():
    # Fails if what is left of the body is read as the next request, or the connection is closed.
    hidden = b"GET /hidden HTTP/1.1\r\nHost: h\r\nX-Api-Key: ann\r\n\r\n"
    async with stage() as play:
        client = await play.connects()
        await client.asks(key="nobody", method="POST", body=hidden)
        answer = await client.answer()
        assert (answer.status, "connection" in answer.fields) == (401, False)
        await hello(play, client)
        assert [record["path"] for record in await play.recorded()] == ["/hello"]


async def test_a_refused_post_whose_body_comes_late_keeps_its_connection(play, client):
    # Fails if only a body that came with its head is read past.
    await client.sends(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nab")
    assert (await client.answer()).status == 401
    await client.sends(b"cdef")
    await hello(play, client)


async def test_a_refused_post_with_a_long_body_is_closed(client):
    # Fails if SKIPPED_BYTES is no bound: a refused client could send for ever.
    await client.sends(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (SKIPPED_BYTES + 1))
    answer = await client.answer()
    assert (answer.status, answer.fields["connection"]) == (401, "close")
    await client.sees_the_end()
