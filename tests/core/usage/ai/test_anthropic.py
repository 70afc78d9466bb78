import pytest

from sidecar.core.usage.ai.anthropic import counts, kinds
from tests.core.usage.ai.answers import (
    MESSAGE,
    MESSAGE_EVENTS,
    MESSAGE_KINDS,
    SSE,
    ai_request,
    dumped,
    event,
    message_stream,
    reading_of,
)

CLAUDE = ai_request("anthropic")


# APISIX #13662: totals left out input. Mutation: the cache is taken out of the input.
def test_the_input_does_not_contain_its_cache():
    reading = reading_of(CLAUDE, dumped(MESSAGE))
    assert reading.fields == MESSAGE_KINDS
    assert reading.dims == {"model": "claude-sonnet-4-5", "service_tier": "standard"}
    assert (reading.adapter, reading.quality, reading.ending) == ("anthropic", "provider_reported", "complete")


# Mutation: the figures of message_delta are added to those of message_start.
def test_the_figures_of_a_stream_are_running_totals():
    reading = reading_of(CLAUDE, message_stream(), SSE)
    assert reading.fields == MESSAGE_KINDS
    assert reading.dims == {"model": "claude-sonnet-4-5", "service_tier": "standard"}
    assert (reading.quality, reading.ending) == ("provider_reported", "complete")


def test_an_input_that_tools_made_longer_is_the_later_one():
    delta = {"input_tokens": 2500, "cache_read_input_tokens": None, "output_tokens": 510}
    stop = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": delta}
    reading = reading_of(CLAUDE, message_stream([*MESSAGE_EVENTS[:-2], stop, MESSAGE_EVENTS[-1]]), SSE)
    assert reading.fields == MESSAGE_KINDS | {"input_uncached": 2500, "output": 510, "input": 4600, "output_total": 510}


def test_thinking_is_a_part_of_the_output():
    usage = {"input_tokens": 1, "output_tokens": 90, "output_tokens_details": {"thinking_tokens": 60}}
    assert kinds(counts(usage)) == {"input_uncached": 1, "output": 30, "reasoning": 60}


# litellm #14457, #13245: the client left in mid-stream: no usage.
def test_a_stream_that_was_cut_keeps_its_input_and_estimates_its_output():
    reading = reading_of(CLAUDE, message_stream(MESSAGE_EVENTS[:10]), SSE, complete=False)
    assert reading.fields == MESSAGE_KINDS | {"output": 6, "output_total": 6}  # 22 bytes were said
    assert (reading.quality, reading.ending) == ("estimated", "cut")


# eliza #9904, new-api #5235: closed in every ending.
def test_an_error_within_a_stream_ends_it_with_what_is_known():
    error = event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "error")
    reading = reading_of(CLAUDE, message_stream(MESSAGE_EVENTS[:7]) + error, SSE)
    assert reading.fields == MESSAGE_KINDS | {"output": 4, "output_total": 4}
    assert (reading.quality, reading.ending) == ("estimated", "error")


@pytest.mark.parametrize("reason", ["max_tokens", "tool_use", "pause_turn", "refusal"])
def test_whatever_made_the_model_stop_the_figures_are_whole(reason):
    reading = reading_of(CLAUDE, dumped(MESSAGE | {"stop_reason": reason}))
    assert (reading.fields, reading.quality, reading.ending) == (MESSAGE_KINDS, "provider_reported", "complete")


# litellm #37992: an explicit 0 was replaced by an estimate.
def test_a_zero_is_a_number():
    usage = {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0}
    reading = reading_of(CLAUDE, dumped(MESSAGE | {"usage": usage}))
    assert reading.fields == {"input_uncached": 0, "cache_read": 0, "output": 0, "input": 0, "output_total": 0}
    assert reading.quality == "provider_reported"


def test_a_message_without_usage_is_estimated_from_its_text():
    reading = reading_of(CLAUDE, dumped(MESSAGE | {"usage": None}))
    assert reading.fields == {"input_uncached": 10, "output": 6, "input": 10, "output_total": 6}
    assert (reading.quality, reading.ending) == ("estimated", "complete")
