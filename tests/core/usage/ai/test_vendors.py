import re

import pytest

from sidecar.core.usage.ai.vendors import VENDORS, adapter_of
from tests.core.usage.ai.answers import (
    CHAT,
    CHAT_KINDS,
    EMBEDDINGS,
    EMBEDDINGS_KINDS,
    GEMINI,
    GEMINI_KINDS,
    JSON,
    MESSAGE,
    MESSAGE_KINDS,
    RESPONSE_KINDS,
    RESPONSE_USAGE,
    SSE,
    ai_request,
    chat_stream,
    dumped,
    gemini_array,
    gemini_stream,
    message_stream,
    reading_of,
    response,
    response_stream,
)

ANSWERS = {
    "chat": (dumped(CHAT), JSON, "openai", CHAT_KINDS),
    "chat, streamed": (chat_stream(usage=True), SSE, "openai", CHAT_KINDS),
    "response": (dumped(response("completed", RESPONSE_USAGE)), JSON, "openai", RESPONSE_KINDS),
    "response, streamed": (response_stream(), SSE, "openai", RESPONSE_KINDS),
    "embeddings": (dumped(EMBEDDINGS), JSON, "openai", EMBEDDINGS_KINDS),
    "message": (dumped(MESSAGE), JSON, "anthropic", MESSAGE_KINDS),
    "message, streamed": (message_stream(), SSE, "anthropic", MESSAGE_KINDS),
    "gemini": (dumped(GEMINI), JSON, "gemini", GEMINI_KINDS),
    "gemini, streamed": (gemini_stream(), SSE, "gemini", GEMINI_KINDS),
    "gemini, as an array": (gemini_array(), JSON, "gemini", GEMINI_KINDS),
}


@pytest.mark.parametrize(("body", "kind", "adapter", "kinds"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_known_by_its_shape(body, kind, adapter, kinds):
    reading = reading_of(ai_request("auto"), body, kind)
    assert (reading.adapter, reading.fields) == (adapter, kinds)


@pytest.mark.parametrize(
    ("event", "adapter"),
    [
        ({"type": "ping"}, "anthropic"),
        ({"type": "response.queued"}, "openai"),
        ({"usage": {"input_tokens": 1, "output_tokens": 1}}, "anthropic"),
        ({"usage": {"input_tokens": 1, "total_tokens": 1}}, "openai"),
        ({"type": ["message"], "usage": 7}, "auto"),
        ({"error": {"message": "x"}}, "auto"),
        ({}, "auto"),
    ],
)
def test_what_tells_a_vendor_is_what_no_other_sends(event, adapter):
    assert adapter_of(event) == adapter


def test_what_nobody_knows_stays_nobodys():
    reading = reading_of(ai_request("auto"), b'{"answer": 42}')
    assert (reading.adapter, reading.quality) == ("auto", "estimated")


def test_no_two_vendors_have_the_same_endpoint():
    # Fails if one ends like another's: then the order of the vendors would decide.
    ends = [(end, vendor.name) for vendor in VENDORS.values() for end in vendor.endpoints]
    assert [pair for pair in ends for other in ends if pair != other and pair[0].endswith(other[0])] == []


@pytest.mark.parametrize("vendor", VENDORS.values(), ids=VENDORS)
def test_a_vendor_is_whole(vendor):
    assert {*vendor.streams, *vendor.silent} <= {*vendor.endpoints}
    assert not vendor.model_in_path or re.compile(vendor.model_in_path).groups == 1
    assert vendor.kinds({}) == {}
