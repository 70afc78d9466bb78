"""What is kept with a head that is sent again."""

import orjson
import pytest

from sidecar.core.http.request import HeadLimits, read_request
from sidecar.core.policy import Route
from sidecar.gateway import serve
from sidecar.testing import PaperClient
from tests.gateway.scene import Scene
from tests.stage import ANN, BOB, policy, quota


# I3, I7: one request object for the same bytes of a head. Fails if an arrival keeps more than it may.
def test_a_head_that_comes_again_is_asked_about_again():
    scene = Scene(quota(2))
    pairs = [(b"Host", b"h"), (b"X-Api-Key", b"ann")]
    request = read_request(("GET", b"/a", 1), pairs, HeadLimits())

    def again():
        scene.client = PaperClient()
        serve(scene.context, request, scene.client)
        if not scene.client.ended:
            scene.call.connect().respond()
        return scene.client.status

    assert [again(), again(), again()] == [200, 200, 429]
    scene.keys.register("ann", BOB)
    assert again() == 200
    scene.context.policies.apply(policy(quota(1_000), version="v2"))
    assert again() == 200
    scene.keys.revoke("ann")
    assert again() == 401
    scene.keys.register("ann", ANN)
    scene.clock.turn(40 * 86_400_000_000)
    assert again() == 200
    found = [orjson.loads(entry.body)["data"] for entry in scene.journal.of("records")]
    assert [record["customer"] for record in found] == ["cust-ann"] * 2 + ["cust-bob"] * 2 + ["cust-ann"]
    periods = [record["decision"]["limits"][0]["period"] for record in found]
    assert periods[0] != periods[-1]
    assert found[-1]["decision"]["limits"][0]["used"] == 1


BETA = Route("beta", headers=((b"x-beta", frozenset({b"1"})),), upstream="beta")


@pytest.mark.parametrize(
    ("fields", "route"),
    [(["X-Beta: 1"], "beta"), (["X-Beta: 2"], "rest"), ([], "rest")],
)
def test_a_request_takes_the_route_of_its_headers(fields, route):
    scene = Scene(routes=[BETA, Route("rest")])
    scene.ask(*fields)
    scene.call.connect().respond()
    assert (scene.client.status, scene.record["route"]) == (200, route)


def test_a_request_takes_the_route_of_its_host_and_others_are_not_found():
    # Fails if the host is not handed to the policy.
    found = {}
    for host in ("h", "H:80", "other"):
        scene = Scene(routes=[Route("here", host="h")])
        request = read_request(("GET", b"/a", 1), [(b"Host", host.encode()), (b"X-Api-Key", b"ann")], HeadLimits())
        scene.client = PaperClient()
        serve(scene.context, request, scene.client)
        if scene.upstream.calls:
            scene.call.connect().respond()
        found[host] = scene.client.status
    assert found == {"h": 200, "H:80": 200, "other": 404}
