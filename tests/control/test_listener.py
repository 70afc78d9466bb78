import asyncio
import socket

import aiohttp
import pytest

from sidecar.control.listener import application, serve
from sidecar.control.stats import ChildView, NodeView, PolicyView, Totals


class Node:
    def __init__(self, **child):
        self.child = {"ready": True, "reasons": [], "away": {}, "restarts": 0} | child
        self.draining = False

    async def view(self):
        child = ChildView("worker-0", 1, **self.child)
        return NodeView("1.0", 1, self.draining, [child], PolicyView("p1"), Totals())


@pytest.fixture
def get(aiohttp_client):
    async def get(node, path, **options):
        client = await aiohttp_client(application(node))
        return await client.get(path, **options)

    return get


async def test_livez_answers_whatever_the_children_do(get):
    answer = await get(Node(ready=False, reasons=["starting"]), "/livez")
    assert (answer.status, await answer.json()) == (200, {"status": "alive"})


async def test_readyz_is_200_when_nothing_stands_against_it(get):
    answer = await get(Node(), "/readyz")
    assert (answer.status, await answer.json()) == (200, {"status": "ready", "reasons": []})


async def test_readyz_is_503_and_says_why(get):
    node = Node(ready=False, reasons=["redis has not answered yet: refused"], away={"redis": "refused"})
    answer = await get(node, "/readyz")
    assert answer.status == 503
    assert await answer.json() == {
        "status": "not ready",
        "reasons": ["worker-0: redis has not answered yet: refused"],
        "degraded": {"worker-0 redis": "refused"},
    }


async def test_a_store_that_went_away_later_is_told_and_does_not_take_the_node_out(get):
    answer = await get(Node(away={"redis": "gone"}), "/readyz")
    assert answer.status == 200
    assert (await answer.json())["degraded"] == {"worker-0 redis": "gone"}


async def test_a_draining_node_is_not_ready(get):
    node = Node()
    node.draining = True
    answer = await get(node, "/readyz")
    assert (answer.status, (await answer.json())["reasons"]) == (503, ["draining"])


@pytest.mark.parametrize(
    ("accept", "kind"),
    [("", "text/plain"), ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text")],
)
async def test_metrics_come_in_the_format_that_is_asked_for(get, accept, kind):
    answer = await get(Node(), "/metrics", headers={"Accept": accept})
    assert (answer.status, answer.content_type) == (200, kind)
    assert 'sidecar_child_ready{process="worker-0"} 1.0' in await answer.text()


async def test_status_shows_every_child(get):
    answer = await get(Node(), "/status")
    body = await answer.json()
    assert body["ready"] is True
    assert body["children"][0]["name"] == "worker-0"
    assert body["policy"]["version"] == "p1"


def ports(number=1):
    """Sockets that listen, and their ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    return sockets, [each.getsockname()[1] for each in sockets]


# Fails if the application accepts from the first socket alone, or outlives its clean-up.
async def test_the_listener_is_reachable_on_all_its_sockets_until_it_is_cleaned_up():
    sockets, found = ports(2)
    runner = await serve(Node(), sockets)
    async with aiohttp.ClientSession() as session:
        for port in found:
            async with session.get(f"http://127.0.0.1:{port}/livez") as answer:
                assert answer.status == 200
        await runner.cleanup()
        for port in found:
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.get(f"http://127.0.0.1:{port}/livez")


# hostile F7, F9. Fails without `keepalive_timeout`: half a head keeps its connection for an hour.
@pytest.mark.parametrize("sent", [b"", b"GET /livez HT", b"\r\n"])
async def test_a_connection_without_a_whole_request_is_closed(sent):
    sockets, [port] = ports()
    runner = await serve(Node(), sockets, idle_s=0.01)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    await runner.cleanup()


# Fails without the filter: a traceback at each try.
async def test_a_malformed_request_leaves_no_traceback(caplog):
    sockets, [port] = ports()
    runner = await serve(Node(), sockets)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nA b: c\r\n\r\n")
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.0 400")
    writer.close()
    await runner.cleanup()
    assert caplog.records == []
