"""Every row of docs/paths.md through a whole node: the target as an upstream of one socket reads it."""

import asyncio
import socket

from tests.app.node import KEY
from tests.docs.test_paths import MODES, SPELLINGS
from tests.e2e.clients.sockets import Reader, origin
from tests.e2e.stage import records, sidecar

POLICY = "routes:\n" + "".join(
    f"  - {{ id: {mode}, match: {{ path: '/**', host: {mode}.example }}, paths: {mode} }}\n" for mode in MODES
)
PLANS = "plans: { free: { limits: [{ id: monthly, quota: 100000/month }] } }\n"


def answer_with_target(sock, reader, line, fields):
    body = line.split(" ")[1].encode()
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def result(where, target, mode):
    """The target that the upstream saw, as code, or the reason of the 400."""
    host, port = where.removeprefix("http://").split(":")
    method = "OPTIONS" if target == "*" else "GET"
    target = target.replace("api.example", f"{mode}.example")
    with socket.create_connection((host, int(port)), 10) as sock:
        sock.sendall(
            f"{method} {target} HTTP/1.1\r\nHost: {mode}.example\r\nX-Api-Key: {KEY}\r\n\r\n".encode("latin-1")
        )
        reader = Reader(sock)
        line, fields = reader.head()
        body = b"".join(reader.pieces(fields)).decode()
    if line.split(" ")[1] == "200":
        return f"`{body}`"
    assert line.split(" ")[1] == "400", (line, body)
    return body.partition("urn:problem:sidecar:")[2].partition('"')[0]


async def test_every_spelling_reaches_a_real_upstream_as_its_row_says(tmp_path):
    with origin(answer_with_target) as url:
        async with sidecar(tmp_path, url + "/base", policy=POLICY + PLANS) as node:
            results = {
                (target, mode): await asyncio.to_thread(result, node.where, target, mode)
                for target, mode, _ in SPELLINGS
            }
            rows = await records(node, count=sum(expected[0] == "`" for _, _, expected in SPELLINGS))
    assert results == {(target, mode): based(expected) for target, mode, expected in SPELLINGS}
    assert {row["route"] for row in rows} == set(MODES)
    assert {row["path"] for row in rows if row["route"] == "preserve"} >= {"/v1/files/a%2Fb", "/v1/files/a", "/v1/~ann"}


def based(expected):
    return expected.replace("`/", "`/base/", 1)
