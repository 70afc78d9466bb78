import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.usage.ai.request import MEDIUM, parse_request
from sidecar.core.usage.json_text import JsonText
from tests.core.usage.ai.answers import dumped

CHAT = "/v1/chat/completions"


def ai_request(adapter="auto", path=CHAT, **body):
    return parse_request(adapter, path, JsonText(dumped(body)))[0]


@pytest.mark.parametrize(
    ("path", "adapter"),
    [
        ("/v1/chat/completions", "openai"),
        ("/openai/deployments/mine/chat/completions", "openai"),
        ("/v1/completions", "openai"),
        ("/v1/responses", "openai"),
        ("/v1/embeddings", "openai"),
        ("/v1beta/openai/chat/completions", "openai"),
        ("/v1/messages", "anthropic"),
        ("/v1/projects/p/publishers/anthropic/models/claude:streamRawPredict", "anthropic"),
        ("/v1beta/models/gemini-2.5-flash:generateContent", "gemini"),
        ("/v1beta/models/gemini-2.5-flash:streamGenerateContent", "gemini"),
        ("/v1/threads/t/messages", "auto"),
        ("/ask", "auto"),
    ],
)
def test_the_path_tells_the_vendor(path, adapter):
    assert ai_request(path=path).adapter == adapter


@pytest.mark.parametrize(
    ("body", "adapter"),
    [
        ({"contents": []}, "gemini"),
        ({"messages": [], "system": "x"}, "anthropic"),
        ({"messages": [], "max_completion_tokens": 1}, "openai"),
        ({"input": "x"}, "openai"),
        ({"messages": []}, "auto"),
    ],
)
def test_where_the_path_does_not_the_members_do(body, adapter):
    assert ai_request(path="/ask", **body).adapter == adapter


def test_an_adapter_that_was_named_is_not_doubted():
    assert ai_request("anthropic").adapter == "anthropic"


@pytest.mark.parametrize(
    ("path", "body", "model"),
    [
        (CHAT, {"model": "gpt-4.1"}, "gpt-4.1"),
        (CHAT, {"model": ["gpt-4.1"]}, ""),
        ("/v1beta/models/gemini-2.5-flash:generateContent", {}, "gemini-2.5-flash"),
        ("/v1beta/openai/chat/completions", {"model": "models/gemini-2.5-flash"}, "gemini-2.5-flash"),
        ("/openai/deployments/mine/chat/completions", {}, "mine"),
    ],
)
def test_the_model_is_in_the_body_or_else_in_the_path(path, body, model):
    assert ai_request(path=path, **body).model == model


# The vendor goes by the path there, whatever the body says. Fails if the body's comes first: a gate would see that one.
def test_a_model_in_the_path_is_the_one_that_is_asked_for():
    assert ai_request(path="/openai/deployments/gpt-4o/chat/completions", model="mini").model == "gpt-4o"
    assert (
        ai_request(path="/v1beta/models/gemini-2.5-pro:generateContent", model="gemini-flash").model == "gemini-2.5-pro"
    )


# hostile F9: what parsers take differently is not taken at its word. Fails if one of the objects is not looked into.
@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"mini","MODEL":"gpt-4o"}',
        b'{"model":"gpt-4o","model":"mini"}',
        b'{"model":"mini","m\\u006fdel":"gpt-4o"}',
        b'{"model":"mini","max_tokens":1,"MAX_TOKENS":5000}',
        b'{"model":"mini","maxtokens":1,"maxOutputTokens":1,"maxoutputtokens":9}',
        b'{"model":"mini","stream":true,"Stream":false}',
        b'{"model":"mini","stream":true,"stream_options":{"include_usage":true,"include_usage":false}}',
        b'{"model":"mini","generationConfig":{"maxOutputTokens":1,"MaxOutputTokens":9}}',
        b'{"model":"mini","generationConfig":{},"GenerationConfig":{"maxOutputTokens":9}}',
        b'{"model":"mini"} x',
        b'{"model":["mini"]}',
        b'{"model":"mini","stream":"true"}',  # pydantic makes a true of it
        b'{"model":"mini","stream":1}',
        b'{"model":"mini","max_tokens":"5000"}',
        b'{"model":"mini","max_tokens":5000.0}',
        b'{"model":"mini","generationConfig":{"maxOutputTokens":"5000"}}',
        b'\xef\xbb\xbf {"model":"mini","x":"\xff"}',
        # What other servers take, and we do not read. Fails if only what begins with `{` is refused.
        b'/**/{"model":"mini","stream":true}',
        b"model=mini&stream=true",
        b"model: mini",
        b'\x0c{"model":"mini"}',
        b"--a&model=mini",
    ],
)
def test_a_body_that_can_be_read_in_two_ways_says_nothing(body):
    request, sent = parse_request("openai", CHAT, JsonText(body))
    assert (request.differs, request.model, request.stream, request.max_output) == (True, "", False, None)
    assert sent is body


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"mini","messages":[{"model":"x","N":1}],"tools":[{"properties":{"n":{},"model":{}}}],"n":1}',
        b'{"model":"model","max_output_tokens":1,"maxOutputTokens":2}',
        b'{"model":"mini","max_tokens":-1,"stream":null,"n":null}',  # -1: without a bound, for some servers
        b"[1]",
    ],
)
def test_names_in_other_places_do_not_confuse(body):
    assert not parse_request("openai", CHAT, JsonText(body))[0].differs


@pytest.mark.parametrize(
    ("body", "most"),
    [
        ({}, None),
        ({"max_tokens": 100}, 100),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": 100, "n": 3}, 300),
        ({"max_completion_tokens": 100, "max_tokens": 50}, 100),
        ({"max_output_tokens": 100}, 100),
        ({"generationConfig": {"maxOutputTokens": 100, "candidateCount": 2}}, 200),
        ({"generation_config": {"max_output_tokens": 100, "candidate_count": 2}}, 200),
        ({"max_tokens": "100", "n": -1}, None),
        ({"max_tokens": 100, "n": 0}, 100),
        ({"max_tokens": -1, "n": 2**70}, None),
    ],
)
def test_the_bound_of_the_output_is_for_all_choices(body, most):
    assert ai_request(**body).max_output == most


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1beta/models/e:embedContent"])
def test_embeddings_have_no_output(path):
    assert ai_request(path=path, input="x").max_output == 0


def test_a_stream_is_asked_for_in_the_body_or_by_the_path():
    assert ai_request(stream=True).stream
    assert not ai_request(stream=False).stream
    assert ai_request(path="/v1beta/models/g:streamGenerateContent").stream


def test_the_length_of_a_picture_is_not_that_of_its_text():
    picture = "data:image/png;base64," + base64.b64encode(bytes(300_000)).decode()
    with_it = ai_request(messages=["Describe it.", picture]).input_bytes
    assert MEDIUM < with_it < 2 * MEDIUM


def test_long_text_counts_as_long_as_it_is():
    body = dumped({"messages": ["word " * 10_000, "語" * 10_000]})
    assert parse_request("openai", CHAT, JsonText(body))[0].input_bytes == len(body)


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"null", b"{", b"\xff", b"--boundary\r\n"])
def test_a_body_that_is_no_object_goes_on_as_it_came(body):
    request, sent = parse_request("openai", CHAT, JsonText(body))
    assert sent is body
    assert request == ("openai", "", False, None, len(body), False, body in {b"{", b"\xff", b"--boundary\r\n"})


def test_an_upload_is_not_expected_to_say_anything():
    request, sent = parse_request("openai", CHAT, JsonText(b"--boundary\r\n"), upload=True)
    assert (request.differs, request.model, sent) == (False, "", b"--boundary\r\n")


@given(st.sampled_from(["auto", "openai", "anthropic", "gemini"]), st.text(max_size=20), st.binary(max_size=60))
def test_any_body_and_any_path_are_survived(adapter, path, body):
    assert parse_request(adapter, path, JsonText(body))[1] is body


# What asks already, cannot be asked, or would be refused for being asked.
@pytest.mark.parametrize(
    ("adapter", "path", "body"),
    [
        ("openai", CHAT, {"stream": False}),
        ("openai", CHAT, {"messages": []}),
        ("openai", CHAT, {"stream": True, "stream_options": {"include_usage": True}}),
        ("openai", CHAT, {"stream": True, "stream_options": "x"}),
        ("openai", "/v1/responses", {"stream": True, "input": []}),
        ("auto", "/v1/responses", {"stream": True, "input": []}),
        ("auto", "/ask", {"stream": True, "messages": []}),
        ("anthropic", "/v1/messages", {"stream": True, "messages": []}),
        ("gemini", "/v1beta/models/g:streamGenerateContent", {"contents": []}),
    ],
)
def test_what_needs_no_asking_goes_on_as_it_came(adapter, path, body):
    body = dumped(body)
    request, sent = parse_request(adapter, path, JsonText(body))
    assert sent is body
    assert not request.injected


@pytest.mark.parametrize(
    ("adapter", "path"), [("openai", CHAT), ("auto", CHAT), ("openai", "/ask"), ("auto", "/v1/completions")]
)
def test_a_stream_of_completions_is_asked_for_its_usage(adapter, path):
    request, sent = parse_request(adapter, path, JsonText(b'{"stream": true, "messages": []}'))
    assert request.injected
    assert sent == b'{"stream_options":{"include_usage":true},"stream": true, "messages": []}'
