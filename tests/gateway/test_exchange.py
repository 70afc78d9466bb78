"""The life of a request, over the shipped doubles: who may, what goes up, what comes down, what is told."""

import orjson
import pytest

from sidecar.app.house import Manner
from sidecar.core.errors import StoreError
from sidecar.core.http.request import HeadLimits, read_request
from sidecar.core.identity import make_key
from sidecar.core.policy import Plan, Route
from sidecar.gateway import REPLAY_BYTES, serve
from sidecar.testing import PaperClient
from tests.gateway.scene import SLOTS, Scene
from tests.stage import ANN, BOB, policy, quota

# The way in.


def test_an_exchange_is_opened_answered_recorded_and_counted():
    scene = Scene(quota(10))
    scene.ask()
    assert [entry.stream for entry in scene.journal.entries] == ["open"]
    scene.call.connect().respond(200, b"hi")
    assert (scene.client.status, scene.client.ended) == (200, "kept")
    assert (scene.record["usage"]["requests"], scene.counters.used("monthly")) == (1, 1)
    assert scene.tally.answers[0][:2] == ("api", 200)
    assert scene.at_rest()


@pytest.mark.parametrize(
    ("fields", "key", "status", "slug"),
    [
        ((), "", 401, "key-missing"),
        ((), "nobody", 401, "key-unknown"),
        (("X-Api-Key: bob",), "ann", 400, "ambiguous-credential"),
        (("Via: 1.1 sidecar-here",), "ann", 508, "loop"),
    ],
)
def test_who_cannot_be_known_reaches_nobody_and_leaves_no_record(fields, key, status, slug):
    scene = Scene()
    scene.ask(*fields, key=key)
    assert (scene.client.status, scene.problem) == (status, slug)
    assert (scene.upstream.calls, scene.journal.entries) == ([], [])
    assert scene.at_rest()


# Fails if a mistyped key is looked up: a store would be asked about every typo.
def test_a_mistyped_key_is_refused_without_a_look_up():
    scene = Scene()
    key = make_key(bytes(20))
    scene.ask(key=key[:-1] + ("a" if key[-1] != "a" else "b"))
    assert (scene.client.status, scene.keys.asked) == (401, [])


def test_keys_that_cannot_be_looked_up_are_503():
    scene = Scene()
    scene.keys.fails = StoreError("away")
    scene.ask()
    assert (scene.client.status, scene.problem) == (503, "keys-unavailable")
    assert b"Retry-After: 1\r\n" in scene.client.sent


def test_a_path_that_no_route_matches_is_404():
    scene = Scene(routes=[Route("x", "/x")])
    scene.ask()
    assert (scene.client.status, scene.problem) == (404, "no-route")


def test_a_plan_that_lacks_the_feature_is_403():
    scene = Scene(feature="chat")
    scene.ask()
    assert (scene.client.status, scene.problem, scene.members["plans"]) == (403, "feature-missing", ["pro"])


# Fails if the customer's own terms are not asked for.
def test_a_customer_with_terms_of_its_own_has_those():
    scene = Scene(quota(1), customers={"cust-ann": Plan("free", "free@1+", (quota(2),))})
    for key in ("ann", "ann", "bob"):
        scene.ask(key=key)
        scene.call.connect().respond()
    statuses = []
    for key in ("ann", "bob"):
        scene.ask(key=key)
        statuses.append(scene.client.status)
    assert statuses == [429, 429]
    labels = [orjson.loads(entry.body)["data"]["plan"] for entry in scene.journal.of("records")]
    assert labels == ["free@1+", "free@1+", "free@1"]


# Kong metering plugin: a call with no subject was not recorded.
def test_traffic_that_policy_lets_through_unattributed_is_recorded():
    scene = Scene(unattributed="allow")
    scene.ask(key="")
    scene.call.connect().respond()
    [entry] = scene.journal.of("records")
    assert orjson.loads(entry.body)["type"] == "sidecar.unattributed.v1"
    assert scene.record["billable"] is False


# Limits.


# Kong docs #6586, unkey #1995. Fails if a denial is charged, or forwarded.
def test_a_denied_request_consumes_nothing_and_is_noted():
    scene = Scene(quota(1), SLOTS)
    for _ in range(3):
        scene.ask()
        if scene.upstream.calls and not scene.client.ended:
            scene.call.connect().respond()
    assert (scene.client.status, len(scene.upstream.calls), scene.counters.used("monthly")) == (429, 1, 1)
    assert scene.tally.denials == [("monthly", False)] * 2
    assert [orjson.loads(entry.body)["data"]["decision"]["violated"] for entry in scene.journal.of("denials")] == [
        "monthly"
    ] * 2
    assert scene.at_rest()


def test_the_answer_to_a_limit_says_which_and_when():
    scene = Scene(SLOTS)
    scene.ask()
    scene.ask()
    assert scene.client.status == 429
    assert b"RateLimit: " in scene.client.sent
    assert b"Retry-After: " in scene.client.sent


def test_a_shadow_limit_is_told_to_the_probe_alone():
    scene = Scene(quota(1, stage="shadow"))
    for _ in range(2):
        scene.ask()
        scene.call.connect().respond()
    assert (scene.client.status, scene.tally.denials) == (200, [("monthly", True)])


# Fails if a store that does not answer is let past as an answer.
def test_counters_that_do_not_answer_are_no_permission():
    scene = Scene()
    scene.counters.fails = StoreError("away")
    scene.ask()
    assert (scene.client.status, scene.upstream.calls) == (503, [])
    assert scene.at_rest()


# Fails if soft denies, or if the warning goes by the switch for the RateLimit fields.
def test_a_soft_limit_lets_pass_and_warns():
    scene = Scene(quota(1, stage="soft", link="https://x/up"), manner=Manner("here", limit_headers=False))
    warning = b'Sidecar-Warning: limit "monthly" is used up; see https://x/up\r\n'
    seen = []
    for _ in range(2):
        scene.ask()
        scene.call.connect().respond()
        seen.append((scene.client.status, warning in scene.client.sent))
    assert seen == [(200, False), (200, True)]
    assert scene.tally.denials == [("monthly", True)]


def test_a_denial_says_where_to_get_more():
    scene = Scene(quota(1, link="https://x/up"))
    scene.ask()
    scene.ask()
    assert scene.members["link"] == "https://x/up"


def alerts(scene):
    found = [orjson.loads(entry.body) for entry in scene.journal.of("records")]
    return [event["data"]["percent"] for event in found if event["type"] == "sidecar.alert.v1"]


# Fails if alerts are told before their record is written, or looked for on denials no more.
def test_a_threshold_that_is_passed_is_written_down_and_then_told_no_more():
    scene = Scene(quota(4, alerts=(50, 100)))
    for _ in range(5):
        scene.ask()
        if not scene.client.ended:
            scene.call.connect().respond()
    assert alerts(scene) == [50, 100]
    assert len(scene.alerts.written) == 2


def test_an_alert_that_could_not_be_written_is_told_again():
    scene = Scene(quota(2, alerts=(50,)))
    scene.journal.broken = True
    scene.ask()
    assert scene.alerts.written == []
    scene.journal.broken = False
    scene.ask()
    assert (alerts(scene), len(scene.alerts.written)) == ([50], 1)


# The order of things.


# Fails if the upstream is asked before the journal has called back.
def test_nothing_goes_up_before_the_open_entry_is_safe():
    scene = Scene()
    scene.journal.holding = True
    scene.ask()
    assert scene.upstream.calls == []
    scene.journal.let_go()
    assert len(scene.upstream.calls) == 1


def test_an_open_entry_that_cannot_be_written_is_503():
    scene = Scene()
    scene.journal.broken = True
    scene.ask()
    assert (scene.client.status, scene.problem, scene.upstream.calls) == (503, "journal-failed", [])


# Bodies.


def test_a_body_is_held_until_there_is_a_connection_and_sent_again_on_the_next():
    scene = Scene()
    scene.ask("Content-Length: 6", method="PUT")
    scene.exchange.on_body(b"abc")
    first = scene.call.connect()
    scene.exchange.on_body(b"def")
    scene.exchange.on_body_end([(b"X-Sum", b"1"), (b"X-Api-Key", b"evil")])
    assert (first.body, first.trailers) == (b"abcdef", [(b"X-Sum", b"1")])
    assert scene.exchange.replayable()
    scene.exchange.on_retry()
    second = type(first)(first.request, first.head, first.caller).connect()
    assert (second.body, second.trailers) == (b"abcdef", [(b"X-Sum", b"1")])
    second.respond()
    assert (scene.record["attempts"], scene.record["bytes_in"]) == (2, 6)


# Fails if the body is taken in without bound while nobody drinks it.
def test_a_body_without_a_connection_pauses_its_client():
    scene = Scene()
    scene.ask("Content-Length: 1000000", method="POST")
    scene.exchange.on_body(b"x" * REPLAY_BYTES)
    assert not scene.client.reading_paused
    scene.exchange.on_body(b"x")
    assert scene.client.reading_paused
    call = scene.call.connect()
    assert (scene.client.reading_paused, len(call.body)) == (False, REPLAY_BYTES + 1)
    assert not scene.exchange.replayable()


# Fails if reading is resumed after the held body was written: the pause that it asked for would be lost.
def test_a_connection_that_is_full_at_once_keeps_its_client_paused():
    scene = Scene()
    exchange = scene.ask("Content-Length: 1000000", method="POST")
    exchange.on_body(b"x" * (REPLAY_BYTES + 1))
    scene.call.write = lambda _data: exchange.on_upstream_paused()
    scene.call.connect()
    assert scene.client.reading_paused
    exchange.on_upstream_resumed()
    assert not scene.client.reading_paused


def test_a_slow_client_pauses_its_upstream():
    scene = Scene()
    exchange = scene.ask()
    call = scene.call.connect()
    exchange.on_client_paused()
    assert call.reading_paused
    exchange.on_client_resumed()
    assert not call.reading_paused


def test_an_answer_before_the_end_of_the_body_cannot_be_sent_again():
    scene = Scene()
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


def test_the_go_ahead_comes_after_the_decision_and_an_upstreams_own_is_swallowed():
    scene = Scene()
    scene.counters.holding = True
    scene.ask("Expect: 100-continue", "Content-Length: 1", method="POST")
    assert scene.client.interims == []
    scene.counters.let_go()
    assert scene.client.interims == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    call = scene.call.connect()
    call.begin(100)
    call.begin(103, (b"Link", b"</x>"))
    assert scene.client.interims[1:] == [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"]


def test_the_answer_to_head_has_no_body_also_where_it_is_ours():
    scene = Scene()
    scene.ask(key="nobody", method="HEAD")
    assert scene.client.sent.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("wanted", [True, False])
def test_trailers_go_down_where_they_are_wanted_and_allowed(wanted):
    scene = Scene()
    scene.ask(*(["TE: trailers", "Connection: TE"] if wanted else []))
    call = scene.call.connect()
    call.begin(200, (b"Transfer-Encoding", b"chunked"))
    call.caller.on_response_trailers([(b"X-Sum", b"1"), (b"Set-Cookie", b"x")])
    call.go_on(b"", done=True)
    assert scene.client.sent.endswith(b"0\r\nX-Sum: 1\r\n\r\n" if wanted else b"0\r\n\r\n")
    assert b"Set-Cookie" not in scene.client.sent


def test_a_drain_says_close_on_every_answer():
    scene = Scene()
    scene.ask()
    scene.house.draining = True
    scene.call.connect().respond()
    assert (b"Connection: close\r\n" in scene.client.sent, scene.client.ended) == (True, "closed")
    scene.ask(key="nobody")
    assert (b"Connection: close\r\n" in scene.client.sent, scene.client.ended) == (True, "closed")


def test_a_trace_is_carried_on_and_recorded():
    scene = Scene()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    scene.ask(f"traceparent: {trace}", "tracestate: a=b")
    scene.call.connect().respond()
    assert f"traceparent: {trace}\r\ntracestate: a=b\r\n".encode() in scene.call.head
    assert orjson.loads(scene.journal.of("records")[0].body)["traceparent"] == trace


def test_a_trace_that_is_none_goes_no_further():
    scene = Scene()
    scene.ask("traceparent: x", "tracestate: a=b")
    assert b"trace" not in scene.call.head


# I3, I7: one request object for the same bytes of a head. Fails if an arrival keeps more than it may.
def test_a_head_that_comes_again_is_asked_about_again():
    scene = Scene(quota(2))
    pairs = [(b"Host", b"h"), (b"X-Api-Key", b"ann")]
    request = read_request(("GET", b"/a", 1), pairs, HeadLimits())

    def again():
        scene.client = PaperClient()
        serve(scene.house, request, scene.client)
        if not scene.client.ended:
            scene.call.connect().respond()
        return scene.client.status

    assert [again(), again(), again()] == [200, 200, 429]
    scene.keys.register("ann", BOB)
    assert again() == 200
    scene.house.put_in_force(policy(quota(1_000), version="v2"))
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
