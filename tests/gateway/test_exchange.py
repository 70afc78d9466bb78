"""The life of a request, over the shipped doubles: who may, what goes up, what comes down, what is told."""

import gc
from ipaddress import ip_network

import orjson
import pytest

from sidecar.gateway import REPLAY_BYTES, GatewayOptions
from sidecar.gateway.routing import RoutedRequest
from tests.gateway.scene import Scene
from tests.stage import quota

# The order of things.


# Fails if the upstream is asked before the journal has called back.
def test_nothing_goes_up_before_the_open_entry_is_safe(scene):
    scene.journal.holding = True
    scene.ask()
    assert scene.upstream.calls == []
    scene.journal.let_go()
    assert len(scene.upstream.calls) == 1


def test_an_open_entry_that_cannot_be_written_is_503(scene):
    scene.journal.broken = True
    scene.ask()
    assert (scene.client.status, scene.problem, scene.upstream.calls) == (503, "journal-failed", [])


# Fails if what is kept with a head refers back to it: then each new head stays until a collection, which costs 3 %.
def test_heads_that_differ_leave_nothing_to_the_garbage_collector(scene):
    gc.collect()
    gc.disable()
    try:
        for number in range(20):
            scene.ask(target=b"/a%d" % number)
            scene.upstream.calls.pop().connect().respond()
            assert scene.client.status == 200
        left = sum(type(each) is RoutedRequest for each in gc.get_objects())
    finally:
        gc.enable()
    assert left <= 1  # the scene's last


# Bodies.


def test_a_body_is_held_until_there_is_a_connection_and_sent_again_on_the_next(scene):
    scene.ask("Content-Length: 6", method="PUT")
    scene.exchange.on_body(b"abc")
    first = scene.call.connect()
    scene.exchange.on_body(b"def")
    scene.exchange.on_body_end([(b"X-Sum", b"1"), (b"X-Api-Key", b"evil")])
    assert (first.body, first.trailers) == (b"abcdef", [(b"X-Sum", b"1")])
    assert scene.exchange.replayable()
    scene.exchange.on_retry()
    second = type(first)(first.head, first.caller).connect()
    assert (second.body, second.trailers) == (b"abcdef", [(b"X-Sum", b"1")])
    second.respond()
    assert (scene.record["attempts"], scene.record["bytes_in"]) == (2, 6)


# Fails if the body is taken in without bound while nobody drinks it.
def test_a_body_without_a_connection_pauses_its_client(scene):
    scene.ask("Content-Length: 1000000", method="POST")
    scene.exchange.on_body(b"x" * REPLAY_BYTES)
    assert not scene.client.reading_paused
    scene.exchange.on_body(b"x")
    assert scene.client.reading_paused
    call = scene.call.connect()
    assert (scene.client.reading_paused, len(call.body)) == (False, REPLAY_BYTES + 1)
    assert not scene.exchange.replayable()


# Fails if reading is resumed after the held body was written: the pause that it asked for would be lost.
def test_a_connection_that_is_full_at_once_keeps_its_client_paused(scene):
    exchange = scene.ask("Content-Length: 1000000", method="POST")
    exchange.on_body(b"x" * (REPLAY_BYTES + 1))
    scene.call.write = lambda _data: exchange.on_upstream_paused()
    scene.call.connect()
    assert scene.client.reading_paused
    exchange.on_upstream_resumed()
    assert not scene.client.reading_paused


def test_a_slow_client_pauses_its_upstream(scene):
    exchange = scene.ask()
    call = scene.call.connect()
    exchange.on_client_paused()
    assert call.reading_paused
    exchange.on_client_resumed()
    assert not call.reading_paused


def test_an_answer_before_the_end_of_the_body_cannot_be_sent_again(scene):
    scene.ask("Content-Length: 6", method="PUT")
    call = scene.call.connect()
    scene.exchange.on_body(b"abc")
    call.begin(200, (b"Content-Length", b"2"))
    assert not scene.exchange.replayable()


def test_a_body_longer_than_its_route_allows_is_413():
    scene = Scene(max_body_bytes=5)
    scene.ask("Content-Length: 6", method="POST")
    assert (scene.client.status, scene.journal.entries) == (413, [])


# What is told.


def test_the_go_ahead_comes_after_the_decision_and_an_upstreams_own_is_swallowed(scene):
    scene.counters.holding = True
    scene.ask("Expect: 100-continue", "Content-Length: 1", method="POST")
    assert scene.client.interims == []
    scene.counters.let_go()
    assert [head.status for head in scene.client.interims] == [100]
    call = scene.call.connect()
    call.begin(100)
    call.begin(103, (b"Link", b"</x>"))
    assert [(head.status, head.headers) for head in scene.client.interims[1:]] == [(103, [(b"Link", b"</x>")])]


@pytest.mark.parametrize("wanted", [True, False])
def test_trailers_go_down_where_they_are_wanted_and_allowed(wanted, scene):
    scene.ask(*(["TE: trailers", "Connection: TE"] if wanted else []))
    call = scene.call.connect()
    call.begin(200, (b"Transfer-Encoding", b"chunked"))
    call.caller.on_response_trailers([(b"X-Sum", b"1"), (b"Set-Cookie", b"x")])
    call.send_body(b"", done=True)
    assert scene.client.trailers == ([(b"X-Sum", b"1")] if wanted else [])


def test_a_trace_is_carried_on_and_recorded(scene):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    scene.ask(f"traceparent: {trace}", "tracestate: a=b")
    scene.call.connect().respond()
    assert {(b"traceparent", trace.encode()), (b"tracestate", b"a=b")} <= {*scene.call.head.fields}
    assert orjson.loads(scene.journal.of("records")[0].body)["traceparent"] == trace


def test_a_trace_that_is_none_goes_no_further(scene):
    scene.ask("traceparent: x", "tracestate: a=b")
    assert not {b"traceparent", b"tracestate"} & dict(scene.call.head.fields).keys()


# Vendors name a request in one of several fields. Fails if the client gets two X-Request-Id, or the record neither.
@pytest.mark.parametrize(
    ("fields", "recorded", "shown"),
    [
        ([(b"X-Request-Id", b"req_1")], "req_1", []),
        ([(b"Request-Id", b"req_2")], "req_2", [(b"Request-Id", b"req_2")]),
        ([(b"x-amzn-RequestId", b"a-b")], "a-b", [(b"x-amzn-RequestId", b"a-b")]),
        ([(b"Request-Id", b"req_2"), (b"x-request-id", b"req_1")], "req_1", [(b"Request-Id", b"req_2")]),
        ([(b"X-Request-Id", b"two words")], None, []),
        ([(b"X-Request-Id", b"x" * 129)], None, []),
        ([(b"X-Request-Id", b"")], None, []),
        ([], None, []),
    ],
)
def test_the_upstream_s_id_is_recorded_and_the_client_gets_ours_alone(fields, recorded, shown):
    scene = Scene()
    scene.ask()
    scene.call.connect().respond(200, b"", *fields)
    assert scene.record.get("upstream_request_id") == recorded
    assert [field for field in scene.client.fields if b"request" in field[0].lower()] == shown


def test_an_upstream_that_repeats_our_id_has_none_of_its_own():
    scene = Scene()
    exchange = scene.ask()
    scene.call.connect().respond(200, b"", (b"X-Request-Id", exchange.id))
    assert "upstream_request_id" not in scene.record


# bugs 20. Fails if the id of any client is recorded: it could name another's request.
@pytest.mark.parametrize(
    ("peers", "fields", "recorded"),
    [
        ("192.0.2.0/24", ["X-Request-Id: edge-4711"], "edge-4711"),
        ("192.0.2.0/24", ["X-Request-Id: edge\u00e9"], None),
        ("192.0.2.0/24", [], None),
        ("198.51.100.0/24", ["X-Request-Id: edge-4711"], None),
    ],
)
def test_the_id_of_a_trusted_proxy_is_recorded_beside_ours(peers, fields, recorded):
    scene = Scene(quota(2), options=GatewayOptions("here", trusted=(ip_network(peers),)))
    for _ in range(2):
        scene.ask(*fields)
        assert b"edge-4711" not in dict(scene.call.head.fields).values()
        scene.call.connect().respond()
    records = [orjson.loads(entry.body)["data"] for entry in scene.journal.of("records")]
    assert [record.get("client_request_id") for record in records] == [recorded] * 2
    scene.ask(*fields)
    [denial] = scene.journal.of("denials")
    assert orjson.loads(denial.body)["data"].get("client_request_id") == recorded
