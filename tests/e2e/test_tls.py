"""TLS through a whole node: in, with a certificate of ours; out, to an upstream that is trusted, or is not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import sys
import time

import aiohttp
import httpx
import pytest
from aiohttp import web
from websockets.asyncio.client import connect

from tests.app.node import KEY
from tests.e2e.clients.origin import LARGE, application
from tests.e2e.stage import OPEN, WITH_KEY, records, served, sidecar, usage
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


# A certificate that is renewed.


async def presented(where):
    """The certificate that the node shows to a new connection, in DER; None where the handshake fails."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = where.rpartition("/")[2].partition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    except OSError:
        return None
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()  # closing TLS waits for the peer, and the loop may end before
    return certificate


def der(path):
    return ssl.PEM_cert_to_DER_cert(path.read_text())


async def until_presented(node, path, seconds=15):
    deadline = time.monotonic() + seconds
    while await presented(node.where) != der(path):
        assert time.monotonic() < deadline, (node.folder / "node.log").read_text()
        await asyncio.sleep(0.05)


def expiry(metrics):
    (line,) = [line for line in metrics.splitlines() if line.startswith("sidecar_certificate_expiry_timestamp")]
    return line


# Fails if the listener keeps the context that it was started with (repro 14), or if open connections are closed.
async def test_a_renewed_certificate_is_for_the_next_connections_and_closes_none(tmp_path, made):
    other = certificates.make(tmp_path / "renewed", days=9000)
    async with behind_tls(tmp_path, made) as (node, _, _, session):
        async with session.get("/echo") as answer:
            assert answer.status == 200
        [held] = [each[0][0] for each in session.connector._conns.values()]
        before = expiry((await node.tell("/metrics"))[1])
        assert before.startswith('sidecar_certificate_expiry_timestamp_seconds{setting="tls.cert"}')
        made.certificate.write_bytes(other.certificate.read_bytes())
        made.key.write_bytes(other.key.read_bytes())
        await until_presented(node, other.certificate)
        async with session.get("/echo") as answer:  # on the connection from before: a new one would not be trusted
            assert answer.status == 200
        assert [each[0][0] for each in session.connector._conns.values()] == [held]
        assert expiry((await node.tell("/metrics"))[1]) != before
        assert "sidecar_policy_reload_success 1.0" in (await node.tell("/metrics"))[1]


# Fails if children read the files themselves: the worker that starts again would find the broken pair, for ever.
async def test_a_broken_pair_changes_nothing_also_for_a_worker_that_starts_again(tmp_path, made):
    kept = tmp_path / "kept.pem"
    kept.write_bytes(made.certificate.read_bytes())
    other = certificates.make(tmp_path / "other")
    async with behind_tls(tmp_path, made) as (node, where, _, _):
        made.certificate.write_bytes(other.certificate.read_bytes())
        status = await node.until(lambda status: status["policy"]["failed_reloads"])
        assert (
            f"SIDECAR_TLS__KEY: tls.key: {made.key} is not the private key of {made.certificate}"
            in status["policy"]["faults"]
        )
        assert "sidecar_policy_reload_success 0.0" in (await node.tell("/metrics"))[1]
        assert await presented(where) == der(kept)
        made.key.unlink()
        node.process.send_signal(signal.SIGHUP)
        await node.until(lambda status: "cannot be read" in str(status["policy"]["faults"]))
        os.kill(status["children"][0]["pid"], signal.SIGKILL)
        status = await node.until(lambda status: status["children"][0]["restarts"] == 1 and status["ready"])
        node.where = f"https://{status['children'][0]['listening']}"
        await until_presented(node, kept)
        made.key.write_bytes(other.key.read_bytes())
        await until_presented(node, other.certificate)


async def test_an_upstreams_authority_and_our_certificate_for_it_are_renewed(tmp_path, made):
    # Fails if pools keep the context that they were made with.
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=made.authority)
    server.load_cert_chain(made.certificate, made.key)
    server.verify_mode = ssl.CERT_REQUIRED
    files = {"CA": made.authority, "CERT": made.client, "KEY": made.client_key}
    good = {name: path.read_bytes() for name, path in files.items()}
    other = certificates.make(tmp_path / "other")
    for name, path in zip(files, (other.authority, other.client, other.client_key), strict=True):
        files[name].write_bytes(path.read_bytes())
    settings = {f"UPSTREAMS__DEFAULT__TLS__{name}": str(path) for name, path in files.items()}
    async with (
        served(application(), ssl_context=server) as url,
        sidecar(tmp_path, url, **settings) as node,
        aiohttp.ClientSession(node.where, headers=WITH_KEY) as session,
    ):
        async with session.get("/echo") as answer:
            assert answer.status == 502
        for name, path in files.items():
            path.write_bytes(good[name])
        deadline, status = time.monotonic() + 15, 0
        while status != 200:
            assert time.monotonic() < deadline, status
            async with session.get("/echo") as answer:
                status = answer.status


async def test_a_client_without_a_certificate_is_not_served_where_one_is_required(tmp_path, made):
    settings = {"TLS__CERT": made.certificate, "TLS__KEY": made.key, "TLS__CLIENT_CA": made.authority}
    given = {name: str(path) for name, path in settings.items()}
    async with served(application()) as url, sidecar(tmp_path, url, TLS__CLIENT_AUTH="required", **given) as node:
        context = ssl.create_default_context(cafile=made.authority)
        async with httpx.AsyncClient(verify=context, headers=WITH_KEY) as client:
            with pytest.raises(httpx.TransportError):
                await client.get(node.where + "/echo")
        context.load_cert_chain(made.client, made.client_key)
        async with httpx.AsyncClient(verify=context, headers=WITH_KEY) as client:
            assert (await client.get(node.where + "/echo")).status_code == 200
        assert len(await records(node)) == 1
        _, metrics = await node.tell("/metrics")
        assert 'sidecar_tls_handshakes_refused_total{reason="no_certificate"} 1.0' in metrics
        assert "TLS handshake refused: the client has no certificate" in (tmp_path / "node.log").read_text()


async def test_a_handshake_has_as_long_as_a_head(tmp_path, made):
    # Fails if the loop's own bound of a minute holds.
    given = {"TLS__CERT": str(made.certificate), "TLS__KEY": str(made.key), "HTTP__HEAD_TIMEOUT": "1s"}
    async with served(application()) as url, sidecar(tmp_path, url, **given) as node:
        host, _, port = node.where.rpartition("/")[2].partition(":")
        began = time.monotonic()
        reader, writer = await asyncio.open_connection(host, int(port))
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        assert 0.5 < time.monotonic() - began < 5
        writer.close()


@pytest.mark.parametrize("command", ["check", "run"])
async def test_a_wrong_file_is_told_with_its_line_before_anything_starts(tmp_path, made, command):
    # Fails if children are the first to read it: `run` then never ended, and `check` said good.
    (tmp_path / "p.yaml").write_text(OPEN)
    (tmp_path / "keys.yaml").write_text("keys: []\n")
    (tmp_path / "sidecar.yaml").write_text(
        "listen: 127.0.0.1:0\ncontrol: { listen: 127.0.0.1:0 }\npolicies: p.yaml\nkeys: { file: keys.yaml }\n"
        f"tls: {{ cert: nope.pem, key: {made.key} }}\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", command, "-c", str(tmp_path / "sidecar.yaml")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), 20)
    why = "cannot be read: No such file or directory: create it, or correct the path"
    expected = f"{tmp_path}/sidecar.yaml:5: tls.cert: {tmp_path}/nope.pem {why}\n"
    assert (process.returncode, said.decode()) == (2, expected)


async def test_an_upstream_that_speaks_no_tls_is_told_as_such(tmp_path, made):
    async with (
        served(application()) as url,
        sidecar(tmp_path, url.replace("http", "https")) as node,
        aiohttp.ClientSession(node.where, headers=WITH_KEY) as session,
        session.get("/echo") as answer,
    ):
        problem = await answer.json(content_type="application/problem+json")
        assert (answer.status, "TLS" in problem["detail"]) == (502, True), problem
