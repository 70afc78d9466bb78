import gzip
import json
import tracemalloc
import zlib

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.usage.ai import KINDS, SUMS, Reader, parse_request
from sidecar.core.usage.ai.encodings import zstd
from sidecar.core.usage.ai.reader import PIECE, TURN
from sidecar.core.usage.json_text import JsonText
from tests.core.usage.ai.answers import (
    CHAT,
    CHAT_KINDS,
    DELTAS,
    DONE,
    EXTRA,
    GEMINI,
    JSON,
    MESSAGE,
    RESPONSE_USAGE,
    SSE,
    ai_request,
    chat_stream,
    chunk,
    cut,
    dumped,
    event,
    gemini_array,
    gemini_stream,
    message_stream,
    passed,
    reading_of,
    response,
    response_stream,
)

ZEROS = {"input_uncached": 0, "output": 0, "input": 0, "output_total": 0}
STREAMS = [
    (chat_stream(usage=True), SSE),
    (chat_stream(usage=True).replace(b"\n", b"\r\n"), SSE),
    (response_stream(), SSE),
    (message_stream(), SSE),
    (gemini_stream(), SSE),
    (gemini_array(), JSON),
    (dumped(CHAT), JSON),
    (dumped(MESSAGE), JSON),
]
PACK = {b"gzip": gzip.compress, b"deflate": zlib.compress, b"br": brotli.compress, b"zstd": zstd.compress}
PLACES = st.lists(st.integers(0, 10_000), max_size=8)
ADAPTERS = st.sampled_from(["openai", "anthropic", "gemini", "auto"])


def read(request, pieces, kind, *, status=200, coding=b"", complete=True):
    reader = Reader(request)
    reader.head(status, kind, coding)
    return passed(reader, pieces, complete=complete)


# Whatever comes, however it is cut.


# Mutation: an event is looked for in each piece alone.
@settings(deadline=None)
@given(st.sampled_from(STREAMS), ADAPTERS, PLACES, st.booleans(), st.booleans(), st.integers(0, 10_000))
def test_any_cut_of_the_bytes_gives_the_same_reading_and_the_same_bytes(
    stream, adapter, places, injected, complete, length
):
    body, kind = stream
    body = body if complete else body[: length % len(body)]
    request = ai_request(adapter, injected=injected)
    whole = read(request, [body], kind, complete=complete)
    assert read(request, cut(body, places), kind, complete=complete) == whole
    assert read(request, [bytes([byte]) for byte in body], kind, complete=complete) == whole


# Mutation: what is held back of the decoded stream is passed on behind the encoded one.
@settings(deadline=None)
@given(st.sampled_from(STREAMS), st.sampled_from([*PACK]), PLACES, st.integers(0, 10_000))
def test_a_compressed_answer_reads_like_a_plain_one_and_is_not_changed(stream, coding, places, length):
    body, kind = stream
    body = body[:length]
    packed = PACK[coding](body)
    out, reading = read(ai_request("auto", injected=True), cut(packed, places), kind, coding=coding)
    assert out == packed
    assert reading == read(ai_request("auto"), [body], kind)[1]


@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([b"\n\n", b"data: {", b'"usage":{', b"}", b"[", b'"', b"\\"])),
    ADAPTERS,
    st.tuples(
        st.sampled_from([SSE, JSON, b"", b"audio/mpeg", b"\xff"]),
        st.sampled_from([b"", b"gzip", b"deflate", b"br", b"zstd", b"br, gzip", b"what"]),
    ),
    st.sampled_from([0, 200, 404, 529]),
    st.booleans(),
    PLACES,
)
def test_any_bytes_at_all_are_survived_and_read_the_same_however_they_are_cut(
    parts, adapter, form, status, injected, places
):
    kind, coding = form
    body = b"".join(parts)
    request = ai_request(adapter, injected=injected)
    out, reading = read(request, parts, kind, coding=coding, status=status)
    assert out == body  # nothing of it is a usage that was asked for
    assert read(request, cut(body, places), kind, coding=coding, status=status) == (out, reading)
    assert sum(reading.fields[kind] for kind in KINDS if kind in reading.fields) == sum(
        reading.fields[name] for name in SUMS
    )


ODD = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})


def places_of(value):
    """Every container with the names or numbers of what it contains."""
    if isinstance(value, (dict, list)):
        names = value if isinstance(value, dict) else range(len(value))
        for name in names:
            yield value, name
            yield from places_of(value[name])


# Mutation: `.get` on what may be no object, anywhere in the readers.
@settings(max_examples=300)
@given(
    st.sampled_from([CHAT, EXTRA, chunk(DELTAS[1]), response("completed", RESPONSE_USAGE), MESSAGE, GEMINI]),
    st.data(),
    ADAPTERS,
    st.booleans(),
)
def test_a_value_of_another_type_anywhere_is_survived(answer, data, adapter, streamed):
    answer = json.loads(json.dumps(answer))
    for _ in range(data.draw(st.integers(1, 3))):
        container, name = data.draw(st.sampled_from(list(places_of(answer))))
        container[name] = data.draw(ODD | st.lists(ODD, max_size=2) | st.dictionaries(st.text(max_size=2), ODD))
        if not list(places_of(answer)):
            break
    body = event(answer) if streamed else dumped(answer)
    reading = reading_of(ai_request(adapter, injected=True), body, SSE if streamed else JSON)
    assert all(type(number) is int and number >= 0 for number in reading.fields.values())
    assert all(json.dumps(value).encode() for value in reading.dims.values())


# What goes on to the client.


@pytest.mark.parametrize(("body", "kind"), STREAMS)
def test_what_is_not_changed_is_the_very_object(body, kind):
    reader = Reader(ai_request("auto"))
    reader.head(200, kind, b"")
    assert all(reader.feed(piece) is piece for piece in cut(body, range(0, len(body), 50)))
    assert reader.end(complete=True)[0] == b""


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_usage_that_the_client_did_not_ask_for_is_read_and_taken_out_again(end):
    request, _ = parse_request("openai", "/v1/chat/completions", JsonText(b'{"model":"m","stream":true}'))
    stream = chat_stream(usage=True).replace(b"\n", end)
    out, reading = read(request, cut(stream, range(0, len(stream), 100)), SSE)
    assert out == chat_stream(usage=False).replace(b"\n", end)
    assert (reading.fields, reading.quality) == (CHAT_KINDS, "provider_reported")


def test_usage_that_the_client_asked_for_stays():
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    request, _ = parse_request("openai", "/v1/chat/completions", JsonText(body))
    stream = chat_stream(usage=True)
    assert read(request, [stream], SSE)[0] == stream


def test_a_refusal_of_a_request_that_was_asked_for_usage_goes_on_as_it_came():
    refusal = b'{"error":{"message":"no such model","code":null},"usage":null}'
    out, reading = read(ai_request(injected=True), [refusal], JSON, status=404)
    assert out == refusal
    assert reading.ending == "error"


def test_what_is_held_back_comes_with_the_end():
    half = event(chunk(DELTAS[1]))[:60]
    reader = Reader(ai_request(injected=True))
    reader.head(200, SSE, b"")
    assert reader.feed(half) == b""
    assert reader.end(complete=False)[0] == half


# Endings. eliza #9904, new-api #5235: closed in every ending.


@pytest.mark.parametrize("status", [301, 400, 429, 500, 529])
def test_a_refused_request_used_nothing(status):
    error = dumped({"type": "error", "error": {"type": "overloaded_error", "message": "x" * 400}})
    reading = reading_of(ai_request(), error, status=status)
    assert (reading.fields, reading.quality, reading.ending) == (ZEROS, "provider_reported", "error")


def test_a_refused_request_that_tells_its_usage_used_that():
    assert reading_of(ai_request(), dumped(CHAT), status=500).fields == CHAT_KINDS


def test_an_error_in_the_midst_of_a_stream_leaves_what_was_said():
    body = event(chunk({"content": "12345678"})) + event({"error": {"message": "x", "code": 502}}) + DONE
    reading = reading_of(ai_request(), body, SSE)
    assert (reading.fields["output"], reading.quality, reading.ending) == (2, "estimated", "error")


# litellm #14457, #13245: the client left in mid-stream. Mutation: text_bytes=0.
@pytest.mark.parametrize("coding", [b"", b"gzip", b"zstd"])
def test_a_stream_that_was_cut_is_estimated_from_what_passed(coding):
    body = b"".join(event(chunk(delta)) for delta in DELTAS)  # 5 and 9 bytes
    packed = PACK[coding](body) if coding else body
    reading = reading_of(ai_request(input_bytes=41), packed, SSE, coding=coding, complete=False)
    assert reading.fields == {"input_uncached": 11, "output": 4, "input": 11, "output_total": 4}
    assert (reading.quality, reading.ending) == ("estimated", "cut")


def test_a_stream_that_ends_well_without_its_end_was_cut_all_the_same():
    body = b"".join(event(chunk(delta)) for delta in DELTAS)
    assert reading_of(ai_request(), body, SSE).ending == "cut"


def test_figures_that_came_before_the_cut_are_whole():
    body = chat_stream(usage=True).removesuffix(DONE)
    reading = reading_of(ai_request(), body, SSE, complete=False)
    assert (reading.fields, reading.quality, reading.ending) == (CHAT_KINDS, "provider_reported", "cut")


def test_an_answer_that_never_began_has_its_input():
    reader = Reader(ai_request(input_bytes=40))
    held, reading = reader.end(complete=False)
    assert held == b""
    assert reading == (
        "openai",
        {"input_uncached": 10, "output": 0, "input": 10, "output_total": 0},
        {"model": "m-1"},
        "estimated",
        "cut",
    )


def test_what_no_model_was_asked_for_uses_none():
    reading = reading_of(ai_request("auto", model="", input_bytes=0), b'{"object":"list","data":[{"id":"gpt-4.1"}]}')
    assert (reading.fields, reading.ending) == (ZEROS, "complete")


def test_sound_has_no_words_to_count():
    reading = reading_of(ai_request(), bytes(100_000), b"audio/mpeg")
    assert (reading.fields["output"], reading.quality, reading.ending) == (0, "estimated", "complete")


@pytest.mark.parametrize("coding", [b"compress", b"br"])
def test_what_cannot_be_decoded_is_estimated_by_its_length(coding):
    reading = reading_of(ai_request(), b"\xff" * 400, SSE, coding=coding)
    assert (reading.fields["output"], reading.quality, reading.ending) == (100, "estimated", "cut")


def test_a_bomb_is_an_estimate():
    bomb = gzip.compress(bytes(32 << 20))
    reading = reading_of(ai_request(max_output=1000), bomb, JSON, coding=b"gzip")
    assert (reading.fields["output"], reading.quality) == (1000, "estimated")


# litellm #12685, #15128: memory grew until it was killed.
@pytest.mark.parametrize(
    ("kind", "coding", "piece"),
    [
        (SSE, b"", b"data: " + b"x" * 100_000),
        (SSE, b"", b"\n"),
        (JSON, b"", b'[{"a":"' + b"x" * 100_000),
        (JSON, b"", b'{"a":"' + b"x" * 100_000),
        (JSON, b"gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff" + b"\x00" * 100_000),
        (SSE, b"what", b"x" * 100_000),
    ],
)
@pytest.mark.parametrize("injected", [True, False])
def test_memory_is_bounded(kind, coding, piece, injected):
    reader = Reader(ai_request(injected=injected))
    reader.head(200, kind, coding)
    tracemalloc.start()
    try:
        for _ in range(200):
            reader.feed(piece)
        assert tracemalloc.get_traced_memory()[0] < 3 << 20
    finally:
        tracemalloc.stop()


# Hostile F4: many events or elements in few bytes took seconds at once.


def turns_of(reader, data):
    """The bytes passed on by each turn, until all of `data` is read."""
    turns = [reader.feed(data, last=True)]
    while reader.is_behind:
        turns.append(reader.feed(b"", last=True))
    return turns


# Mutation: no count of the work in `_read_pieces`.
@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"data: {}\n\n" * 50_000, SSE), (b"[" + b"{}," * 50_000 + b"{}]", JSON), (b"\n\n" * 50_000, SSE)],
    ids=["events", "elements", "blank lines"],
)
def test_one_turn_reads_a_bounded_number_of_events_and_elements(body, kind):
    turns = turns_of(fresh(kind), body)
    assert b"".join(turns) == body
    assert max(map(len, turns)) <= PIECE + 2 * TURN
    assert max(turn.count(b"{") for turn in turns) <= TURN / 3 + PIECE / 3


# Fails if a short answer is read without counting: 5,000 elements take tens of milliseconds.
def test_a_short_answer_of_many_elements_is_read_in_turns_and_an_ordinary_one_at_once():
    elements, ordinary = fresh(JSON), fresh(JSON)
    assert elements.feed(b"[" + b"{}," * 5_000) < b"[" + b"{}," * 200
    assert elements.is_behind
    answer = dumped({**CHAT, "text": "word " * 3_000})
    assert ordinary.feed(answer) is answer
    assert not ordinary.is_behind


# Mutation: no count of the work in `_read_decoded`.
@pytest.mark.parametrize("coding", PACK)
def test_one_turn_reads_a_bounded_part_of_what_a_compressed_answer_decodes_to(coding):
    body = b"".join(b'data: {"n":%d}\n\n' % (n * n) for n in range(30_000))
    packed = PACK[coding](body)
    reader = fresh(SSE, coding)
    turns = turns_of(reader, packed)
    assert b"".join(turns) == packed
    assert len(turns) > 100
    assert reader.end(complete=True)[1].quality == "estimated"


# Fails if decoded bytes that were not read are not in the estimate, or are passed on.
def test_what_was_decoded_and_not_read_of_a_cut_answer_is_estimated():
    reader = fresh(SSE, b"deflate")
    reader.feed(zlib.compress(b"data: words\n\n" * 5_000))
    reader.feed(b"", last=True)
    held, reading = reader.end(complete=False)
    assert held == b""
    assert reading.fields["output"] > 3_000


def fresh(kind, coding=b""):
    reader = Reader(ai_request())
    reader.head(200, kind, coding)
    return reader


def test_an_end_reads_a_whole_answer_to_its_end_and_one_more_turn_of_a_cut_one():
    body = b": x\n\n" * 20_000 + chat_stream(usage=True)
    whole, cut_off = fresh(SSE), fresh(SSE)
    whole.feed(body)
    cut_off.feed(body)
    held, reading = whole.end(complete=True)
    assert (body.endswith(held), reading.quality) == (True, "provider_reported")
    held, reading = cut_off.end(complete=False)
    assert (body.endswith(held), reading.quality, reading.ending) == (True, "estimated", "cut")
