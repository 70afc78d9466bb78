import pytest

from sidecar.core.usage.ai.response_formats import FilteredStream, Json, OpaqueBody, Stream
from sidecar.core.usage.ai.seen import Seen
from tests.core.usage.ai.answers import CHAT, DELTAS, DONE, EXTRA, chat_stream, chunk, dumped, event


def seen_of(form, *pieces, complete=True, **more):
    seen = Seen("openai")
    reader = form(seen, **more)
    out = b"".join([reader.feed(piece) for piece in pieces])
    return out + reader.end(complete=complete), seen


@pytest.mark.parametrize("form", [Stream, FilteredStream])
def test_what_is_no_json_within_a_stream_is_counted_as_unread(form):
    stream = (b"data: abc\n\n", b": ping\n\n", b"data: \n\n", b"event: x\n\n", b"data: [1]\n\n")
    out, seen = seen_of(form, *stream)
    assert seen.unread == len(b"abc") + len(b"[1]")
    assert out == b"".join(stream)


def test_the_last_event_may_lack_its_empty_line():
    assert seen_of(Stream, event(EXTRA).strip())[1].counts["prompt"] == 1117


def test_half_an_event_was_not_said():
    assert seen_of(Stream, event(chunk({"content": "Hello"}))[:90], complete=False)[1].unread == 0


def test_a_filtered_stream_is_what_the_client_would_have_got():
    out, seen = seen_of(FilteredStream, chat_stream(usage=True))
    assert out == chat_stream(usage=False)
    assert seen.final


def test_the_chunk_that_was_asked_for_goes_even_where_it_is_the_last_line():
    said = event(chunk(DELTAS[1]))
    assert seen_of(FilteredStream, said, event(EXTRA).strip())[0] == said


def test_an_event_of_a_filtered_stream_that_stays_is_that_very_object():
    data = event(chunk(DELTAS[1]))
    assert FilteredStream(Seen("openai")).feed(data) is data


def test_a_usage_beside_choices_stays_as_somebody_may_wait_for_it():
    stream = event(chunk({}, "stop", usage=EXTRA["usage"])) + DONE
    out, seen = seen_of(FilteredStream, stream)
    assert out == stream
    assert seen.final


def test_a_document_that_says_nothing_known_counts_whole_where_a_model_was_asked():
    assert seen_of(Json, b'{"answer":42}', expects_text=True)[1].unread == 13
    assert seen_of(Json, b'{"answer":42}', expects_text=False)[1].unread == 0


def test_a_document_that_is_cut_counts_as_far_as_it_came():
    _, seen = seen_of(Json, dumped(CHAT)[:50], expects_text=False, complete=False)
    assert (seen.unread, seen.finished) == (50, False)


def test_blanks_and_a_mark_before_a_document_are_none_of_it():
    assert seen_of(Json, b" \r\n", b"\xef\xbb\xbf", dumped(CHAT), expects_text=True)[1].final


def test_sound_has_no_words():
    out, seen = seen_of(OpaqueBody, b"\0\1")
    assert (out, seen.unread, seen.finished) == (b"\0\1", 0, True)
