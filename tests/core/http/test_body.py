from itertools import pairwise
from time import perf_counter

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.http.body import (
    MAX_CHUNK_LINE,
    MAX_EXTENSIONS,
    MAX_TRAILERS,
    BadFraming,
    ChunkedBody,
    LengthBody,
    UntilCloseBody,
)

SIZES = st.sampled_from([b"%x", b"%X", b"0%x", b"000%x"])
EXTENSIONS = st.sampled_from([b"", b"", b";a", b";a=b", b';a="b c"'])
TRAILERS = st.lists(st.sampled_from([(b"X-Sum", b"1"), (b"Digest", b"a b"), (b"x", b"")]), max_size=3)


@st.composite
def wires(draw):
    """Bytes of a valid chunked body with what they mean: (wire, body, trailers, what follows)."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    wire = b""
    for piece in pieces:
        wire += draw(SIZES) % len(piece) + draw(EXTENSIONS) + b"\r\n" + piece + b"\r\n"
    trailers = draw(TRAILERS)
    wire += b"0" + draw(EXTENSIONS) + b"\r\n" + b"".join(b"%b: %b\r\n" % t for t in trailers) + b"\r\n"
    return wire, b"".join(pieces), trailers, draw(st.sampled_from([b"", b"GET", b"\r\n"]))


def split(wire, cuts):
    at = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    return [wire[one:two] for one, two in pairwise(at)]


def read(body, parts):
    out = b""
    for place, part in enumerate(parts):
        out += body.feed(part)
        if body.done:
            return out, body.rest + b"".join(parts[place + 1 :]), body.trailers
    return out, None, body.trailers


# Fails if the CRLF behind a chunk may be cut in two, or if a size line that is not all there is read.
@given(wires(), st.lists(st.integers(0, 10_000), max_size=8))
def test_any_cut_of_the_bytes_gives_the_same_body(wire, cuts):
    raw, body, trailers, rest = wire
    assert read(ChunkedBody(), split(raw + rest, cuts)) == (body, rest, trailers)


@given(wires())
def test_one_byte_at_a_time_gives_the_same_body(wire):
    raw, body, trailers, rest = wire
    assert read(ChunkedBody(), [bytes([byte]) for byte in raw + rest]) == (body, rest, trailers)


@given(wires())
def test_h11_reads_the_same_body(wire):
    raw, body, trailers, _ = wire
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + raw)
    events = []
    while not events or not isinstance(events[-1], h11.EndOfMessage):
        events.append(server.next_event())
    assert b"".join(bytes(event.data) for event in events if isinstance(event, h11.Data)) == body
    assert [(name, value) for name, value in events[-1].headers] == [(name.lower(), value) for name, value in trailers]


MALFORMED = {
    "no size": b"\r\n",
    "a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "an underscore": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "no hexadecimal": b"5g\r\nhello\r\n0\r\n\r\n",
    "a space before": b" 5\r\nhello\r\n0\r\n\r\n",
    "a space behind": b"5 \r\nhello\r\n0\r\n\r\n",
    "a space before an extension": b"5 ;a\r\nhello\r\n0\r\n\r\n",
    "a tab before": b"\t5\r\nhello\r\n0\r\n\r\n",
    "words behind": b"5 hello\r\nhello\r\n0\r\n\r\n",
    "more than 60 bits": b"1000000000000000\r\n",
    "an overflow of 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "an overflow of 32 bits with zeros": b"0000000000000000000100000005\r\nhello",
    "a bare line feed behind the size": b"5\nhello\r\n0\r\n\r\n",
    "a bare carriage return behind the size": b"5\rhello\r\n0\r\n\r\n",
    "a bare line feed behind the data": b"5\r\nhello\n0\r\n\r\n",
    "a bare carriage return behind the data": b"5\r\nhello\r0\r\n\r\n",
    "no line end behind the data": b"5\r\nhello0\r\n\r\n",
    "a longer chunk than its size": b"3\r\nhello\r\n0\r\n\r\n",
    "a shorter chunk than its size": b"7\r\nhello\r\n0\r\n\r\n",
    "a line feed in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "a carriage return in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "a NUL in an extension": b"5;a\0b\r\nhello\r\n0\r\n\r\n",
    "a bare line feed as the last line": b"0\r\n\n",
    "a bare line feed behind the last size": b"0\n\r\n",
    "a trailer without a colon": b"0\r\nhello\r\n\r\n",
    "a space before a trailer's colon": b"0\r\na : b\r\n\r\n",
    "a folded trailer": b"0\r\na: b\r\n c\r\n\r\n",
    "a NUL in a trailer": b"0\r\na: b\0\r\n\r\n",
    "a bare carriage return in a trailer": b"0\r\na: b\rc: d\r\n\r\n",
    "a bare line feed in a trailer": b"0\r\na: b\nc: d\r\n\r\n",
    "a trailer without a name": b"0\r\n: b\r\n\r\n",
    "a request as a trailer": b"0\r\nGET / HTTP/1.1\r\n\r\n",
}


# Framing bugs that became CVEs. Fails if `int(size, 16)` decides alone, or if lines are split at \n.
@pytest.mark.parametrize("wire", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_lenient_parsers_let_through_is_refused(wire):
    with pytest.raises(BadFraming):
        ChunkedBody().feed(wire)


@pytest.mark.parametrize("wire", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_refused_whole_is_refused_in_bytes(wire):
    with pytest.raises(BadFraming):
        read(ChunkedBody(), [bytes([byte]) for byte in wire])


def test_extensions_are_dropped_and_capped():
    body = ChunkedBody()
    assert body.feed(b"1;" + b"x" * 4000 + b"\r\na\r\n") == b"a"
    with pytest.raises(BadFraming, match="extensions"):
        body.feed((b"1;" + b"x" * 4000 + b"\r\na\r\n") * (MAX_EXTENSIONS // 4000))


@pytest.mark.parametrize("line", [b"5;" + b"x" * MAX_CHUNK_LINE, b"0" * MAX_CHUNK_LINE + b"5"])
def test_a_size_line_without_end_is_refused_before_it_ends(line):
    with pytest.raises(BadFraming, match="too long"):
        ChunkedBody().feed(line)


def test_trailers_are_capped():
    with pytest.raises(BadFraming, match="too long"):
        ChunkedBody().feed(b"0\r\n" + b"a: %b\r\n" % (b"x" * 4000) * (MAX_TRAILERS // 4000 + 1))


# Fails if the pattern of a trailer has three ways to divide its blanks: 4,000 of them took minutes.
def test_a_trailer_of_blanks_is_read_in_linear_time():
    begun = perf_counter()
    with pytest.raises(BadFraming):
        ChunkedBody().feed(b"0\r\na:" + b" " * 4000 + b"\x01\r\n\r\n")
    assert perf_counter() - begun < 0.1


def test_blanks_around_a_trailer_are_not_its_value():
    body = ChunkedBody()
    body.feed(b"0\r\na: \t b c \t\r\n\r\n")
    assert body.trailers == [(b"a", b"b c")]


@given(st.binary(max_size=60), st.integers(0, 60), st.lists(st.integers(0, 100), max_size=5))
def test_a_length_ends_a_body_wherever_the_bytes_are_cut(data, length, cuts):
    whole = length <= len(data)
    found = read(LengthBody(length), split(data, cuts))
    assert found == (data[:length], data[length:] if whole else None, [])


def test_a_body_of_no_length_is_done_before_it_begins():
    assert LengthBody(0).done


def test_only_the_close_ends_a_body_without_length():
    body = UntilCloseBody()
    assert (body.feed(b"0\r\n\r\n"), body.done) == (b"0\r\n\r\n", False)
