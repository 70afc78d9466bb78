import contextlib

import aiohttp
import pytest

from sidecar.control.listener import serve
from sidecar.control.stats import ChildView, NodeView, PolicyView, Totals


class Node:
    def __init__(self, **child):
        self.child = {"ready": True, "reasons": [], "away": {}, "restarts": 0} | child
        self.draining = False

    async def view(self):
        child = ChildView("worker-0", 1, **self.child)
        return NodeView("1.0", 1, self.draining, [child], PolicyView("p1"), Totals())


@contextlib.asynccontextmanager
async def asking(node):
    runner, where = await serve(node, "127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(f"http://{where}") as session:
            yield session
    finally:
        await runner.cleanup()


async def test_livez_answers_whatever_the_children_do():
    async with asking(Node(ready=False, reasons=["starting"])) as session, session.get("/livez") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "alive"})


async def test_readyz_is_200_when_nothing_stands_against_it():
    async with asking(Node()) as session, session.get("/readyz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ready", "reasons": []})


async def test_readyz_is_503_and_says_why():
    node = Node(ready=False, reasons=["redis has not answered yet: refused"], away={"redis": "refused"})
    async with asking(node) as session, session.get("/readyz") as answer:
        assert answer.status == 503
        assert await answer.json() == {
            "status": "not ready",
            "reasons": ["worker-0: redis has not answered yet: refused"],
            "degraded": {"worker-0 redis": "refused"},
        }


async def test_a_store_that_went_away_later_is_told_and_does_not_take_the_node_out():
    async with asking(Node(away={"redis": "gone"})) as session, session.get("/readyz") as answer:
        assert answer.status == 200
        assert (await answer.json())["degraded"] == {"worker-0 redis": "gone"}


async def test_a_draining_node_is_not_ready():
    node = Node()
    node.draining = True
    async with asking(node) as session, session.get("/readyz") as answer:
        assert (answer.status, (await answer.json())["reasons"]) == (503, ["draining"])


@pytest.mark.parametrize(
    ("accept", "kind"),
    [("", "text/plain"), ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text")],
)
async def test_metrics_come_in_the_format_that_is_asked_for(accept, kind):
    async with asking(Node()) as session, session.get("/metrics", headers={"Accept": accept}) as answer:
        assert (answer.status, answer.content_type) == (200, kind)
        assert 'sidecar_child_ready{process="worker-0"} 1.0' in await answer.text()


async def test_status_shows_every_child():
    async with asking(Node()) as session, session.get("/status") as answer:
        body = await answer.json()
    assert body["ready"] is True
    assert body["children"][0]["name"] == "worker-0"
    assert body["policy"]["version"] == "p1"
