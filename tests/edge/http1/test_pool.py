"""Which address, which connection, and when a request may be sent again."""

import asyncio
import os
import resource
import socket
import ssl
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from sidecar.edge.http1.address import Address, HeadSettings
from sidecar.edge.http1.pool import CLOSING_S, EJECTED_S, FAILURES_TO_EJECT
from sidecar.edge.http1.upstream import HIGH_WATER_BYTES, UpstreamLeg
from tests.edge.http1.playbook import stage
from tests.servers import certificates

LOOP = uvloop.new_event_loop


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


async def warm(play, client):
    """An exchange that leaves an idle connection in the pool."""
    await client.asks("/warm")
    upstream = await play.upstream_asked()
    await upstream.answers(200, b"warm")
    assert (await client.answer()).body == b"warm"
    return upstream


# FAULTS: closes an idle connection at the instant of reuse. Fails if the stale connection's neighbour is tried instead.
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_an_idempotent_request_is_sent_again_once_on_a_fresh_connection(method, play):
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
async def test_any_other_request_on_a_dead_connection_reaches_the_upstream_once_at_most(method, play, client):
    upstream = await warm(play, client)
    await client.asks("/once", method=method, body=b"body")
    await upstream.request()
    upstream.closes()
    assert (await client.answer()).status == 502
    assert (play.pool.retries, play.accepted.empty()) == (0, True)


async def test_a_request_is_not_sent_a_third_time(play, client):
    upstream = await warm(play, client)
    await client.asks("/again")
    await upstream.request()
    upstream.closes()
    fresh = await play.upstream_accepts()
    await fresh.request()
    fresh.closes()
    assert (await client.answer()).status == 502
    assert play.pool.retries == 1


async def test_a_request_on_its_first_connection_is_not_sent_again(play, client):
    await client.asks("/a")
    upstream = await play.upstream_asked()
    upstream.closes()
    assert (await client.answer()).status == 502
    assert play.pool.retries == 0


@asynccontextmanager
async def two_addresses(**pool):
    """A stage with a second address, in front of the first; `reads` are the requests that it has closed upon."""
    reads = []

    async def close(reader, writer):
        reads.append(await reader.readuntil(b"\r\n\r\n"))
        play.pool._turn = 0  # another request had its turn meanwhile
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    try:
        async with stage(pool=pool) as play:
            [good] = play.pool._addresses
            closing = Address(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            play.pool._addresses = [good, closing]  # the turn begins with the second
            play.pool.renew(None, HeadSettings())
            yield play, closing, reads
    finally:
        server.close()


# bugs 15. Fails if a request on its first connection is given up, or tried at the address that has just failed.
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
async def test_a_request_without_body_that_failed_at_one_address_is_tried_at_another(method):
    async with two_addresses() as (play, closing, reads):
        client = await play.connects()
        await client.asks("/a", method=method)
        upstream = await play.upstream_accepts()
        assert (await upstream.request()).line == f"{method} /a HTTP/1.1"
        assert len(reads) == 1
        await upstream.answers()
        assert (await client.answer(method)).status == 200
        [record] = await play.recorded()
        assert (record["attempts"], record["usage"]["requests"], record["outcome"]) == (2, 1, "ok")
        assert (play.pool.retries, closing.failures, play.counters.used("many")) == (1, 1, 1)


# Fails if a method that is not idempotent, or a body, is sent a second time.
@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
async def test_a_request_with_a_body_that_failed_on_its_first_connection_is_not_tried_elsewhere(method):
    async with two_addresses() as (play, _, reads):
        client = await play.connects()
        await client.asks("/a", method=method, body=b"x")
        assert (await client.answer()).status == 502
        assert (len(reads), play.pool.retries, play.accepted.empty()) == (1, 0, True)


async def test_two_addresses_that_fail_are_502_and_one_record():
    async with two_addresses() as (play, _, reads):
        client = await play.connects()
        await client.asks("/a")
        upstream = await play.upstream_accepts()
        await upstream.request()
        upstream.closes()
        assert (await client.answer()).status == 502
        [record] = await play.recorded()
        assert (record["attempts"], len(reads), record["billable"]) == (2, 1, False)
        assert set(record["usage"].values()) == {0}


# Fails if the retry takes an idle connection of the other address: a deploy closes those of all addresses at once.
async def test_a_retry_elsewhere_is_on_a_fresh_connection():
    async with two_addresses() as (play, _, _):
        client = await play.connects()
        for idle in range(2):
            assert play.pool.idle_connections == idle
            play.pool._turn = 0  # so that the next is the one that closes
            await client.asks("/a")
            fresh = await play.upstream_accepts()
            await fresh.request()
            await fresh.answers()
            assert (await client.answer()).status == 200


@pytest.mark.parametrize("part", ["H", "HTTP/1.1 103 X\r\n\r\n"])
async def test_a_request_whose_answer_had_begun_is_not_sent_again(part, play, client):
    upstream = await warm(play, client)
    await client.asks("/a")
    await upstream.request()
    await upstream.sends(part)
    upstream.closes()
    assert (await client.answer()).status == 502
    assert play.pool.retries == 0


# Fails if what was held for a replay is not asked for: the second try would send half a body.
async def test_a_body_too_long_to_be_held_is_not_sent_again(play, client):
    upstream = await warm(play, client)
    await client.asks("/big", "Content-Length: 1000000", method="PUT")
    await client.sends(b"x" * 200_000)
    await upstream.request()
    await upstream.sees(b"x" * 200_000)
    upstream.closes()
    assert (await client.answer()).status == 502
    assert play.pool.retries == 0


async def test_a_connection_that_closed_while_idle_is_not_used(play, client):
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
async def test_a_server_that_closes_what_is_idle_is_not_ejected(play):
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
        assert (record["outcome"], record["attempts"]) == ("upstream_unreachable", 0)
        assert set(record["usage"].values()) == {0}
        assert play.counters.used("many") == 0


async def test_an_ejected_address_is_left_out_until_its_time_is_over(play):
    [alive] = play.pool._addresses
    dead = Address(f"http://127.0.0.1:{free_port()}")
    play.pool._addresses = [dead, alive]
    client = await play.connects()
    for number in range(2 * FAILURES_TO_EJECT + 2):
        await client.asks("/a")
        if number <= FAILURES_TO_EJECT:  # the first, and those that were refused at the other address
            served = await play.upstream_accepts()
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
    """A connection that closes before whoever opened it has had its turn."""

    def connection_made(self, transport):
        super().connection_made(transport)
        transport.abort()


# Fails if a connection that was lost before it is used is started all the same: the client would wait for a minute.
async def test_an_address_that_accepts_and_drops_is_502_at_once_and_counted_down(play):
    play.pool._make_leg = Dropped
    client = await play.connects()
    await client.asks("/a", method="POST", body=b"x")
    assert (await client.answer()).status == 502
    assert (play.pool.attempts, play.pool._addresses[0].used) == (2, 0)
    await play.until(lambda: play.pool.connections == 0)
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
        upstream = await play.upstream_asked()
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
            assert (record["outcome"], record["attempts"]) == ("client_gone", 0)
            assert set(record["usage"].values()) == {0}
            await play.until(lambda: play.pool.connections == 0)
            assert play.pool._addresses[0].connecting == {}
            assert play.counters.used("many") == 0
        for filler in fillers:
            filler.close()


# FAULTS: pool counts after every fault. Fails if one of the ways out forgets to count down, or counts twice.
async def test_the_count_of_connections_is_right_after_every_fault(play):
    for fault in ("garbage", "closes", "resets", "answers"):
        client = await play.connects()
        await client.asks("/a", method="POST", body=b"x")
        upstream = await play.upstream_asked()
        assert play.pool.connections == 1
        if fault == "garbage":
            await upstream.sends("garbage\r\n\r\n")
        elif fault == "answers":
            await upstream.answers(200, b"", "Connection: close")
        else:
            getattr(upstream, fault)()
        await client.answer()
        await play.until(lambda: play.pool.connections == 0)


async def idle_connections(play, number):
    """So many idle connections in the pool, each by its upstream's end, and the clients that made them."""
    clients = [await play.connects() for _ in range(number)]
    for client in clients:
        await client.asks("/warm")
    ends = [await play.upstream_accepts() for _ in clients]
    for end in ends:
        await end.request()
        await end.answers(200, b"warm")
    for client in clients:
        await client.answer()
    await play.until(lambda: play.pool.idle_connections == number)
    return clients, ends


def raw_socket(end):
    """The socket of a connection: what is done with it is done before the next turn of the loop."""
    return socket.socket(fileno=os.dup(end.writer.get_extra_info("socket").fileno()))


def close_and_request(upstreams, clients):
    """The FINs of all upstreams, then the requests of all clients, arrive in one turn of the loop."""
    for upstream in upstreams:
        with raw_socket(upstream) as raw:
            raw.shutdown(socket.SHUT_WR)
    for client in clients:
        with raw_socket(client) as raw:
            raw.send(b"GET /again HTTP/1.1\r\nHost: h\r\nX-Api-Key: ann\r\n\r\n")


# hostile F1, review 1.1: one turn of the loop lies between a FIN and its `connection_lost`, and each restart of an
# upstream cost slots in it until every request was answered 503. FINs and requests are in our sockets before the
# loop reads any of them. Fails if `_send` forgets the closing connections that it skips, or counts them for ever.
@pytest.mark.parametrize("asking", [1, 5, 10])
async def test_upstreams_that_close_idle_connections_while_requests_arrive_cost_no_slot(asking):
    async with stage(pool={"connections": 24}) as play:
        for _ in range(8):  # 8 times 10 closed connections: more than the pool has
            clients, ends = await idle_connections(play, 10)
            close_and_request(ends, clients[:asking])
            fresh = [await play.upstream_accepts() for _ in range(asking)]
            play.check_pool()
            for end in fresh:
                await end.request()
                await end.answers(200, b"fresh", "Connection: close")
            assert [(await client.answer()).status for client in clients[:asking]] == [200] * asking
            await play.until(lambda: play.pool.connections == 0)
            play.check_pool()
            for end in (*clients, *ends, *fresh):
                end.closes()


# The same without a client and by hand: what is closing is skipped, counted until it is lost, and then never again.
async def test_a_connection_that_is_closing_is_counted_until_it_is_lost(play):
    await idle_connections(play, 3)
    [address] = play.pool._addresses
    for leg in list(address.idle):
        leg.transport.close()
    client = await play.connects()
    await client.asks("/again")
    fresh = await play.upstream_accepts()
    await fresh.request()
    await fresh.answers()
    assert (await client.answer()).status == 200
    await play.until(lambda: play.pool.connections == 1)
    assert (address.used, play.pool.idle_connections) == (1, 1)


# Fails if a connection is counted when its task runs and not when it is decided to open it.
async def test_a_burst_in_one_turn_of_the_loop_opens_no_more_connections_than_the_pool_has():
    async with stage(pool={"connections": 2}) as play:
        clients = [await play.connects() for _ in range(5)]
        await play.until(lambda: len(play.listener.connections) == 5)
        close_and_request([], clients)
        ends = [await play.upstream_accepts() for _ in range(2)]
        for end in ends:
            await end.request()
            await end.answers()
        assert sorted([(await client.answer()).status for client in clients]) == [200, 200, 503, 503, 503]
        assert (play.accepted.empty(), play.pool.connections) == (True, 2)


# Fails if only OSError is caught: the client would wait for ever.
async def test_a_host_name_that_cannot_be_encoded_is_502():
    async with stage(pool={"urls": [f"http://{'x' * 64}.example"]}) as play:
        client = await play.connects()
        await client.asks("/a")
        answer = await client.answer()
        assert (answer.status, play.pool.connections) == (502, 0)
        assert (await play.recorded())[0]["outcome"] == "upstream_unreachable"


# Fails if a lack of descriptors counts against the address: three of them would eject a healthy one.
async def test_a_node_without_descriptors_blames_no_upstream(play):
    clients = [await play.connects() for _ in range(FAILURES_TO_EJECT + 1)]
    await play.until(lambda: len(play.listener.connections) == len(clients))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest_descriptor() + 1, hard))
    fillers = []
    try:
        while True:
            fillers.append(os.dup(0))
    except OSError:
        pass
    try:
        for client in clients:
            await client.asks("/a")
        answers = [await client.answer() for client in clients]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)
    assert {answer.status for answer in answers} == {503}
    assert (play.pool.ejections, play.pool._addresses[0].failures, play.pool.connections) == (0, 0, 0)


def highest_descriptor():
    return max(int(path.name) for path in Path("/proc/self/fd").iterdir())


# Fails if what is closing is left to itself: an upstream that reads nothing more of a tunnel would keep it for ever.
async def test_a_tunnel_whose_upstream_does_not_take_its_last_bytes_is_cut_in_the_end(play, client):
    await client.asks("/ws", "Connection: upgrade", "Upgrade: chat")
    upstream = await play.upstream_asked()
    upstream.writer.transport.pause_reading()
    await upstream.sends("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n")
    await client.head()
    [address] = play.pool._addresses
    [leg] = address.busy
    client.writer.write(b"x" * (16 << 20))
    await play.until(lambda: leg.transport.get_write_buffer_size() > HIGH_WATER_BYTES)
    play.listener.abort()
    await play.until(lambda: address.closing == {leg})
    play.turn(CLOSING_S - 1)
    assert play.pool.connections == 1
    play.turn(2)
    await play.until(lambda: play.pool.connections == 0)


async def test_renewed_headers_are_those_of_the_next_request_also_on_an_open_connection():
    # Fails if the head that a connection remembers is sent again: a token that was replaced would go on being used.
    async with stage() as play:
        play.pool.renew(None, HeadSettings(fields=((b"X-Token", b"old"),)))
        client = await play.connects()
        await client.asks("/a", "X-Token: mine")
        upstream = await play.upstream_accepts()
        assert (await upstream.request()).fields["x-token"] == "old"
        await upstream.answers()
        await client.answer()
        play.pool.renew(None, HeadSettings(fields=((b"X-Token", b"new"),)))
        for _ in range(2):
            await client.asks("/a", "X-Token: mine")
            assert (await upstream.request()).fields["x-token"] == "new"
            await upstream.answers()
            await client.answer()


async def served_by(folder, names, url, heads):
    """(SNI, head) that an upstream with a certificate for `names` sees of a request to `url`, {port} filled in."""
    made = certificates.make(folder, *names)
    seen = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)
    context.sni_callback = lambda _connection, name, _context: seen.append(name)

    async def answer(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        async with stage(pool={"urls": [url.format(port=server.sockets[0].getsockname()[1])]}) as play:
            play.pool.renew(ssl.create_default_context(cafile=made.authority), heads)
            client = await play.connects()
            await client.asks("/a?b")
            status = (await client.answer()).status
    finally:
        server.close()
    return (status, *seen)


# Fails if SNI is the address's name whatever `host` says, or the certificate is not verified for the name in SNI.
@pytest.mark.parametrize(
    ("url", "heads", "name", "host"),
    [
        ("https://localhost:{port}", HeadSettings(), "localhost", b"h"),
        ("https://localhost:{port}", HeadSettings("upstream"), "localhost", b"localhost:"),
        ("https://localhost:{port}", HeadSettings("api.example"), "api.example", b"api.example\r\n"),
        ("https://127.0.0.1:{port}", HeadSettings("api.example:8443"), "api.example", b"api.example:8443\r\n"),
        ("https://localhost:{port}", HeadSettings(server_name="api.example"), "api.example", b"h\r\n"),
    ],
)
async def test_the_name_in_tls_follows_the_host(tmp_path, url, heads, name, host):
    status, sni, head = await served_by(tmp_path, [name], url, heads)
    assert (status, sni) == (200, name)
    assert head.startswith(b"GET /a?b HTTP/1.1\r\nHost: " + host)


async def test_a_certificate_for_another_name_is_502_and_nothing_is_sent(tmp_path):
    assert await served_by(tmp_path, ["other.example"], "https://localhost:{port}", HeadSettings("api.example")) == (
        502, "api.example", "api.example",
    )  # fmt: skip


async def test_trailers_of_a_replaced_name_do_not_go_up():
    # Fails if only heads are filtered: a server that merges trailers would believe the client's.
    async with stage() as play:
        play.pool.renew(None, HeadSettings(fields=((b"X-Token", b"ours"),), removed=frozenset({b"x-other"})))
        client = await play.connects()
        await client.asks("/a", "Transfer-Encoding: chunked", method="POST")
        await client.sends("0\r\nX-Token: mine\r\nX-Other: mine\r\nX-Sum: 1\r\n\r\n")
        upstream = await play.upstream_accepts()
        await upstream.request()
        await upstream.sees(b"0\r\nX-Sum: 1\r\n\r\n")
        await upstream.answers()
        await client.answer()


# hostile F3: one key held all connections with 256 slow uploads. Mutations: no share; those who wait for a connection
# are not counted.
async def test_a_customer_gets_its_share_of_the_connections_and_others_go_on():
    async with stage(pool={"connections": 4, "per_customer": 2}) as play:
        held = []
        for _ in range(2):
            client = await play.connects()
            await client.asks("/slow", "Content-Length: 9", method="POST")
            upstream = await play.upstream_accepts()
            await upstream.request()
            held.append((client, upstream))
        third, other = await play.connects(), await play.connects()
        await third.asks("/third")
        refusal = await third.answer()
        assert (refusal.status, b"upstream-share-used" in refusal.body) == (429, True)
        assert refusal.fields["retry-after"] == "1"
        await other.asks("/other", key="bob")
        upstream = await play.upstream_accepts()
        await upstream.request()
        await upstream.answers()
        assert (await other.answer()).status == 200
        assert play.pool.share_refusals == 1
        client, upstream = held.pop()
        await client.sends(b"x" * 9)
        await upstream.sees(b"x" * 9)
        await upstream.answers()
        assert (await client.answer()).status == 200
        await third.asks("/again")
        assert (await upstream.request()).line == "GET /again HTTP/1.1"
        await upstream.answers()
        assert (await third.answer()).status == 200
        found = [(record["outcome"], record["billable"]) for record in await play.recorded(4)]
        assert found.count(("upstream_share_used", False)) == 1
