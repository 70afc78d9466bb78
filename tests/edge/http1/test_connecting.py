import asyncio
import errno
import socket
import ssl
from contextlib import asynccontextmanager

import pytest

from sidecar.core.errors import UpstreamReason
from sidecar.edge.http1.address import HeadSettings
from sidecar.edge.http1.connecting import connect_error
from tests.edge.http1.playbook import Origin, stage


@asynccontextmanager
async def on_a_socket(path):
    """A stage whose upstream is on a Unix socket, and the connections that it accepts."""
    accepted = asyncio.Queue()
    server = await asyncio.start_unix_server(lambda *ends: accepted.put_nowait(Origin(*ends)), path)
    try:
        async with stage(pool={"urls": [f"unix:{path}"]}) as play:
            yield play, accepted
    finally:
        server.close()


# Fails if a Unix socket is connected to as a host, or has no name to be asked by.
@pytest.mark.parametrize(
    ("settings", "host"), [(HeadSettings(), "h"), (HeadSettings("upstream"), "localhost"), (HeadSettings("api"), "api")]
)
async def test_an_api_on_a_unix_socket_is_asked_as_any_other(tmp_path, settings, host):
    async with on_a_socket(tmp_path / "api.sock") as (play, accepted):
        play.pool.renew(None, settings)
        client = await play.connects()
        await client.asks("/a?b")
        upstream = await accepted.get()
        for target in ("/a?b", "/again"):  # on the same connection
            seen = await upstream.request()
            assert (seen.line, seen.fields["host"]) == (f"GET {target} HTTP/1.1", host)
            await upstream.answers()
            assert (await client.answer()).status == 200
            await client.asks("/again") if target == "/a?b" else None
        upstream.closes()


async def test_a_socket_that_is_not_there_is_502_and_ejected():
    async with stage(pool={"urls": ["unix:/nowhere/api.sock"]}) as play:
        client = await play.connects()
        await client.asks("/a", method="POST", body=b"x")
        answer = await client.answer()
        assert (answer.status, play.pool.attempts) == (502, 2)
        assert b"upstream 'api' has no socket: it is not running" in answer.body
        assert b"nowhere" not in answer.body


def handshake_error():
    error = ssl.SSLError(1, "10.0.0.1")
    error.reason = "WRONG_VERSION_NUMBER"
    return error


@pytest.mark.parametrize(
    ("error", "reason", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files"), UpstreamReason.SATURATED, "this node cannot open a connection"),
        (TimeoutError(), UpstreamReason.CONNECT_TIMEOUT, "did not accept a connection in `timeouts.connect`"),
        (handshake_error(), UpstreamReason.REFUSED, "could not agree with us on TLS (WRONG_VERSION_NUMBER)"),
        (socket.gaierror(-2, "Name or service not known"), UpstreamReason.REFUSED, "is unknown (Name or service"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "10.0.0.1"), UpstreamReason.REFUSED, "refused the connection"),
        (UnicodeError("label too long"), UpstreamReason.REFUSED, "cannot be connected to (label too long)"),
    ],
)
def test_a_client_learns_why_there_is_no_connection_and_not_where_to(error, reason, said):
    failure = connect_error("api", error)
    assert failure.reason is reason
    assert said in failure.detail
    assert "10.0.0.1" not in failure.detail
