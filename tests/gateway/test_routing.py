"""What is kept with a head that is sent again."""

import orjson
import pytest

from sidecar.core.http.cors import Cors
from sidecar.core.http.request import HeadLimits, read_request
from sidecar.core.identity import Source
from sidecar.core.policy import PRESERVE, REFUSE, Route
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


PAGE = "https://app.example"
CORS = Cors(frozenset({PAGE}))
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


# Spellings of paths.

WAYS = [Route("files", "/files/**", paths=PRESERVE), Route("gated", "/admin/**", feature="chat"), Route("rest")]


# Fails if the answer is kept with the head for another policy, or if the record has the spelling as its path.
def test_a_preserved_target_goes_up_as_it_was_written_each_time_and_under_each_policy():
    scene = Scene(routes=WAYS)
    pairs = [(b"Host", b"h"), (b"X-Api-Key", b"ann")]
    request = read_request(("GET", b"/files//a%2fb", 1), pairs, HeadLimits())
    for _ in range(2):
        serve(scene.context, request, PaperClient())
        assert scene.call.head.target == "/files//a%2fb"
        scene.call.connect().respond()
    data = [orjson.loads(entry.body)["data"] for entry in scene.journal.of("records")]
    assert [(each["route"], each["path"]) for each in data] == [("files", "/files/a%2Fb")] * 2
    scene.context.policies.apply(policy(routes=[Route("files", "/files/**")], version="v2"))
    client = PaperClient()
    serve(scene.context, request, client)
    assert (client.status, len(scene.upstream.calls)) == (400, 2)


def test_a_resent_request_has_its_target_as_it_was_written():
    scene = Scene(routes=WAYS)
    scene.ask(target=b"/files/%61")
    scene.exchange.on_retry()
    assert scene.call.head.target == "/files/%61"


# Fails if the route of the normal form alone decides.
@pytest.mark.parametrize(
    "target", [b"/files/a/../../admin/x", b"/files%2F..%2Fadmin", b"/files/..%5Cadmin", b"//files/a"]
)
def test_a_spelling_that_may_leave_its_route_is_refused_and_counted(target):
    scene = Scene(routes=[Route("files", "/files/**", paths=PRESERVE), Route("rest", paths=PRESERVE)])
    scene.ask(target=target)
    assert (scene.client.status, scene.problem, scene.upstream.calls) == (400, "ambiguous-path", [])
    assert scene.tally.counts["refused|ambiguous-path"] == 1
    assert scene.at_rest()


def test_a_route_that_refuses_says_and_counts_which_spelling():
    scene = Scene(paths=REFUSE)
    for target in (b"/a//b", b"/%61", b"/a//b"):
        scene.ask(target=target)
    assert "several slashes in a row" in scene.members["detail"]
    assert scene.tally.counts["refused|path-double-slash"] == 2
    assert scene.tally.counts["refused|path-encoded-character"] == 1
    scene.ask(target=b"/a/b?c=//%61")
    assert scene.call.head.target == "/a/b?c=//%61"


# A page learns why, as of any other refusal. Fails if a target is judged before its route is known.
def test_a_refused_spelling_is_answered_with_the_cors_of_its_route_and_no_route_is_still_400():
    scene = Scene(routes=[Route("a", "/a/**", cors=CORS)])
    scene.ask(f"Origin: {PAGE}", target=b"/a/b%2Fc")
    names = {name for name, _ in scene.client.fields}
    assert (scene.client.status, b"Access-Control-Allow-Origin" in names) == (400, True)
    scene.ask(target=b"/b%2Fc")
    assert (scene.client.status, scene.problem) == (400, "ambiguous-path")
    scene.ask(target=b"/b//c")
    assert (scene.client.status, scene.problem) == (404, "no-route")


# CORS.

PREFLIGHT = (f"Origin: {PAGE}", "Access-Control-Request-Method: POST")


# emissary-ingress #2030, Kong #1292. Fails if a preflight needs a key.
@pytest.mark.parametrize("unattributed", ["deny", "allow"])
@pytest.mark.parametrize("target", [b"/a", b"/a?key=ann"])
def test_a_preflight_is_answered_without_key_limit_record_or_upstream(unattributed, target):
    sources = (Source("header", "X-Api-Key"), Source("query", "key"))
    scene = Scene(quota(1), cors=CORS, unattributed=unattributed, sources=sources)
    for _ in range(3):
        scene.ask(*PREFLIGHT, key="", method="OPTIONS", target=target)
        assert scene.client.status == 204
        assert dict(scene.client.fields)[b"Access-Control-Allow-Origin"] == PAGE.encode()
        assert [name for name, _ in scene.client.fields].count(b"Vary") == 1
    assert scene.upstream.calls == []
    assert scene.journal.of("records") == scene.journal.of("denials") == []
    assert scene.counters.used("monthly") == 0
    assert scene.tally.counts["refused|preflight"] == 3
    assert scene.at_rest()


def test_a_preflight_belongs_to_the_route_of_the_request_that_it_announces():
    ways = [Route("write", "/a", frozenset({"POST"}), cors=CORS), Route("rest", "/**")]
    scene = Scene(routes=ways)
    scene.ask(*PREFLIGHT, key="", method="OPTIONS")
    assert (scene.client.status, scene.exchange.route) == (204, "write")
    scene.ask(f"Origin: {PAGE}", "Access-Control-Request-Method: GET", key="", method="OPTIONS")
    assert (scene.client.status, scene.exchange.route) == (401, "rest")


@pytest.mark.parametrize("fields", [(), (f"Origin: {PAGE}",), ("Access-Control-Request-Method: POST",)])
def test_other_options_go_up_as_before(fields):
    scene = Scene(cors=CORS)
    scene.ask(*fields, method="OPTIONS")
    assert scene.call.head.method == "OPTIONS"


def test_a_preflight_on_a_route_without_cors_is_a_request_as_any_other():
    scene = Scene()
    scene.ask(*PREFLIGHT, key="", method="OPTIONS")
    assert scene.problem == "key-missing"
    # Fails if the client is not told where this route reads the key.
    assert "send it in the header X-Api-Key" in scene.members["detail"]
