import pytest

from sidecar.core.http import forward
from sidecar.core.http.request import HeadLimits, read_request
from sidecar.core.http.response import read_response
from sidecar.core.identity import Identity

BASE = [(b"Host", b"h")]


def request(*fields, method="GET", target=b"/a?b", minor=1):
    pairs = [tuple(field.encode().split(b": ", 1)) for field in fields]
    return read_request((method, target, minor), BASE + pairs, HeadLimits())


NO_CREDENTIAL = forward.dropped_with(b"")


def up(found, extra=b"", dropped=NO_CREDENTIAL):
    return forward.request_head(found, found.query, dropped, extra).decode().split("\r\n")[:-1]


def answer(*fields, status=200, method="GET", minor=1, reason=b"OK"):
    pairs = [tuple(field.encode().split(b": ", 1)) for field in fields]
    return read_response((status, reason, minor), pairs, method)


def down(found, minor=1, *, close=False):
    head, chunked = forward.response_head(found, minor, close=close)
    return head.decode().split("\r\n")[:-1], chunked


def test_a_head_is_rebuilt_in_one_spelling():
    found = request("A: 1", "Content-Length: 010", method="POST", target=b"http://h//x/%7e?q")
    assert up(found, b"Via: x\r\n") == ["POST /x/~?q HTTP/1.1", "Host: h", "A: 1", "Content-Length: 10", "Via: x"]


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
    assert up(request(field, "A: 1")) == ["GET /a?b HTTP/1.1", "Host: h", "A: 1"]


@pytest.mark.parametrize("name", ["X-One", "x-two", "Cookie"])
def test_fields_that_connection_names_stay_on_their_hop(name):
    found = request("Connection: close, X-One ,X-TWO,cookie", f"{name}: 1", "A: 1")
    assert up(found) == ["GET /a?b HTTP/1.1", "Host: h", "A: 1"]


# RFC 9110 §7.6.1. Fails if our own lines go through the same filter as the client's.
def test_what_we_say_cannot_be_nominated_away():
    found = request("Connection: X-Sidecar-Customer, Via, X-Forwarded-For")
    assert up(found, b"Via: 1.1 us\r\nX-Sidecar-Customer: c\r\n")[2:] == ["Via: 1.1 us", "X-Sidecar-Customer: c"]


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
    assert up(request(f"{name}: evil")) == ["GET /a?b HTTP/1.1", "Host: h"]


def test_the_credential_goes_and_all_of_its_name():
    found = request("X-Api-Key: secret", "Authorization: Bearer other")
    assert up(found, dropped=forward.dropped_with(b"x-api-key"))[2:] == ["Authorization: Bearer other"]


@pytest.mark.parametrize(
    ("fields", "framing"),
    [
        ((), []),
        (("Content-Length: 0",), ["Content-Length: 0"]),
        (("Content-Length: 3",), ["Content-Length: 3"]),
        (("Transfer-Encoding: Chunked",), ["Transfer-Encoding: chunked"]),
        (("Connection: upgrade", "Upgrade: websocket"), ["Connection: Upgrade", "Upgrade: websocket"]),
        (("Connection: upgrade", "Upgrade: h2c"), []),
    ],
)
def test_one_framing_is_set(fields, framing):
    assert up(request(*fields))[2:] == framing


def test_an_expectation_is_answered_here_and_goes_no_further():
    assert up(request("Expect: 100-continue", "Content-Length: 1"))[2:] == ["Content-Length: 1"]


def test_the_client_is_told_to_the_upstream_where_nobody_before_us_is_believed():
    assert forward.forwarded("10.0.0.1", b"h", tls=True) == (
        b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\n"
    )
    assert forward.forwarded("", b"h", tls=False).startswith(b"X-Forwarded-For: unknown\r\nX-Forwarded-Proto: http\r\n")


def test_a_named_proxy_is_believed_and_put_behind_what_it_says():
    found = request(
        "X-Forwarded-For: 1.1.1.1", "x-forwarded-for: 2.2.2.2", "X-Forwarded-Proto: https", "Forwarded: for=x"
    )
    assert forward.forwarded_on(found, "10.0.0.1", tls=False).decode().split("\r\n")[:-1] == [
        "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.1",
        "X-Forwarded-Proto: https",
        "Forwarded: for=x",
        "X-Forwarded-Host: h",
    ]


def test_a_named_proxy_that_says_nothing_is_the_client():
    assert forward.forwarded_on(request(), "10.0.0.1", tls=False) == forward.forwarded("10.0.0.1", b"h", tls=False)


@pytest.mark.parametrize(
    ("fields", "minor", "line"),
    [
        ((), 1, b"Via: 1.1 us\r\n"),
        ((), 0, b"Via: 1.0 us\r\n"),
        (("Via: 1.0 a", "via: 1.1 b, 1.1 c"), 1, b"Via: 1.0 a, 1.1 b, 1.1 c, 1.1 us\r\n"),
    ],
)
def test_via_grows_by_us(fields, minor, line):
    assert forward.via(request(*fields, minor=minor), b"us") == line


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


def test_who_the_caller_is_is_told_in_four_lines():
    who = Identity("k", "s", "c", "p")
    assert forward.identity_lines(who.customer, who.subject, who.key_id, "p@1") == (
        b"X-Sidecar-Customer: c\r\nX-Sidecar-Subject: s\r\nX-Sidecar-Key-Id: k\r\nX-Sidecar-Plan: p@1\r\n"
    )


@pytest.mark.parametrize(
    ("found", "minor", "lines", "chunked"),
    [
        (answer("Content-Length: 03"), 1, ["Content-Length: 3"], False),
        (answer("Content-Length: 3"), 0, ["Content-Length: 3", "Connection: keep-alive"], False),
        (answer("Transfer-Encoding: chunked"), 1, ["Transfer-Encoding: chunked"], True),
        (answer("Transfer-Encoding: chunked"), 0, ["Connection: close"], False),
        (answer(), 1, ["Transfer-Encoding: chunked"], True),
        (answer(), 0, ["Connection: close"], False),
        (answer("Content-Length: 3", method="HEAD"), 1, ["Content-Length: 3"], False),
        (answer("Content-Length: 3", status=304), 1, ["Content-Length: 3"], False),
        (answer("Content-Length: 3", status=204), 1, [], False),
        (answer(method="HEAD"), 1, [], False),
        (answer("Transfer-Encoding: chunked", status=204), 1, [], False),
    ],
)
def test_an_answer_is_framed_for_its_client(found, minor, lines, chunked):
    head, is_chunked = down(found, minor)
    assert (head[0], head[1:], is_chunked) == (f"HTTP/1.1 {found.status} OK", lines, chunked)


def test_a_last_answer_says_so():
    assert down(answer("Content-Length: 0"), close=True)[0][1:] == ["Content-Length: 0", "Connection: close"]


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
    assert down(found)[0][1:] == ["A: 1", "Content-Length: 0"]


def test_a_reason_that_the_upstream_left_out_is_put_in():
    assert down(answer("Content-Length: 0", status=404, reason=b""))[0][0] == "HTTP/1.1 404 Not Found"


# RFC 9110 §8.6. Fails if a 1xx keeps its length: a client could wait for a body, or take the answer for one.
def test_an_interim_answer_goes_on_without_length_and_hop_by_hop_fields():
    found = answer(
        "Link: </x>", "Content-Length: 5", "Connection: X-One", "X-One: 1", status=103, reason=b"Early Hints"
    )
    assert forward.interim_head(found) == b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


def test_a_switch_is_passed_on_with_what_both_hops_need():
    found = answer(
        "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: x", "Content-Length: 5", status=101
    )
    assert forward.switching_head(found, b"websocket") == (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n"
    )


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
