"""What the gateway adds to heads, and takes out of them."""

from ipaddress import ip_network

import pytest

from sidecar.core.http.request import HeadLimits, read_request
from sidecar.core.identity import Source, digest, make_key
from sidecar.core.policy import PRESERVE
from sidecar.gateway import serve
from sidecar.gateway.fields import GatewayOptions
from sidecar.ports import Keys
from sidecar.testing import PaperClient
from tests.stage import ANN, Setting, quota


class Scene(Setting):
    def ask(self, *fields, key="ann", peer="192.0.2.7", tls=False, target=b"/a", method="GET"):
        pairs = [(b"Host", b"h"), *(tuple(field.encode().split(b": ", 1)) for field in fields)]
        if key:
            pairs.append((b"X-Api-Key", key.encode()))
        self.client = PaperClient(peer, tls=tls)
        return serve(self.context, read_request((method, target, 1), pairs, HeadLimits()), self.client)

    def up(self):
        """The fields of the last head that went up."""
        return {name.decode(): value.decode() for name, value in self.upstream.calls[-1].head.fields}

    def down(self, *fields, status=200, body=b""):
        self.upstream.calls[-1].connect().respond(status, body, *fields)
        return [f"{name.decode()}: {value.decode()}" for name, value in self.client.fields]


def text(call):
    head = call.head
    return b"\r\n".join([head.target.encode(), *(b"%b: %b" % field for field in head.fields)])


# The way up.


def test_the_upstream_learns_who_asks_through_whom_and_by_which_id():
    scene = Scene()
    scene.ask(tls=True)
    assert scene.up() == {
        "Via": "1.1 sidecar-here",
        "X-Forwarded-For": "192.0.2.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "h",
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
    head = text(scene.upstream.calls[0])
    assert (b"ann" in head) is kept
    assert b"b=1" in head or not target.endswith(b"b=1")


def test_a_client_that_names_no_host_has_none_passed_on():
    # HTTP/1.0. Fails if an empty X-Forwarded-Host goes up.
    scene = Scene()
    serve(scene.context, read_request(("GET", b"/a", 0), [(b"X-Api-Key", b"ann")], HeadLimits()), PaperClient())
    assert "X-Forwarded-Host" not in scene.up()


GEMINI = (Source("header", "X-Goog-Api-Key"), Source("query", "key"))


# Fails if the query with the key goes up, because the target is the client's own, or if `?` is left behind.
@pytest.mark.parametrize(
    ("target", "sent"),
    [
        (b"/a//%2f?b=%2f&key=ann&c=//", "/a//%2f?b=%2f&c=//"),
        (b"/a//b?key=ann", "/a//b"),
        (b"/a?key=ann", "/a"),
        (b"http://h/a//b?key=ann&&c", "/a//b?&c"),
    ],
)
def test_the_key_in_the_query_of_a_preserved_target_stays_here(target, sent):
    scene = Scene(paths=PRESERVE, sources=GEMINI)
    scene.ask(key="", target=target)
    assert scene.upstream.calls[-1].head.target == sent
    scene = Scene(paths=PRESERVE, sources=GEMINI, keep_credential=True)
    scene.ask(key="", target=target)
    assert scene.upstream.calls[-1].head.target == target.decode().removeprefix("http://h")


# RFC 9110 §7.6.2. Fails if it goes up as it came, or is read of a GET.
@pytest.mark.parametrize(
    ("method", "value", "passed_on"),
    [("OPTIONS", "7", "6"), ("OPTIONS", "1", "0"), ("GET", "0", "0"), ("GET", "x", "x")],
)
def test_an_options_request_may_be_forwarded_once_less(method, value, passed_on):
    scene = Scene()
    for _ in range(2):
        scene.ask(f"Max-Forwards: {value}", method=method)
        assert scene.up()["Max-Forwards"] == passed_on


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (["Max-Forwards: 0"], 204),
        (["Max-Forwards: -1"], 400),
        (["Max-Forwards: 1, 2"], 400),
        (["Max-Forwards: 1", "Max-Forwards: 2"], 400),
        (["Max-Forwards: 1" + 20 * "0"], 400),
    ],
)
def test_an_options_request_that_may_not_be_forwarded_is_answered_here(fields, status):
    scene = Scene()
    scene.ask(*fields, method="OPTIONS")
    assert (scene.client.status, scene.upstream.calls, scene.journal.entries) == (status, [], [])
    if status == 204:
        assert scene.client.fields == [(b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")]


class Remembers(Keys):
    """Keys that are known without waiting."""

    def __init__(self, *digests):
        self.digests = digests

    def known(self, digest):
        return ANN if digest in self.digests else None


# bugs 05. Fails if the house takes out what the source reads and nothing else. The head is the second time a kept one.
@pytest.mark.parametrize("kept", [True, False])
def test_a_key_sent_twice_stays_here_unless_the_route_keeps_it(kept):
    scene = Scene(keep_credential=kept)
    other = make_key(b"b" * 20)
    scene.context.heads.keys = scene.context.keys = Remembers(digest(b"ann"), digest(b"other"))
    fields = ("Authorization: Bearer {}", "Cookie: a=b; k={}", "X-Auth: {}")
    for _ in range(2):
        scene.ask(*[field.format("ann") for field in fields], target=b"/a?b=1&k=ann")
        scene.ask("Authorization: Bearer other")
        scene.ask(f"X-Note: {other}")
    heads = [text(call) for call in scene.upstream.calls]
    assert [head.count(b"ann") for head in heads] == ([5, 1, 1] if kept else [0, 0, 0]) * 2
    assert [b"other" in head or other.encode() in head for head in heads] == [False, kept, kept] * 2
    assert b"b=1" in heads[0]
    assert b"Cookie: a=b" in heads[0]


@pytest.mark.parametrize(("peer", "believed"), [("10.1.2.3", True), ("192.0.2.7", False), ("", False), ("unix", False)])
def test_only_named_proxies_are_believed(peer, believed):
    scene = Scene(options=GatewayOptions("here", trusted=(ip_network("10.0.0.0/8"),)))
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
        serve(scene.context, request, PaperClient())
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


def test_the_answer_has_the_upstreams_fields_its_id_and_what_is_left():
    scene = Scene(quota(10))
    exchange = scene.ask()
    *lines, left = scene.down((b"A", b"1"), (b"Via", b"1.1 x"), body=b"hi")
    assert lines == ["A: 1", 'RateLimit-Policy: "monthly";q=10;w=2592000']
    assert left.startswith('RateLimit: "monthly";r=9;t=')
    assert (scene.client.request_id, scene.client.content) == (exchange.id, b"hi")


@pytest.mark.parametrize(
    ("options", "plain", "prefixed"),
    [
        (GatewayOptions("x"), True, False),
        (GatewayOptions("x", x_limit_headers=True), True, True),
        (GatewayOptions("x", limit_headers=False), False, False),
    ],
)
def test_limits_are_told_as_the_operator_says(options, plain, prefixed):
    scene = Scene(options=options)
    scene.ask()
    names = {line.partition(":")[0] for line in scene.down()}
    assert ("RateLimit" in names, "X-RateLimit-Limit" in names) == (plain, prefixed)


# Never made more generous: what the upstream says of its own limits stays as it is.
def test_an_upstreams_own_limits_are_passed_on_instead_of_ours():
    scene = Scene()
    scene.ask()
    found = [line for line in scene.down((b"RateLimit", b'"theirs";r=1;t=1')) if line.startswith("RateLimit")]
    assert found == ['RateLimit: "theirs";r=1;t=1']
