from ipaddress import ip_network

import pytest

from sidecar.app.house import Manner
from sidecar.core.http.request import HeadLimits, read_request
from sidecar.core.identity import Source
from sidecar.core.policy import Route
from sidecar.gateway import serve
from sidecar.testing import PaperClient, ScriptedUpstream
from tests.stage import ANN, Setting, policy, quota


class Scene(Setting):
    def ask(self, *fields, key="ann", peer="192.0.2.7", tls=False, target=b"/a"):
        pairs = [(b"Host", b"h"), *(tuple(field.encode().split(b": ", 1)) for field in fields)]
        if key:
            pairs.append((b"X-Api-Key", key.encode()))
        self.client = PaperClient(peer, tls=tls)
        return serve(self.house, read_request(("GET", target, 1), pairs, HeadLimits()), self.client)

    def up(self):
        """The field lines of the last head that went up."""
        line, *fields = self.upstream.calls[-1].head.decode().split("\r\n")[:-2]
        return {name: value for name, _, value in (field.partition(": ") for field in fields)} | {"": line}

    def down(self, *fields, status=200, body=b""):
        self.upstream.calls[-1].connect().respond(status, body, *fields)
        line, *lines = self.client.sent.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        return [line, *lines]


# The way up.


def test_the_upstream_learns_who_asks_through_whom_and_by_which_id():
    scene = Scene()
    exchange = scene.ask(tls=True)
    assert scene.up() == {
        "": "GET /a HTTP/1.1",
        "Host": "h",
        "Via": "1.1 sidecar-here",
        "X-Forwarded-For": "192.0.2.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "h",
        "X-Request-Id": exchange.id.decode(),
    }


@pytest.mark.parametrize(
    ("source", "fields", "target"),
    [
        (Source("header", "X-Api-Key"), ["X-Api-Key: ann"], b"/a"),
        (Source("bearer"), ["Authorization: Bearer ann"], b"/a"),
        (Source("query", "key"), [], b"/a?key=ann&b=1"),
    ],
)
@pytest.mark.parametrize("kept", [True, False])
def test_the_credential_stays_here_unless_the_route_keeps_it(source, fields, target, kept):
    scene = Scene(sources=(source,), keep_credential=kept)
    scene.ask(*fields, key="", target=target)
    head = scene.upstream.calls[0].head
    assert (b"ann" in head) is kept
    assert b"b=1" in head or not target.endswith(b"b=1")


@pytest.mark.parametrize(("peer", "believed"), [("10.1.2.3", True), ("192.0.2.7", False), ("", False), ("unix", False)])
def test_only_named_proxies_are_believed(peer, believed):
    scene = Scene(manner=Manner("here", trusted=(ip_network("10.0.0.0/8"),)))
    scene.ask("X-Forwarded-For: 1.1.1.1", "X-Forwarded-Proto: https", "Forwarded: for=1.1.1.1", peer=peer)
    up = scene.up()
    assert ("1.1.1.1" in up["X-Forwarded-For"]) is believed
    assert (up["X-Forwarded-Proto"] == "https") is believed
    assert ("Forwarded" in up) is believed
    assert (peer or "unknown") in up["X-Forwarded-For"]


# Fails if the lines are kept with the head although they change with the key's identity.
def test_the_identity_is_handed_on_where_the_route_says_so_and_is_always_that_of_now():
    scene = Scene(identity_headers=True)
    request = read_request(
        ("GET", b"/a", 1), [(b"Host", b"h"), (b"X-Api-Key", b"ann"), (b"X-Sidecar-Customer", b"x")], HeadLimits()
    )
    for customer in ("cust-ann", "cust-other"):
        serve(scene.house, request, PaperClient())
        up = scene.up()
        assert (up["X-Sidecar-Customer"], up["X-Sidecar-Plan"]) == (customer, "free@1")
        scene.upstream.calls[-1].connect().respond()
        scene.keys.register("ann", type(ANN)("k2", "s2", "cust-other", "free"))


def test_the_clients_own_via_is_carried_on_and_a_loop_is_noticed_by_our_name_alone():
    scene = Scene()
    scene.ask("Via: 1.0 a, 1.1 sidecar-hereafter")
    assert scene.up()["Via"] == "1.0 a, 1.1 sidecar-hereafter, 1.1 sidecar-here"


# Fails if the list is split at blanks alone: a proxy between us and ourselves puts a comma behind our name.
@pytest.mark.parametrize(
    "value", ["1.1 sidecar-here", "1.0 a,1.1 sidecar-here", "1.1 sidecar-here, 1.1 nginx", "1.1 sidecar-here,1.1 b"]
)
def test_a_request_that_has_been_here_before_is_508(value):
    scene = Scene()
    scene.ask(f"Via: {value}")
    assert (scene.client.status, scene.upstream.calls) == (508, [])


# The way down.


def test_the_answer_says_through_whom_and_by_which_id_and_what_is_left():
    scene = Scene(quota(10))
    exchange = scene.ask()
    assert scene.down((b"A", b"1"), body=b"hi") == [
        "HTTP/1.1 200 OK",
        "A: 1",
        "Content-Length: 2",
        "Via: 1.1 sidecar-here",
        f"X-Request-Id: {exchange.id.decode()}",
        'RateLimit-Policy: "monthly";q=10;w=2592000',
        next(
            line for line in scene.client.sent.decode().split("\r\n") if line.startswith('RateLimit: "monthly";r=9;t=')
        ),
    ]


@pytest.mark.parametrize(
    ("manner", "plain", "prefixed"),
    [
        (Manner("x"), True, False),
        (Manner("x", x_limit_headers=True), True, True),
        (Manner("x", limit_headers=False), False, False),
    ],
)
def test_limits_are_told_as_the_operator_says(manner, plain, prefixed):
    scene = Scene(manner=manner)
    scene.ask()
    names = {line.partition(":")[0] for line in scene.down()}
    assert ("RateLimit" in names, "X-RateLimit-Limit" in names) == (plain, prefixed)


# Never made more generous: what the upstream says of its own limits stays as it is.
def test_an_upstreams_own_limits_are_passed_on_instead_of_ours():
    scene = Scene()
    scene.ask()
    found = [line for line in scene.down((b"RateLimit", b'"theirs";r=1;t=1')) if line.startswith("RateLimit")]
    assert found == ['RateLimit: "theirs";r=1;t=1']


# What is kept.


def test_what_a_request_asks_of_the_counters_is_one_object_for_a_window():
    scene = Scene(quota(10))
    for _ in range(2):
        scene.ask()
        scene.upstream.calls[-1].connect().respond()
    [first] = scene.house._checks.values()
    scene.clock.turn(40 * 86_400_000_000)
    scene.ask()
    [second] = scene.house._checks.values()
    assert (first.windows, first.until_us) != (second.windows, second.until_us)


# Fails if a cache outlives the policy that it was made from, or if the policy resets a counter (APISIX limit-count).
def test_a_new_policy_is_in_force_at_once_and_resets_no_counter():
    scene = Scene(quota(10))
    scene.ask()
    scene.upstream.calls[-1].connect().respond()
    other = ScriptedUpstream()
    scene.house._upstream_of = lambda _route: other
    scene.house.put_in_force(policy(quota(20), version="v2"))
    scene.ask()
    assert (len(scene.upstream.calls), len(other.calls)) == (1, 1)
    assert scene.house._checks
    other.calls[0].connect().respond()
    assert b'"monthly";r=18;' in scene.client.sent


# Fails if an exchange under way is asked about by the new policy's routes.
def test_an_exchange_under_way_keeps_the_terms_it_began_with():
    scene = Scene(quota(10), routes=[Route("old")])
    scene.keys.holding = True
    exchange = scene.ask()
    scene.house.put_in_force(policy(quota(20), version="v2", routes=[Route("new")]))
    scene.keys.holding = False
    scene.keys.let_go()
    scene.upstream.calls[0].connect().respond()
    assert (exchange.route, scene.client.status) == ("old", 200)


def test_the_house_is_idle_when_the_last_exchange_has_ended():
    scene = Scene()
    assert scene.house.idle.is_set()
    scene.ask()
    scene.ask()
    assert (scene.house.inflight, scene.house.idle.is_set()) == (2, False)
    for call in scene.upstream.calls:
        call.connect().respond()
    assert (scene.house.inflight, scene.house.idle.is_set()) == (0, True)


def test_the_time_that_we_added_is_told_without_the_upstreams():
    scene = Scene()
    scene.journal.holding = True
    scene.ask()
    scene.clock.turn(30)
    scene.journal.holding = False
    scene.journal.let_go()
    scene.clock.turn(1_000_000)
    scene.upstream.calls[0].connect().respond()
    assert scene.tally.answers == [("api", 200, 30)]
