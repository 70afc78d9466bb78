import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.usage.ai import sse
from sidecar.core.usage.ai.sse import Events, data_of
from tests.core.usage.ai.answers import cut

STREAMS = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: a", b"b", b":", b"event: x", b"\xff"])).map(b"".join)
PLACES = st.lists(st.integers(0, 1000), max_size=8)


def events(pieces):
    reader = Events()
    found = [event for piece in pieces for event in reader.feed(piece)]
    rest = reader.rest()
    return [*found, rest] if rest[0] else found


# Mutation: a CR at the end of the bytes ends its line at once.
@given(STREAMS, PLACES)
def test_any_cut_of_the_bytes_gives_the_same_events(stream, places):
    assert events(cut(stream, places)) == events([stream])


@given(STREAMS)
def test_one_byte_at_a_time_gives_the_same_events(stream):
    assert events([bytes([byte]) for byte in stream]) == events([stream])


@given(st.binary() | STREAMS, PLACES)
def test_every_byte_comes_out_again(stream, places):
    assert b"".join(event for event, _ in events(cut(stream, places))) == stream


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_all_line_ends_of_the_standard_end_an_event(end):
    one = b"event: x" + end + b"data: 1" + end + end
    two = b"data: 2" + end + end
    assert [(event, data_of(event).strip()) for event, _ in events([one + two + b"."])][:2] == [
        (one, b"1"),
        (two, b"2"),
    ]


def test_an_event_that_comes_alone_is_that_very_object():
    data = b"data: 1\n\n"
    assert Events().feed(data)[0][0] is data


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_of_an_event_that_is_too_long_nothing_is_read_or_held(monkeypatch, step):
    monkeypatch.setattr(sse, "MAX_EVENT", 20)
    fits, long, after = b"data: " + b"x" * 12 + b"\n\n", b"data: " + b"x" * 13 + b"\n\n", b"data: 1\n\n"
    stream = fits + long + after
    reader = Events()
    found = []
    for begin in range(0, len(stream), step):
        found += reader.feed(stream[begin : begin + step])
        assert len(reader._held) <= 20
    assert [event for event, whole in found if whole] == [fits, after]
    assert b"".join(event for event, whole in found if not whole) == long


def test_several_data_lines_are_one_data():
    assert data_of(b"data: {\nid: 7\ndata:}\n\n") == b" {\n}"


@pytest.mark.parametrize("event", [b": ping\n\n", b"event: x\n\n", b"\n\n", b""])
def test_an_event_without_data_has_none(event):
    assert data_of(event) == b""
