import json
from time import perf_counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core.usage.ai.documents import parsed
from sidecar.core.usage.ai.injection import is_extra, without_null
from sidecar.core.usage.ai.request import parse_request
from sidecar.core.usage.ai.sse import data_of
from sidecar.core.usage.json_text import JsonText
from tests.core.usage.ai.answers import EXTRA, chunk, event

CHAT = "/v1/chat/completions"
NAMES = st.sampled_from(["usage", "a", "stream_options", 'us"age', '"usage":null', "{", "}"])
VALUES = st.recursive(
    NAMES | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
OPTIONS = st.none() | st.dictionaries(NAMES | st.just("include_usage"), VALUES, max_size=3)
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")])


# Mutations: the first `"stream_options"` of the body, wherever it stands; options written from what orjson read, which
# rounds whole numbers beyond 64 bits.
@example({}, {"usage": -(2**63) - 1}, True, (",", ":"))
@example({}, {"usage": {"usage": -(2**63) - 1}}, True, (",", ":"))
@given(st.dictionaries(NAMES, VALUES, max_size=4), OPTIONS, st.booleans(), SEPARATORS)
def test_nothing_but_the_asking_changes_what_a_body_means(fields, options, given_options, separators):
    fields = {"stream": True, "model": "m"} | {name: fields[name] for name in fields if name != "stream_options"}
    if given_options:
        fields["stream_options"] = options
    body = json.dumps(fields, separators=separators).encode()
    asks_already = given_options and options is not None and options.get("include_usage") is True
    request, sent = parse_request("openai", CHAT, JsonText(body))
    assert request.injected is not asks_already
    wanted = fields if asks_already else fields | {"stream_options": (options or {}) | {"include_usage": True}}
    if not given_options:
        wanted["stream_options"] = {"include_usage": True}
    assert json.loads(sent) == wanted


def test_what_stands_around_the_options_stays_byte_for_byte():
    body = (
        b'{ "seed":12345678901234567890123, "stream_options" : {"include_obfuscation":false}, "stream":true,"t":1.10 }'
    )
    sent = parse_request("openai", CHAT, JsonText(body))[1]
    assert sent == body.replace(b"false}", b'false,"include_usage":true}')


def test_an_odd_spelling_is_written_anew_with_all_digits():
    body = b'{"stream":true,"stream\\u005foptions":{"include_usage":false},"seed":12345678901234567890123}'
    sent = parse_request("openai", CHAT, JsonText(body))[1]
    assert json.loads(sent) == json.loads(body) | {"stream_options": {"include_usage": True}}
    assert b"12345678901234567890123" in sent


# Mutation: no TRIES: minutes, in which nobody else is served.
def test_a_body_full_of_what_looks_like_options_is_soon_done():
    body = json.dumps({"stream": True, "a": [{"stream_options": {}}] * 40_000, "stream_options": {}}).encode()
    event = json.dumps({"a": [{"usage": None}] * 40_000, "usage": None}).encode()
    begun = perf_counter()
    assert json.loads(parse_request("openai", CHAT, JsonText(body))[1])["stream_options"] == {"include_usage": True}
    assert without_null(b"data: " + event + b"\n\n", json.loads(event)) == b"data: " + event + b"\n\n"
    assert perf_counter() - begun < 5


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-32"])
def test_a_body_that_cannot_be_written_into_is_left(codec):
    body = '{"stream":true,"model":"m"}'.encode(codec)
    request, sent = parse_request("openai", CHAT, JsonText(body))
    assert (request.stream, request.model, request.injected) == (True, "m", False)
    assert sent is body


def test_the_chunk_that_was_asked_for_is_told_from_others():
    assert is_extra(EXTRA)
    assert is_extra({"usage": {}})
    assert not is_extra(chunk({"content": "x"}, usage={}))
    assert not is_extra(chunk({}, choices=[], usage=None, prompt_filter_results=[]))


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (b'{"a":1,"usage":null}', b'{"a":1}'),
        (b'{"a":1,"usage":null,"b":2}', b'{"a":1,"b":2}'),
        (b'{"usage":null,"b":2}', b'{"b":2}'),
        (b'{"a": 1, "usage": null, "b": 2}', b'{"a": 1, "b": 2}'),
        (b'{"usage" : null , "b":2}', b'{ "b":2}'),
        (b'{"usage":null}', b"{}"),
        (b'{"a":"usage","usage":null}', b'{"a":"usage"}'),
        (b'{"a":[{"usage":null}],"usage":null}', b'{"a":[{"usage":null}]}'),
    ],
)
def test_a_member_that_came_for_the_asking_goes_and_nothing_else(data, left):
    assert without_null(b"data: " + data + b"\n\n", json.loads(data)) == b"data: " + left + b"\n\n"


def test_a_member_that_is_spelled_otherwise_stays():
    odd = b'data: {"us\\u0061ge":null}\n\n'
    assert without_null(odd, {"usage": None}) == odd


# Mutation: the first `"usage":null` of the event goes, in whatever object.
@given(st.dictionaries(NAMES, VALUES, max_size=4), st.integers(0, 4), SEPARATORS)
@example({"a": {"usage": -(2**63) - 1}}, 0, (",", ":"))  # the reader of events rounds it
def test_what_is_left_means_the_same_without_the_member(fields, place, separators):
    items = [(name, fields[name]) for name in fields if name != "usage"]
    items.insert(place, ("usage", None))
    data = json.dumps(dict(items), separators=separators).encode()
    left = without_null(b"data: " + data + b"\n\n", parsed(data))
    assert list(json.loads(data_of(left)).items()) == [item for item in items if item[0] != "usage"]


def test_other_lines_of_an_event_stay():
    whole = b"id: 7\n" + event({"a": 1, "usage": None}, "x")
    assert without_null(whole, {"a": 1, "usage": None}) == b"id: 7\n" + event({"a": 1}, "x")
