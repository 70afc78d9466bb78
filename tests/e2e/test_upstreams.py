"""Real upstreams behind a whole node: nginx, aiohttp and uvicorn as they come; what they see, and how they die."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import re
import ssl
import sys
import threading
import time
import zlib
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from yarl import URL

from tests.app.node import KEY
from tests.e2e.clients.origin import LARGE, STREAMED, application
from tests.e2e.clients.sockets import Reader, origin
from tests.e2e.stage import WITH_KEY, free_port, program, records, served, sidecar, usage
from tests.servers import certificates
from tests.servers.talk import until

HERE = Path(__file__).parent
NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 1000;
  server {{
    listen 127.0.0.1:{port};
    root {folder}/www;
    location = /empty {{ return 204; }}
    location = /too-large {{ client_max_body_size 1k; dav_methods PUT; }}
    location = /streamed {{ gzip on; gzip_proxied any; gzip_types *; gzip_min_length 1; }}
    location = /endless {{ limit_rate 200k; }}
    location /put/ {{ dav_methods PUT; create_full_put_path on; client_max_body_size 0; }}
  }}
}}
"""


class Program:
    """A server in a process of its own, on one port, that can be killed and started again."""

    def __init__(self, port, *command):
        self.port, self.url, self._command = port, f"http://127.0.0.1:{port}", command
        self._process = None

    async def start(self):
        self._process = await asyncio.create_subprocess_exec(*self._command)
        deadline = time.monotonic() + 15
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            assert self._process.returncode is None, f"{self._command} did not start"
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    async def kill(self):
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


def nginx(folder):
    port = free_port()
    (folder / "www").mkdir(parents=True)
    (folder / "www" / "large").write_bytes(LARGE)
    (folder / "www" / "streamed").write_bytes(b"".join(STREAMED))
    (folder / "www" / "endless").write_bytes(LARGE * 10)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
    return Program(port, program("nginx"), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log"))


def uvicorn(folder):
    port = free_port()
    return Program(port, sys.executable, str(HERE / "clients" / "origin.py"), str(port))


SERVERS = {"nginx": nginx, "uvicorn": uvicorn}


@contextlib.asynccontextmanager
async def running_server(folder, name):
    """The server and a node before it, with a session that sends the key."""
    folder = folder / name
    folder.mkdir()
    server = SERVERS[name](folder)
    await server.start()
    try:
        async with sidecar(folder, server.url) as node, aiohttp.ClientSession(node.where, headers=WITH_KEY) as session:
            yield server, node, session
    finally:
        await server.kill()


def connections_to(port):
    """Established connections to a local port, as the kernel lists them."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(fields[2].endswith(f":{port:04X}") and fields[3] == "01" for fields in (line.split() for line in lines))


@pytest.fixture(params=[*SERVERS, "aiohttp"])
async def before(request, tmp_path):
    """A node before each server in turn: the port of the server, the node, a session."""
    if request.param != "aiohttp":
        async with running_server(tmp_path, request.param) as (server, node, session):
            yield server.port, node, session
        return
    app = application()
    app.router.add_route("*", "/too-large", too_large)
    async with (
        served(app) as url,
        sidecar(tmp_path, url) as node,
        aiohttp.ClientSession(node.where, headers=WITH_KEY) as session,
    ):
        yield int(url.rpartition(":")[2]), node, session


async def too_large(request):
    answer = web.Response(status=413, text="too large")
    answer.force_close()
    return answer


# Fails if a connection is not given back after an answer of any of these framings.
async def test_one_connection_carries_every_kind_of_answer(before):
    port, node, session = before
    for _ in range(5):
        async with session.get("/large") as answer:
            assert (answer.status, await answer.read()) == (200, LARGE)
        async with session.head("/large") as answer:
            assert (answer.status, answer.content_length, await answer.read()) == (200, len(LARGE), b"")
        async with session.get("/empty") as answer:
            assert (answer.status, await answer.read()) == (204, b"")
            assert "Content-Length" not in answer.headers
            assert "Transfer-Encoding" not in answer.headers
        async with session.get("/streamed") as answer:
            assert answer.headers["Transfer-Encoding"] == "chunked"
            assert await answer.read() == b"".join(STREAMED)
    assert connections_to(port) == 1
    made = await records(node, 20)
    assert {record["attempts"] for record in made} == {1}
    assert [record["bytes_out"] for record in made[:3]] == [len(LARGE), 0, 0]


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_an_upload_that_expects_100_continue_arrives_whole(before, framing):
    _, node, session = before
    body = LARGE[:1_500_000]

    async def pieces():
        for at in range(0, len(body), 100_000):
            yield body[at : at + 100_000]

    data = io.BytesIO(body) if framing == "length" else pieces()
    nginx_here = (node.folder / "nginx.conf").exists()
    path = "/put/there" if nginx_here else "/echo"
    async with session.put(path, data=data, expect100=True) as answer:
        assert answer.status in (200, 201)
        if nginx_here:
            assert (node.folder / "www" / "put" / "there").read_bytes() == body
        else:
            told = json.loads(await answer.read())
            assert (told["bytes"], told["crc32"]) == (len(body), zlib.crc32(body))
            assert "expect" not in told["fields"]
    (record,) = await records(node)
    assert record["bytes_in"] == len(body)


# Fails if an answer is refused because its request has not ended.
async def test_an_answer_before_the_body_has_ended_reaches_the_client(before):
    _, node, _ = before
    host, _, port = node.where.rpartition("/")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"PUT /too-large HTTP/1.1\r\nHost: a\r\nX-Api-Key: {KEY}\r\nContent-Length: 100000000\r\n\r\n".encode()
    )
    writer.write(LARGE[:10_000])  # uvicorn ends with a reset what it has not read, and a reset can overtake the answer
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 413")
    (length,) = re.findall(rb"(?i)content-length: (\d+)", head)
    assert b"too large" in (await asyncio.wait_for(reader.readexactly(int(length)), 10)).lower()
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 10)  # and the connection ends: the rest of the body is no request
    writer.close()
    (record,) = await records(node)
    assert (record["status"], record["outcome"]) == (413, "ok")


# Fails if a cut answer is ended as if it were whole: finish in place of cut.
@pytest.mark.parametrize(
    ("name", "path"), [("nginx", "/endless"), ("uvicorn", "/endless"), ("uvicorn", "/endless-chunks")]
)
async def test_a_server_killed_in_mid_answer_breaks_the_transfer_and_the_record_says_so(tmp_path, name, path):
    async with running_server(tmp_path, name) as (server, node, session):
        async with session.get(path) as answer:
            assert answer.status == 200
            await answer.content.readexactly(50_000)
            await server.kill()
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        (record,) = await records(node)
        assert (record["status"], record["outcome"], record["quality"]) == (200, "upstream_truncated", "partial")
        assert 50_000 <= record["bytes_out"] < 10_000_000


# Fails if the only address is left out while it is ejected: it is back, and nobody asks it.
@pytest.mark.parametrize("name", SERVERS)
async def test_a_restarted_server_costs_no_request_but_those_while_it_was_away(tmp_path, name):
    async with running_server(tmp_path, name) as (server, node, session):

        async def ask():
            async with session.get("/streamed") as answer:
                await answer.read()
                return answer.status, answer.content_type

        assert [status for status, _ in await asyncio.gather(*[ask() for _ in range(8)])] == [200] * 8
        await server.kill()
        assert [await ask() for _ in range(5)] == [(502, "application/problem+json")] * 5
        await server.start()
        assert [status for status, _ in await asyncio.gather(*[ask() for _ in range(8)])] == [200] * 8
        await server.kill()
        await server.start()  # before anybody asks: what is in the pool is dead, and a GET may be sent again
        assert [status for status, _ in await asyncio.gather(*[ask() for _ in range(8)])] == [200] * 8
        outcomes = [record["outcome"] for record in await records(node, 29)]
        assert (outcomes.count("ok"), outcomes.count("upstream_unreachable")) == (24, 5)


class Closer:
    """A server that closes a connection at the instant of its reuse: it answers once, reads one head more, and goes.

    Under TLS it lets the handshakes after the first wait for `go_on`; `slow` counts them.
    """

    def __init__(self, tls=None):
        self.tls, self.seen, self.slow, self.go_on = tls, [], 0, threading.Event()

    def wrap(self, sock):
        if self.tls is None:
            return sock
        if self.seen:
            self.slow += 1
            self.go_on.wait(30)
        return self.tls.wrap_socket(sock, server_side=True)

    def serve(self, sock, reader, line, fields):
        if reader in self.seen:
            self.seen[self.seen.index(reader)] = "closed"
            return True
        size, checksum = reader.body(fields)
        self.seen += [(line.split()[0], size, checksum), reader]
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return False


@contextlib.asynccontextmanager
async def closing_server(folder, tls=None, **environment):
    """A node before a server that closes each connection at the instant of its reuse."""
    closer = Closer(tls)
    with origin(closer.serve, closer.wrap) as url:
        async with (
            sidecar(folder, url.replace("http", "https") if tls else url, **environment) as node,
            aiohttp.ClientSession(node.where, headers=WITH_KEY) as session,
        ):
            yield closer, node, session
        closer.go_on.set()


async def test_a_get_on_a_connection_that_closes_at_its_reuse_is_sent_again_once(tmp_path):
    async with closing_server(tmp_path) as (closer, node, session):
        for _ in range(3):
            async with session.get("/") as answer:
                assert (answer.status, await answer.read()) == (200, b"ok")
        assert [seen for seen in closer.seen if not isinstance(seen, Reader)] == [
            ("GET", 0, 0), "closed", ("GET", 0, 0), "closed", ("GET", 0, 0),
        ]  # fmt: skip
        assert [record["attempts"] for record in await records(node, 3)] == [1, 2, 2]


# Fails if POST is among the idempotent methods.
async def test_a_post_on_a_connection_that_closes_at_its_reuse_is_not_sent_twice(tmp_path):
    async with closing_server(tmp_path) as (closer, node, session):
        async with session.get("/") as answer:
            assert answer.status == 200
        async with session.post("/", data=b"once") as answer:
            assert (answer.status, answer.content_type) == (502, "application/problem+json")
        assert closer.seen == [("GET", 0, 0), "closed"]
        _, record = await records(node, 2)
        assert (record["attempts"], record["outcome"], record["billable"]) == (1, "upstream_closed", False)


@contextlib.asynccontextmanager
async def put_meanwhile(folder, first):
    """A PUT whose connection closed at its reuse, while the next one waits in its TLS handshake."""
    made = certificates.make(folder / "tls")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(made.certificate, made.key)
    async with closing_server(folder, tls, UPSTREAMS__DEFAULT__TLS__CA=str(made.authority)) as (closer, node, session):
        async with session.get("/") as answer:
            assert answer.status == 200
        host, _, port = node.where.rpartition("/")[2].partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"PUT / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        writer.write(b"%x\r\n%b\r\n" % (len(first), first))
        await until(lambda: closer.slow, "a second connection")
        yield closer, node, reader, writer
        writer.close()


# Fails if what comes while the second connection is made is given to the first, which is dead: the body loses its head.
@pytest.mark.parametrize("size", [20_000, 3_000_000])
async def test_a_put_that_is_sent_again_arrives_whole_though_it_grows_meanwhile(tmp_path, size):
    async with put_meanwhile(tmp_path, LARGE[:1000]) as (closer, node, reader, writer):
        rest = LARGE[1000:size]
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
        await asyncio.sleep(0.2)  # as much of it as can, is in
        closer.go_on.set()
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)).startswith(b"HTTP/1.1 200")
        assert closer.seen[-2] == ("PUT", size, zlib.crc32(LARGE[:size]))
        _, record = await records(node, 2)
        assert (record["attempts"], record["bytes_in"]) == (2, size)


# Fails if only the dead connection is forgotten: the upstream would see what no record tells.
async def test_a_client_that_goes_while_its_request_is_sent_again_stops_it(tmp_path):
    async with put_meanwhile(tmp_path, LARGE[:1000]) as (closer, node, _, writer):
        writer.transport.abort()
        _, record = await records(node, 2)
        assert (record["attempts"], record["outcome"]) == (1, "client_gone")
        closer.go_on.set()
        await asyncio.sleep(0.3)  # time enough for a request that nobody waits for
        assert closer.seen == [("GET", 0, 0), "closed"]


@contextlib.asynccontextmanager
async def one_dead_of_two(folder):
    """A node before two addresses of which one refuses: what the living one saw, the node, a function that asks."""
    asked = []

    async def hello(request):
        asked.append(request.method)
        await asyncio.sleep(0.001)
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_route("*", "/", hello)
    async with (
        served(app) as url,
        sidecar(folder, f"http://127.0.0.1:{free_port()}", url) as node,
        aiohttp.ClientSession(node.where, headers=WITH_KEY) as session,
    ):

        async def ask(method):
            async with session.request(method, "/") as answer:
                return answer.status

        yield asked, node, ask


# Fails if a request that was refused at one address may be tried there again, its turn having come round (no `avoid`).
async def test_one_dead_address_of_two_is_nobodys_error(tmp_path):
    async with one_dead_of_two(tmp_path) as (asked, node, ask):
        methods = ["GET", "GET", "GET", "POST"] * 50  # a refused POST cannot have been seen: it may go elsewhere too
        assert await asyncio.gather(*[ask(method) for method in methods]) == [200] * 200
        assert sorted(asked) == sorted(methods)
        assert [record["outcome"] for record in await records(node, 200)] == ["ok"] * 200


# Fails if no address is ever ejected: each second request would knock at the dead one.
async def test_a_dead_address_is_left_out_after_three_failures(tmp_path):
    async with one_dead_of_two(tmp_path) as (asked, node, ask):
        assert [await ask("GET") for _ in range(20)] == [200] * 20
        _, status = await node.tell("/status")
        assert status["totals"]["counts"]["upstream_retries"] == 3
        assert asked == ["GET"] * 20


async def seen(folder, *, policy=None, fields=None, path="/echo", **environment):
    """What the upstream sees of one GET with these fields."""
    given = {} if policy is None else {"policy": policy}
    async with (
        served(application()) as url,
        sidecar(folder, url, **given, **environment) as node,
        aiohttp.ClientSession(node.where) as session,
        session.get(URL(path, encoded=True), headers=WITH_KEY if fields is None else fields) as answer,
    ):
        assert answer.status == 200, await answer.text()
        told = await answer.json()
        told["where"] = node.where.rpartition("/")[2]
        told["answered"] = {name.lower(): value for name, value in answer.headers.items()}
        (told["record"],) = usage(node) or await records(node)
        return told


async def test_the_upstream_learns_who_asks_and_through_whom(tmp_path):
    told = await seen(tmp_path, NODE="edge-1")
    fields, answered = told["fields"], told["answered"]
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert fields["x-forwarded-proto"] == "http"
    assert fields["x-forwarded-host"] == fields["host"] == told["where"]
    assert fields["via"] == "1.1 sidecar-edge-1"
    assert answered["via"] == "1.1 sidecar-edge-1"
    assert fields["x-request-id"] == answered["x-request-id"]
    assert "x-api-key" not in fields
    assert not [name for name in fields if name.startswith("x-sidecar-")]


FORGED = {
    "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example",
    "Forwarded": "for=6.6.6.6", "X-Real-IP": "6.6.6.6", "X-Request-Id": "forged",
    "X-Sidecar-Customer": "somebody-else", "X-Sidecar-Plan": "gold", "Via": "1.0 before",
}  # fmt: skip


# Fails if one of these names is missing from `_OURS_UP`.
async def test_nothing_that_a_client_forges_reaches_the_upstream(tmp_path):
    told = await seen(tmp_path, fields=WITH_KEY | FORGED)
    fields = told["fields"]
    assert (fields["x-forwarded-for"], fields["x-forwarded-proto"]) == ("127.0.0.1", "http")
    assert fields["x-forwarded-host"] == told["where"]
    assert "forged" not in fields["x-request-id"]
    assert fields["via"].startswith("1.0 before, 1.1 sidecar-")
    assert {"forwarded", "x-real-ip", "x-sidecar-customer", "x-sidecar-plan"}.isdisjoint(fields)


async def test_a_named_proxy_is_believed_about_its_client_but_not_about_identities(tmp_path):
    told = await seen(tmp_path, fields=WITH_KEY | FORGED, TRUSTED_PROXIES="127.0.0.0/8")
    fields = told["fields"]
    assert fields["x-forwarded-for"] == "6.6.6.6, 127.0.0.1"
    assert (fields["x-forwarded-proto"], fields["x-forwarded-host"]) == ("https", "evil.example")
    assert fields["forwarded"] == "for=6.6.6.6"
    assert {"x-sidecar-customer", "x-sidecar-plan"}.isdisjoint(fields)


ROUTE = "routes: [{ id: all, match: { path: /** }, %s }]\n"


def policy_with(route):
    return "plans: { free: { version: 7, limits: [] } }\n" + ROUTE % route


async def test_identity_headers_are_ours_alone_where_the_route_asks_for_them(tmp_path):
    told = await seen(tmp_path, policy=policy_with("identity_headers: true"), fields=WITH_KEY | FORGED)
    found = {name: value for name, value in told["fields"].items() if name.startswith("x-sidecar-")}
    assert found == {
        "x-sidecar-customer": "c1", "x-sidecar-subject": "s1", "x-sidecar-key-id": "k1", "x-sidecar-plan": "free@7",
    }  # fmt: skip


BASIC = "Basic " + base64.b64encode(f"{KEY}:".encode()).decode()
# Where a key may stand: as policies write it, the header fields that carry it, the query that does.
CREDENTIALS = {
    "header": ("{ header: X-Own-Key }", {"X-Own-Key": KEY}, ""),
    "bearer": ("bearer", {"Authorization": f"Bearer {KEY}"}, ""),
    "basic": ("basic", {"Authorization": BASIC}, ""),
    "query": ("{ query: api_key }", {}, f"a=1&api_key={KEY}&b=%2F"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def every_credential(tmp_path_factory):
    """A node with a route for each place of a key, that keeps it or does not, and a session without key."""
    routes = "".join(
        f"  - {{ id: {name}-{kept}, match: {{ path: /echo/{name}/{kept} }},"
        f" credentials: [{where}], keep_credential: {kept} }}\n"
        for name, (where, _, _) in CREDENTIALS.items()
        for kept in ("true", "false")
    )
    async with (
        served(application()) as url,
        sidecar(tmp_path_factory.mktemp("node"), url, policy=f"plans: {{ free: {{}} }}\nroutes:\n{routes}") as node,
        aiohttp.ClientSession(node.where) as session,
    ):
        yield node, session


# Fails if strip_keys or dropped_with is not asked.
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", CREDENTIALS)
@pytest.mark.parametrize("kept", [False, True])
async def test_the_credential_goes_no_further_unless_the_route_keeps_it(every_credential, name, kept):
    node, session = every_credential
    _, fields, query = CREDENTIALS[name]
    path = f"/echo/{name}/{str(kept).lower()}"
    async with session.get(URL(f"{path}?{query}", encoded=True), headers=fields) as answer:
        assert answer.status == 200, await answer.text()
        told = await answer.json()
    passed = {field: told["fields"].get(field.lower()) for field in fields}
    assert passed == (fields if kept else dict.fromkeys(fields))
    if query:
        assert told["query"] == (query if kept else "a=1&b=%2F")
    record = await until(lambda: [found for found in usage(node) if found["path"] == path], "its record")
    assert record[0]["key_id"] == "k1"
    assert KEY not in str(record)
