import pytest

from sidecar.core.http import forward
from sidecar.core.http.request import HeadLimits, read_request
from sidecar.core.http.response import read_response
from sidecar.core.identity import Identity

BASE = [(b"Host", b"h")]


def request(*fields, method="GET", target=b"/a?b", minor=1):
    pairs = [tuple(field.encode().split(b": ", 1)) for field in fields]
    return read_request((method, target, minor), BASE + pairs, HeadLimits())


NO_CREDENTIAL = forward.dropped_with(frozenset())


def up(found, dropped=NO_CREDENTIAL):
    return lines(forward.request_fields(found, dropped))


def lines(fields):
    return [f"{name.decode()}: {value.decode()}" for name, value in fields]


@pytest.mark.parametrize(
    ("target", "query", "normal", "preserved"),
    [
        (b"/a?b", "b", "/a?b", "/a?b"),
        (b"/a//%62?b", "b", "/a/b?b", "/a//%62?b"),
        (b"/a//%62?b", "", "/a/b", "/a//%62"),
        (b"/a?", "", "/a", "/a?"),
        (b"http://h//a?b&c", "c", "/a?c", "//a?c"),
    ],
)
def test_a_target_goes_up_in_normal_form_or_as_it_was_written(target, query, normal, preserved):
    found = request(target=target)
    assert forward.upstream_target(found, query, preserve=False) == normal
    assert forward.upstream_target(found, query, preserve=True) == preserved


def answer(*fields, status=200, method="GET", minor=1, reason=b"OK"):
    pairs = [tuple(field.encode().split(b": ", 1)) for field in fields]
    return read_response((status, reason, minor), pairs, method)


def test_a_head_keeps_the_fields_that_are_the_clients_own():
    found = request("A: 1", "Content-Length: 010", method="POST", target=b"http://h//x/%7e?q")
    assert up(found) == ["A: 1"]


@pytest.mark.parametrize(
    "field",
    [
        "Connection: close",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: close",
        "Proxy-Authorization: x",
        "TE: gzip",
        "Trailer: X",
        "Upgrade: websocket",
        "HTTP2-Settings: x",
        "Proxy-Authenticate: x",
    ],
)
def test_hop_by_hop_fields_stay_on_their_hop(field):
    assert up(request(field, "A: 1")) == ["A: 1"]


@pytest.mark.parametrize("name", ["X-One", "x-two", "Cookie"])
def test_fields_that_connection_names_stay_on_their_hop(name):
    found = request("Connection: close, X-One ,X-TWO,cookie", f"{name}: 1", "A: 1")
    assert up(found) == ["A: 1"]


# I3. Fails if one of these names is taken out of what we say ourselves.
@pytest.mark.parametrize(
    "name",
    [
        "X-Sidecar-Customer",
        "x-sidecar-subject",
        "X-SIDECAR-KEY-ID",
        "X-Sidecar-Plan",
        "X-Forwarded-For",
        "Forwarded",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Real-IP",
        "X-Request-Id",
        "Via",
    ],
)
def test_who_the_caller_is_cannot_be_forged(name):
    assert up(request(f"{name}: evil")) == []


def test_the_credential_goes_and_all_of_its_name():
    found = request("X-Api-Key: secret", "Authorization: Bearer other")
    assert up(found, dropped=forward.dropped_with(frozenset({b"x-api-key"}))) == ["Authorization: Bearer other"]


def test_the_client_is_named_to_the_upstream_where_nobody_before_us_is_believed():
    assert lines(forward.forwarded("10.0.0.1", b"h", tls=True)) == [
        "X-Forwarded-For: 10.0.0.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: h",
    ]  # fmt: skip
    assert lines(forward.forwarded("", b"h", tls=False))[:2] == ["X-Forwarded-For: unknown", "X-Forwarded-Proto: http"]


def test_a_named_proxy_is_believed_and_put_behind_what_it_says():
    found = request(
        "X-Forwarded-For: 1.1.1.1", "x-forwarded-for: 2.2.2.2", "X-Forwarded-Proto: https", "Forwarded: for=x"
    )
    assert lines(forward.forwarded_on(found, "10.0.0.1", tls=False)) == [
        "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.1",
        "X-Forwarded-Proto: https",
        "Forwarded: for=x",
        "X-Forwarded-Host: h",
    ]


def test_a_named_proxy_that_says_nothing_is_the_client():
    assert (*forward.forwarded_on(request(), "10.0.0.1", tls=False),) == forward.forwarded("10.0.0.1", b"h", tls=False)


@pytest.mark.parametrize(
    ("fields", "minor", "value"),
    [
        ((), 1, b"1.1 us"),
        ((), 0, b"1.0 us"),
        (("Via: 1.0 a", "via: 1.1 b, 1.1 c"), 1, b"1.0 a, 1.1 b, 1.1 c, 1.1 us"),
    ],
)
def test_via_grows_by_us(fields, minor, value):
    assert forward.via(request(*fields, minor=minor), b"us") == (b"Via", value)


GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (GOOD, GOOD),
        ("cc" + GOOD[2:] + "-what-the-future-brings", "cc" + GOOD[2:] + "-what-the-future-brings"),
        (GOOD + "-x", ""),
        ("ff" + GOOD[2:], ""),
        (GOOD.upper(), ""),
        (GOOD.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32), ""),
        (GOOD.replace("b7ad6b7169203331", "0" * 16), ""),
        ("", ""),
        (GOOD[:-1], ""),
    ],
)
def test_a_trace_is_carried_on_where_it_is_valid(value, found):
    assert forward.trace(request(f"traceparent: {value}")) == found


def test_two_traces_are_none():
    assert forward.trace(request(f"traceparent: {GOOD}", f"traceparent: {GOOD}")) == ""


def test_the_callers_identity_is_passed_on_in_four_fields():
    who = Identity("k", "s", "c", "p")
    assert lines(forward.identity_fields(who.customer, who.subject, who.key_id, "p@1")) == [
        "X-Sidecar-Customer: c", "X-Sidecar-Subject: s", "X-Sidecar-Key-Id: k", "X-Sidecar-Plan: p@1",
    ]  # fmt: skip


def test_the_upstreams_hop_by_hop_fields_end_here():
    found = answer(
        "Connection: X-One",
        "connection: x-two",
        "X-One: 1",
        "X-Two: 2",
        "Keep-Alive: 5",
        "A: 1",
        "Via: 1.1 x",
        "Content-Length: 0",
    )
    assert lines(forward.response_fields(found)) == ["A: 1"]


# RFC 9110 §6.5.1, I3. Fails if only hop-by-hop names are held back: a server that merges trailers would believe them.
@pytest.mark.parametrize(
    "name",
    [
        b"Content-Length",
        b"transfer-encoding",
        b"Host",
        b"Authorization",
        b"Set-Cookie",
        b"Content-Type",
        b"X-Forwarded-For",
        b"X-Sidecar-Customer",
        b"X_Sidecar_Customer",
        b"Via",
        b"Expect",
        b"Cache-Control",
        b"Trailer",
        b"X-Request-Id",
    ],
)
def test_late_fields_cannot_change_framing_routing_or_identity(name):
    assert forward.trailers_allowed([(name, b"evil"), (b"X-Sum", b"1")]) == [(b"X-Sum", b"1")]


def test_a_late_credential_is_none():
    assert forward.trailers_allowed([(b"X-Api-Key", b"k"), (b"x-sum", b"1")], {b"x-api-key"}) == [(b"x-sum", b"1")]
