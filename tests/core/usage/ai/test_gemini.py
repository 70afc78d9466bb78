import pytest

from sidecar.core.usage.ai.gemini import counts, kinds
from tests.core.usage.ai.answers import (
    EARLY,
    GEMINI,
    GEMINI_CHUNKS,
    GEMINI_KINDS,
    GEMINI_USAGE,
    JSON,
    SSE,
    ai_request,
    candidate,
    dumped,
    gemini_array,
    gemini_stream,
    reading_of,
)

MODEL = ai_request("gemini")


# APISIX #13662: kinds that exclude each other. Mutation: thoughts are taken out of the candidates.
@pytest.mark.parametrize(("body", "kind"), [(dumped(GEMINI), JSON), (gemini_stream(), SSE), (gemini_array(), JSON)])
def test_the_prompt_contains_its_cache_and_thoughts_come_on_top(body, kind):
    reading = reading_of(MODEL, body, kind)
    assert reading.fields == GEMINI_KINDS
    assert reading.dims == {"model": "gemini-2.5-flash"}
    assert (reading.adapter, reading.quality, reading.ending) == ("gemini", "provider_reported", "complete")


def test_the_kinds_add_up_to_the_vendors_total():
    found = kinds(counts(GEMINI_USAGE))
    assert sum(found.values()) == GEMINI_USAGE["totalTokenCount"]


def test_a_figure_that_is_left_out_is_what_the_total_says():
    assert kinds(counts({"promptTokenCount": 8, "totalTokenCount": 8})) == {"input_uncached": 8, "output": 0}
    assert kinds(counts({"promptTokenCount": 8, "thoughtsTokenCount": 3, "totalTokenCount": 15})) == {
        "input_uncached": 8,
        "output": 4,
        "reasoning": 3,
    }


def test_sound_and_pictures_that_were_made_are_kinds_of_their_own():
    usage = {
        "promptTokenCount": 8,
        "candidatesTokenCount": 1300,
        "totalTokenCount": 1308,
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}, {"modality": "AUDIO", "tokenCount": 4}],
    }
    assert kinds(counts(usage)) == {"input_uncached": 8, "audio_output": 4, "image_output": 1290, "output": 6}


def test_a_prompt_that_was_blocked_is_an_answer():
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 8}}
    reading = reading_of(MODEL, gemini_stream([blocked]), SSE)
    assert reading.fields == {"input_uncached": 8, "output": 0, "input": 8, "output_total": 0}
    assert (reading.quality, reading.ending) == ("provider_reported", "complete")


# litellm #14457: the client left in mid-stream. The total says 0 so far, and nine bytes were said.
@pytest.mark.parametrize(
    ("body", "kind"), [(gemini_stream(GEMINI_CHUNKS[:2]), SSE), (gemini_array(GEMINI_CHUNKS[:2])[:-3], JSON)]
)
def test_a_stream_that_was_cut_keeps_its_input_and_estimates_its_output(body, kind):
    reading = reading_of(MODEL, body, kind, complete=False)
    assert reading.fields == {"input_uncached": 1000, "output": 3, "input": 1000, "output_total": 3}
    assert (reading.quality, reading.ending) == ("estimated", "cut")


def test_running_totals_of_a_cut_stream_are_partial():
    body = gemini_stream([candidate("Hel", usage=EARLY | {"candidatesTokenCount": 3})])
    reading = reading_of(MODEL, body, SSE, complete=False)
    assert (reading.fields["output"], reading.quality, reading.ending) == (3, "partial", "cut")


def test_the_traffic_type_is_the_tier_where_no_tier_is_told():
    usage = GEMINI_USAGE | {"trafficType": "ON_DEMAND"}
    assert reading_of(MODEL, dumped(candidate("", "STOP", usage))).dims["service_tier"] == "ON_DEMAND"


# litellm #37992: an explicit 0 was replaced by an estimate.
def test_a_zero_is_a_number():
    usage = {"promptTokenCount": 0, "candidatesTokenCount": 0, "thoughtsTokenCount": 0}
    reading = reading_of(MODEL, dumped(candidate("Hello", "STOP", usage)))
    assert reading.fields == {"input_uncached": 0, "output": 0, "reasoning": 0, "input": 0, "output_total": 0}
    assert reading.quality == "provider_reported"
