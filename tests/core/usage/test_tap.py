import gzip

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.http.response import read_response
from sidecar.core.policy import Route
from sidecar.core.usage.tap import Tap

CHAT = b'{"model":"gpt-4.1","stream":true,"max_tokens":90,"messages":[]}'
CHUNK = b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"h\xc3\xa9"},"finish_reason":null}]}\n\n'
USAGE = b'data: {"id":"a","model":"gpt-4.1-x","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}\n\n'
DONE = b"data: [DONE]\n\n"
SSE = (b"Content-Type", b"text/event-stream; charset=utf-8")
CHUNKED = (b"Transfer-Encoding", b"chunked")
BOTH = frozenset({"request", "response"})


def tap(usage="", body_bytes=1000, **more):
    held = BOTH if not usage else frozenset()
    return Tap(Route("r", usage=usage, body_bytes=body_bytes, reads=BOTH, holds=more.pop("holds", held), **more))


def ask(found, body, *, fields=None, rewrite=True, path="/v1/chat/completions"):
    return found.request(path, body, len(body or b""), fields=fields or {}, rewrite=rewrite)


def head(*fields, status=200, method="POST"):
    return read_response((status, b"", 1), list(fields), method)


def answered(found, *pieces, complete=True, fields=(CHUNKED,), status=200):
    """What is passed on of an answer, piece by piece."""
    found.answer(head(*fields, status=status))
    return [found.feed(piece) for piece in pieces] + [found.end(complete=complete)]


def test_before_the_answer_tokens_are_what_the_request_allows():
    found = tap("openai", ceiling=64)
    ask(found, CHAT)
    assert found.tokens("output", "") == found.tokens("output", "openai") == 64
    assert found.tokens("input_uncached", "") == -(-len(CHAT) // 4)
    assert found.tokens("output", "anthropic") is None


def test_after_the_answer_tokens_are_what_was_read():
    found = tap("openai")
    ask(found, CHAT)
    answered(found, CHUNK, USAGE, DONE, fields=(SSE, CHUNKED))
    assert (found.tokens("input_uncached", ""), found.tokens("output", "openai")) == (3, 5)
    assert (found.tokens("output", "gemini"), found.tokens("cache_read", "")) == (None, None)
    assert (found.quality, found.dims) == ("provider_reported", {"model": "gpt-4.1-x"})
    assert found.usage_lines == [{"model": "gpt-4.1-x", "kinds": {"input_uncached": 3, "output": 5}}]


def test_a_request_that_was_not_read_is_estimated_by_its_size():
    found = tap("openai", default_output=77)
    assert found.request("/v1/chat/completions", None, 4_000_000, fields={}, rewrite=True) is None
    assert (found.tokens("input_uncached", ""), found.tokens("output", "")) == (1_000_000, 77)
    assert (found.calls, found.model, found.known("request")) == (None, "", False)


# Fails if a model that is not asked for by name stays unknown: meters by model would take it for none.
def test_a_model_that_was_not_known_is_the_one_that_answered():
    found = tap("openai")
    found.request("/v1/chat/completions", None, 9, fields={}, rewrite=True)
    answered(found, USAGE, fields=(SSE, CHUNKED))
    assert found.model == "gpt-4.1-x"


def test_a_model_is_named_also_where_no_tokens_are_read():
    found = tap()
    assert ask(found, b'{"model":"small"}') == b'{"model":"small"}'
    assert (found.model, found.quality, found.dims) == ("small", "", {})


# Fails if an upstream that never answered is charged an estimate.
def test_who_was_never_answered_used_no_tokens():
    found = tap("openai")
    ask(found, CHAT)
    assert found.end(complete=False) == b""
    assert (found.tokens("output", ""), found.quality, found.dims) == (0, "", {"model": "gpt-4.1"})
    assert found.usage_lines == []


def test_an_answer_that_used_nothing_has_no_usage_lines():
    # Fails if a refused request is a line of a model that is billed.
    found = tap("openai")
    ask(found, CHAT)
    answered(found, b"{}", status=429, fields=((b"Content-Type", b"application/json"), CHUNKED))
    assert found.usage_lines == []


def test_a_tunnel_is_not_read():
    found = tap("openai")
    ask(found, b"")
    found.answer(head((b"Upgrade", b"websocket"), status=101))
    assert (found.feed(b"\x81"), found.end(complete=False)) == (b"\x81", b"")
    assert (found.tokens("output", ""), found.quality) == (None, "partial")


@pytest.mark.parametrize(("rewrite", "length"), [(True, False), (False, False), (True, True)])
def test_what_was_asked_on_the_clients_behalf_is_taken_out_where_it_can_be(rewrite, length):
    found = tap("openai")
    sent = ask(found, CHAT, rewrite=rewrite)
    assert (sent == CHAT, b"include_usage" in sent) == (not rewrite, rewrite)
    events = CHUNK + USAGE + DONE
    fields = (SSE, (b"Content-Length", b"%d" % len(events)) if length else CHUNKED)
    passed = b"".join(answered(found, events, fields=fields))
    assert passed == (CHUNK + DONE if rewrite and not length else events)


# Fails if a byte is lost, changed or waits for the next event.
@given(st.binary(max_size=400), st.integers(1, 50), st.sampled_from(["", "openai", "anthropic", "gemini", "auto"]))
def test_any_answer_is_passed_on_as_it_comes(body, size, usage):
    found = tap(usage, body_bytes=200)
    ask(found, CHAT.replace(b"true", b"null"))
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert answered(found, *pieces) == [*pieces, b""]


@given(st.binary(max_size=300), st.sampled_from(["", "openai", "auto"]))
def test_any_request_is_sent_on_and_no_bytes_are_a_fault(body, usage):
    found = tap(usage)
    assert ask(found, body, rewrite=False) is body
    found.tokens("output", "")
    assert found.model is not None
    assert found.calls is None or len(found.calls) <= 1_000
    answered(found, body, complete=False)
    assert found.number("response", "/rows", False) is None


ROWS = orjson.dumps({"rows": 12, "data": list(range(20))})


@pytest.mark.parametrize("encoding", [b"", b"identity", b"gzip"])
@pytest.mark.parametrize("size", [7, 1000])
def test_an_answers_json_is_read_under_its_coding(encoding, size):
    found = tap()
    ask(found, b"")
    wire = gzip.compress(ROWS) if encoding == b"gzip" else ROWS
    pieces = [wire[at : at + size] for at in range(0, len(wire), size)]
    assert b"".join(answered(found, *pieces, fields=(CHUNKED, (b"Content-Encoding", encoding)))) == wire
    assert found.number("response", "/rows", False) == 12
    assert found.number("response", "/data", True) == 20


@pytest.mark.parametrize(
    ("fields", "body", "complete"),
    [
        ((), ROWS + b" " * 1000, True),
        ((), ROWS, False),
        (((b"Content-Encoding", b"gzip"),), ROWS, True),
        (((b"Content-Encoding", b"rot13"),), ROWS, True),
        (((b"Content-Encoding", b"gzip"),), gzip.compress(ROWS + b" " * 5000), True),
        (((b"Content-Type", b"text/event-stream"),), ROWS, True),
    ],
    ids=["too long", "cut", "broken coding", "unknown coding", "too long decoded", "a stream"],
)
def test_an_answer_that_is_not_held_whole_is_not_known(fields, body, complete):
    found = tap()
    ask(found, b"")
    answered(found, body, fields=(CHUNKED, *fields), complete=complete)
    assert (found.known("response"), found.number("response", "/rows", False)) == (False, None)


# Fails if more of an answer is held than the route allows.
def test_what_is_too_long_is_let_go():
    found = tap(body_bytes=10)
    ask(found, b"")
    found.answer(head(CHUNKED))
    for _ in range(3):
        found.feed(b"x" * 6)
    assert found._copy._pieces == []


# Fails if a long answer is held for meters that never look into it.
def test_nothing_is_held_where_only_tokens_are_read():
    found = tap("openai")
    ask(found, CHAT)
    found.answer(head(CHUNKED))
    found.rest()
    assert (found._sides["request"].body, found._copy) == (None, None)


def test_an_answer_without_a_body_is_known_to_say_nothing():
    found = tap()
    ask(found, b"{}")
    answered(found, fields=(), status=204)
    assert (found.known("response"), found.text("response", "/x")) == (True, None)
