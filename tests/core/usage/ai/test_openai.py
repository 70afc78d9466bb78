import pytest

from sidecar.core.usage.ai.openai import counts, kinds
from tests.core.usage.ai.answers import (
    CHAT,
    CHAT_KINDS,
    EMBEDDINGS,
    EMBEDDINGS_KINDS,
    EXTRA,
    RESPONSE_KINDS,
    RESPONSE_USAGE,
    SSE,
    ai_request,
    chat_stream,
    chunk,
    dumped,
    event,
    reading_of,
    response,
    response_stream,
)

SPOKEN = event(chunk({"content": "Hello wörld"}))  # 12 bytes: 3 tokens


# APISIX #13662, Kong #14535: kinds that exclude each other. Mutation: cached tokens beside the prompt's.
def test_the_prompt_contains_its_cache_and_the_completion_its_reasoning():
    reading = reading_of(ai_request(), dumped(CHAT))
    assert reading.fields == CHAT_KINDS
    assert reading.dims == {"model": "gpt-4.1-2025-04-14", "service_tier": "default"}
    assert (reading.adapter, reading.quality, reading.ending) == ("openai", "provider_reported", "complete")


# Kong #14535: streaming had no completion tokens.
def test_a_stream_tells_the_same_as_the_whole_answer():
    reading = reading_of(ai_request(), chat_stream(usage=True), SSE)
    assert reading.fields == CHAT_KINDS
    assert reading.dims == {"model": "gpt-4o-mini", "service_tier": "default"}
    assert (reading.quality, reading.ending) == ("provider_reported", "complete")


def test_responses_are_read_whole():
    reading = reading_of(ai_request(), dumped(response("completed", RESPONSE_USAGE)))
    assert reading.fields == RESPONSE_KINDS
    assert reading.dims == {"model": "o4-mini-2025-04-16", "service_tier": "flex"}
    assert (reading.quality, reading.ending) == ("provider_reported", "complete")


def test_responses_are_read_streamed():
    reading = reading_of(ai_request(), response_stream(), SSE)
    assert reading.fields == RESPONSE_KINDS
    assert (reading.quality, reading.ending) == ("provider_reported", "complete")


# new-api #7241: `incomplete` billed zero.
@pytest.mark.parametrize("stream", [True, False])
def test_an_incomplete_response_is_read_like_a_complete_one(stream):
    body = response_stream("incomplete") if stream else dumped(response("incomplete", RESPONSE_USAGE))
    reading = reading_of(ai_request(), body, SSE if stream else b"application/json")
    assert reading.fields == RESPONSE_KINDS
    assert (reading.quality, reading.ending) == ("provider_reported", "incomplete")


# new-api #5235: missing usage refunded everything.
def test_a_failed_response_without_usage_is_estimated_from_what_was_said():
    reading = reading_of(ai_request(input_bytes=41), response_stream("failed", usage=None), SSE)
    assert reading.fields == {"input_uncached": 11, "output": 3, "input": 11, "output_total": 3}
    assert (reading.quality, reading.ending) == ("estimated", "error")


def test_embeddings_have_no_output_and_say_so():
    reading = reading_of(ai_request(), dumped(EMBEDDINGS))
    assert reading.fields == EMBEDDINGS_KINDS
    assert reading.quality == "provider_reported"


def test_sound_is_a_kind_of_its_own_on_both_sides():
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 20, "audio_tokens": 30},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 40},
    }
    assert kinds(counts(usage)) == {
        "input_uncached": 50,
        "cache_read": 20,
        "audio_input": 30,
        "output": 10,
        "reasoning": 0,
        "audio_output": 40,
    }


def test_pictures_are_a_kind_of_their_own():
    usage = {
        "input_tokens": 50,
        "output_tokens": 1056,
        "total_tokens": 1106,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    }
    assert kinds(counts(usage)) == {"input_uncached": 10, "image_input": 40, "output": 1056}


def test_what_is_written_to_a_cache_is_apart_and_what_is_kept_long_apart_from_it():
    details = {"cached_tokens": 0, "cache_write_tokens": 30, "cache_write_tokens_details": {"ttl_12h_tokens": 10}}
    usage = {"input_tokens": 100, "output_tokens": 1, "total_tokens": 101, "input_tokens_details": details}
    assert kinds(counts(usage)) == {
        "input_uncached": 70,
        "cache_read": 0,
        "cache_write": 20,
        "cache_write_long": 10,
        "output": 1,
    }


def test_reasoning_on_top_of_the_completion_is_output_as_well():
    usage = {
        "prompt_tokens": 32,
        "completion_tokens": 9,
        "total_tokens": 135,
        "completion_tokens_details": {"reasoning_tokens": 94},
    }
    assert kinds(counts(usage)) == {"input_uncached": 32, "output": 9, "reasoning": 94}


@pytest.mark.parametrize("cache", [{"prompt_cache_hit_tokens": 6}, {"cached_tokens": 6}])
def test_the_cache_of_compatible_servers_is_found(cache):
    assert kinds(counts({"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11} | cache)) == {
        "input_uncached": 4,
        "cache_read": 6,
        "output": 1,
    }


# litellm #37992: an explicit 0 was replaced by an estimate. Mutation: `or` in place of `is None`.
def test_a_zero_is_a_number():
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    body = SPOKEN + event(EXTRA | {"usage": usage}) + b"data: [DONE]\n\n"
    reading = reading_of(ai_request(), body, SSE)
    assert reading.fields == {"input_uncached": 0, "output": 0, "input": 0, "output_total": 0}
    assert reading.quality == "provider_reported"


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "12345678"},
        {"refusal": "12345678"},
        {"reasoning_content": "12345678"},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "12345678"}}]},
        {"audio": {"transcript": "12345678", "data": "AAAA"}},
    ],
)
def test_everything_that_the_model_says_counts_where_usage_is_missing(delta):
    reading = reading_of(ai_request(), event(chunk(delta)) + b"data: [DONE]\n\n", SSE)
    assert (reading.fields["output"], reading.quality) == (2, "estimated")


def test_a_legacy_completion_says_its_text_without_a_delta():
    reading = reading_of(
        ai_request(), event({"choices": [{"text": "12345678", "index": 0}]}) + b"data: [DONE]\n\n", SSE
    )
    assert reading.fields["output"] == 2


def test_a_message_without_usage_is_estimated_from_its_text():
    reading = reading_of(ai_request(), dumped({name: CHAT[name] for name in CHAT if name != "usage"}))
    assert (reading.fields["output"], reading.quality, reading.ending) == (2, "estimated", "complete")


def test_running_totals_before_the_end_are_raised_to_what_was_said():
    early = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
    body = event(chunk({"content": "12345678"}, usage=early))
    reading = reading_of(ai_request(), body, SSE, complete=False)
    assert reading.fields == {"input_uncached": 7, "output": 2, "input": 7, "output_total": 2}
    assert (reading.quality, reading.ending) == ("estimated", "cut")


def test_running_totals_that_are_not_below_what_was_said_stay():
    early = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    reading = reading_of(ai_request(), event(chunk({"content": "12345678"}, usage=early)), SSE, complete=False)
    assert (reading.fields["output"], reading.quality, reading.ending) == (3, "partial", "cut")
