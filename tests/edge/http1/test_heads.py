import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.http import problem as problems
from sidecar.core.http.body import ChunkedBody
from sidecar.core.http.forward import UpstreamHead, upstream_target
from sidecar.core.http.problem import PROBLEM_JSON, Problem, problem_body
from sidecar.core.http.request import HeadLimits, read_request
from sidecar.core.http.response import read_response
from sidecar.edge.http1 import heads

FIXED = [value for value in vars(problems).values() if isinstance(value, Problem) and value.status != 204]
PAIRS = st.lists(st.sampled_from([(b"X-Sum", b"1"), (b"Digest", b"a b"), (b"x", b"")]), max_size=3)


# What goes up.


SAME = heads.HeadOptions(b"", "", b"api", (), frozenset())


def up(*fields, own=(), method="GET", target=b"/a?b", length=None, options=SAME, host=(b"h",), minor=1, preserve=False):
    pairs = [*((b"Host", each) for each in host), *(tuple(field.encode().split(b": ", 1)) for field in fields)]
    request = read_request((method, target, minor), pairs, HeadLimits())
    target = upstream_target(request, request.query, preserve=preserve)
    head = UpstreamHead(request, target, list(own), request.length if length is None else length)
    whole = heads.request_head(head, options, b"01JD").decode()
    assert heads.request_head(head, options, b"02JD").decode() == whole.replace("01JD", "02JD")
    assert whole.endswith("X-Request-Id: 01JD\r\n\r\n")
    return whole.split("\r\n")[:-3]


def test_a_request_head_has_one_spelling():
    found = up("Content-Length: 010", own=[(b"A", b"1"), (b"Via", b"x")], method="POST", target=b"http://h//x/%7e?q")
    assert found == ["POST /x/~?q HTTP/1.1", "Host: h", "A: 1", "Via: x", "Content-Length: 10"]


@pytest.mark.parametrize(
    ("fields", "framing"),
    [
        ((), []),
        (("Content-Length: 0",), ["Content-Length: 0"]),
        (("Content-Length: 3",), ["Content-Length: 3"]),
        (("Transfer-Encoding: Chunked",), ["Transfer-Encoding: chunked"]),
        (("Connection: upgrade", "Upgrade: websocket"), ["Connection: Upgrade", "Upgrade: websocket"]),
        (("Connection: upgrade", "Upgrade: h2c"), []),
        (("Expect: 100-continue", "Content-Length: 1"), ["Content-Length: 1"]),
    ],
)
def test_one_framing_is_set(fields, framing):
    assert up(*fields)[2:] == framing


# Fails if the length is read from the client's head.
def test_a_body_that_was_rewritten_goes_up_with_its_own_length():
    assert up("Content-Length: 3", length=17)[2:] == ["Content-Length: 17"]


@pytest.mark.parametrize(
    ("options", "host", "line"),
    [
        (SAME, (b"h",), "Host: h"),
        (heads.HeadOptions(b"api.example", "", b"api", (), frozenset()), (b"h",), "Host: api.example"),
        (SAME, (), "Host: api"),  # bugs 11: fails if HTTP/1.0 without a Host goes up with an empty one
    ],
)
def test_the_host_is_the_client_s_or_as_set_and_never_missing(options, host, line):
    assert up(options=options, host=host, minor=0)[1] == line


def test_a_base_path_is_before_each_path():
    options = heads.HeadOptions(b"", "/v1/base", b"api", (), frozenset())
    assert up(options=options)[0] == "GET /v1/base/a?b HTTP/1.1"
    assert up(options=options, target=b"/")[0] == "GET /v1/base/ HTTP/1.1"
    assert up(options=options, target=b"/a//%2f?", preserve=True)[0] == "GET /v1/base/a//%2f? HTTP/1.1"


# Fails if names are compared as they are spelled, or if the client's field goes beside ours.
def test_fields_that_are_set_replace_those_of_the_client_in_any_spelling():
    options = heads.HeadOptions(b"", "", b"api", ((b"X-Key", b"ours"), (b"A", b"1")), frozenset({b"x-forwarded-for"}))
    own = [(b"x-kEY", b"mine"), (b"B", b"2"), (b"X-Key", b"mine"), (b"X-Forwarded-For", b"1.2.3.4")]
    assert up(own=own, options=options)[2:] == ["B: 2", "X-Key: ours", "A: 1"]


def test_a_prepared_head_is_made_anew_for_other_options():
    request = read_request(("GET", b"/a", 1), [(b"Host", b"h")], HeadLimits())
    head = UpstreamHead(request, "/a", [], 0)
    other = heads.HeadOptions(b"other", "", b"api", (), frozenset())
    rendered = [heads.request_head(head, options, b"1") for options in (SAME, SAME, other, SAME)]
    assert [b"Host: other" in each for each in rendered] == [False, False, True, False]


# What goes down.


def answer(*fields, status=200, method="GET", minor=1, reason=b"OK"):
    pairs = [tuple(field.encode().split(b": ", 1)) for field in fields]
    return read_response((status, reason, minor), pairs, method)


def down(found, minor=1, *, close=False):
    prepared, chunked = heads.response_head(found, minor, b"1.1 us", close=close)
    whole = heads.complete_head(prepared, b"01JD", [(b"B", b"2")]).decode()
    assert whole.endswith("Via: 1.1 us\r\nX-Request-Id: 01JD\r\nB: 2\r\n\r\n")
    return whole.split("\r\n")[:-5], chunked


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


# Fails if the rendered head is kept without its shape: clients of HTTP/1.0 would get chunks.
def test_an_answer_is_rendered_for_each_shape():
    found = answer("Transfer-Encoding: chunked")
    shapes = [(1, False), (0, False), (1, True), (1, False)]
    assert [down(found, minor, close=close)[1] for minor, close in shapes] == [True, False, True, True]
    assert ["Connection: close" in down(found, minor, close=close)[0] for minor, close in shapes] == [
        False, True, True, False,
    ]  # fmt: skip


def test_a_reason_that_the_upstream_left_out_is_put_in():
    assert down(answer("Content-Length: 0", status=404, reason=b""))[0][0] == "HTTP/1.1 404 Not Found"


# RFC 9110 §8.6. Fails if a 1xx keeps its length: a client could wait for a body, or take the answer for one.
def test_an_interim_answer_goes_on_without_length_and_hop_by_hop_fields():
    found = answer(
        "Link: </x>", "Content-Length: 5", "Connection: X-One", "X-One: 1", status=103, reason=b"Early Hints"
    )
    assert heads.interim_head(found) == b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


def test_a_switch_is_passed_on_with_what_both_hops_need():
    found = answer(
        "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: x", "Content-Length: 5", status=101
    )
    assert heads.switching_head(found, b"websocket", b"1.1 us") == (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n"
        b"Via: 1.1 us\r\nX-Request-Id: "
    )


# Answers of our own.


def read(raw, method=b"GET"):
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"h")]))
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    head = client.next_event()
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data == (b"", False)
    return head, dict(head.headers), body


@pytest.mark.parametrize("problem", FIXED, ids=lambda problem: problem.slug)
def test_every_fixed_answer_is_a_whole_message_that_is_never_cached(problem):
    head, fields, body = read(heads.problem_answer(problem, b"01JD", close=False))
    assert head.status_code == problem.status
    assert fields[b"content-type"] == PROBLEM_JSON
    assert fields[b"cache-control"] == b"no-store"
    assert fields[b"x-request-id"] == b"01JD"
    assert body == problem_body(problem, "01JD")


def test_the_answer_to_head_keeps_its_length_and_sends_no_body():
    whole = heads.problem_answer(problems.NO_ROUTE, close=False)
    bare = heads.problem_answer(problems.NO_ROUTE, close=False, bodyless=True)
    assert whole.startswith(bare)
    assert bare.endswith(b"\r\n\r\n")
    assert read(bare, b"HEAD")[1][b"content-length"] == b"%d" % (len(whole) - len(bare))


def test_a_last_answer_says_that_the_connection_closes():
    assert read(heads.problem_answer(problems.NO_ROUTE, close=True))[1][b"connection"] == b"close"
    assert b"connection" not in read(heads.problem_answer(problems.NO_ROUTE, close=False))[1]


def test_further_fields_are_carried():
    assert (
        read(heads.problem_answer(problems.NO_ROUTE, close=False, fields=[(b"RateLimit", b"x")]))[1][b"ratelimit"]
        == b"x"
    )


# Chunks.


@given(st.lists(st.binary(min_size=1, max_size=50)), PAIRS)
def test_chunks_are_read_as_they_were_framed(pieces, trailers):
    body = ChunkedBody()
    wire = b"".join(map(heads.chunk, pieces)) + heads.last_chunk(trailers)
    assert (body.feed(wire), body.done, body.rest, body.trailers) == (b"".join(pieces), True, b"", trailers)


# Fails if a 204 has a body: the client would read it as the head of the next answer.
def test_an_answer_of_our_own_without_a_body_has_none():
    assert heads.problem_answer(problems.OPTIONS_ANSWER, b"01JD", close=False) == (
        b"HTTP/1.1 204 No Content\r\nCache-Control: no-store\r\n"
        b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\nX-Request-Id: 01JD\r\n\r\n"
    )
