"""TLS through a whole node: in, with a certificate of ours; out, to an upstream that is trusted, or is not."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import aiohttp
import httpx
import pytest
from aiohttp import web
from websockets.asyncio.client import connect

from tests.app.node import KEY
from tests.e2e.clients.origin import LARGE, application
from tests.e2e.stage import WITH_KEY, records, served, sidecar, usage
from tests.servers import certificates


@pytest.fixture
def made(tmp_path):
    return certificates.make(tmp_path / "tls")


@contextlib.asynccontextmanager
async def behind_tls(folder, made, app=None):
    """A node that speaks TLS, and says so as it starts: the node, its URL, a context that trusts it, and a session."""
    async with (
        served(app or application()) as url,
        sidecar(folder, url, TLS__CERT=str(made.certificate), TLS__KEY=str(made.key)) as node,
    ):
        context = ssl.create_default_context(cafile=made.authority)
        connector = aiohttp.TCPConnector(ssl=context)
        assert node.where.startswith("https://")
        async with aiohttp.ClientSession(node.where, connector=connector, headers=WITH_KEY) as session:
            yield node, node.where, context, session


async def test_clients_come_in_over_tls_and_the_upstream_is_told(tmp_path, made):
    async with behind_tls(tmp_path, made) as (node, _, _, session):
        for _ in range(3):
            async with session.post("/echo", data=b"x" * 500_000) as answer:
                told = await answer.json()
                assert (answer.status, told["bytes"], told["fields"]["x-forwarded-proto"]) == (200, 500_000, "https")
        async with session.get("/large") as answer:
            assert await answer.read() == LARGE
        assert [record["outcome"] for record in await records(node, 4)] == ["ok"] * 4


async def test_http_1_1_is_all_that_is_agreed_on(tmp_path, made):
    async with behind_tls(tmp_path, made) as (_, where, context, _):
        async with httpx.AsyncClient(verify=context, http2=False, headers=WITH_KEY) as client:
            answer = await client.get(where + "/echo")
            assert (answer.status_code, answer.http_version) == (200, "HTTP/1.1")
        context.set_alpn_protocols(["h2", "http/1.1"])
        host, _, port = where.rpartition("/")[2].partition(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.close()
        await writer.wait_closed()


# A client that speaks plain HTTP to the TLS port is not served, and harms nobody.
async def test_plain_http_on_the_tls_port_gets_nothing_and_harms_nobody(tmp_path, made):
    async with behind_tls(tmp_path, made) as (_, where, _, session):
        host, _, port = where.rpartition("/")[2].partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET /echo HTTP/1.1\r\nHost: a\r\nX-Api-Key: {KEY}\r\n\r\n".encode())
        got = b""
        with contextlib.suppress(ConnectionError):
            got = await asyncio.wait_for(reader.read(), 10)
        assert b"HTTP/" not in got
        writer.close()
        async with session.get("/echo") as answer:
            assert answer.status == 200


async def test_an_answer_cut_short_is_no_clean_end_under_tls_either(tmp_path, made):
    async def cut(request):
        answer = web.StreamResponse()
        answer.content_length = 1_000_000
        await answer.prepare(request)
        await answer.write(b"." * 100_000)
        request.transport.abort()
        return answer

    app = web.Application()
    app.router.add_get("/cut", cut)
    async with behind_tls(tmp_path, made, app) as (node, _, _, session):
        with pytest.raises(aiohttp.ClientPayloadError):
            async with session.get("/cut") as answer:
                await answer.read()
        (record,) = await records(node)
        assert record["outcome"] == "upstream_truncated"


async def test_a_websocket_goes_through_tls(tmp_path, made):
    async def echo(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_bytes(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/ws", echo)
    async with behind_tls(tmp_path, made, app) as (node, where, context, _):
        url = where.replace("https", "wss") + "/ws"
        async with connect(url, ssl=context, additional_headers=WITH_KEY, max_size=None) as socket:
            for size in (1, 1000, 3_000_000):
                await socket.send(b"x" * size)
                assert await socket.recv() == b"x" * size
        assert socket.close_code == 1000
        (record,) = await records(node)
        assert (record["status"], record["outcome"]) == (101, "tunnel")


@contextlib.asynccontextmanager
async def before_tls(folder, made, **trust):
    """A node before an upstream that speaks TLS, trusted as `trust` says."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)
    settings = {f"UPSTREAMS__DEFAULT__TLS__{name}": value for name, value in trust.items()}
    async with (
        served(application(), ssl_context=context) as url,
        sidecar(folder, url, **settings) as node,
        aiohttp.ClientSession(node.where, headers=WITH_KEY) as session,
    ):
        yield node, session


async def test_an_upstream_is_trusted_by_a_private_authority(tmp_path, made):
    async with before_tls(tmp_path, made, CA=str(made.authority)) as (node, session):
        async with session.get("/large") as answer:
            assert (answer.status, await answer.read()) == (200, LARGE)
        async with session.post("/echo", data=b"x" * 500_000) as answer:
            assert (await answer.json())["bytes"] == 500_000
        assert [record["outcome"] for record in await records(node, 2)] == ["ok"] * 2


# Fails if every failure to connect is told as a refused connection.
@pytest.mark.parametrize("authority", ["another", "the system's"])
async def test_an_upstream_that_is_not_trusted_sees_nothing_and_the_answer_says_why(tmp_path, made, authority):
    other = {"CA": str(certificates.make(tmp_path / "other").authority)} if authority == "another" else {}
    async with before_tls(tmp_path, made, **other) as (node, session):
        async with session.get("/echo") as answer:
            problem = await answer.json(content_type="application/problem+json")
            assert (answer.status, problem["status"]) == (502, 502)
            assert "certificate" in problem["detail"]
            assert "not trusted" in problem["detail"]
            assert "tls.ca" in problem["detail"]
        (record,) = await records(node)
        assert (record["outcome"], record["attempts"], record["billable"]) == ("upstream_unreachable", 0, False)


async def test_verify_false_trusts_anyone(tmp_path, made):
    async with before_tls(tmp_path, made, VERIFY="false") as (node, session):
        async with session.get("/echo") as answer:
            assert answer.status == 200
        assert (await records(node))[0]["outcome"] == "ok"
        assert len(usage(node)) == 1


async def test_an_upstream_that_speaks_no_tls_is_told_as_such(tmp_path, made):
    async with (
        served(application()) as url,
        sidecar(tmp_path, url.replace("http", "https")) as node,
        aiohttp.ClientSession(node.where, headers=WITH_KEY) as session,
        session.get("/echo") as answer,
    ):
        problem = await answer.json(content_type="application/problem+json")
        assert (answer.status, "TLS" in problem["detail"]) == (502, True), problem
